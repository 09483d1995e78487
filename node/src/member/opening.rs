//! Opens the replicas of this node, each in a task of its own, until it is open or not wanted.
//!
//! A replica whose stored state is damaged is repaired with the entries of others. While it can't
//! be, it stays closed and is tried again later and later; no other replica waits for it. If what
//! its disk has can't be trusted (a vote, applied state, an entry that nobody gives), and a leader
//! proves that a majority does without it, it gets a new replica id: what it voted for and what it
//! had is given up, and it comes back as a learner that the others catch up. Without that proof it
//! may hold the only copy of something, so it stays closed, loudly.

use std::sync::Arc;
use std::time::Duration;

use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use node_core::metadata::{MetadataCommand, MetadataOutcome};
use quipu_proto::peer::v1 as pb;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::Member;
use super::hosted::{Hosted, HostedKind};
use super::registry::ToOpen;
use super::replica::{OpenFailure, Replica};
use crate::limits;
use crate::peer::{PeerError, UNREADABLE};
use crate::raft::{RaftGroup, Role, Unrepaired};

/// How many replicas are opened at once.
pub(super) struct Lanes {
    /// By what the disk has.
    first: Semaphore,
    /// With what other nodes have.
    again: Semaphore,
}

/// What was tried so far.
struct Tried {
    /// Attempts that failed.
    attempts: u32,
    failure: OpenFailure,
}

/// What came of replacing a replica that is lost.
enum Replaced {
    /// Its node shall have this one now.
    By(Hosted),
    /// The metadata has another one for this node, which `reconcile` will make.
    ByAnother,
    NotYet,
}

impl Default for Lanes {
    fn default() -> Self {
        let first = Semaphore::new(limits::OPENINGS_MAX);
        Self { first, again: Semaphore::new(limits::REPAIRING_OPENINGS_MAX) }
    }
}

impl Member {
    /// Begins to open a replica; an open one of the group is closed before. The answer ends when
    /// it is open, or has failed to with what others have of it.
    pub(super) async fn begin_opening(self: &Arc<Self>, hosted: Hosted) -> oneshot::Receiver<()> {
        self.open_later(hosted, None).await
    }

    async fn open_later(
        self: &Arc<Self>,
        hosted: Hosted,
        tried: Option<Tried>,
    ) -> oneshot::Receiver<()> {
        let (opened, answer) = oneshot::channel();
        if let Some(to_open) = self.registry.to_open(hosted).await {
            let (member, ended) = (self.clone(), to_open.ended.clone().drop_guard());
            let given_up = to_open.given_up.clone();
            self.spawn(async move {
                let _ended = ended;
                tokio::select! {
                    biased;
                    () = given_up.cancelled() => {}
                    () = member.keep_opening(to_open, tried, opened) => {}
                }
            });
        }
        answer
    }

    /// Opens again what has ended by itself, because it could not read what it needed.
    pub(super) async fn reopen_what_stopped(self: &Arc<Self>) {
        for replica in self.registry.all() {
            let stopped = replica.raft().brief().role == Role::Stopped;
            if !stopped || self.ground.writer.failure().is_some() {
                continue;
            }
            let tried = tried_by(&replica);
            let group = replica.hosted().group;
            tracing::warn!(%group, failure = %tried.failure, "a replica has ended; opened again");
            drop(self.open_later(replica.hosted().clone(), Some(tried)).await);
        }
    }

    async fn keep_opening(
        &self,
        to_open: ToOpen,
        mut tried: Option<Tried>,
        opened: oneshot::Sender<()>,
    ) {
        let mut opened = Some(opened);
        let mut hosted = to_open.hosted;
        if let Some(after) = to_open.after {
            after.cancelled().await;
        }
        loop {
            if let Some(before) = &tried {
                if before.attempts >= 2 {
                    opened = None;
                }
                match self.replace_if_lost(&hosted, before).await {
                    Replaced::By(new) => {
                        if !self.registry.becomes(&hosted, &new) {
                            return;
                        }
                        self.ground.metrics.opening.replaced.inc();
                        (hosted, tried) = (new, None);
                        continue;
                    }
                    // Opened now it would be one too many on this node.
                    Replaced::ByAnother => return std::future::pending().await,
                    Replaced::NotYet => {}
                }
                tokio::time::sleep(pause_after(before.attempts, crate::env::random_u64())).await;
            }
            let attempts = tried.as_ref().map_or(0, |tried| tried.attempts).saturating_add(1);
            let Err(failure) = self.try_to_open(&hosted, attempts).await else { break };
            if matches!(failure, OpenFailure::NotWanted) {
                self.registry.drop_closed(&hosted);
                return;
            }
            self.note_failure(&hosted, attempts, &failure);
            tried = Some(Tried { attempts, failure });
        }
        drop(opened);
        // Founders elect their leaders without waiting for the next round.
        self.reconcile_now.notify_one();
    }

    /// The first attempt asks no other node, so that what is whole does not wait for what is not.
    async fn try_to_open(&self, hosted: &Hosted, attempt: u32) -> Result<(), OpenFailure> {
        let repairs = attempt > 1;
        let lane = if repairs { &self.lanes.again } else { &self.lanes.first };
        let _turn = lane.acquire().await;
        self.ground.metrics.opening.attempts.inc();
        let opening = async {
            let hosted = self.registry.prepare(hosted.clone()).await?;
            self.registry.open(hosted, attempt, repairs).await
        };
        let opened = tokio::time::timeout(limits::OPEN_ATTEMPT_MAX, opening).await;
        let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        opened.unwrap_or_else(late).inspect(|()| {
            let (group, replica) = (hosted.group, hosted.replica);
            tracing::info!(%group, %replica, attempt, "a replica is open");
        })
    }

    fn note_failure(&self, hosted: &Hosted, attempt: u32, failure: &OpenFailure) {
        self.ground.metrics.opening.failures.inc();
        self.registry.note_failure(hosted, attempt, failure);
        let (group, replica) = (hosted.group, hosted.replica);
        tracing::warn!(%group, %replica, attempt, %failure, "a replica did not open");
    }

    /// Gives up a replica that can't be trusted, where its group does without it.
    async fn replace_if_lost(&self, hosted: &Hosted, tried: &Tried) -> Replaced {
        if tried.attempts < limits::OPEN_ATTEMPTS_MIN || !tried.failure.is_damage() {
            return Replaced::NotYet;
        }
        let (group, lost, node) = (hosted.group, hosted.replica, self.ground.me);
        let failure = &tried.failure;
        if !self.majority_is_proven(group).await {
            stays_closed(
                hosted,
                tried,
                "no leader of its group proves that a majority does without it, so it may hold \
                 the only copy of something",
            );
            return Replaced::NotYet;
        }
        if let OpenFailure::Damaged(Unrepaired { index, .. }) = failure
            && self.leader_lost_it_too(group, *index).await
        {
            stays_closed(
                hosted,
                tried,
                "its leader's copy of the entry is damaged too, and of others this one may have \
                 the only whole copy",
            );
            return Replaced::NotYet;
        }
        let command = MetadataCommand::ReplaceReplica { group, lost, node };
        match self.propose(command, Instant::now() + limits::PROPOSAL_MAX).await {
            Ok(MetadataOutcome::ReplicaReplaced { new }) => {
                tracing::warn!(
                    %group, replica = %lost, %new, %failure,
                    "a damaged replica is given up; a new one is caught up by the others"
                );
                self.reconcile_now.notify_one();
                // The metadata that would say so is the very thing that is lost.
                match hosted.kind {
                    HostedKind::Metadata => Replaced::By(Hosted {
                        replica: new,
                        founders: Vec::new(),
                        ..hosted.clone()
                    }),
                    HostedKind::Coordinator | HostedKind::Partition { .. } => Replaced::ByAnother,
                }
            }
            other => {
                tracing::warn!(%group, replica = %lost, ?other, "a damaged replica is kept");
                Replaced::NotYet
            }
        }
    }

    /// The group's leader has a majority at this moment. This node's replica is closed, so it is
    /// not one of them.
    async fn majority_is_proven(&self, group: GroupId) -> bool {
        let Some((leader, _)) = self.leader_of(group) else { return false };
        let Some(link) = self.ground.peers.get(leader.node) else { return false };
        let target = RaftGroup::target(self.cluster_id.0, group, leader.replica);
        let request = pb::ReadIndexRequest { target: Some(target) };
        link.read_index(request, limits::READ_INDEX_MAX).await.is_ok()
    }

    /// Then a new replica could not be caught up.
    async fn leader_lost_it_too(&self, group: GroupId, index: u64) -> bool {
        let leader = self.leader_of(group).and_then(|(place, _)| self.ground.peers.get(place.node));
        let Some(link) = leader else { return true };
        // The node knows which replica it has.
        let target = RaftGroup::target(self.cluster_id.0, group, ReplicaId(0));
        let request = pb::ReadEntryRequest { target: Some(target), index };
        match link.read_entry(request, limits::READ_INDEX_MAX).await {
            Ok(_) => false,
            Err(PeerError::Refused { code, .. }) => code == UNREADABLE,
            Err(PeerError::Unreachable { .. } | PeerError::TimedOut { .. }) => true,
        }
    }

    /// The nodes that a closed replica knows: those who may have its entries.
    pub(super) fn know_founders(&self, hosted: &Hosted) {
        for (_, node) in &hosted.founders {
            let uuid = NodeUuid(node.uuid);
            if uuid != self.ground.me && self.ground.peers.get(uuid).is_none() {
                self.ground.peers.set_address(uuid, &node.address);
            }
        }
    }
}

/// A replica that has ended by itself counts as one more attempt, if it did not last.
fn tried_by(replica: &Replica) -> Tried {
    let failure = match replica.raft().log().unrepaired() {
        Some(damaged) => OpenFailure::Damaged(damaged),
        None => std::io::Error::other("it has ended by itself").into(),
    };
    let lasted = replica.pulse().age() >= limits::OPEN_LASTS;
    // With repair from the start: an attempt without would end in the same way.
    Tried { attempts: if lasted { 1 } else { replica.attempts().max(1) }, failure }
}

/// Asks a person to act only once it has lasted: a leader may just be missing.
fn stays_closed(hosted: &Hosted, tried: &Tried, why: &str) {
    let (group, replica, failure) = (hosted.group, hosted.replica, &tried.failure);
    if tried.attempts < limits::OPEN_ATTEMPTS_ALARM {
        tracing::warn!(%group, %replica, %failure, why, "a damaged replica stays closed");
    } else {
        tracing::error!(%group, %replica, %failure, why, "a damaged replica stays closed");
    }
}

/// The pause after as many attempts failed: none before the first that asks other nodes, then
/// doubling from [`limits::OPEN_PAUSE_MIN`] to [`limits::OPEN_PAUSE_MAX`], of which `random`
/// decides the second half, so that replicas that failed together are not tried together.
fn pause_after(attempts: u32, random: u64) -> Duration {
    let Some(doublings) = attempts.checked_sub(2) else { return Duration::ZERO };
    let longest = limits::OPEN_PAUSE_MIN
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(limits::OPEN_PAUSE_MAX);
    let half_ms = u64::try_from(longest.as_millis() / 2).unwrap_or(u64::MAX);
    longest / 2 + Duration::from_millis(random % half_ms.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_a_minute_and_differ() {
        let longest = |attempts| {
            (0..1_000).map(|random| pause_after(attempts, random * 7_919)).max().expect("some")
        };
        let seconds = |attempts| longest(attempts).as_secs_f64().ceil();
        assert_eq!((0..=1).map(seconds).collect::<Vec<_>>(), [0.0, 0.0]);
        let doubling: Vec<f64> = (2..=10).map(seconds).collect();
        assert_eq!(doubling, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert!(pause_after(u32::MAX, u64::MAX) <= limits::OPEN_PAUSE_MAX);
        assert!(pause_after(2, 0) >= limits::OPEN_PAUSE_MIN / 2);
        assert_ne!(pause_after(5, 1), pause_after(5, 2));
    }
}
