//! Offsets follow real time: an append that was acknowledged before another began stands before it.
//!
//! This is the promise "ordered". One pass in the order of the log: an append that returned before
//! one that stands in front of it was invoked is out of order. An append of unknown outcome never
//! returned, but if a reader saw it, its place counts for those behind it.

use std::collections::BTreeMap;

use crate::observations::{Append, AppendOutcome, Moment, PartitionObservations};
use crate::violation::Violation;

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut placed = placed(observed);
    placed.sort_unstable_by_key(|(offset, append)| (*offset, append.op));
    let mut latest: Option<&Append> = None;
    for (_, append) in placed {
        if let Some(before) = latest
            && returned(append).is_some_and(|returned| returned < before.invoked)
        {
            let (first, second) = (append.op, before.op);
            return Err(Violation::AppendsReordered { partition, first, second });
        }
        if latest.is_none_or(|latest| latest.invoked < append.invoked) {
            latest = Some(append);
        }
    }
    Ok(())
}

/// The appends whose place is known, from their acknowledgement or because somebody saw them.
fn placed(observed: &PartitionObservations) -> Vec<(u64, &Append)> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for read in &observed.reads {
        seen.extend(read.offsets().map(|(offset, value)| (value, offset)));
    }
    for survey in &observed.surveys {
        seen.extend(survey.offsets().map(|(offset, value)| (value, offset)));
    }
    let mut placed = Vec::new();
    for append in &observed.appends {
        let acked = append.offsets().next().map(|(offset, _)| offset);
        let found = || append.values.first().and_then(|value| seen.get(value).copied());
        if let Some(offset) = acked.or_else(found) {
            placed.push((offset, append));
        }
    }
    placed
}

fn returned(append: &Append) -> Option<Moment> {
    match append.outcome {
        AppendOutcome::Acked { returned, .. } => Some(returned),
        AppendOutcome::Refused(_) | AppendOutcome::Unknown => None,
    }
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
        let expected = Violation::AppendsReordered { partition: 0, first, second };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn appends_at_the_same_time_may_stand_in_any_order() {
        let story = Story::new();
        let first = story.append(&[1]);
        let second = story.append(&[2]);
        story.acked(first, 1);
        story.acked(second, 0);
        assert_eq!(check(0, &story.partition()), Ok(()));
    }

    #[test]
    fn an_append_of_unknown_outcome_that_was_seen_in_front_counts() {
        let story = Story::new();
        let first = story.appended(&[1], 1);
        let second = story.append(&[2]);
        story.unknown(second);
        story.has_read(0, &[2, 1], 2);
        let expected = Violation::AppendsReordered { partition: 0, first, second };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn the_violation_is_found_over_any_distance() {
        let story = Story::new();
        let first = story.appended(&[1], 9);
        let second = story.append(&[2]);
        let third = story.append(&[3]);
        story.acked(second, 0);
        story.acked(third, 1);
        let found = check(0, &story.partition());
        let expected = Violation::AppendsReordered { partition: 0, first, second: third };
        assert_eq!(found, Err(expected));
    }
}
