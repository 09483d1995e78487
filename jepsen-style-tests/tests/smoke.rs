//! A few seeds of the simulation, and the proof that a seed gives one run.
//!
//! Short enough for every `cargo test`; sweeps over many seeds are `make sim`. Each seed runs in a
//! process of its own, which the binary under test starts.

use std::process::{Command, Output};

/// Starts the simulator; its files go to the folder that cargo keeps for this package's tests.
fn quipu_sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipu-sim"));
    command.args(arguments).args(["--out", env!("CARGO_TARGET_TMPDIR")]);
    command.output().expect("the binary of this package can be started")
}

fn assert_exit(output: &Output, code: i32) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "\n{out}\n{err}");
}

#[test]
fn ten_seeds_lose_nothing_under_a_swarm_of_faults() {
    let output = quipu_sim(&["run", "--seed", "1", "--runs", "10", "--until", "8s"]);
    assert_exit(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("no promise was broken"), "{text}");
    // A missing fsync shows only where these happen.
    for effect in ["un-synced writes lost on a majority at once", "conflicting suffixes truncated"]
    {
        assert!(count_of(&text, effect) > 0, "{effect}: never\n{text}");
    }
}

/// What the table at the end says of an effect.
fn count_of(text: &str, effect: &str) -> u64 {
    let row = text.lines().find_map(|line| line.trim().strip_prefix(effect));
    let count = row.and_then(|row| row.trim().split(',').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no row {effect:?}\n{text}"))
}

#[test]
fn the_same_seed_twice_is_the_same_run_byte_for_byte() {
    let output = quipu_sim(&["check-determinism", "--seed", "21", "--runs", "2", "--until", "8s"]);
    assert_exit(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches(": same, ").count(), 2, "{text}");
}

#[test]
fn wrong_usage_is_told_from_a_broken_promise() {
    for arguments in [["run", "--until", "8"], ["run", "--runs", "0"], ["walk", "--seed", "1"]] {
        assert_exit(&quipu_sim(&arguments), 2);
    }
}
