//! A fetch of a group offset sees at least what was committed, or seen by another fetch, before it
//! was invoked, and nothing that nobody had committed; a commit that would go back is refused, and
//! no other.
//!
//! Only an explicit reset may go back. What was shown before a reset, or while it was under way,
//! says nothing about what comes after it; while one of unknown outcome may still come, nothing is
//! demanded. The order of commits around resets is checked by `group_offsets_are_a_register`.

use std::collections::BTreeMap;

use crate::observations::{GroupObservations, Moment};
use crate::violation::Violation;

/// An offset that was in force at some moment while an operation was under way.
struct Shown {
    invoked: Moment,
    returned: Moment,
    offset: u64,
    operation: u64,
}

/// What an operation was told; it had to be at least what had been shown.
struct Demand {
    invoked: Moment,
    returned: Moment,
    seen: Option<u64>,
    operation: u64,
    is_commit: bool,
}

/// Checks one group in one partition.
pub fn check(group: &str, partition: u32, observed: &GroupObservations) -> Result<(), Violation> {
    let mut shown = shown(observed);
    shown.sort_unstable_by_key(|it| it.returned);
    let mut demands = demands(observed);
    demands.sort_unstable_by_key(|it| it.invoked);
    let resets = Resets::of(observed);
    let mut shown = shown.into_iter().peekable();
    let mut highest: Option<(u64, u64)> = None;
    let mut begun = 0;
    for demand in demands {
        let (resets_begun, barrier) = resets.before(demand.invoked);
        if resets_begun > begun {
            (begun, highest) = (resets_begun, None);
        }
        while let Some(next) = shown.next_if(|next| next.returned < demand.invoked) {
            let counts = barrier.is_none_or(|barrier| next.invoked > barrier);
            if counts && highest.is_none_or(|(highest, _)| highest < next.offset) {
                highest = Some((next.offset, next.operation));
            }
        }
        if let Some((needed, shown_by)) = highest
            && demand.seen.is_none_or(|seen| seen < needed)
            && !resets.any_within(demand.invoked, demand.returned)
        {
            return Err(fell(group, partition, &demand, (needed, shown_by)));
        }
    }
    refusals_were_right(group, partition, observed)?;
    somebody_committed(group, partition, observed)
}

fn fell(group: &str, partition: u32, demand: &Demand, (needed, by): (u64, u64)) -> Violation {
    let group = group.to_owned();
    if demand.is_commit {
        let why = "went back and was accepted";
        let commit = demand.operation;
        return Violation::CommitMisjudged { group, partition, commit, shown_by: by, why };
    }
    let (fetch, seen) = (demand.operation, demand.seen);
    Violation::GroupOffsetFell { group, partition, fetch, seen, needed, shown_by: by }
}

fn shown(observed: &GroupObservations) -> Vec<Shown> {
    let commits = observed.commits.iter().filter_map(|it| {
        let (invoked, offset, operation) = (it.invoked, it.offset, it.op);
        Some(Shown { invoked, returned: it.returned?, offset, operation })
    });
    let fetches = observed.fetches.iter().filter_map(|it| {
        let (invoked, returned, operation) = (it.invoked, it.returned, it.op);
        Some(Shown { invoked, returned, offset: it.offset?, operation })
    });
    commits.chain(fetches).collect()
}

fn demands(observed: &GroupObservations) -> Vec<Demand> {
    let fetches = observed.fetches.iter().map(|it| {
        let (invoked, returned, operation) = (it.invoked, it.returned, it.op);
        Demand { invoked, returned, seen: it.offset, operation, is_commit: false }
    });
    let commits = observed.commits.iter().filter(|it| !it.reset).filter_map(|it| {
        let (invoked, seen, operation) = (it.invoked, Some(it.offset), it.op);
        Some(Demand { invoked, returned: it.returned?, seen, operation, is_commit: true })
    });
    fetches.chain(commits).collect()
}

/// A commit is refused only if the offset in force is higher.
fn refusals_were_right(
    group: &str,
    partition: u32,
    observed: &GroupObservations,
) -> Result<(), Violation> {
    for refusal in observed.fetches.iter().filter(|it| it.refusal) {
        let commit = observed.commits.iter().find(|commit| commit.op == refusal.op);
        if let (Some(commit), Some(in_force)) = (commit, refusal.offset)
            && in_force <= commit.offset
        {
            let (group, why) = (group.to_owned(), "did not go back and was refused");
            let (commit, shown_by) = (commit.op, commit.op);
            return Err(Violation::CommitMisjudged { group, partition, commit, shown_by, why });
        }
    }
    Ok(())
}

fn somebody_committed(
    group: &str,
    partition: u32,
    observed: &GroupObservations,
) -> Result<(), Violation> {
    let mut first_invoked: BTreeMap<u64, Moment> = BTreeMap::new();
    for commit in observed.commits.iter().filter(|commit| !commit.refused) {
        let known = first_invoked.entry(commit.offset).or_insert(commit.invoked);
        *known = commit.invoked.min(*known);
    }
    for fetch in &observed.fetches {
        let Some(seen) = fetch.offset else { continue };
        if first_invoked.get(&seen).is_none_or(|invoked| *invoked > fetch.returned) {
            let (group, fetch) = (group.to_owned(), fetch.op);
            return Err(Violation::GroupOffsetFromNowhere { group, partition, fetch, seen });
        }
    }
    Ok(())
}

/// Resets that may have had an effect.
struct Resets {
    /// By invocation: when it began, and when all up to it were over at the latest.
    begun: Vec<(Moment, Moment)>,
}

impl Resets {
    fn of(observed: &GroupObservations) -> Self {
        let resets = observed.commits.iter().filter(|it| it.reset && !it.refused);
        let mut begun: Vec<(Moment, Moment)> =
            resets.map(|it| (it.invoked, it.returned.unwrap_or(Moment::MAX))).collect();
        begun.sort_unstable();
        let mut latest = 0;
        for (_, over) in &mut begun {
            latest = latest.max(*over);
            *over = latest;
        }
        Self { begun }
    }

    /// How many had begun by then, and when those are over.
    fn before(&self, moment: Moment) -> (usize, Option<Moment>) {
        let count = self.begun.partition_point(|(begun, _)| *begun < moment);
        (count, count.checked_sub(1).map(|last| self.begun[last].1))
    }

    fn any_within(&self, from: Moment, to: Moment) -> bool {
        self.before(from).0 != self.before(to).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    fn judge(story: &Story) -> Result<(), Violation> {
        check("g", 0, &story.group())
    }

    #[test]
    fn a_fetch_that_misses_an_acknowledged_commit_is_a_violation() {
        let story = Story::new();
        let first = story.commit(5);
        story.committed(first);
        let second = story.commit(8);
        story.committed(second);
        let fetch = story.fetched(Some(5));
        let expected = Violation::GroupOffsetFell {
            group: "g".to_owned(),
            partition: 0,
            fetch,
            seen: Some(5),
            needed: 8,
            shown_by: second,
        };
        assert_eq!(judge(&story), Err(expected));
    }

    #[test]
    fn a_fetch_that_sees_less_than_an_earlier_one_is_a_violation() {
        let story = Story::new();
        let commit = story.commit(5);
        let first = story.fetched(Some(5));
        let second = story.fetched(None);
        story.unknown(commit);
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.operations(), [first, second]);
    }

    #[test]
    fn an_offset_that_nobody_committed_is_a_violation() {
        let story = Story::new();
        let commit = story.commit(5);
        story.refused(commit, "OVERLOADED");
        story.fetched(Some(5));
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.kind(), "group-offset-from-nowhere");
    }

    #[test]
    fn a_commit_under_way_may_be_seen_or_not() {
        let story = Story::new();
        let first = story.commit(5);
        story.committed(first);
        let second = story.commit(8);
        story.fetched(Some(5));
        story.fetched(Some(8));
        story.committed(second);
        assert_eq!(judge(&story), Ok(()));
    }

    #[test]
    fn a_commit_that_goes_back_must_be_refused() {
        let story = Story::new();
        let first = story.commit(8);
        story.committed(first);
        let second = story.commit(5);
        story.committed(second);
        let found = judge(&story).expect_err("a violation");
        assert_eq!((found.kind(), found.operations()), ("commit-misjudged", vec![first, second]));
        let repaired = Story::new();
        let first = repaired.commit(8);
        repaired.committed(first);
        let second = repaired.commit(5);
        repaired.regressed(second, 8);
        assert_eq!(judge(&repaired), Ok(()));
    }

    #[test]
    fn a_commit_that_goes_forward_must_not_be_refused_as_one_that_goes_back() {
        let story = Story::new();
        let first = story.commit(5);
        story.committed(first);
        let second = story.commit(8);
        story.regressed(second, 5);
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.operations(), [second]);
    }

    #[test]
    fn only_a_reset_may_go_back() {
        let story = Story::new();
        let commit = story.commit_version(8, 1, false);
        story.committed(commit);
        let reset = story.commit_version(2, 2, true);
        story.committed(reset);
        story.fetched_version(2, 2);
        assert_eq!(judge(&story), Ok(()));
        let commit = story.commit_version(4, 3, false);
        story.committed(commit);
        story.fetched_version(2, 2);
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.kind(), "group-offset-fell");
    }
}
