//! What a run can have done wrong, in words that say whom it hurts.
//!
//! A checker returns the first violation that it finds. [`Violation::kind`] is the short name by
//! which the bug zoo says what it expects; [`Violation::operations`] are the operations of the
//! history that show it.

use std::fmt;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged record is not in the log at the end: it was lost.
    Lost {
        /// Where it was acknowledged.
        place: Place,
        /// The record.
        value: u64,
        /// The append that was acknowledged.
        append: u64,
        /// Label of the node whose log lacks it.
        node: u64,
    },
    /// Two records were seen at one offset: two consumers disagree about the log.
    TwoValuesAtOffset {
        /// The place.
        place: Place,
        /// The records, and the operations that put or saw them there.
        seen: [Seen; 2],
    },
    /// One record was seen at two offsets: a retry was written twice.
    ValueAtTwoOffsets {
        /// The partition.
        partition: u32,
        /// The record.
        value: u64,
        /// Offsets, and the operations that put or saw it there.
        seen: [SeenAt; 2],
    },
    /// No append can have filled this offset, and a later one was acknowledged.
    OffsetMissing {
        /// The hole.
        place: Place,
    },
    /// An append that returned before another was invoked stands behind it.
    AppendsReordered {
        /// The partition.
        partition: u32,
        /// Returned first, stands second.
        first: u64,
        /// Invoked after that, stands first.
        second: u64,
    },
    /// The records of one append do not stand together, or were not seen together.
    TornBatch {
        /// The partition.
        partition: u32,
        /// The append.
        append: u64,
        /// The operation that saw a part.
        operation: u64,
    },
    /// A linearizable read did not see what had been acknowledged or read before it began.
    StaleRead {
        /// The partition.
        partition: u32,
        /// The read.
        read: u64,
        /// Label of the node that answered.
        node: u64,
        /// The end offset it answered.
        end: u64,
        /// The end offset it had to see.
        needed: u64,
        /// The operation that had shown that.
        shown_by: u64,
    },
    /// A read returned a record that nobody had sent by then, or that was refused for good.
    PhantomRead {
        /// The place.
        place: Place,
        /// The record.
        value: u64,
        /// The read.
        read: u64,
        /// What is known of the record.
        why: &'static str,
    },
    /// What a node answered fails its checksum or has a gap.
    DamagedRead {
        /// The read.
        read: u64,
        /// What the client library said.
        reason: String,
    },
    /// A producer that kept all rules was told that a sequence is missing or that it is unknown.
    ProducerRefused {
        /// The append.
        append: u64,
        /// What the node said.
        reason: String,
    },
    /// A group offset was lower than what had been committed or seen before.
    GroupOffsetFell {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// The operation that saw it.
        fetch: u64,
        /// What it saw; `None`: no commit at all.
        seen: Option<u64>,
        /// What it had to see.
        needed: u64,
        /// The operation that had shown that.
        shown_by: u64,
    },
    /// A group offset that nobody had committed by then.
    GroupOffsetFromNowhere {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// The operation that saw it.
        fetch: u64,
        /// What it saw.
        seen: u64,
    },
    /// Two replicas have different logs below one offset.
    ReplicasDiffer {
        /// The place below which they differ.
        place: Place,
        /// Labels of two nodes that differ.
        nodes: [u64; 2],
        /// The operations that looked at them.
        surveys: [u64; 2],
    },
    /// All faults were removed and the cluster did not serve again.
    NotServing {
        /// What was waited for, and how long.
        what: String,
    },
    /// A node stopped by itself, though its disk was fine.
    NodeStopped {
        /// What it said.
        reason: String,
    },
    /// A node asked for a person's help. Nothing that the faults of a run do needs it.
    ErrorLogged {
        /// The line.
        line: String,
    },
    /// The code of a node or of the client library panicked.
    Panicked {
        /// Message and place.
        what: String,
    },
}

/// An offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// A record that an operation put or saw somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The record.
    pub value: u64,
    /// The operation.
    pub operation: u64,
}

/// Where an operation put or saw a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenAt {
    /// The offset.
    pub offset: u64,
    /// The operation.
    pub operation: u64,
}

impl Violation {
    /// A short name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::TwoValuesAtOffset { .. } => "inconsistent",
            Self::ValueAtTwoOffsets { .. } => "duplicated",
            Self::OffsetMissing { .. } => "hole",
            Self::AppendsReordered { .. } => "reordered",
            Self::TornBatch { .. } => "torn-batch",
            Self::StaleRead { .. } => "stale-read",
            Self::PhantomRead { .. } => "phantom",
            Self::DamagedRead { .. } => "damaged-read",
            Self::ProducerRefused { .. } => "producer-refused",
            Self::GroupOffsetFell { .. } => "group-offset-fell",
            Self::GroupOffsetFromNowhere { .. } => "group-offset-from-nowhere",
            Self::ReplicasDiffer { .. } => "replicas-differ",
            Self::NotServing { .. } => "not-serving",
            Self::NodeStopped { .. } => "node-stopped",
            Self::ErrorLogged { .. } => "error-logged",
            Self::Panicked { .. } => "panicked",
        }
    }

    /// The operations of the history that show it.
    pub fn operations(&self) -> Vec<u64> {
        match self {
            Self::Lost { append, .. } | Self::ProducerRefused { append, .. } => vec![*append],
            Self::TwoValuesAtOffset { seen, .. } => {
                seen.iter().map(|seen| seen.operation).collect()
            }
            Self::ValueAtTwoOffsets { seen, .. } => {
                seen.iter().map(|seen| seen.operation).collect()
            }
            Self::AppendsReordered { first, second, .. } => vec![*first, *second],
            Self::TornBatch { append, operation, .. } => vec![*append, *operation],
            Self::StaleRead { read, shown_by, .. } => vec![*shown_by, *read],
            Self::PhantomRead { read, .. } | Self::DamagedRead { read, .. } => vec![*read],
            Self::GroupOffsetFell { fetch, shown_by, .. } => vec![*shown_by, *fetch],
            Self::GroupOffsetFromNowhere { fetch, .. } => vec![*fetch],
            Self::ReplicasDiffer { surveys, .. } => surveys.to_vec(),
            Self::OffsetMissing { .. }
            | Self::NotServing { .. }
            | Self::NodeStopped { .. }
            | Self::ErrorLogged { .. }
            | Self::Panicked { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { place, value, append, node } => write!(
                f,
                "lost: record {value} was acknowledged at {place} (operation {append}), and the \
                 log that node {node} serves at the end does not have it there"
            ),
            Self::TwoValuesAtOffset { place, seen: [a, b] } => write!(
                f,
                "inconsistent: {place} holds record {} for operation {} and record {} for \
                 operation {}",
                a.value, a.operation, b.value, b.operation
            ),
            Self::ValueAtTwoOffsets { partition, value, seen: [a, b] } => write!(
                f,
                "duplicated: record {value} stands in partition {partition} at offset {} \
                 (operation {}) and at offset {} (operation {})",
                a.offset, a.operation, b.offset, b.operation
            ),
            Self::OffsetMissing { place } => write!(
                f,
                "hole: {place} was given to no append, and a later offset was acknowledged"
            ),
            Self::AppendsReordered { partition, first, second } => write!(
                f,
                "reordered: in partition {partition}, append {first} had returned when append \
                 {second} was invoked, and stands behind it"
            ),
            Self::TornBatch { partition, append, operation } => write!(
                f,
                "torn batch: in partition {partition}, operation {operation} saw a part of append \
                 {append}"
            ),
            Self::StaleRead { partition, read, node, end, needed, shown_by } => write!(
                f,
                "stale read: in partition {partition}, node {node} answered end {end} to read \
                 {read}, and operation {shown_by} had shown {needed} before it was invoked"
            ),
            Self::PhantomRead { place, value, read, why } => {
                write!(f, "phantom: read {read} returned record {value} at {place}, {why}")
            }
            Self::DamagedRead { read, reason } => write!(f, "damaged: read {read}: {reason}"),
            Self::ProducerRefused { append, reason } => write!(
                f,
                "producer refused: append {append} kept the rules of idempotence and was told: \
                 {reason}"
            ),
            other => other.fmt_cluster(f),
        }
    }
}

impl Violation {
    /// The rest of `Display`: groups, replicas, nodes.
    fn fmt_cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupOffsetFell { group, partition, fetch, seen, needed, shown_by } => {
                write!(f, "group offset fell: group {group}, partition {partition}: ")?;
                match seen {
                    Some(seen) => write!(f, "operation {fetch} saw {seen}")?,
                    None => write!(f, "operation {fetch} saw no commit")?,
                }
                write!(f, ", and operation {shown_by} had shown {needed} before it was invoked")
            }
            Self::GroupOffsetFromNowhere { group, partition, fetch, seen } => write!(
                f,
                "group offset from nowhere: group {group}, partition {partition}: operation \
                 {fetch} saw {seen}, which nobody had committed"
            ),
            Self::ReplicasDiffer { place, nodes: [a, b], surveys } => write!(
                f,
                "replicas differ: nodes {a} and {b} have different chain hashes below {place} \
                 (operations {} and {})",
                surveys[0], surveys[1]
            ),
            Self::NotServing { what } => {
                write!(f, "not serving: all faults were removed, and {what}")
            }
            Self::NodeStopped { reason } => write!(f, "node stopped: {reason}"),
            Self::ErrorLogged { line } => write!(f, "error logged: {line}"),
            Self::Panicked { what } => write!(f, "panicked: {what}"),
            _ => Ok(()),
        }
    }
}
