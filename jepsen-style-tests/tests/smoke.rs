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
fn six_seeds_lose_nothing_under_a_swarm_of_faults() {
    let output = quipu_sim(&["run", "--seed", "1", "--runs", "6", "--until", "6s"]);
    assert_exit(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("no promise was broken"), "{text}");
}

#[test]
fn the_same_seed_twice_is_the_same_run_byte_for_byte() {
    let output = quipu_sim(&["check-determinism", "--seed", "21", "--runs", "2", "--until", "5s"]);
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
