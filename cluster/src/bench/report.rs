//! What a bench has found, for people and for scripts: each figure's median over the runs, and its
//! smallest and greatest value.

use std::path::Path;

use quipu_client::Outcome;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::figure::{self, Figure};
use super::meter::{Meter, Point};
use super::plot;
use super::sample::{Cost, NodeCost};
use crate::args::{GlobalArgs, OutputForm};
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::output::table::{self, Column, NONE, grouped, table};
use crate::output::{print, print_json};

/// A point of the curve of percentiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CurvePoint {
    /// Part of the records that took no longer, 0 to 1.
    pub(super) part: f64,
    pub(super) ms: f64,
}

/// What one run found.
#[derive(Debug, Default)]
pub(super) struct Run {
    figures: Vec<(Figure, Option<f64>)>,
    nodes: Vec<NodeCost>,
    pub(super) points: Vec<Point>,
    pub(super) curve: Vec<CurvePoint>,
    /// What went wrong, to be told.
    failures: Vec<String>,
    any_unknown: bool,
}

/// What all runs found.
#[derive(Debug)]
pub(super) struct Report {
    /// The bench's name.
    pub(super) bench: &'static str,
    /// What was asked for, as the flags name it.
    pub(super) settings: Value,
    /// At least one.
    pub(super) runs: Vec<Run>,
}

/// Parts of the curve of percentiles.
const PARTS: [f64; 14] =
    [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.999_99, 1.0];

impl Run {
    pub(super) fn set(&mut self, figure: Figure, value: impl Into<Option<f64>>) {
        self.figures.push((figure, value.into()));
    }

    pub(super) fn get(&self, figure: Figure) -> Option<f64> {
        let found = self.figures.iter().find(|(of, _)| *of == figure);
        found.and_then(|(_, value)| *value)
    }

    /// The five percentiles, and the curve.
    pub(super) fn set_latencies(&mut self, latencies: &Latencies) {
        let some = |ms| (latencies.count() > 0).then_some(ms);
        self.set(figure::P50_MS, some(latencies.percentile_ms(0.5)));
        self.set(figure::P90_MS, some(latencies.percentile_ms(0.9)));
        self.set(figure::P99_MS, some(latencies.percentile_ms(0.99)));
        self.set(figure::P999_MS, some(latencies.percentile_ms(0.999)));
        self.set(figure::MAX_MS, some(latencies.max_ms()));
        if latencies.count() > 0 {
            let point = |part| CurvePoint { part, ms: latencies.percentile_ms(part) };
            self.curve = PARTS.map(point).to_vec();
        }
    }

    /// Throughput, latencies and their curves, failures.
    pub(super) fn set_meter(&mut self, meter: &mut Meter) {
        let seconds = meter.window().length().as_secs_f64();
        self.set(figure::RECORDS_PER_S, meter.records as f64 / seconds);
        self.set(figure::BYTES_PER_S, meter.bytes as f64 / seconds);
        self.set_latencies(&meter.latencies);
        self.set(figure::ACKED, meter.acked as f64);
        self.set(figure::FAILED, meter.failed as f64);
        self.set(figure::UNSENT, meter.unsent as f64);
        self.points = meter.points();
        for error in &meter.failures {
            self.failed(error.to_string(), error.outcome());
        }
        self.any_unknown |= meter.any_unknown;
    }

    /// Throughput alone, and its curve: reading ahead has no latency of a record.
    pub(super) fn set_reads(&mut self, meter: &mut Meter) {
        let seconds = meter.window().length().as_secs_f64();
        self.set(figure::RECORDS_PER_S, meter.records as f64 / seconds);
        self.set(figure::BYTES_PER_S, meter.bytes as f64 / seconds);
        self.points = meter.points();
    }

    /// What each node used.
    pub(super) fn set_nodes(&mut self, cost: &Cost) {
        self.nodes.clone_from(&cost.nodes);
    }

    /// Processor time, memory and syncs. `per_s` things were done in a second.
    pub(super) fn set_cost(&mut self, cost: &Cost, per_s: f64) {
        let per_million = |cpu: f64| (per_s > 0.0).then_some(cpu * 1e6 / per_s);
        self.set(figure::SERVER_CPU, cost.cpu_per_s());
        self.set(figure::SERVER_CPU_S_PER_MILLION, cost.cpu_per_s().and_then(per_million));
        self.set(figure::CLIENT_CPU_S_PER_MILLION, per_million(cost.client_cpu_per_s));
        self.set(figure::RSS_BYTES_MAX, cost.rss_bytes_max());
        self.set(figure::SYNCS_PER_S, cost.sum(|node| node.syncs_per_s));
        self.set_nodes(cost);
    }

    /// What the disks had to write for each byte of values.
    pub(super) fn set_disk(&mut self, cost: &Cost, replicas: u32) {
        let bytes_per_s = self.get(figure::BYTES_PER_S).unwrap_or(0.0);
        let written = cost.sum(|node| Some(node.written_bytes_per_s));
        let per_byte = written.filter(|_| bytes_per_s > 0.0).map(|written| written / bytes_per_s);
        self.set(figure::DISK_BYTES_PER_BYTE, per_byte);
        let of_each = per_byte.map(|per_byte| per_byte / f64::from(replicas.max(1)));
        self.set(figure::DISK_BYTES_PER_BYTE_AND_REPLICA, of_each);
    }

    /// Something that makes the bench end with an error, after its report.
    pub(super) fn failed(&mut self, what: String, outcome: Outcome) {
        self.failures.push(what);
        self.any_unknown |= outcome == Outcome::Unknown;
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (figure, value) in &self.figures {
            object.insert(figure.key.to_owned(), value.map_or(Value::Null, rounded));
        }
        object.insert("nodes".to_owned(), json!(self.nodes));
        object.insert("curve".to_owned(), json!(self.curve));
        object.insert("points".to_owned(), json!(self.points));
        Value::Object(object)
    }
}

/// Median, smallest and greatest value of a figure over the runs that have it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        // Of an even number the mean of the two in the middle.
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Spread { median, min, max })
    }
}

impl Report {
    /// Prints it, draws it where that was asked for, and fails if a run had failures.
    pub(super) fn finish(&self, global: &GlobalArgs, svg: Option<&Path>) -> anyhow::Result<()> {
        match global.output {
            OutputForm::Json => print_json(&self.to_json())?,
            OutputForm::Table | OutputForm::Cloudevents => print(self.to_table().as_bytes())?,
        }
        // AFTER the report, which a picture that can't be drawn must not take along.
        if let Some(svg) = svg {
            plot::draw(svg, self)?;
        }
        self.tell_failures()
    }

    #[allow(clippy::print_stderr, reason = "failures are no part of the measurement")]
    fn tell_failures(&self) -> anyhow::Result<()> {
        for failure in self.runs.iter().flat_map(|run| &run.failures) {
            eprintln!("error: {failure}");
        }
        if self.runs.iter().any(|run| run.any_unknown) {
            return Err(Failure::ReportedUnknown.into());
        }
        match self.runs.iter().all(|run| run.failures.is_empty()) {
            true => Ok(()),
            false => Err(Failure::Reported.into()),
        }
    }

    fn figures(&self) -> impl Iterator<Item = (Figure, Option<Spread>)> + '_ {
        let first = self.runs.first().map(|run| run.figures.as_slice()).unwrap_or_default();
        first.iter().map(|(figure, _)| {
            (*figure, Spread::of(self.runs.iter().filter_map(|run| run.get(*figure))))
        })
    }

    fn to_json(&self) -> Value {
        let figures = self.figures().map(|(figure, spread)| {
            let value = spread.map_or(Value::Null, |Spread { median, min, max }| {
                json!({ "median": rounded(median), "min": rounded(min), "max": rounded(max) })
            });
            (figure.key.to_owned(), value)
        });
        json!({
            "bench": self.bench,
            "settings": self.settings,
            "figures": figures.collect::<Map<_, _>>(),
            "runs": self.runs.iter().map(Run::to_json).collect::<Vec<_>>(),
        })
    }

    fn to_table(&self) -> String {
        let is_repeated = self.runs.len() > 1;
        let mut columns = vec![Column::Text("figure")];
        match is_repeated {
            true => columns.extend(["median", "min", "max"].map(Column::Number)),
            false => columns.push(Column::Number("value")),
        }
        let rows = self.figures().map(|(figure, spread)| {
            let shown = |of: fn(&Spread) -> f64| {
                spread.as_ref().map_or_else(|| NONE.to_owned(), |spread| number(of(spread)))
            };
            let mut row = vec![figure.label.to_owned(), shown(|spread| spread.median)];
            if is_repeated {
                row.extend([shown(|spread| spread.min), shown(|spread| spread.max)]);
            }
            row
        });
        let mut text = table(&columns, rows);
        let nodes = self.runs.last().map(|run| run.nodes.as_slice()).unwrap_or_default();
        if !nodes.is_empty() {
            text.push('\n');
            text.push_str(&nodes_table(nodes));
        }
        text
    }
}

/// What each node used in the last run.
fn nodes_table(nodes: &[NodeCost]) -> String {
    let columns = [
        Column::Text("node"),
        Column::Number("processors"),
        Column::Number("memory"),
        Column::Number("to disk/s"),
        Column::Number("syncs/s"),
    ];
    let rows = nodes.iter().map(|node| {
        vec![
            node.node.to_string(),
            format!("{:.3}", node.cpu_per_s),
            table::bytes(node.rss_bytes),
            number(node.written_bytes_per_s),
            node.syncs_per_s.map_or_else(|| NONE.to_owned(), number),
        ]
    });
    table(&columns, rows)
}

/// Six decimals are finer than anything that is measured.
fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

/// With as many decimals as its size deserves.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        // Whole numbers of that size print without a fraction and without an exponent.
        return format!("{value:.0}").parse().map_or_else(|_| format!("{value:.0}"), grouped);
    }
    let decimals = match value {
        _ if value.fract() == 0.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 1.0 => 2,
        value if value >= 0.01 => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;

    fn run(records_per_s: f64, p50_ms: Option<f64>) -> Run {
        let mut run = Run::default();
        run.set(figure::RECORDS_PER_S, records_per_s);
        run.set(figure::P50_MS, p50_ms);
        run
    }

    fn report(runs: Vec<Run>) -> Report {
        Report { bench: "append", settings: json!({ "producers": 2 }), runs }
    }

    #[test]
    fn the_median_and_the_spread_are_over_the_runs_that_have_the_figure() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn json_has_each_figure_with_its_spread_and_each_run() {
        let json = report(vec![run(10.0, None), run(30.0, None)]).to_json();
        let figures = r#""figures":{"records_per_s":{"median":20.0,"min":10.0,"max":30.0},"#;
        assert_eq!(
            json.to_string(),
            [
                r#"{"bench":"append","settings":{"producers":2},"#,
                figures,
                r#""p50_ms":null},"runs":["#,
                r#"{"records_per_s":10.0,"p50_ms":null,"nodes":[],"curve":[],"points":[]},"#,
                r#"{"records_per_s":30.0,"p50_ms":null,"nodes":[],"curve":[],"points":[]}]}"#,
            ]
            .concat()
        );
    }

    #[test]
    fn one_run_has_no_spread_in_the_table() {
        expect![[r#"
            FIGURE      VALUE
            records/s  62,345
            p50, ms     0.710
        "#]]
        .assert_eq(&report(vec![run(62_345.4, Some(0.71))]).to_table());
        let table = report(vec![run(1.0, Some(0.5)), run(2.5, None)]).to_table();
        assert!(table.starts_with("FIGURE     MEDIAN    MIN    MAX\n"), "{table}");
    }

    #[test]
    fn a_failure_is_told_after_the_report_and_unknown_ones_have_their_exit_code() {
        let mut failing = run(1.0, None);
        failing.failed("no".to_owned(), Outcome::Definite);
        let error = report(vec![failing]).tell_failures().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Failure::Reported));
        let mut unknown = run(1.0, None);
        unknown.failed("maybe".to_owned(), Outcome::Unknown);
        let error = report(vec![unknown]).tell_failures().unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Failure::ReportedUnknown));
    }

    #[test]
    fn costs_are_told_per_million_and_per_byte() {
        let node = NodeCost {
            node: 1,
            cpu_per_s: 0.5,
            rss_bytes: 7,
            written_bytes_per_s: 3_000.0,
            syncs_per_s: None,
        };
        let cost = Cost { nodes: vec![node.clone(), node], client_cpu_per_s: 0.25 };
        let mut run = Run::default();
        run.set(figure::BYTES_PER_S, 1_000.0);
        run.set_cost(&cost, 500_000.0);
        run.set_disk(&cost, 3);
        assert_eq!(run.get(figure::SERVER_CPU_S_PER_MILLION), Some(2.0));
        assert_eq!(run.get(figure::CLIENT_CPU_S_PER_MILLION), Some(0.5));
        assert_eq!(run.get(figure::DISK_BYTES_PER_BYTE), Some(6.0));
        assert_eq!(run.get(figure::DISK_BYTES_PER_BYTE_AND_REPLICA), Some(2.0));
        assert_eq!(run.get(figure::SYNCS_PER_S), None);
    }

    #[test]
    fn the_curve_of_percentiles_goes_up() {
        let mut latencies = Latencies::new();
        for us in 1..10_000 {
            latencies.record(Duration::from_micros(us));
        }
        let mut run = Run::default();
        run.set_latencies(&latencies);
        assert!(run.curve.is_sorted_by(|one, next| one.ms <= next.ms));
        assert_eq!(run.curve.len(), PARTS.len());
    }
}
