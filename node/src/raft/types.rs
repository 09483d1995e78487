//! The one type configuration of all Raft groups, and its aliases. Not seen outside this folder.

use std::fmt;

use bytes::Bytes;
use node_core::groups::GroupOutcome;
use node_core::metadata::MetadataOutcome;
use node_core::partition::BatchOutcome;
use openraft::OptionalSend;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::runtime::Runtime;

/// Every group has this one configuration; what differs is the machine behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

// By hand, since openraft's macro has no way to name another responder.
impl openraft::RaftTypeConfig for Types {
    type D = Command;
    type R = Applied;
    type NodeId = u64;
    type Node = ReplicaNode;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, ReplicaNode>;
    type Entry = openraft::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type CommittedLeaderId =
    <leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;
pub(super) type LogId = openraft::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::alias::VoteOf<Types>;
pub(super) type Entry = openraft::alias::EntryOf<Types>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(super) type Membership = openraft::Membership<u64, ReplicaNode>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = openraft::alias::SnapshotOf<Types, Bytes>;
pub(super) type WriteResult = openraft::raft::ClientWriteResult<Types>;
pub(super) type Raft = openraft::Raft<Types, super::machine::Machine>;

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(super) fn term_of(log_id: &LogId) -> u64 {
    **log_id.committed_leader_id()
}

/// An encoded command of one of the machines; see docs/formats/commands.md.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A blank or membership entry.
    Nothing,
    /// One outcome for each batch of an append.
    Batches(Vec<BatchOutcome>),
    /// The log start was moved, or not.
    StartAdvanced(bool),
    /// Of a coordinator group.
    Group(GroupOutcome),
    /// Of the metadata group.
    Metadata(MetadataOutcome),
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a replica lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplicaNode {
    /// The node's identity.
    pub(crate) uuid: Uuid,
    /// Its address when the membership was written: used only while the directory of nodes has
    /// none.
    pub(crate) address: String,
}

impl fmt::Display for ReplicaNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.uuid, self.address)
    }
}

/// Answers a proposal. Unlike openraft's own it is silent when nobody waits any more, which is
/// ordinary here: the caller's deadline passed.
pub(crate) struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    pub(super) fn pair() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        drop(self.0.send(result));
    }
}
