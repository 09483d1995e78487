//! A conditional append stands at the end that was its condition or nowhere, and is refused only
//! if the end was another one.
//!
//! This is the promise "conditional": of two appends that race with one expectation exactly one
//! wins. Two winners would stand on one offset, which `one_value_per_offset` finds; that somebody
//! won where everybody was refused follows from the end that the losers are told, which counts as
//! a linearizable read.

use super::layout::Case;
use crate::violation::Violation;

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let partition = case.number;
    for batch in &case.layout.batches {
        let Some(expected) = batch.append.expects else { continue };
        let (append, found, shown_by) = (batch.append.op, batch.base, batch.shown_by);
        if found != expected {
            let ignored =
                Violation::ConditionIgnored { partition, append, expected, found, shown_by };
            return Err(ignored);
        }
    }
    match case.observed.conflicts.iter().find(|conflict| conflict.end == conflict.expected) {
        Some(held) => Err(Violation::ConditionHeld { partition, append: held.op, end: held.end }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn an_append_that_stands_elsewhere_than_it_wanted_is_a_violation() {
        let story = Story::new();
        let append = story.append_if(&[1], 0);
        story.acked(append, 1);
        let expected = Violation::ConditionIgnored {
            partition: 0,
            append,
            expected: 0,
            found: 1,
            shown_by: append,
        };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn of_two_that_expect_the_same_exactly_one_wins() {
        let race = |first_wins: bool, second_wins: bool| {
            let story = Story::new();
            let (first, second) = (story.append_if(&[1], 0), story.append_if(&[2], 0));
            for (append, wins) in [(first, first_wins), (second, second_wins)] {
                match wins {
                    true => story.acked(append, 0),
                    false => story.conflicted(append, 1),
                }
            }
            story.verdict()
        };
        assert_eq!(race(true, false), []);
        assert_eq!(race(false, true), []);
        let both = race(true, true);
        assert!(both.iter().any(|it| it.kind() == "inconsistent"), "{both:?}");
        // Each was told that somebody had appended, and nobody had.
        let none = race(false, false);
        assert!(none.iter().any(|it| it.kind() == "hole"), "{none:?}");
    }

    #[test]
    fn a_refusal_that_tells_the_very_end_that_was_expected_is_a_violation() {
        let story = Story::new();
        let append = story.append_if(&[1], 0);
        story.conflicted(append, 0);
        let expected = Violation::ConditionHeld { partition: 0, append, end: 0 };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn a_winner_of_unknown_outcome_is_known_by_who_saw_it() {
        let story = Story::new();
        story.appended(&[1], 0);
        let append = story.append_if(&[2], 0);
        story.unknown(append);
        let read = story.has_read(0, &[1, 2], 2);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [append, read]);
    }
}
