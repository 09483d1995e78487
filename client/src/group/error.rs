//! Why a group consumer gives no record.

use crate::error::{CallError, Code, ConsumeError, GroupError, Outcome};

/// Why no record is given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GroupConsumeError {
    /// A partition can't be read; the others go on.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// The group's coordinator refused, or can't be asked.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The group has no offset for a partition, and
    /// [`ResetPolicy::None`](super::ResetPolicy::None) forbids to choose one.
    #[error(
        "group {group} has no offset for {topic}/{partition}, and its reset policy is none: commit \
         one (`quipu group seek`), or let the consumer choose where to begin"
    )]
    NoOffset {
        /// The group.
        group: String,
        /// The partition's topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
}

impl GroupConsumeError {
    /// What happened.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            GroupConsumeError::Consume(error) => error.code(),
            GroupConsumeError::Group(error) => error.code(),
            GroupConsumeError::NoOffset { .. } => Code::InvalidInput,
        }
    }

    /// Whether it may have happened all the same.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            GroupConsumeError::Consume(error) => error.outcome(),
            GroupConsumeError::Group(error) => error.outcome(),
            GroupConsumeError::NoOffset { .. } => Outcome::Definite,
        }
    }

    /// The same call may succeed later without a change.
    #[must_use]
    pub fn retriable(&self) -> bool {
        match self {
            GroupConsumeError::Consume(error) => error.retriable(),
            GroupConsumeError::Group(error) => error.retriable(),
            GroupConsumeError::NoOffset { .. } => false,
        }
    }
}

impl From<CallError> for GroupConsumeError {
    fn from(error: CallError) -> GroupConsumeError {
        GroupConsumeError::Group(GroupError::Call(error))
    }
}
