//! How long the checkers take for a long history: a million operations, 32 at a time.
//!
//! Sorting the history into observations and all checks of `check_all`, on one thread. The best of
//! some rounds is what the machine can do; the others show how much else it had to do.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use fastrand::Rng;
use jepsen_style_tests::checkers::check_all;
use jepsen_style_tests::checkers::generated::{Shape, valid};
use jepsen_style_tests::observations::Observations;
use tokio::time::Instant;

const ROUNDS: usize = 7;
const SEED: u64 = 1;

fn main() {
    let history = valid(Shape::LONG, &mut Rng::with_seed(SEED));
    let Shape { operations, processes, .. } = Shape::LONG;
    println!("{operations} operations, up to {processes} at a time, seed {SEED}");
    let mut best = None;
    for round in 1..=ROUNDS {
        let started = Instant::now();
        let observations = Observations::of(&history);
        let sorted = started.elapsed();
        let violations = check_all(&observations);
        let checked = started.elapsed();
        assert_eq!(violations, [], "it is valid by construction");
        println!("round {round}: sorted after {sorted:.0?}, checked after {checked:.0?}");
        best = best.into_iter().chain([checked]).min();
    }
    println!("best: {:.0?}", best.unwrap_or_default());
}
