//! Offsets follow real time: an append that was acknowledged before another began stands before it.
//!
//! This is the promise "ordered". One pass in the order of the log: an append that returned before
//! one that stands in front of it was invoked is out of order. An append of unknown outcome never
//! returned, but if a reader saw it, its place counts for those behind it.

use super::layout::{Batch, Case};
use crate::violation::Violation;

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let mut latest: Option<&Batch<'_>> = None;
    for batch in &case.layout.batches {
        if let Some(before) = latest
            && batch.returned().is_some_and(|returned| returned < before.append.invoked)
        {
            return Err(Violation::AppendsReordered {
                partition: case.number,
                first: batch.append.op,
                second: before.append.op,
                shown_by: [batch.shown_by, before.shown_by],
            });
        }
        if latest.is_none_or(|latest| latest.append.invoked < batch.append.invoked) {
            latest = Some(batch);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_later_append_in_front_of_an_acknowledged_one_is_a_violation() {
        let story = Story::new();
        let first = story.appended(&[1], 5);
        let second = story.appended(&[2], 4);
        let shown_by = [first, second];
        let expected = Violation::AppendsReordered { partition: 0, first, second, shown_by };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn appends_at_the_same_time_may_stand_in_any_order() {
        let story = Story::new();
        let first = story.append(&[1]);
        let second = story.append(&[2]);
        story.acked(first, 1);
        story.acked(second, 0);
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn an_append_of_unknown_outcome_that_was_seen_in_front_counts() {
        let story = Story::new();
        let first = story.appended(&[1], 1);
        let second = story.append(&[2]);
        story.unknown(second);
        let read = story.has_read(0, &[2, 1], 2);
        let shown_by = [first, read];
        let expected = Violation::AppendsReordered { partition: 0, first, second, shown_by };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn the_violation_is_found_over_any_distance() {
        let story = Story::new();
        let first = story.appended(&[1], 9);
        let second = story.append(&[2]);
        let third = story.append(&[3]);
        story.acked(second, 0);
        story.acked(third, 1);
        let found = story.judge(check);
        let shown_by = [first, third];
        let expected = Violation::AppendsReordered { partition: 0, first, second: third, shown_by };
        assert_eq!(found, Err(expected));
    }
}
