//! What many runs did, as one table.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::nemesis::FaultCounts;
use crate::report::Report;

/// The sum over runs.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    runs: u64,
    simulated: Duration,
    operations: BTreeMap<String, u64>,
    faults: FaultCounts,
    /// Seeds of runs with violations, in the order in which they ended.
    failed: Vec<u64>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.simulated += Duration::from_millis(report.simulated_ms);
        add_all(&mut self.operations, &report.operations);
        let (sum, one) = (&mut self.faults, &report.faults);
        add_all(&mut sum.installed, &one.installed);
        add_all(&mut sum.skipped, &one.skipped);
        sum.lossy_cuts += one.lossy_cuts;
        sum.lossy_majorities += one.lossy_majorities;
        sum.writes_lost += one.writes_lost;
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
    }

    /// Seeds of runs with violations.
    pub fn failed(&self) -> &[u64] {
        &self.failed
    }

    /// The table. `wall` is how long the runs took.
    pub fn table(&self, wall: Duration) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("runs", self.runs.to_string());
        let simulated = self.simulated.as_secs_f64();
        let speed = simulated / wall.as_secs_f64().max(0.001);
        row("simulated", format!("{simulated:.0} s in {:.0} s ({speed:.1}x)", wall.as_secs_f64()));
        for (operation, count) in &self.operations {
            row(operation, count.to_string());
        }
        let checked: u64 = self.operations.values().sum();
        row("operations checked", checked.to_string());
        for (fault, count) in &self.faults.installed {
            let skipped = self.faults.skipped.get(fault).copied().unwrap_or(0);
            row(fault, format!("{count} installed, {skipped} skipped"));
        }
        for (fault, count) in &self.faults.skipped {
            if !self.faults.installed.contains_key(fault) {
                row(fault, format!("0 installed, {count} skipped"));
            }
        }
        row("power cuts that lost writes", self.faults.lossy_cuts.to_string());
        row("  on a majority at once", self.faults.lossy_majorities.to_string());
        row("un-synced writes lost", self.faults.writes_lost.to_string());
        row("verdict", self.verdict());
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Left);
        }
        table.to_string()
    }

    fn verdict(&self) -> String {
        match self.failed.len() {
            0 => "no promise was broken".to_owned(),
            failed => format!("BROKEN in {failed} of {} runs", self.runs),
        }
    }
}

fn add_all(sum: &mut BTreeMap<String, u64>, one: &BTreeMap<String, u64>) {
    for (name, count) in one {
        *sum.entry(name.clone()).or_default() += count;
    }
}
