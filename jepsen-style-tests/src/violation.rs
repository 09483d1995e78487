//! What a run can have done wrong, in words that say whom it hurts.
//!
//! A checker returns the first violation that it finds. [`Violation::kind`] is the short name by
//! which the bug zoo says what it expects; [`Violation::operations`] are the operations of the
//! history that show it.

mod words;

pub use crate::checkers::raft_safety::RaftViolation;

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
        /// The survey that lacks it.
        survey: u64,
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
    /// A record that a reader was given is not in the log at the end: it was not committed, or it
    /// was lost.
    SeenThenGone {
        /// Where it was seen.
        place: Place,
        /// The record.
        value: u64,
        /// Who was given it.
        read: u64,
        /// The survey that lacks it.
        survey: u64,
        /// Label of the node whose log lacks it.
        node: u64,
    },
    /// No append can have filled this offset, and something shows that it was filled.
    OffsetMissing {
        /// The hole.
        place: Place,
        /// The operation that shows it.
        shown_by: u64,
    },
    /// Two batches stand on one offset, though nobody saw both records there.
    BatchesOverlap {
        /// The partition.
        partition: u32,
        /// The appends.
        appends: [u64; 2],
        /// The operations that show where they stand.
        shown_by: [u64; 2],
    },
    /// An append was accepted though the end was not the one that was its condition.
    ConditionIgnored {
        /// The partition.
        partition: u32,
        /// The append.
        append: u64,
        /// The end that was its condition.
        expected: u64,
        /// Where it stands.
        found: u64,
        /// The operation that shows where it stands.
        shown_by: u64,
    },
    /// An append was refused because of its condition, and told the end that it had expected.
    ConditionHeld {
        /// The partition.
        partition: u32,
        /// The append.
        append: u64,
        /// The end it expected, and was told.
        end: u64,
    },
    /// Two attempts at one batch of a producer were acknowledged at two offsets.
    RetryMoved {
        /// The partition.
        partition: u32,
        /// The attempts and the offsets they were told.
        told: [SeenAt; 2],
    },
    /// Batches of one producer stand in another order than their sequences.
    SequencesReordered {
        /// The partition.
        partition: u32,
        /// Lower sequence, stands second.
        first: u64,
        /// Higher sequence, stands first.
        second: u64,
    },
    /// An older session of a producer was accepted after a newer one.
    ZombieAccepted {
        /// The partition.
        partition: u32,
        /// Of the newer session, acknowledged first.
        newer: u64,
        /// Of the older session, begun after that and acknowledged.
        zombie: u64,
    },
    /// An append that returned before another was invoked stands behind it.
    AppendsReordered {
        /// The partition.
        partition: u32,
        /// Returned first, stands second.
        first: u64,
        /// Invoked after that, stands first.
        second: u64,
        /// The operations that show where the two stand.
        shown_by: [u64; 2],
    },
    /// A read answered an end that takes in an append that began only after the read had returned.
    EndFromFuture {
        /// The partition.
        partition: u32,
        /// The read.
        read: u64,
        /// The end it answered.
        end: u64,
        /// The append below that end.
        append: u64,
        /// The operation that shows where the append stands.
        shown_by: u64,
    },
    /// The records of one append do not stand together, or were not seen together.
    TornBatch {
        /// The partition.
        partition: u32,
        /// The append.
        append: u64,
        /// The operation that saw a part.
        operation: u64,
        /// The operation that shows where the append stands.
        shown_by: u64,
    },
    /// A linearizable read did not see what had been acknowledged or read before it began.
    StaleRead {
        /// The partition.
        partition: u32,
        /// The read.
        read: u64,
        /// Label of the node that answered; none if it could be any.
        node: Option<u64>,
        /// The end offset it answered.
        end: u64,
        /// The end offset it had to see.
        needed: u64,
        /// The operation that had shown that.
        shown_by: u64,
    },
    /// A node showed less of its applied log than it had shown before.
    AppliedFell {
        /// The partition.
        partition: u32,
        /// Label of the node.
        node: u64,
        /// The read.
        read: u64,
        /// The end offset it answered.
        end: u64,
        /// The end offset that the node had shown.
        needed: u64,
        /// The operation that had shown that.
        shown_by: u64,
    },
    /// A read was staler than was allowed or told.
    TooStale {
        /// The partition.
        partition: u32,
        /// The read.
        read: u64,
        /// The end offset it answered.
        end: u64,
        /// How old that could be, milliseconds.
        staleness_ms: u64,
        /// The end offset of the append.
        needed: u64,
        /// The append, acknowledged longer ago than that.
        append: u64,
    },
    /// A consumer was not given a record, or was given one twice.
    PollJumped {
        /// The consumer.
        consumer: String,
        /// Where it was.
        place: Place,
        /// The offset it was given instead.
        found: u64,
        /// The poll or seek that left it there.
        before: u64,
        /// The poll.
        poll: u64,
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
        /// The append that sent it, if there is one.
        append: Option<u64>,
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
    /// A commit that would have gone back was accepted, or one that would not was refused.
    CommitMisjudged {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// The commit.
        commit: u64,
        /// The operation that shows the offset in force.
        shown_by: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// No order of commits and fetches explains what they were told.
    GroupOffsetDisorder {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// Operations about one commit and another, each in force when the other was.
        operations: Vec<u64>,
    },
    /// Two members committed for one partition by turns, in no later generation.
    TwoOwners {
        /// The group.
        group: String,
        /// The partition.
        partition: u32,
        /// The commits.
        commits: [u64; 2],
    },
    /// No member of a group was given an acknowledged record.
    NeverDelivered {
        /// The group.
        group: String,
        /// Where the record stands.
        place: Place,
        /// The record.
        value: u64,
        /// The operation that was told so.
        append: u64,
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
    /// Two replicas hold different bytes for a batch.
    BatchesDiffer {
        /// Where the batch begins on the first of them.
        place: Place,
        /// Labels of two nodes that differ.
        nodes: [u64; 2],
        /// The operations that looked at them.
        surveys: [u64; 2],
    },
    /// What Raft promises was broken; seen from inside the nodes.
    Raft(RaftViolation),
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
            Self::SeenThenGone { .. } => "unread",
            Self::OffsetMissing { .. } => "hole",
            Self::BatchesOverlap { .. } => "overlap",
            Self::ConditionIgnored { .. } => "condition-ignored",
            Self::ConditionHeld { .. } => "condition-held",
            Self::RetryMoved { .. } => "retry-moved",
            Self::SequencesReordered { .. } => "sequences-reordered",
            Self::ZombieAccepted { .. } => "zombie-accepted",
            Self::EndFromFuture { .. } => "future-end",
            Self::AppliedFell { .. } => "applied-fell",
            Self::TooStale { .. } => "too-stale",
            Self::PollJumped { .. } => "poll-jumped",
            Self::CommitMisjudged { .. } => "commit-misjudged",
            Self::GroupOffsetDisorder { .. } => "group-offset-disorder",
            Self::TwoOwners { .. } => "two-owners",
            Self::NeverDelivered { .. } => "never-delivered",
            Self::BatchesDiffer { .. } => "batches-differ",
            Self::Raft(violation) => violation.kind(),
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

    /// The operations of the history that show it: these alone break the promise.
    pub fn operations(&self) -> Vec<u64> {
        match self {
            Self::Lost { append, survey, .. } => vec![*append, *survey],
            Self::ProducerRefused { append, .. } | Self::ConditionHeld { append, .. } => {
                vec![*append]
            }
            Self::SeenThenGone { read, survey, .. } => vec![*read, *survey],
            Self::TwoValuesAtOffset { seen, .. } => distinct(seen.map(|seen| seen.operation)),
            Self::ValueAtTwoOffsets { seen, .. } | Self::RetryMoved { told: seen, .. } => {
                distinct(seen.map(|seen| seen.operation))
            }
            Self::OffsetMissing { shown_by, .. } => vec![*shown_by],
            Self::BatchesOverlap { appends: [a, b], shown_by: [c, d], .. } => {
                distinct([*a, *b, *c, *d])
            }
            Self::ConditionIgnored { append, shown_by, .. } => distinct([*append, *shown_by]),
            Self::AppendsReordered { first, second, shown_by, .. } => {
                distinct([*first, *second, shown_by[0], shown_by[1]])
            }
            Self::SequencesReordered { first, second, .. } => vec![*first, *second],
            Self::ZombieAccepted { newer, zombie, .. } => vec![*newer, *zombie],
            Self::TornBatch { append, operation, shown_by, .. } => {
                distinct([*append, *operation, *shown_by])
            }
            Self::EndFromFuture { read, append, shown_by, .. } => {
                distinct([*read, *append, *shown_by])
            }
            Self::StaleRead { read, shown_by, .. } | Self::AppliedFell { read, shown_by, .. } => {
                vec![*shown_by, *read]
            }
            Self::TooStale { read, append, .. } => vec![*append, *read],
            Self::PollJumped { before, poll, .. } => vec![*before, *poll],
            Self::PhantomRead { read, append, .. } => {
                append.iter().copied().chain([*read]).collect()
            }
            Self::DamagedRead { read, .. } => vec![*read],
            Self::GroupOffsetFell { fetch, shown_by, .. } => vec![*shown_by, *fetch],
            Self::GroupOffsetFromNowhere { fetch, .. } => vec![*fetch],
            Self::CommitMisjudged { commit, shown_by, .. } => distinct([*shown_by, *commit]),
            Self::GroupOffsetDisorder { operations, .. } => operations.clone(),
            Self::TwoOwners { commits, .. } => distinct(*commits),
            Self::NeverDelivered { append, .. } => vec![*append],
            Self::ReplicasDiffer { surveys, .. } | Self::BatchesDiffer { surveys, .. } => {
                surveys.to_vec()
            }
            Self::Raft(_)
            | Self::NotServing { .. }
            | Self::NodeStopped { .. }
            | Self::ErrorLogged { .. }
            | Self::Panicked { .. } => Vec::new(),
        }
    }
}

/// In order of time, each once.
fn distinct<const COUNT: usize>(mut operations: [u64; COUNT]) -> Vec<u64> {
    operations.sort_unstable();
    let mut operations = operations.to_vec();
    operations.dedup();
    operations
}
