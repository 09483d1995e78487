//! What can go wrong, one enum for each area of operations.
//!
//! Every error answers three questions: [`Code`] says what happened, [`Outcome`] says whether the
//! call may have had its effect, `retriable` says whether the same call may succeed later without
//! a change. The library has retried by itself, within its time limits, before it reports an error.
//!
//! How a gRPC status becomes a [`CallError`] is decided in `status`.

use std::fmt;
use std::time::Duration;

use quipu_batch::PushError;
use quipu_proto::v1;

pub use quipu_proto::v1::ErrorCode;

/// Whether a failed call may have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Nothing happened, and nothing of this call will.
    Definite,
    /// It may have happened, or may happen still.
    Unknown,
}

/// What happened: said by a node, or found by this library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A node refused; the table of these codes is docs/errors.md.
    Server(ErrorCode),
    /// No connection could be made, so nothing was sent.
    Unreachable,
    /// The connection broke before the answer came.
    ConnectionLost,
    /// The answer did not come in time.
    DeadlinePassed,
    /// The producer or consumer was closed.
    Closed,
    /// The caller's input cannot be sent as it is.
    InvalidInput,
    /// A node answered something that makes no sense or fails its checksum.
    BadAnswer,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// What happened.
    pub code: Code,
    /// Whether the call may have had its effect, in any of its attempts.
    pub outcome: Outcome,
    /// The same call may succeed later.
    pub retriable: bool,
    /// The node asks to wait at least so long.
    pub retry_after: Option<Duration>,
    /// For people: what happened and what to do.
    pub message: String,
    /// The node's error as it came.
    pub detail: Option<Box<v1::Error>>,
}

/// Why [`Client::connect`](crate::Client::connect) gave no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration contradicts itself or leaves its bounds.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),
    /// None of the nodes answered in time. The last reason is told for each.
    #[error("no node answered: {}", join_tried(.tried))]
    Unreachable {
        /// Address and reason.
        tried: Vec<(String, CallError)>,
    },
}

/// Why a one-shot append failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The partition's end offset is not the one expected; nothing was appended.
    #[error("the end offset is {end_offset}, not {expected}")]
    EndOffsetConflict {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        end_offset: u64,
    },
    /// No batch can be made of the records.
    #[error("invalid records: {0}")]
    InvalidRecords(String),
    /// Everything else.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The record fits into no batch or not into the producer's buffer.
    #[error("invalid record: {0}")]
    InvalidRecord(String),
    /// The topic has no such partition.
    #[error("topic {topic} has {partition_count} partitions, no partition {partition}")]
    UnknownPartition {
        /// Topic asked for.
        topic: String,
        /// Partition asked for.
        partition: u32,
        /// Partitions that there are.
        partition_count: u32,
    },
    /// The producer was closed before it took the record, or gave up when it was closed.
    #[error("the producer is closed")]
    Closed {
        /// `Unknown` if the record had been sent.
        outcome: Outcome,
    },
    /// Not acknowledged within `delivery_timeout`.
    #[error("not acknowledged within {after:?}; last failure: {last}")]
    Expired {
        /// The producer's `delivery_timeout`.
        after: Duration,
        /// `Unknown` if the record had been sent and no answer settled its fate.
        outcome: Outcome,
        /// What the last attempt ended with, or what was waited for.
        last: String,
    },
    /// An earlier record of the partition ended with an unknown outcome while this one had been
    /// sent behind it, so that its own outcome is unknown too.
    #[error("sent behind a record whose outcome is unknown: {cause}")]
    BehindUnknown {
        /// How the earlier one ended.
        cause: String,
    },
    /// A node refused it for good.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a read failed: fetch and offset lookup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The partition does not hold the offset asked for.
    #[error("offset {offset} is outside {log_start_offset}..={high_watermark}")]
    OffsetOutOfRange {
        /// Offset asked for.
        offset: u64,
        /// First offset kept.
        log_start_offset: u64,
        /// End (exclusive) of what may be read.
        high_watermark: u64,
    },
    /// The bytes that came fail their checksum or are no record batch.
    #[error("what was read at offset {offset} is damaged: {reason}")]
    Corrupt {
        /// Offset asked for.
        offset: u64,
        /// The fault.
        reason: String,
    },
    /// Records are missing between what was asked for and what came. Nothing is skipped in
    /// silence.
    #[error("records {expected}..{found} are missing")]
    Gap {
        /// Next offset wanted.
        expected: u64,
        /// Offset that came.
        found: u64,
    },
    /// Everything else.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a consumer cannot go on with a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// Reading failed.
    #[error("topic {topic}, partition {partition}: {source}")]
    Read {
        /// The partition's topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer gives out nothing more of this partition until it is sought again. When
        /// false, it keeps trying.
        stopped: bool,
        /// What went wrong.
        source: ReadError,
    },
    /// The partition is not assigned to this consumer.
    #[error("topic {topic}, partition {partition} is not assigned")]
    NotAssigned {
        /// The partition's topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
}

/// Why an operation on group offsets failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A committed offset does not go back without `reset`. Nothing was committed.
    #[error("the group has committed offset {committed_offset}; use reset to go back")]
    OffsetRegression {
        /// What the group has committed.
        committed_offset: u64,
    },
    /// Nobody can have consumed beyond the end of a partition. Nothing was committed.
    #[error("{message}")]
    OffsetBeyondEnd {
        /// End (exclusive) of the partition.
        end_offset: u64,
        /// Which offset of which partition.
        message: String,
    },
    /// Everything else.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why an administrative call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// A topic of this name is there already.
    #[error("topic {topic} exists")]
    TopicExists {
        /// Its name.
        topic: String,
    },
    /// There is no such topic.
    #[error("there is no topic {topic}")]
    UnknownTopic {
        /// The name asked for.
        topic: String,
    },
    /// The cluster has no node of this label.
    #[error("the cluster has no node {node}")]
    UnknownNode {
        /// The label asked for.
        node: u64,
    },
    /// Everything else.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// The three answers of an error, in one value.
type Facts = (Code, Outcome, bool);

macro_rules! answers {
    ($($error:ty),+ $(,)?) => {$(
        impl $error {
            /// What happened.
            #[must_use]
            pub fn code(&self) -> Code {
                self.facts().0
            }

            /// Whether the call may have had its effect.
            #[must_use]
            pub fn outcome(&self) -> Outcome {
                self.facts().1
            }

            /// The same call may succeed later without a change.
            #[must_use]
            pub fn retriable(&self) -> bool {
                self.facts().2
            }
        }
    )+};
}

answers!(
    CallError,
    ConnectError,
    AppendError,
    ProduceError,
    ReadError,
    ConsumeError,
    GroupError,
    AdminError,
);

const fn refused(code: ErrorCode) -> Facts {
    (Code::Server(code), Outcome::Definite, false)
}

impl CallError {
    fn facts(&self) -> Facts {
        (self.code, self.outcome, self.retriable)
    }

    /// Whether a node said exactly this.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == Code::Server(code)
    }
}

impl ConnectError {
    fn facts(&self) -> Facts {
        match self {
            ConnectError::InvalidConfig(_) => (Code::InvalidInput, Outcome::Definite, false),
            ConnectError::Unreachable { .. } => (Code::Unreachable, Outcome::Definite, true),
        }
    }
}

impl AppendError {
    fn facts(&self) -> Facts {
        match self {
            AppendError::EndOffsetConflict { .. } => refused(ErrorCode::EndOffsetConflict),
            AppendError::InvalidRecords(_) => (Code::InvalidInput, Outcome::Definite, false),
            AppendError::Call(error) => error.facts(),
        }
    }
}

impl ProduceError {
    fn facts(&self) -> Facts {
        match self {
            ProduceError::InvalidRecord(_) => (Code::InvalidInput, Outcome::Definite, false),
            ProduceError::UnknownPartition { .. } => refused(ErrorCode::UnknownPartition),
            ProduceError::Closed { outcome } => (Code::Closed, *outcome, false),
            ProduceError::Expired { outcome, .. } => (Code::DeadlinePassed, *outcome, true),
            ProduceError::BehindUnknown { .. } => (Code::DeadlinePassed, Outcome::Unknown, true),
            ProduceError::Call(error) => error.facts(),
        }
    }
}

impl ReadError {
    fn facts(&self) -> Facts {
        match self {
            ReadError::OffsetOutOfRange { .. } => refused(ErrorCode::OffsetOutOfRange),
            ReadError::Corrupt { .. } | ReadError::Gap { .. } => {
                (Code::BadAnswer, Outcome::Definite, false)
            }
            ReadError::Call(error) => error.facts(),
        }
    }
}

impl ConsumeError {
    fn facts(&self) -> Facts {
        match self {
            ConsumeError::Read { source, .. } => source.facts(),
            ConsumeError::NotAssigned { .. } => (Code::InvalidInput, Outcome::Definite, false),
        }
    }
}

impl GroupError {
    fn facts(&self) -> Facts {
        match self {
            GroupError::OffsetRegression { .. } => refused(ErrorCode::OffsetRegression),
            GroupError::OffsetBeyondEnd { .. } => refused(ErrorCode::OffsetBeyondEnd),
            GroupError::Call(error) => error.facts(),
        }
    }
}

impl AdminError {
    fn facts(&self) -> Facts {
        match self {
            AdminError::TopicExists { .. } => refused(ErrorCode::TopicExists),
            AdminError::UnknownTopic { .. } => refused(ErrorCode::UnknownTopic),
            AdminError::UnknownNode { .. } => (Code::InvalidInput, Outcome::Definite, false),
            AdminError::Call(error) => error.facts(),
        }
    }
}

impl From<PushError> for ProduceError {
    fn from(error: PushError) -> ProduceError {
        ProduceError::InvalidRecord(error.to_string())
    }
}

impl Code {
    /// The code's name in capitals, as in docs/errors.md and docs/client.md.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Code::Server(code) => code.as_str_name(),
            Code::Unreachable => "UNREACHABLE",
            Code::ConnectionLost => "CONNECTION_LOST",
            Code::DeadlinePassed => "DEADLINE_PASSED",
            Code::Closed => "CLOSED",
            Code::InvalidInput => "INVALID_INPUT",
            Code::BadAnswer => "BAD_ANSWER",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Definite => "definite",
            Outcome::Unknown => "unknown",
        })
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match self.outcome {
            Outcome::Definite => Ok(()),
            Outcome::Unknown => f.write_str(" (it may have happened)"),
        }
    }
}

impl std::error::Error for CallError {}

fn join_tried(tried: &[(String, CallError)]) -> String {
    let each: Vec<String> =
        tried.iter().map(|(address, error)| format!("{address} ({error})")).collect();
    each.join(", ")
}
