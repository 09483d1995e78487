//! The fast checkers against the search through every order: on many short random histories, some
//! of them valid, most with something wrong, both must give one verdict.
//!
//! Each history that the fast checkers find broken is also cut down to the operations that the
//! violation names; those alone must break a promise, all but always the same one.

use std::collections::BTreeMap;
use std::fmt;

use fastrand::Rng;

use super::PARTITION_CHECKS;
use super::exhaustive::has_order;
use super::generated::{Shape, plant, valid};
use super::layout::Case;
use crate::history::History;
use crate::observations::Observations;
use crate::violation::Violation;

/// Environment variable with the number of histories of a longer run.
pub const HISTORIES_VARIABLE: &str = "QUIPU_CHECKER_HISTORIES";
/// Environment variable with another seed.
pub const SEED_VARIABLE: &str = "QUIPU_CHECKER_SEED";

/// Of four histories one stays as it was made.
const PLANTED_OF_FOUR: u8 = 3;

/// What to compare on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Decides all histories.
    pub seed: u64,
    /// How many.
    pub histories: u64,
}

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The seed.
    pub seed: u64,
    /// Histories that both found to have an order.
    pub kept: u64,
    /// Histories that both found to have none.
    pub broken: u64,
    /// Violations whose operations, alone, break another promise than in the whole history. Rare:
    /// an answer must be wrong in two ways for that.
    pub shown_otherwise: u64,
    /// Violations found, by kind; a history may have several.
    pub kinds: BTreeMap<&'static str, u64>,
}

/// A history on which the checkers disagree with the search, or with themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The seed of that history alone.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
    /// The history.
    pub history: History,
}

impl Comparison {
    /// As asked for by the environment, else as given.
    pub fn from_environment(self) -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse().ok();
        Self {
            seed: number(SEED_VARIABLE).unwrap_or(self.seed),
            histories: number(HISTORIES_VARIABLE).unwrap_or(self.histories),
        }
    }

    /// Compares.
    ///
    /// # Errors
    /// The first history on which they disagree.
    pub fn run(self) -> Result<Tally, Box<Disagreement>> {
        self.run_without(None)
    }

    /// Compares as if one check were missing, by its number: what only it finds is found out.
    fn run_without(self, missing: Option<usize>) -> Result<Tally, Box<Disagreement>> {
        let mut tally = Tally { seed: self.seed, ..Tally::default() };
        let mut seeds = Rng::with_seed(self.seed);
        for _ in 0..self.histories {
            compare_one(seeds.u64(..), missing, &mut tally)?;
        }
        Ok(tally)
    }
}

/// Compares on one history.
fn compare_one(
    seed: u64,
    missing: Option<usize>,
    tally: &mut Tally,
) -> Result<(), Box<Disagreement>> {
    let (history, is_valid) = history_of(seed);
    let mut found = judge(&history);
    found.retain(|(check, _)| Some(*check) != missing);
    let disagree = |what: String, history: &History| {
        Err(Box::new(Disagreement { seed, what, history: history.clone() }))
    };
    let ordered = match has_order(&history, 0) {
        Ok(ordered) => ordered,
        Err(long) => {
            return disagree(format!("{} operations are too many", long.operations), &history);
        }
    };
    if ordered != found.is_empty() {
        let search = if ordered { "an order" } else { "no order" };
        let fast: Vec<String> = found.iter().map(|(_, it)| it.to_string()).collect();
        return disagree(
            format!("the search finds {search}; the checkers find {fast:?}"),
            &history,
        );
    }
    if is_valid && !ordered {
        return disagree("it was made valid, and both find it broken".to_owned(), &history);
    }
    for (check, violation) in &found {
        *tally.kinds.entry(violation.kind()).or_default() += 1;
        let shown = history.only(&violation.operations());
        let again = judge(&shown);
        if again.iter().any(|(again, _)| again == check) {
            continue;
        }
        tally.shown_otherwise += 1;
        if again.is_empty() {
            let what = format!("the operations that it names do not show it: {violation}");
            return disagree(what, &shown);
        }
    }
    let count = if ordered { &mut tally.kept } else { &mut tally.broken };
    *count += 1;
    Ok(())
}

fn history_of(seed: u64) -> (History, bool) {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        operations: rng.usize(2..=Shape::SHORT.operations),
        processes: rng.usize(1..=Shape::SHORT.processes),
        ..Shape::SHORT
    };
    let mut history = valid(shape, &mut rng);
    let planted = rng.u8(0..4) < PLANTED_OF_FOUR;
    if planted {
        for _ in 0..rng.u8(1..=2) {
            plant(&mut history, &mut rng);
        }
    }
    (history, !planted)
}

/// What each check of a partition finds, with the check's number.
fn judge(history: &History) -> Vec<(usize, Violation)> {
    let observations = Observations::of(history);
    let partitions = observations.partitions.iter();
    let found = partitions.flat_map(|(number, observed)| {
        let case = Case::new(*number, observed);
        let checked = PARTITION_CHECKS.iter().map(|check| check(&case).err()).enumerate();
        checked.filter_map(|(check, found)| Some((check, found?))).collect::<Vec<_>>()
    });
    found.collect()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let histories = self.kept + self.broken;
        write!(f, "{histories} histories of seed {}: one verdict; ", self.seed)?;
        write!(f, "{} have an order, {} have none: ", self.kept, self.broken)?;
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        f.write_str(&kinds.join(", "))
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "history of seed {}: {}", self.seed, self.what)?;
        for event in &self.history.events {
            writeln!(f, "  {}", serde_json::to_string(event).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{
        PartitionCheck, appends_follow_real_time, batches_are_atomic, conditions_hold,
        ends_are_not_from_the_future, linearizable_reads, offsets_are_dense, one_value_per_offset,
        reads_return_what_was_sent,
    };

    #[test]
    fn the_fast_checkers_and_the_search_give_one_verdict() {
        let comparison = Comparison { seed: 1, histories: 2_000 };
        let tally = comparison.run().unwrap_or_else(|found| panic!("{found}"));
        assert!(tally.kept > 200 && tally.broken > 200, "{tally}");
        assert!(tally.shown_otherwise < 2, "{tally:?}");
    }

    #[test]
    fn a_missing_check_is_found_out() {
        let log_checks: [PartitionCheck; 8] = [
            one_value_per_offset::check,
            offsets_are_dense::check,
            appends_follow_real_time::check,
            batches_are_atomic::check,
            conditions_hold::check,
            linearizable_reads::check,
            reads_return_what_was_sent::check,
            ends_are_not_from_the_future::check,
        ];
        for check in log_checks {
            let is_it = |other: &PartitionCheck| std::ptr::fn_addr_eq(*other, check);
            let number = PARTITION_CHECKS.iter().position(is_it);
            let comparison = Comparison { seed: 1, histories: 50_000 };
            let found = comparison.run_without(number);
            assert!(number.is_some() && found.is_err(), "check {number:?} is not needed");
        }
    }
}
