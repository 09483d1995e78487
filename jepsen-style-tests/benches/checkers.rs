//! How long the checkers take for a long history: a million operations, 32 at a time.
//!
//! Sorting the history into observations and all checks of `check_all`, on one thread. Processor
//! time is what counts on a machine that has other work too; the best round is the figure.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Duration;

use fastrand::Rng;
use jepsen_style_tests::checkers::check_all;
use jepsen_style_tests::checkers::generated::{Shape, valid};
use jepsen_style_tests::observations::Observations;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const SEED: u64 = 1;

fn main() {
    let history = valid(Shape::LONG, &mut Rng::with_seed(SEED));
    let Shape { operations, processes, .. } = Shape::LONG;
    println!("{operations} operations, up to {processes} at a time, seed {SEED}");
    let mut best = None;
    for round in 1..=ROUNDS {
        let (started, used) = (Instant::now(), processor_time());
        let observations = Observations::of(&history);
        let sorted = processor_time().saturating_sub(used);
        let violations = check_all(&observations);
        let checked = processor_time().saturating_sub(used);
        let elapsed = started.elapsed();
        assert_eq!(violations, [], "it is valid by construction");
        println!(
            "round {round}: {} ms of processor time, {} ms of it for sorting; {} ms elapsed",
            checked.as_millis(),
            sorted.as_millis(),
            elapsed.as_millis()
        );
        best = best.into_iter().chain([checked]).min();
    }
    println!("best: {} ms of processor time", best.unwrap_or_default().as_millis());
}

/// Of this process so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
