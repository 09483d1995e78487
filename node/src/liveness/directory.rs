//! What the nodes say of the groups they lead. Pure: time is an argument.
//!
//! A claim of a higher term replaces one of a lower; a node that stops claiming is believed.
//! Claims route clients and calls; they decide nothing, so a false one costs a retry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use quipu_proto::peer::v1 as pb;
use tokio::time::Instant;

use crate::limits;
use crate::raft::Place;

/// A node's word that it leads a group.
#[derive(Debug, Clone)]
struct Claim {
    place: Place,
    term: u64,
    commit: u64,
    parked: bool,
    /// At each of these moments no more than the commit index beside it was acknowledged.
    known: VecDeque<(u64, Instant)>,
}

/// The part of a [`Claim`] that is looked at all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) place: Place,
    pub(super) term: u64,
    pub(super) commit: u64,
    pub(super) parked: bool,
}

/// All claims, by group.
#[derive(Debug, Default)]
pub(super) struct Directory {
    claims: BTreeMap<GroupId, Claim>,
    /// Groups whose leader was started again and claims them no more, with the term it led in.
    /// Nobody has claimed them since.
    abandoned: BTreeMap<GroupId, u64>,
}

/// What one node says at one moment.
pub(super) struct Word<'a> {
    pub(super) node: NodeUuid,
    /// The question was sent then: the answer is no older.
    pub(super) asked: Instant,
    pub(super) active: &'a [pb::GroupLead],
    /// The parked ones, unless they are as they were.
    pub(super) parked: Option<&'a [pb::GroupLead]>,
}

impl Directory {
    pub(super) fn claim(&self, group: GroupId) -> Option<Claimed> {
        let claim = self.claims.get(&group)?;
        let Claim { place, term, commit, parked, .. } = *claim;
        Some(Claimed { place, term, commit, parked })
    }

    /// The term in which a group's leader was lost for certain: its process has ended, and a new
    /// one leads nothing of what the old one led.
    pub(super) fn abandoned(&self, group: GroupId) -> Option<u64> {
        self.abandoned.get(&group).copied()
    }

    /// The first word of a process that has taken another one's place.
    pub(super) fn hear_restarted(&mut self, word: &Word<'_>) {
        let lost = self.claims.iter().filter(|(_, claim)| claim.place.node == word.node);
        let lost: Vec<_> = lost.map(|(group, claim)| (*group, claim.term)).collect();
        self.claims.retain(|_, claim| claim.place.node != word.node);
        self.abandoned.extend(lost);
        self.hear(word);
    }

    pub(super) fn hear(&mut self, word: &Word<'_>) {
        let mut led: BTreeSet<GroupId> = BTreeSet::new();
        let parked = word.parked.into_iter().flatten().map(|lead| (lead, true));
        for (lead, parked) in word.active.iter().map(|lead| (lead, false)).chain(parked) {
            led.insert(GroupId(lead.group));
            self.hear_lead(word, lead, parked);
        }
        let parked_is_told = word.parked.is_some();
        self.claims.retain(|group, claim| {
            claim.place.node != word.node
                || led.contains(group)
                || (claim.parked && !parked_is_told)
        });
    }

    fn hear_lead(&mut self, word: &Word<'_>, lead: &pb::GroupLead, parked: bool) {
        let group = GroupId(lead.group);
        self.abandoned.retain(|lost, term| *lost != group || *term > lead.term);
        let known = self.claims.get_mut(&group);
        let claim = match known {
            Some(claim) if claim.term > lead.term => return,
            Some(claim) => claim,
            None => self.claims.entry(group).or_insert_with(|| Claim {
                place: Place { replica: ReplicaId(lead.replica), node: word.node },
                term: lead.term,
                commit: 0,
                parked,
                known: VecDeque::new(),
            }),
        };
        claim.place = Place { replica: ReplicaId(lead.replica), node: word.node };
        claim.term = lead.term;
        claim.commit = lead.commit;
        claim.parked = parked;
        if let Some(age_ms) = lead.quorum_age_ms
            && let Some(at) = word.asked.checked_sub(Duration::from_millis(age_ms.into()))
        {
            claim.known.push_back((lead.commit, at));
            if claim.known.len() > limits::LAG_MOMENTS_MAX {
                claim.known.pop_front();
            }
        }
    }

    /// Drops what a node has claimed that nobody asks any more.
    pub(super) fn forget(&mut self, node: NodeUuid) {
        self.claims.retain(|_, claim| claim.place.node != node);
    }

    /// Drops what was lost of a group that is not hosted here any more.
    pub(super) fn forget_group(&mut self, group: GroupId) {
        self.abandoned.remove(&group);
    }

    /// The time since the last moment at which a replica that has applied everything below
    /// `applied_end` had everything. `None` where no such moment is remembered.
    ///
    /// Moments of earlier leaders count too: what was acknowledged by then is so for ever.
    pub(super) fn lag(&self, group: GroupId, applied_end: u64, now: Instant) -> Option<Duration> {
        let claim = self.claims.get(&group)?;
        let had_all = claim.known.iter().rev().find(|(commit, _)| *commit < applied_end)?;
        Some(now.saturating_duration_since(had_all.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeUuid = NodeUuid(uuid::Uuid::from_u128(1));
    const B: NodeUuid = NodeUuid(uuid::Uuid::from_u128(2));

    fn lead(term: u64, commit: u64) -> pb::GroupLead {
        pb::GroupLead { group: 7, term, replica: term, commit, quorum_age_ms: Some(10) }
    }

    fn active(node: NodeUuid, asked: Instant, active: &[pb::GroupLead]) -> Word<'_> {
        Word { node, asked, active, parked: None }
    }

    #[tokio::test]
    async fn what_a_restarted_node_has_led_is_abandoned_until_somebody_leads_it() {
        let now = Instant::now();
        let mut directory = Directory::default();
        directory.hear(&active(A, now, &[lead(5, 1)]));
        assert_eq!(directory.abandoned(GroupId(7)), None);
        directory.hear_restarted(&active(A, now, &[]));
        assert_eq!((directory.claim(GroupId(7)), directory.abandoned(GroupId(7))), (None, Some(5)));
        directory.hear(&active(A, now, &[]));
        assert_eq!(directory.abandoned(GroupId(7)), Some(5));
        directory.hear(&active(B, now, &[lead(6, 1)]));
        assert_eq!(directory.abandoned(GroupId(7)), None);
        directory.hear(&active(B, now, &[]));
        assert_eq!(
            directory.abandoned(GroupId(7)),
            None,
            "it still runs, and may have handed over"
        );
    }

    #[tokio::test]
    async fn an_old_word_that_comes_late_leaves_abandoned_what_is() {
        let now = Instant::now();
        let mut directory = Directory::default();
        directory.hear(&active(A, now, &[lead(5, 1)]));
        directory.hear_restarted(&active(A, now, &[]));
        directory.hear(&active(B, now, &[lead(4, 1)]));
        assert_eq!(directory.abandoned(GroupId(7)), Some(5));
    }

    #[tokio::test]
    async fn the_claim_of_the_higher_term_stands() {
        let now = Instant::now();
        let mut directory = Directory::default();
        directory.hear(&active(A, now, &[lead(5, 1)]));
        directory.hear(&active(B, now, &[lead(6, 1)]));
        directory.hear(&active(A, now, &[lead(5, 1)]));
        assert_eq!(directory.claim(GroupId(7)).map(|claim| claim.place.node), Some(B));
    }

    #[tokio::test]
    async fn a_node_that_stops_claiming_is_believed() {
        let now = Instant::now();
        let mut directory = Directory::default();
        directory.hear(&active(A, now, &[lead(5, 1)]));
        directory.hear(&active(A, now, &[]));
        assert!(directory.claim(GroupId(7)).is_none());
    }

    #[tokio::test]
    async fn a_parked_group_stays_claimed_while_the_list_is_not_told_again() {
        let now = Instant::now();
        let mut directory = Directory::default();
        let parked = [lead(5, 1)];
        directory.hear(&Word { node: A, asked: now, active: &[], parked: Some(&parked) });
        directory.hear(&active(A, now, &[]));
        assert!(directory.claim(GroupId(7)).is_some_and(|claim| claim.parked));
        directory.hear(&Word { node: A, asked: now, active: &[], parked: Some(&[]) });
        assert!(directory.claim(GroupId(7)).is_none());
    }

    #[tokio::test]
    async fn lag_counts_from_the_last_moment_at_which_nothing_was_missing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut directory = Directory::default();
        directory.hear(&active(A, at(1_000), &[lead(5, 20)]));
        directory.hear(&active(A, at(1_100), &[lead(5, 30)]));
        let lag = |applied_end| directory.lag(GroupId(7), applied_end, at(1_200));
        assert_eq!(lag(31), Some(Duration::from_millis(110)));
        assert_eq!(lag(30), Some(Duration::from_millis(210)));
        assert_eq!(lag(20), None);
    }

    #[tokio::test]
    async fn a_new_leader_does_not_make_what_the_old_one_proved_unknown() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut directory = Directory::default();
        directory.hear(&active(A, at(1_000), &[lead(5, 20)]));
        let unproven = pb::GroupLead { quorum_age_ms: None, ..lead(6, 21) };
        directory.hear(&active(B, at(1_100), &[unproven]));
        let lag = |applied_end| directory.lag(GroupId(7), applied_end, at(1_200));
        assert_eq!(lag(21), Some(Duration::from_millis(210)));
        assert_eq!(lag(20), None);
    }

    #[tokio::test]
    async fn what_a_forgotten_node_claimed_is_forgotten() {
        let now = Instant::now();
        let mut directory = Directory::default();
        let parked = [pb::GroupLead { group: 8, ..lead(5, 1) }];
        let active = [lead(5, 1)];
        directory.hear(&Word { node: A, asked: now, active: &active, parked: Some(&parked) });
        directory.hear(&Word {
            node: B,
            asked: now,
            active: &[pb::GroupLead { group: 9, ..lead(5, 1) }],
            parked: None,
        });
        directory.forget(A);
        let claimed = [7, 8, 9].map(|group| directory.claim(GroupId(group)).is_some());
        assert_eq!(claimed, [false, false, true]);
    }
}
