//! The fast checkers against the exhaustive one, on more histories than a unit test has time for.
//!
//! `QUIPU_CHECKER_HISTORIES` and `QUIPU_CHECKER_SEED` ask for another run; a million histories
//! take about half a minute when optimised (`cargo test --profile sim`).

use jepsen_style_tests::checkers::differential::Comparison;

#[test]
fn fifty_thousand_random_histories_get_one_verdict_from_the_checkers_and_the_search() {
    let comparison = Comparison { seed: 20_261_121, histories: 50_000 }.from_environment();
    println!("{comparison:?}");
    let tally = comparison.run().unwrap_or_else(|found| panic!("{found}"));
    println!("{tally}");
    let histories = tally.kept + tally.broken;
    assert!(tally.kept > histories / 10 && tally.broken > histories / 10, "{tally}");
    assert!(tally.shown_otherwise <= histories / 10_000, "{tally:?}");
}
