//! What many runs did, as one table.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::nemesis::{FaultCounts, KINDS, add_all};
use crate::report::Report;

/// The sum over runs.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    runs: u64,
    simulated: Duration,
    operations: BTreeMap<String, u64>,
    faults: FaultCounts,
    /// By effect: in how many runs it came.
    seeds_with: BTreeMap<String, u64>,
    /// Seeds of runs with violations, in the order in which they ended.
    failed: Vec<u64>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.simulated += Duration::from_millis(report.simulated_ms);
        add_all(&mut self.operations, &report.operations);
        self.faults.add(&report.faults);
        for (effect, count) in &report.faults.effects {
            *self.seeds_with.entry(effect.clone()).or_default() += u64::from(*count > 0);
        }
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
        let hours = simulated / 3_600.0;
        let took = wall.as_secs_f64();
        row(
            "simulated",
            format!("{hours:.2} hours ({simulated:.0} s) in {took:.0} s, {speed:.1}x"),
        );
        for (operation, count) in &self.operations {
            row(operation, count.to_string());
        }
        let checked: u64 = self.operations.values().sum();
        row("operations checked", checked.to_string());
        for kind in KINDS {
            let of = |counts: &BTreeMap<String, u64>| counts.get(kind.name).copied().unwrap_or(0);
            let (installed, skipped) = (of(&self.faults.installed), of(&self.faults.skipped));
            let unknown = of(&self.faults.indeterminate);
            if installed + skipped + unknown > 0 {
                let unknown = match unknown {
                    0 => String::new(),
                    unknown => format!(", {unknown} indeterminate"),
                };
                row(kind.name, format!("{installed} installed, {skipped} skipped{unknown}"));
            }
        }
        for (effect, count) in &self.faults.effects {
            let runs = self.seeds_with.get(effect).copied().unwrap_or(0);
            row(effect, format!("{count}, in {runs} runs"));
        }
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
