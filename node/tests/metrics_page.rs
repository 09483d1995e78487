//! docs/operating/monitoring.md and the metrics that a node serves are the same list.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeMap;

use node::metrics::{Exposition, Metrics};

/// Kinds by name, from the `# TYPE` lines; names as they stand in the samples.
fn served() -> BTreeMap<String, String> {
    let data_dir = tempfile::tempdir().unwrap();
    let text = Exposition::new(Metrics::new(), data_dir.path().to_owned()).text();
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect()
}

/// The rows "| `name` | kind | …" of the page.
fn documented() -> BTreeMap<String, String> {
    let page = include_str!("../../docs/operating/monitoring.md");
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0)))
        // Labels stand behind the name.
        .map(|(name, kind)| (name.split('{').next().unwrap_or(name), kind))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_served() {
    let served = served();
    assert!(served.len() > 30, "{served:?}");
    assert_eq!(documented(), served);
}

#[test]
fn names_end_in_their_unit_and_have_one_prefix() {
    for (name, kind) in served() {
        assert!(name.starts_with("quipu_") || name.starts_with("process_"), "{name}");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        assert!(!name.contains("_ms") && !name.contains("_kb"), "{name}");
    }
}
