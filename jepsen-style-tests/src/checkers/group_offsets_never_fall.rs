//! A fetch of a group offset sees at least what was committed, or seen by another fetch, before it
//! was invoked, and nothing that nobody had committed.
//!
//! The simulated committers only go forward, so that a lower offset can't come from a commit that
//! was under way. One pass in real time, as for reads.

use crate::observations::{GroupObservations, Moment};
use crate::violation::Violation;

/// Checks one group in one partition.
pub fn check(group: &str, partition: u32, observed: &GroupObservations) -> Result<(), Violation> {
    // Moment, offset, operation.
    let commits = observed.commits.iter();
    let commits = commits.filter_map(|it| Some((it.returned?, it.offset, it.op)));
    let fetches = observed.fetches.iter();
    let fetches = fetches.filter_map(|it| Some((it.returned, it.offset?, it.op)));
    let mut shown: Vec<(Moment, u64, u64)> = commits.chain(fetches).collect();
    shown.sort_unstable();

    let mut shown = shown.into_iter().peekable();
    let mut highest: Option<(u64, u64)> = None;
    for fetch in &observed.fetches {
        while let Some((_, offset, op)) = shown.next_if(|(at, ..)| *at < fetch.invoked) {
            if highest.is_none_or(|(highest, _)| highest < offset) {
                highest = Some((offset, op));
            }
        }
        if let Some((needed, shown_by)) = highest
            && fetch.offset.is_none_or(|seen| seen < needed)
        {
            let (fetch, seen) = (fetch.op, fetch.offset);
            let group = group.to_owned();
            return Err(Violation::GroupOffsetFell {
                group,
                partition,
                fetch,
                seen,
                needed,
                shown_by,
            });
        }
        if let Some(seen) = fetch.offset
            && !committed_before(observed, fetch.returned, seen)
        {
            let (group, fetch) = (group.to_owned(), fetch.op);
            return Err(Violation::GroupOffsetFromNowhere { group, partition, fetch, seen });
        }
    }
    Ok(())
}

fn committed_before(observed: &GroupObservations, moment: Moment, offset: u64) -> bool {
    // Commits go forward and are listed in the order of invocation.
    let place = observed.commits.partition_point(|commit| commit.offset < offset);
    let equal = observed.commits[place..].iter().take_while(|commit| commit.offset == offset);
    equal.into_iter().any(|commit| commit.invoked < moment && !commit.refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

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
        assert_eq!(check("g", 0, &story.group()), Err(expected));
    }

    #[test]
    fn a_fetch_that_sees_less_than_an_earlier_one_is_a_violation() {
        let story = Story::new();
        let commit = story.commit(5);
        let first = story.fetched(Some(5));
        let second = story.fetched(None);
        story.unknown(commit);
        let found = check("g", 0, &story.group()).expect_err("a violation");
        assert_eq!(found.operations(), [first, second]);
    }

    #[test]
    fn an_offset_that_nobody_committed_is_a_violation() {
        let story = Story::new();
        let commit = story.commit(5);
        story.refused(commit, "OVERLOADED");
        story.fetched(Some(5));
        let found = check("g", 0, &story.group()).expect_err("a violation");
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
        assert_eq!(check("g", 0, &story.group()), Ok(()));
    }
}
