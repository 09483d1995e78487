//! One replica of one Raft group, in our own words: propose, read index, members, leadership.
//!
//! Everything outside this folder that needs consensus goes through [`RaftGroup`]; a Raft index
//! leaves it only as a [`RaftPosition`] that callers hand back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use node_core::position::RaftPosition;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::ForwardReason;
use openraft::error::{ClientWriteError, ForwardToLeader, InitializeError, RaftError};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest};
use openraft::{Instant as _, ServerState};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::handover::Hold;
use super::log_store::{GroupLog, LogStore};
use super::machine::Machine;
use super::network::Network;
use super::rounds::{ReadRounds, confirmed_index};
use super::types::{Applied, Command, Raft, ReplicaNode, Reply, Types, WriteResult, term_of};
use crate::limits;

/// Why a proposal or a read index was not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RaftFailure {
    /// Nothing happened: this replica does not lead.
    #[error("this replica does not lead the group")]
    NotLeader { leader: Option<Place> },
    /// Nothing happened: the leader has no fresh word from a majority.
    #[error("the leader has lost touch with the majority")]
    NoQuorum,
    /// Nothing happened: the node's disk does not keep up.
    #[error("this node's disk does not keep up with what is to be written")]
    Busy,
    /// A proposal that may or may not come into effect: leadership was lost meanwhile.
    #[error("leadership was lost while the outcome was open")]
    OutcomeUnknown,
    /// This replica has stopped: it was shut down, or its storage failed.
    #[error("this replica has stopped: {0}")]
    Stopped(String),
}

/// A replica and the node it lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeUuid,
}

/// What a replica does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

/// A replica's view of its group at one moment.
#[derive(Debug, Clone)]
pub(crate) struct GroupStatus {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) leader: Option<Place>,
    /// The vote is for a leader that a majority elected.
    pub(crate) vote_committed: bool,
    pub(crate) last_index: Option<u64>,
    pub(crate) voters: BTreeSet<ReplicaId>,
    pub(crate) members: BTreeMap<ReplicaId, NodeUuid>,
    /// Two configurations are in force: a change of members is under way.
    pub(crate) joint: bool,
    /// The membership in force is committed.
    pub(crate) members_settled: bool,
    /// On the leader: the last index each member is known to have.
    pub(crate) matched: BTreeMap<ReplicaId, Option<u64>>,
}

impl GroupStatus {
    /// All members have everything that the leader has. Asked on the leader.
    pub(crate) fn all_caught_up(&self) -> bool {
        let mut members = self.members.keys();
        members.all(|member| self.matched.get(member).copied().flatten() == self.last_index)
    }
}

/// The little of a [`GroupStatus`] that is looked at all the time; costs no allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brief {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) last_index: Option<u64>,
    pub(crate) committed_index: Option<u64>,
    /// Something of this very term is committed: before that, a new leader does not know yet how
    /// far the one before it had committed.
    pub(crate) committed_in_term: bool,
    pub(crate) quorum_age: Option<Duration>,
    pub(crate) sole_voter: bool,
}

/// Everything needed to run one replica.
pub(super) struct GroupParts {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) config: Arc<openraft::Config>,
    pub(super) log: Arc<GroupLog>,
    pub(super) machine: Machine,
    pub(super) network: Network,
    /// Entries below it are applied and their effects can be read.
    pub(super) applied_end: watch::Receiver<u64>,
    /// A leader whose last word from a majority is older asks again before it takes a write.
    pub(super) quorum_fresh: Duration,
}

/// One replica of one group.
pub(crate) struct RaftGroup {
    group: GroupId,
    replica: ReplicaId,
    raft: Raft,
    log: Arc<GroupLog>,
    applied_end: watch::Receiver<u64>,
    quorum_fresh: Duration,
    hold: Hold,
    rounds: ReadRounds,
}

/// A proposal on its way.
pub(crate) struct Proposed(oneshot::Receiver<WriteResult>);

impl Proposed {
    /// What applying it answered, and where it stands in the log.
    pub(crate) async fn outcome(self) -> Result<(Applied, RaftPosition), RaftFailure> {
        match self.0.await {
            Ok(Ok(response)) => {
                let term = term_of(&response.log_id);
                Ok((response.data, RaftPosition { term, index: response.log_id.index() }))
            }
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(failure_of(forward)),
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(RaftFailure::OutcomeUnknown),
            Ok(Err(other)) => Err(RaftFailure::Stopped(other.to_string())),
            // The core is gone; whether the entry reached a majority nobody here knows.
            Err(_) => Err(RaftFailure::OutcomeUnknown),
        }
    }
}

pub(super) fn failure_of(forward: ForwardToLeader<Types>) -> RaftFailure {
    match forward.reason {
        ForwardReason::LeaseExpired => RaftFailure::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            let leader = forward.leader_id.zip(forward.leader_node);
            let leader = leader.map(|(replica, node)| Place {
                replica: ReplicaId(replica),
                node: NodeUuid(node.uuid),
            });
            RaftFailure::NotLeader { leader }
        }
    }
}

pub(super) fn stopped(error: impl std::fmt::Display) -> RaftFailure {
    RaftFailure::Stopped(error.to_string())
}

impl RaftGroup {
    pub(super) async fn open(parts: GroupParts) -> Result<Self, RaftFailure> {
        let GroupParts { group, replica, config, log, machine, network, .. } = parts;
        let (applied_end, quorum_fresh) = (parts.applied_end, parts.quorum_fresh);
        let store = LogStore(log.clone());
        // Of its own, since the group outlives the call that made it.
        let span = tracing::info_span!(parent: None, "raft", %group, %replica);
        let raft = Raft::new(replica.0, config, network, store, machine).instrument(span).await;
        let raft = raft.map_err(stopped)?;
        let (hold, rounds) = (Hold::default(), ReadRounds::default());
        Ok(Self { group, replica, raft, log, applied_end, quorum_fresh, hold, rounds })
    }

    /// Names a replica in calls to its node.
    pub(crate) fn target(
        cluster_id: uuid::Uuid,
        group: GroupId,
        replica: ReplicaId,
    ) -> quipu_proto::peer::v1::Target {
        super::wire::target(cluster_id, group, replica)
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    pub(crate) fn log(&self) -> &Arc<GroupLog> {
        &self.log
    }

    /// Gives a new group its first members. Every founder may be told; it counts once.
    pub(crate) async fn initialize(
        &self,
        founders: BTreeMap<ReplicaId, ReplicaNode>,
    ) -> Result<(), RaftFailure> {
        let founders: BTreeMap<u64, ReplicaNode> =
            founders.into_iter().map(|(replica, node)| (replica.0, node)).collect();
        match self.raft.initialize(founders).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(stopped(error)),
        }
    }

    /// Whether the group has members yet, as far as this replica knows.
    pub(crate) async fn is_initialized(&self) -> bool {
        let has_members = {
            let metrics = self.raft.metrics();
            metrics.borrow_watched().membership_config.nodes().next().is_some()
        };
        has_members || self.raft.is_initialized().await.unwrap_or(true)
    }

    /// Hands a command to the leader's log. Refused at once on a replica that does not lead.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Proposed, RaftFailure> {
        let (reply, receiver) = Reply::pair();
        self.raft.client_write_ff(Command(command), Some(reply)).await.map_err(stopped)?;
        Ok(Proposed(receiver))
    }

    /// Proposes and waits, at most until `deadline`.
    pub(crate) async fn execute(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<(Applied, RaftPosition), RaftFailure> {
        self.ensure_writable(deadline).await?;
        match tokio::time::timeout_at(deadline, self.log.room()).await {
            Ok(room) => room.map_err(stopped)?,
            Err(_) => return Err(RaftFailure::Busy),
        }
        let proposed = self.propose(command).await?;
        match tokio::time::timeout_at(deadline, proposed.outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RaftFailure::OutcomeUnknown),
        }
    }

    /// Makes sure that the leader has fresh word from a majority, as openraft wants before it
    /// takes a write. A parked leader has none until it has asked.
    pub(crate) async fn ensure_writable(&self, deadline: Instant) -> Result<(), RaftFailure> {
        self.hold.passed().await;
        loop {
            let brief = self.brief();
            match brief.role {
                Role::Leader => {}
                Role::Stopped => return Err(stopped("the group's core has ended")),
                Role::Follower | Role::Candidate | Role::Learner => {
                    return Err(RaftFailure::NotLeader { leader: self.status().leader });
                }
            }
            let fresh = brief.quorum_age.is_some_and(|age| age < self.quorum_fresh);
            if fresh || brief.sole_voter {
                return Ok(());
            }
            self.raft.trigger().heartbeat().await.map_err(stopped)?;
            let mut metrics = self.raft.server_metrics();
            let wait = limits::QUORUM_POLL.min(deadline.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                return Err(RaftFailure::NoQuorum);
            }
            drop(tokio::time::timeout(wait, metrics.changed()).await);
            let acked = self.brief().quorum_age;
            if acked.is_none_or(|age| age >= self.quorum_fresh) {
                tokio::time::sleep(limits::QUORUM_POLL.min(wait)).await;
            }
        }
    }

    /// Up to where a replica must have applied so that a read sees all that was acknowledged
    /// before this call (Raft dissertation, section 6.4). Asked on the leader, which makes sure of
    /// its leadership with a round of heartbeats.
    pub(crate) async fn read_index(&self) -> Result<RaftPosition, RaftFailure> {
        #[cfg(quipu_zoo)]
        if let Some(planted) = self.planted_read_index().await {
            return planted;
        }
        let raft = self.raft.clone();
        self.rounds.join(None, || confirmed_index(raft)).await
    }

    /// The read index as `ask` gets it from `leader`; readers who come meanwhile share the next
    /// question.
    pub(crate) async fn read_index_of<A>(
        &self,
        leader: Place,
        ask: impl FnOnce() -> A,
    ) -> Result<RaftPosition, RaftFailure>
    where
        A: Future<Output = Result<RaftPosition, RaftFailure>> + Send + 'static,
    {
        self.rounds.join(Some(leader), ask).await
    }

    /// Waits until everything up to and with `position` is applied here.
    pub(crate) async fn wait_applied(
        &self,
        position: RaftPosition,
        deadline: Instant,
    ) -> Result<(), RaftFailure> {
        let mut applied_end = self.applied_end.clone();
        let reached = applied_end.wait_for(|end| *end > position.index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped("the group's machine has ended")),
            Err(_) => Err(RaftFailure::NoQuorum),
        }
    }

    /// Entries below it are applied here.
    pub(crate) fn applied_end(&self) -> watch::Receiver<u64> {
        self.applied_end.clone()
    }

    /// The nodes of the members, with the addresses they had when they became members.
    pub(crate) fn member_nodes(&self) -> Vec<ReplicaNode> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(_, node)| node.clone()).collect()
    }

    pub(crate) fn brief(&self) -> Brief {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Brief {
            role: role_of(&metrics),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            committed_index: metrics.local_committed.map(|id| id.index()),
            committed_in_term: metrics
                .local_committed
                .is_some_and(|id| term_of(&id) == metrics.current_term),
            quorum_age: metrics.last_quorum_acked.map(|at| at.elapsed()),
            sole_voter: metrics.membership_config.voter_ids().nth(1).is_none(),
        }
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let role = role_of(&metrics);
        let membership = metrics.membership_config.membership();
        let members: BTreeMap<ReplicaId, NodeUuid> = membership
            .nodes()
            .map(|(replica, node)| (ReplicaId(*replica), NodeUuid(node.uuid)))
            .collect();
        let leader = metrics.current_leader.map(ReplicaId);
        let leader = leader
            .and_then(|replica| members.get(&replica).map(|node| Place { replica, node: *node }));
        let replication = metrics.replication.iter().flatten();
        let matched = replication
            .map(|(replica, at)| (ReplicaId(*replica), at.as_ref().map(|id| id.index())))
            .collect();
        let committed_members = metrics.committed_membership_config.log_id();
        GroupStatus {
            role,
            term: metrics.current_term,
            leader,
            vote_committed: metrics.vote.committed,
            last_index: metrics.last_log_index,
            voters: membership.voter_ids().map(ReplicaId).collect(),
            joint: membership.get_joint_config().len() > 1,
            members_settled: committed_members == metrics.membership_config.log_id(),
            members,
            matched,
        }
    }

    /// Lets the group's own timers run, or stops them: a parked group has none.
    pub(crate) fn set_timers(&self, on: bool) {
        self.raft.runtime_config().tick(on);
    }

    /// Calls an election, unless others would see no reason for one (pre-vote).
    pub(crate) async fn elect(&self) {
        drop(self.raft.trigger().elect(true).await);
    }

    /// Calls an election over a leader that is known to be dead, although its lease may not have
    /// run out. Voters take it as a transfer of leadership. Safe, since reads never trust leases;
    /// needless elections are what it must be used sparingly for.
    pub(crate) async fn take_over(&self) {
        let request = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let is_voter =
                metrics.membership_config.voter_ids().any(|voter| voter == self.replica.0);
            if metrics.state == ServerState::Leader || !is_voter {
                return;
            }
            let vote = metrics.vote;
            vote.committed.then(|| TransferLeaderRequest::new(vote, self.replica.0, None))
        };
        let handed = match request {
            Some(request) => self.raft.handle_transfer_leader(request).await,
            // An attempt came to nothing. Whoever asks first burns no term by asking again: a
            // replica with the shorter log would else keep the term from the one that can win.
            None => return self.elect().await,
        };
        match handed {
            Ok(Ok(())) => {}
            Ok(Err(refused @ TransferLeaderError::LogNotFlushed { .. })) => {
                tracing::info!(group = %self.group, %refused, "takes over by an election");
                drop(self.raft.trigger().elect(false).await);
            }
            // Somebody else was elected meanwhile, or is about to be: ask before disturbing it.
            Ok(Err(TransferLeaderError::VoteChanged { .. })) => self.elect().await,
            Err(fatal) => tracing::warn!(group = %self.group, %fatal, "can't take over"),
        }
    }

    /// Adds a member that does not vote yet.
    pub(crate) async fn add_learner(
        &self,
        replica: ReplicaId,
        node: ReplicaNode,
    ) -> Result<(), RaftFailure> {
        changed_in_time(self.raft.add_learner(replica.0, node, false)).await
    }

    /// Makes `voters` the voters. Members that are neither voters nor in `learners` leave.
    pub(crate) async fn set_voters(
        &self,
        voters: BTreeSet<ReplicaId>,
        retain: bool,
    ) -> Result<(), RaftFailure> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|replica| replica.0).collect();
        changed_in_time(self.raft.change_membership(voters, retain)).await
    }

    /// Removes members that do not vote.
    pub(crate) async fn remove_learners(
        &self,
        learners: BTreeSet<ReplicaId>,
    ) -> Result<(), RaftFailure> {
        let learners: BTreeSet<u64> = learners.into_iter().map(|replica| replica.0).collect();
        let change = openraft::ChangeMembers::RemoveNodes(learners);
        changed_in_time(self.raft.change_membership(change, true)).await
    }

    /// Has openraft take the machine's checkpoint as its snapshot, and purge the log up to it.
    pub(crate) async fn snapshot(&self) {
        drop(self.raft.trigger().snapshot().await);
    }

    /// Ends this replica's tasks. Its data stays, and nothing more is written to it.
    pub(crate) async fn shutdown(&self) {
        drop(self.raft.shutdown().await);
        // What applies entries may be at work still.
        self.log.close();
    }
}

/// A change of members that no majority takes would be waited for without end, and whoever waits
/// has other groups to look after. What was begun is seen and finished in a later round.
async fn changed_in_time<T>(
    change: impl Future<Output = Result<T, RaftError<Types, ClientWriteError<Types>>>>,
) -> Result<(), RaftFailure> {
    match tokio::time::timeout(limits::PROPOSAL_MAX, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
            Err(failure_of(forward))
        }
        Ok(Err(error)) => Err(stopped(error)),
        Err(_) => Err(RaftFailure::OutcomeUnknown),
    }
}

pub(super) fn role_of(metrics: &openraft::RaftMetrics<Types>) -> Role {
    match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
        (_, ServerState::Leader) => Role::Leader,
        (_, ServerState::Follower) => Role::Follower,
        (_, ServerState::Candidate) => Role::Candidate,
        (_, ServerState::Learner) => Role::Learner,
    }
}
