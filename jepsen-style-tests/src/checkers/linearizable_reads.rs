//! A linearizable read sees at least what was acknowledged, or seen by another read, before it was
//! invoked; on whichever node.
//!
//! One pass in real time. Whatever returns raises the end that every read invoked from then on
//! must reach; a read that may lag raises it too, since what it shows is committed, but need not
//! reach it. A question for the end is a read, and so is the end that a conditional append is
//! refused with. That a read sees nothing too early is checked by `reads_return_what_was_sent`.

use super::layout::Case;
use crate::observations::{AppendOutcome, Moment, PartitionObservations};
use crate::violation::Violation;

/// What one operation showed when it returned.
struct Shown {
    at: Moment,
    end: u64,
    operation: u64,
}

/// What one read had to see when it was invoked.
struct Demand {
    at: Moment,
    end: u64,
    node: Option<u64>,
    read: u64,
}

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let observed = case.observed;
    let mut shown = shown(observed);
    shown.sort_unstable_by_key(|it| it.at);
    let demands = observed.reads.iter();
    let demands =
        demands.map(|it| Demand { at: it.invoked, end: it.end, node: it.node, read: it.op });
    let mut demands: Vec<Demand> = demands.collect();
    demands.sort_unstable_by_key(|it| it.at);

    let mut shown = shown.into_iter().peekable();
    let mut highest: Option<Shown> = None;
    for demand in demands {
        while let Some(next) = shown.next_if(|next| next.at < demand.at) {
            if highest.as_ref().is_none_or(|highest| highest.end < next.end) {
                highest = Some(next);
            }
        }
        if let Some(highest) = &highest
            && demand.end < highest.end
        {
            let Demand { end, node, read, .. } = demand;
            let (needed, shown_by) = (highest.end, highest.operation);
            let partition = case.number;
            return Err(Violation::StaleRead { partition, read, node, end, needed, shown_by });
        }
    }
    Ok(())
}

fn shown(observed: &PartitionObservations) -> Vec<Shown> {
    let appends = observed.appends.iter().filter_map(|append| match append.outcome {
        AppendOutcome::Acked { returned, .. } => {
            let (last, _) = append.offsets().last()?;
            Some(Shown { at: returned, end: last + 1, operation: append.op })
        }
        AppendOutcome::Refused(_) | AppendOutcome::Unknown => None,
    });
    let reads = observed.reads.iter();
    let reads = reads.map(|it| Shown { at: it.returned, end: it.end, operation: it.op });
    let lagging = observed.lagging_reads.iter();
    let lagging = lagging.map(|it| Shown { at: it.returned, end: it.end, operation: it.op });
    appends.chain(reads).chain(lagging).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_read_that_misses_an_acknowledged_append_is_stale() {
        let story = Story::new();
        let append = story.appended(&[1, 2], 0);
        let read = story.has_read(0, &[1], 1);
        let expected = Violation::StaleRead {
            partition: 0,
            read,
            node: Some(1),
            end: 1,
            needed: 2,
            shown_by: append,
        };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn a_read_that_sees_less_than_an_earlier_read_is_stale() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let first = story.has_read(0, &[1], 1);
        let second = story.has_read(0, &[], 0);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [first, second]);
    }

    #[test]
    fn a_read_that_began_before_the_acknowledgement_may_miss_it() {
        let story = Story::new();
        let append = story.append(&[1]);
        let read = story.read(0);
        story.acked(append, 0);
        story.records(read, &[], 0);
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn reads_at_the_same_time_may_see_different_ends() {
        let story = Story::new();
        let append = story.append(&[1]);
        let (early, late) = (story.read(0), story.read(0));
        story.records(late, &[1], 1);
        story.records(early, &[], 0);
        story.acked(append, 0);
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn a_question_for_the_end_must_not_be_answered_with_an_old_one() {
        let story = Story::new();
        let append = story.appended(&[1], 0);
        let asked = story.listed(0);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [append, asked]);
        let repaired = Story::new();
        repaired.appended(&[1], 0);
        repaired.listed(1);
        assert_eq!(repaired.judge(check), Ok(()));
    }

    #[test]
    fn what_a_lagging_read_was_given_is_committed_and_seen_by_all_that_begin_later() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let lagging = story.has_read_at(2, 0, &[1], 1);
        let read = story.has_read(0, &[], 0);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [lagging, read]);
    }

    #[test]
    fn a_lagging_read_may_lag() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.has_read_at(2, 0, &[], 0);
        assert_eq!(story.judge(check), Ok(()));
    }
}
