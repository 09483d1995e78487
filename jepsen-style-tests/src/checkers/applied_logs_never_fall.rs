//! While a node runs, what it has applied only grows: no read that it answers shows less than one
//! that it answered before.
//!
//! This is what "applied prefix" means in the promise of committed reads. A node that was started
//! again has to apply its log anew and may show less for a while, so reads are compared within one
//! run of a node; a read during which the node was started says nothing.

use std::collections::BTreeMap;

use super::layout::Case;
use crate::observations::Moment;
use crate::violation::Violation;

/// A read that one run of a node answered.
struct Answered {
    invoked: Moment,
    returned: Moment,
    end: u64,
    read: u64,
    may_lag: bool,
}

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    if case.observed.lagging_reads.is_empty() {
        return Ok(());
    }
    for ((node, _), mut answered) in by_run(case) {
        answered.sort_unstable_by_key(|it| it.invoked);
        let mut shown: Vec<(Moment, u64, u64)> =
            answered.iter().map(|it| (it.returned, it.end, it.read)).collect();
        shown.sort_unstable();
        let mut shown = shown.into_iter().peekable();
        let mut highest: Option<(u64, u64)> = None;
        for read in answered {
            while let Some((_, end, by)) = shown.next_if(|(at, ..)| *at < read.invoked) {
                if highest.is_none_or(|(highest, _)| highest < end) {
                    highest = Some((end, by));
                }
            }
            // Reads that may not lag have a stronger promise, and a checker of their own.
            if let Some((needed, shown_by)) = highest
                && read.may_lag
                && read.end < needed
            {
                let (partition, end, read) = (case.number, read.end, read.read);
                return Err(Violation::AppliedFell {
                    partition,
                    node,
                    read,
                    end,
                    needed,
                    shown_by,
                });
            }
        }
    }
    Ok(())
}

/// By node, and by how often it had been started.
fn by_run(case: &Case<'_>) -> BTreeMap<(u64, usize), Vec<Answered>> {
    let reads = case.observed.reads.iter();
    let reads = reads.map(|it| (it.node, it.invoked, it.returned, it.end, it.op, false));
    let lagging = case.observed.lagging_reads.iter();
    let lagging = lagging.map(|it| (it.node, it.invoked, it.returned, it.end, it.op, true));
    let mut runs: BTreeMap<(u64, usize), Vec<Answered>> = BTreeMap::new();
    for (node, invoked, returned, end, read, may_lag) in reads.chain(lagging) {
        let Some(node) = node else { continue };
        let starts = case.observed.course.starts.get(&node).map(Vec::as_slice).unwrap_or_default();
        let run = starts.partition_point(|start| *start < invoked);
        if run == starts.partition_point(|start| *start < returned) {
            let answered = Answered { invoked, returned, end, read, may_lag };
            runs.entry((node, run)).or_default().push(answered);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_node_that_shows_less_than_before_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        let shown_by = story.has_read_at(2, 0, &[1], 1);
        let read = story.has_read_at(2, 0, &[], 0);
        let expected =
            Violation::AppliedFell { partition: 0, node: 2, read, end: 0, needed: 1, shown_by };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn a_node_that_was_started_again_may_show_less() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.has_read_at(2, 0, &[1], 1);
        story.started(2);
        story.has_read_at(2, 0, &[], 0);
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn another_node_may_show_less() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.has_read_at(2, 0, &[1], 1);
        story.has_read_at(3, 0, &[], 0);
        assert_eq!(story.judge(check), Ok(()));
    }
}
