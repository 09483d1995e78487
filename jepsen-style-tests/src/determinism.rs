//! Whether a seed gives the same run twice, byte for byte.

use std::fs;
use std::path::Path;

use crate::report::Report;

/// What two runs of one seed have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Everything: trace, disks, operations.
    Same,
    /// Something differs. For people: where they part.
    Different(String),
}

/// Compares two runs whose traces were written as text.
pub fn compare(one: (&Report, &Path), other: (&Report, &Path)) -> Comparison {
    if one.0 == other.0 {
        return Comparison::Same;
    }
    let text = |folder: &Path| fs::read_to_string(folder.join("trace.txt")).unwrap_or_default();
    let (first, second) = (text(one.1), text(other.1));
    let (mut lines, mut others) = (first.lines(), second.lines());
    loop {
        match (lines.next(), others.next()) {
            (None, None) => break,
            (line, other) if line == other => {}
            (line, other) => {
                let [line, other] = [line, other].map(|it| it.unwrap_or("(it has ended)"));
                return Comparison::Different(format!("  one run:   {line}\n  the other: {other}"));
            }
        }
    }
    let hashes = |report: &Report| report.disk_hashes.join(" ");
    let [first, second] = [one.0, other.0].map(hashes);
    Comparison::Different(format!("  the traces are the same; disks {first}\n  and {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::FaultCounts;

    fn report(trace_hash: &str) -> Report {
        Report {
            seed: 1,
            nodes: 3,
            simulated_ms: 1,
            trace_hash: trace_hash.to_owned(),
            trace_events: 1,
            disk_hashes: Vec::new(),
            operations: [].into(),
            faults: FaultCounts::default(),
            violations: Vec::new(),
        }
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = ["one", "other"].map(|name| root.path().join(name));
        for (folder, text) in folders.iter().zip(["a\nb\nc\n", "a\nx\nc\n"]) {
            fs::create_dir_all(folder).expect("a folder");
            fs::write(folder.join("trace.txt"), text).expect("a file");
        }
        let compared = compare((&report("a"), &folders[0]), (&report("b"), &folders[1]));
        let expected = "  one run:   b\n  the other: x".to_owned();
        assert_eq!(compared, Comparison::Different(expected));
    }

    #[test]
    fn equal_reports_are_the_same_run() {
        let nowhere = Path::new("nowhere");
        let compared = compare((&report("a"), nowhere), (&report("a"), nowhere));
        assert_eq!(compared, Comparison::Same);
    }
}
