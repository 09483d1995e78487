//! What the clients of a demo saw, and what the nodes answered afterwards. Data only.
//!
//! Times count from the start of the run.

use std::time::Duration;

use bytes::Bytes;

/// Everything the verdict is computed from.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Every record handed to the producer, in that order.
    pub(crate) sent: Vec<Sent>,
    /// What the consumer got while the cluster was broken, in the order of delivery.
    pub(crate) consumed: Vec<Found>,
    /// What a fresh linearizable read got at the end, in the order of delivery.
    pub(crate) read: Vec<Found>,
    /// What the group's members printed.
    pub(crate) group: GroupHistory,
    /// When which node was killed.
    pub(crate) kill: Option<Kill>,
    /// Nodes that hold a replica of every partition.
    pub(crate) nodes: Vec<u64>,
    /// What each of them said of its replicas at the end.
    pub(crate) replicas: Vec<ReplicaAnswer>,
}

/// What the members of the group printed while nodes and one of themselves were killed.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupHistory {
    /// In the order in which the lines were read, those of one member in its own order.
    pub(crate) reads: Vec<GroupRead>,
    /// The member that was killed.
    pub(crate) killed: Option<usize>,
}

/// One line of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupRead {
    /// From 1.
    pub(crate) member: usize,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

/// A record by what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Unique among the records sent: the event's id.
    pub(crate) id: String,
    pub(crate) key: Bytes,
    /// Value, headers and timestamp, encoded in one way.
    pub(crate) body: Bytes,
}

/// One record handed to the producer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) content: Content,
    pub(crate) outcome: Outcome,
}

/// What became of a record, as the producer's delivery report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acked {
        partition: u32,
        /// `None` where the node no longer knew it: an append retried very late.
        offset: Option<u64>,
        leader_epoch: u64,
        at: Duration,
    },
    /// Nothing happened, for certain.
    Refused(String),
    /// It may have been appended.
    Unknown(String),
}

/// One record where a reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) content: Content,
}

/// The end of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) node: u64,
    /// Taken just BEFORE the signal was sent.
    pub(crate) at: Duration,
    /// The partitions it led, each with its leader epoch then.
    pub(crate) led: Vec<(u32, u64)>,
}

/// One node's answer about one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaAnswer {
    pub(crate) node: u64,
    pub(crate) partition: u32,
    /// The hash is over everything below this offset.
    pub(crate) offset: u64,
    /// Empty where the node didn't know it.
    pub(crate) chain_hash: Bytes,
}
