//! A partition has one owner at a time, as far as accepted commits show: when another member's
//! commit for it had been accepted before one began, that one comes from a later generation.
//!
//! Each grant of a partition takes a new generation, above all that were told before, and whoever
//! commits was told that of its grant. So where the owner changes between two commits the second
//! has the higher generation, whatever else happened between them; an owner that lives on beside
//! another one, and a zombie that is accepted, do not.

use crate::observations::{MemberCommit, Moment};
use crate::violation::Violation;

/// An accepted commit, by when it returned.
#[derive(Clone, Copy)]
struct Accepted<'a> {
    returned: Moment,
    commit: &'a MemberCommit,
}

/// Checks one group in one partition.
pub fn check(group: &str, partition: u32, commits: &[MemberCommit]) -> Result<(), Violation> {
    let accepted = commits.iter().filter_map(|commit| {
        let returned = commit.returned?;
        Some(Accepted { returned, commit })
    });
    let mut accepted: Vec<Accepted<'_>> = accepted.collect();
    accepted.sort_unstable_by_key(|it| it.returned);
    let mut by_beginning = accepted.clone();
    by_beginning.sort_unstable_by_key(|it| it.commit.invoked);
    let mut before = accepted.into_iter().peekable();
    // The highest generation seen, and the highest of any other member.
    let (mut first, mut second): (Option<Accepted<'_>>, Option<Accepted<'_>>) = (None, None);
    for Accepted { commit, .. } in by_beginning {
        while let Some(next) = before.next_if(|next| next.returned < commit.invoked) {
            (first, second) = ranked(first, second, next);
        }
        let other = [first, second].into_iter().flatten();
        let other = other.map(|it| it.commit).find(|it| it.member != commit.member);
        if let Some(other) = other.filter(|other| other.generation >= commit.generation) {
            return Err(Violation::TwoOwners {
                group: group.to_owned(),
                partition,
                commits: [other.op, commit.op],
            });
        }
    }
    Ok(())
}

/// The best of each of two members.
fn ranked<'a>(
    first: Option<Accepted<'a>>,
    second: Option<Accepted<'a>>,
    next: Accepted<'a>,
) -> (Option<Accepted<'a>>, Option<Accepted<'a>>) {
    let generation = |it: &Accepted<'_>| it.commit.generation;
    let Some(best) = first else { return (Some(next), second) };
    if best.commit.member == next.commit.member {
        let better = if generation(&next) > generation(&best) { next } else { best };
        return (Some(better), second);
    }
    if generation(&next) > generation(&best) {
        return (Some(next), Some(best));
    }
    let second = second.filter(|it| generation(it) >= generation(&next)).unwrap_or(next);
    (first, Some(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(op: u64, member: &str, generation: i64, moments: (Moment, Moment)) -> MemberCommit {
        let member = member.to_owned();
        let (invoked, returned) = (moments.0, Some(moments.1));
        MemberCommit { op, member, generation, offset: op, invoked, returned }
    }

    #[test]
    fn two_members_that_commit_by_turns_in_one_generation_are_two_owners() {
        let commits =
            [commit(1, "a", 3, (0, 1)), commit(2, "b", 4, (2, 3)), commit(3, "a", 3, (4, 5))];
        let found = check("g", 0, &commits).expect_err("a violation");
        assert_eq!(found.kind(), "two-owners");
        assert_eq!(found.operations(), [2, 3]);
    }

    #[test]
    fn a_zombie_that_is_accepted_with_its_old_generation_is_a_second_owner() {
        let commits = [commit(1, "new", 9, (0, 1)), commit(2, "zombie", 7, (2, 3))];
        assert!(check("g", 0, &commits).is_err());
        let mut refused = commits.clone();
        refused[1].returned = None;
        assert_eq!(check("g", 0, &refused), Ok(()));
    }

    #[test]
    fn a_partition_that_comes_back_does_so_in_a_later_generation() {
        let commits = [
            commit(1, "a", 3, (0, 1)),
            commit(2, "b", 4, (2, 3)),
            commit(3, "a", 6, (4, 5)),
            commit(4, "a", 5, (6, 7)),
        ];
        assert_eq!(check("g", 0, &commits), Ok(()));
    }

    #[test]
    fn commits_that_were_under_way_together_may_stand_in_any_order() {
        let commits = [commit(1, "b", 4, (0, 3)), commit(2, "a", 3, (1, 2))];
        assert_eq!(check("g", 0, &commits), Ok(()));
    }

    #[test]
    fn a_third_member_is_compared_with_all_before_it() {
        let commits =
            [commit(1, "a", 5, (0, 1)), commit(2, "b", 8, (2, 3)), commit(3, "c", 6, (4, 5))];
        assert!(check("g", 0, &commits).is_err());
    }
}
