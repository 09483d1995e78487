//! Commits and fetches of a group offset are those of one register: there is an order, true to real
//! time, in which each fetch sees the commit before it.
//!
//! Commits that carry a version, unique in the history, make this checkable without a search, also
//! around resets, which let offsets come back. Gibbons and Korach (Testing shared memories, SIAM
//! J. Comput. 1997): a commit and the fetches that saw it form a zone, from the first of them to
//! return to the last to be invoked. In a forward zone (first return before last invocation) the
//! commit was in force throughout; two of those must not overlap, and no other commit and all its
//! fetches may happen wholly within one. That is also enough.

use std::collections::BTreeMap;

use crate::observations::{Commit, CommittedFetch, GroupObservations, Moment};
use crate::violation::Violation;

/// The commit and the fetches of one version.
#[derive(Debug, Clone)]
struct Zone {
    first_returned: Moment,
    last_invoked: Moment,
    /// The commit and the operations at both borders.
    operations: Vec<u64>,
}

impl Zone {
    /// In force from the first to the second.
    fn forward(&self) -> Option<(Moment, Moment)> {
        (self.first_returned < self.last_invoked)
            .then_some((self.first_returned, self.last_invoked))
    }
}

/// Checks one group in one partition.
pub fn check(group: &str, partition: u32, observed: &GroupObservations) -> Result<(), Violation> {
    if observed.commits.iter().any(|commit| commit.version.is_none()) {
        return Ok(());
    }
    let disorder = |one: &Zone, other: &Zone| {
        let mut operations: Vec<u64> = one.operations.clone();
        operations.extend(&other.operations);
        operations.sort_unstable();
        operations.dedup();
        Err(Violation::GroupOffsetDisorder { group: group.to_owned(), partition, operations })
    };
    let zones = zones(group, partition, observed)?;
    let mut forward: Vec<(Moment, Moment, &Zone)> = Vec::new();
    for zone in &zones {
        forward.extend(zone.forward().map(|(from, to)| (from, to, zone)));
    }
    forward.sort_unstable_by_key(|(from, ..)| *from);
    for pair in forward.windows(2) {
        let ((_, end, one), (start, _, other)) = (pair[0], pair[1]);
        if start < end {
            return disorder(one, other);
        }
    }
    for zone in zones.iter().filter(|zone| zone.forward().is_none()) {
        let before = forward.partition_point(|(from, ..)| *from < zone.last_invoked);
        if let Some((_, end, around)) = before.checked_sub(1).map(|last| forward[last])
            && zone.first_returned < end
        {
            return disorder(around, zone);
        }
    }
    Ok(())
}

fn zones(
    group: &str,
    partition: u32,
    observed: &GroupObservations,
) -> Result<Vec<Zone>, Violation> {
    let mut commits: BTreeMap<u64, &Commit> = BTreeMap::new();
    commits.extend(observed.commits.iter().filter_map(|it| Some((it.version?, it))));
    let mut fetches: BTreeMap<Option<u64>, Vec<&CommittedFetch>> = BTreeMap::new();
    for fetch in observed.fetches.iter().filter(|fetch| !fetch.refusal) {
        let from_nowhere = |seen| Violation::GroupOffsetFromNowhere {
            group: group.to_owned(),
            partition,
            fetch: fetch.op,
            seen,
        };
        match (fetch.version, fetch.offset) {
            (None, Some(seen)) => return Err(from_nowhere(seen)),
            (None, None) => {}
            (Some(version), seen) => {
                let fits = commits.get(&version).is_some_and(|commit| {
                    let sent_by_then = !commit.refused && commit.invoked < fetch.returned;
                    sent_by_then && seen == Some(commit.offset)
                });
                if !fits {
                    return Err(from_nowhere(seen.unwrap_or_default()));
                }
            }
        }
        fetches.entry(fetch.version).or_default().push(fetch);
    }
    let mut zones = Vec::new();
    // Nothing was committed before the history began.
    if let Some(seen) = fetches.get(&None)
        && let Some(last) = seen.iter().max_by_key(|fetch| fetch.invoked)
    {
        let operations = vec![last.op];
        zones.push(Zone { first_returned: 0, last_invoked: last.invoked, operations });
    }
    for (version, commit) in commits {
        let seen = fetches.get(&Some(version)).map(Vec::as_slice).unwrap_or_default();
        zones.extend(zone_of(commit, seen));
    }
    Ok(zones)
}

/// `None` for a commit that nobody saw and that may not have happened.
fn zone_of(commit: &Commit, seen: &[&CommittedFetch]) -> Option<Zone> {
    let returns = seen.iter().map(|fetch| (fetch.returned, fetch.op));
    let acked = commit.returned.map(|returned| (returned, commit.op));
    let (first_returned, first) = returns.chain(acked).min()?;
    let invocations = seen.iter().map(|fetch| (fetch.invoked, fetch.op));
    let begun = Some((commit.invoked, commit.op));
    let (last_invoked, last) = invocations.chain(begun).max()?;
    Some(Zone { first_returned, last_invoked, operations: vec![commit.op, first, last] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    fn judge(story: &Story) -> Result<(), Violation> {
        check("g", 0, &story.group())
    }

    /// A commit that is acknowledged at once.
    fn committed(story: &Story, offset: u64, version: u64, reset: bool) -> u64 {
        let op = story.commit_version(offset, version, reset);
        story.committed(op);
        op
    }

    #[test]
    fn a_fetch_that_sees_the_commit_before_the_last_is_a_violation() {
        let story = Story::new();
        let first = committed(&story, 5, 1, false);
        let second = committed(&story, 3, 2, true);
        let stale = story.fetched_version(5, 1);
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.operations(), [first, second, stale]);
        let repaired = Story::new();
        committed(&repaired, 5, 1, false);
        committed(&repaired, 3, 2, true);
        repaired.fetched_version(3, 2);
        assert_eq!(judge(&repaired), Ok(()));
    }

    #[test]
    fn two_commits_that_are_seen_in_turns_are_a_violation() {
        let story = Story::new();
        let (a, b) = (story.commit_version(5, 1, true), story.commit_version(5, 2, true));
        story.fetched_version(5, 1);
        story.fetched_version(5, 2);
        story.fetched_version(5, 1);
        story.committed(a);
        story.committed(b);
        assert_eq!(judge(&story).map_err(|it| it.kind()), Err("group-offset-disorder"));
        let repaired = Story::new();
        let (a, b) = (repaired.commit_version(5, 1, true), repaired.commit_version(5, 2, true));
        repaired.fetched_version(5, 2);
        repaired.fetched_version(5, 1);
        repaired.fetched_version(5, 1);
        repaired.committed(a);
        repaired.committed(b);
        assert_eq!(judge(&repaired), Ok(()));
    }

    #[test]
    fn nothing_is_seen_after_something_was() {
        let story = Story::new();
        let commit = story.commit_version(5, 1, false);
        story.fetched_version(5, 1);
        story.fetched(None);
        story.unknown(commit);
        assert_eq!(judge(&story).map_err(|it| it.kind()), Err("group-offset-disorder"));
    }

    #[test]
    fn a_version_with_another_offset_is_a_violation() {
        let story = Story::new();
        committed(&story, 5, 1, false);
        story.fetched_version(6, 1);
        assert_eq!(judge(&story).map_err(|it| it.kind()), Err("group-offset-from-nowhere"));
    }

    #[test]
    fn a_commit_of_unknown_outcome_may_come_late_or_never() {
        let story = Story::new();
        let late = story.commit_version(7, 1, false);
        story.unknown(late);
        let never = story.commit_version(8, 2, false);
        story.unknown(never);
        story.fetched(None);
        story.fetched_version(7, 1);
        assert_eq!(judge(&story), Ok(()));
    }
}
