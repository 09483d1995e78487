//! Short runs of the live checks, so that neither they nor what they check rots: real `quipud`
//! processes on loopback, killed with SIGKILL, and leaders that move.
//!
//! `quipud` is the one beside the binary under test; `make test` builds both first. The full sizes
//! are run by hand, see docs/TESTING.md.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::process::Command;

/// Runs one check to its end and returns its verdict line.
fn verdict(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_quipu-live")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    let verdict = said.lines().find(|line| line.starts_with("verdict: "));
    verdict.unwrap_or_else(|| panic!("no verdict:\n{said}")).to_owned()
}

#[test]
fn a_cluster_that_is_killed_whole_keeps_what_it_acknowledged() {
    let verdict = verdict(&["kill-all", "--rounds", "2", "--rate", "300"]);
    assert!(verdict.contains("lost 0, duplicated 0, reordered 0"), "{verdict}");
    assert!(verdict.ends_with("replicas agree"), "{verdict}");
}

#[test]
fn every_node_reads_what_was_acknowledged_while_leaders_move() {
    let verdict = verdict(&["linearizable", "--rounds", "200", "--moves", "10"]);
    assert!(verdict.contains("stale 0, replicas agree"), "{verdict}");
}
