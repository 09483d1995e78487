//! Every failure as the public error that a client gets: its code, what is known of the outcome,
//! whether to try again, and a message that says what to do.
//!
//! The only place that does so. docs/errors.md is the same table for people, and a test compares
//! the two. The gRPC status of a code is `quipu_proto`'s.

use std::time::Duration;

use node_core::metadata::MetadataOutcome;
use quipu_batch::{BatchError, RECORDS_MAX};
use quipu_proto::v1;
use quipu_proto::v1::{ErrorCode, Outcome};
use tonic::{Response, Status};

use crate::formation::FormationFailure;
use crate::levels::LevelFailure;
use crate::limits;
use crate::partition::{AppendFailure, ReadFailure};
use crate::raft::RaftFailure;

/// A call that is not answered as asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal(Box<v1::Error>);

/// What a code says beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    outcome: Certainty,
    retriable: bool,
    /// Before this the same call can't succeed; zero where the client knows as much.
    retry_after: Duration,
}

/// What is known of the outcome of a call that got a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Definite,
    Unknown,
    /// The error's own field says which.
    Either,
}

/// The table of docs/errors.md.
fn rule(code: ErrorCode) -> Rule {
    use Certainty::{Definite, Either, Unknown};
    let rule = |outcome, retriable| Rule { outcome, retriable, retry_after: Duration::ZERO };
    let later = |ms| Rule { retry_after: Duration::from_millis(ms), ..rule(Definite, true) };
    match code {
        ErrorCode::InvalidArgument
        | ErrorCode::UnknownTopic
        | ErrorCode::UnknownPartition
        | ErrorCode::TopicExists
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidReplication
        | ErrorCode::BatchTooLarge
        | ErrorCode::BatchCorrupt
        | ErrorCode::BatchUnsupported
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::UnknownGroup
        | ErrorCode::OffsetRegression
        | ErrorCode::NotSupported
        | ErrorCode::UnknownMember
        | ErrorCode::GroupMemberFenced
        | ErrorCode::GroupInstanceFenced
        | ErrorCode::GroupNotEmpty
        | ErrorCode::GroupFull
        | ErrorCode::PartitionNotOwned
        | ErrorCode::EndOffsetConflict
        | ErrorCode::ProducerFenced
        | ErrorCode::SequenceOutOfOrder
        | ErrorCode::UnknownProducer
        | ErrorCode::OffsetBeyondEnd
        | ErrorCode::NotInitialized
        | ErrorCode::AlreadyInitialized
        | ErrorCode::WrongCluster => rule(Definite, false),
        ErrorCode::NotLeader | ErrorCode::LeaderUnknown | ErrorCode::Stopping => {
            rule(Definite, true)
        }
        ErrorCode::StaleReplica | ErrorCode::Overloaded | ErrorCode::CorruptEntry => later(100),
        // Disks are looked at once a second.
        ErrorCode::DiskFull => later(1_000),
        ErrorCode::TimedOut => rule(Either, true),
        ErrorCode::LeadershipLost => rule(Unknown, true),
        ErrorCode::Internal | ErrorCode::Unspecified => rule(Either, false),
    }
}

impl Refusal {
    /// An error by its code. Nothing of the call happened, unless the table says that nobody knows.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let Rule { outcome, retriable, retry_after } = rule(code);
        let outcome = match outcome {
            Certainty::Definite | Certainty::Either => Outcome::Definite,
            Certainty::Unknown => Outcome::Unknown,
        };
        let mut message: String = message.into();
        message.truncate(message.floor_char_boundary(limits::ERROR_MESSAGE_BYTES_MAX));
        Self(Box::new(v1::Error {
            code: code.into(),
            outcome: outcome.into(),
            retriable,
            retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
            message,
            ..v1::Error::default()
        }))
    }

    /// An error after which the call may have had its effect.
    fn open(code: ErrorCode, message: impl Into<String>) -> Self {
        debug_assert_ne!(rule(code).outcome, Certainty::Definite, "{code:?}");
        Self::new(code, message).with(|error| error.outcome = Outcome::Unknown.into())
    }

    fn with(mut self, set: impl FnOnce(&mut v1::Error)) -> Self {
        set(&mut self.0);
        self
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.0.code()
    }

    /// The error as it stands in an answer.
    pub(super) fn into_error(self) -> v1::Error {
        *self.0
    }

    /// The error as it ends a call.
    pub(super) fn into_status(self) -> Status {
        tracing::debug!(code = self.code().as_str_name(), message = self.0.message, "refused");
        quipu_proto::status_of_error(&self.0)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub(super) fn unknown_topic(topic: &str) -> Self {
        let message = format!(
            "there is no topic {topic:?}; check the name with `quipu topic ls`, or create it with \
             `quipu topic create`"
        );
        Self::new(ErrorCode::UnknownTopic, message)
    }

    pub(super) fn unknown_partition(topic: &str, partition: u32, count: u32) -> Self {
        let message = format!(
            "topic {topic} has no partition {partition}: it has {count}, numbered from 0 to {}",
            count.saturating_sub(1)
        );
        Self::new(ErrorCode::UnknownPartition, message)
    }

    pub(super) fn unknown_group(group: &str) -> Self {
        let message = format!(
            "group {group:?} has no committed offsets; check the name with `quipu group ls`"
        );
        Self::new(ErrorCode::UnknownGroup, message)
    }

    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Overloaded, message)
    }

    pub(super) fn not_initialized() -> Self {
        let message = "this node belongs to no cluster yet; form one with `quipu cluster init`, \
                       or start the node with --join";
        Self::new(ErrorCode::NotInitialized, message)
    }

    /// The node belongs to a cluster, and is opening what its disk has of it.
    pub(super) fn starting() -> Self {
        let message = "this node is starting; ask another one, or again in a moment";
        Self::new(ErrorCode::LeaderUnknown, message)
    }

    pub(super) fn stopping() -> Self {
        Self::new(ErrorCode::Stopping, "this node is stopping; ask another one")
    }

    /// Somebody else leads, or nobody is known to.
    pub(super) fn not_leader(what: &str, leader_address: Option<String>) -> Self {
        match leader_address {
            Some(address) => {
                let message = format!("this node does not lead {what}; {address} does");
                Self::new(ErrorCode::NotLeader, message)
                    .with(|error| error.leader_address = address)
            }
            None => {
                let message = format!(
                    "no leader of {what} is known: an election is under way, or a majority of its \
                     nodes can't be reached; if it lasts see `quipu cluster status`"
                );
                Self::new(ErrorCode::LeaderUnknown, message)
            }
        }
    }

    /// This node's own replica does not answer yet; another one may.
    pub(super) fn not_open(what: &str, why: &str, leader_address: Option<String>) -> Self {
        let code = match leader_address {
            Some(_) => ErrorCode::NotLeader,
            None => ErrorCode::LeaderUnknown,
        };
        let other = match &leader_address {
            Some(address) => format!("{address} leads it"),
            None => "ask another node, or again in a moment".to_owned(),
        };
        let message = format!("this node's replica of {what} is not open: {why}; {other}");
        Self::new(code, message)
            .with(|error| error.leader_address = leader_address.unwrap_or_default())
    }

    /// Out of time before anything was done.
    pub(super) fn too_late(what: &str) -> Self {
        Self::new(ErrorCode::TimedOut, format!("{what} took too long; nothing was done"))
    }

    /// Out of time, or cut off, while it was being done.
    pub(super) fn outcome_unknown(what: &str, in_time: bool) -> Self {
        if in_time {
            let message = format!("leadership was lost while {what} was under way");
            Self::new(ErrorCode::LeadershipLost, message)
        } else {
            let message = format!("{what} was not confirmed in time and may still be done");
            Self::open(ErrorCode::TimedOut, message)
        }
    }

    pub(super) fn stale(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::StaleReplica, message)
    }

    /// The committed offset of a group that a commit would have moved back.
    pub(super) fn regression(message: String, committed: u64) -> Self {
        Self::new(ErrorCode::OffsetRegression, message)
            .with(|error| error.committed_offset = Some(committed))
    }

    /// An offset of a commit beyond the end of its partition.
    pub(super) fn beyond_end(message: String, log_start: u64, high_watermark: u64) -> Self {
        Self::new(ErrorCode::OffsetBeyondEnd, message).with(|error| {
            error.log_start_offset = Some(log_start);
            error.high_watermark = Some(high_watermark);
        })
    }

    /// A member id that is not in its group since the generation that was sent.
    pub(super) fn member_fenced(message: String, generation: i64) -> Self {
        Self::new(ErrorCode::GroupMemberFenced, message)
            .with(|error| error.generation = Some(generation))
    }

    /// Something that should not be possible; told to the log too.
    pub(super) fn internal(what: &str) -> Self {
        tracing::error!(what, "a call met something impossible");
        Self::open(ErrorCode::Internal, format!("{what}; the node's log has more"))
    }

    /// Why a proposal of the node's own is not done. `NotLeader` is the caller's to name.
    pub(super) fn of_proposal(failure: RaftFailure, what: &str, in_time: bool) -> Self {
        match failure {
            RaftFailure::NotLeader { .. } | RaftFailure::NoQuorum => Self::not_leader(what, None),
            RaftFailure::Busy => Self::overloaded(
                "this node's disk does not keep up; try again later, and if it lasts use a faster \
                 disk or more nodes",
            ),
            RaftFailure::OutcomeUnknown => Self::outcome_unknown(what, in_time),
            RaftFailure::Stopped(_) => Self::stopping(),
        }
    }

    /// Why an append is refused or its outcome not known.
    pub(super) fn of_append(failure: AppendFailure, what: &str, leader: Option<String>) -> Self {
        match failure {
            AppendFailure::NotLeader { .. } => Self::not_leader(what, leader),
            AppendFailure::NoQuorum => Self::not_leader(what, None),
            AppendFailure::LeadershipLost => Self::outcome_unknown("the append", true),
            AppendFailure::TimedOut => Self::outcome_unknown("the append", false),
            AppendFailure::Overloaded => Self::overloaded(
                "too many bytes of appends wait on this node; try again later, and if it lasts \
                 use more partitions or nodes, or a larger max-append-in-flight-bytes",
            ),
            AppendFailure::DiskFull => Self::new(
                ErrorCode::DiskFull,
                format!(
                    "the disk of a node that holds {what} is nearly full; free space, shorten \
                     retention with `quipu topic set`, or give it a larger disk"
                ),
            ),
            AppendFailure::Conflict { end_offset } => {
                let message = format!(
                    "the end offset of {what} is {end_offset}, not the expected one; read up to \
                     it and decide again"
                );
                Self::new(ErrorCode::EndOffsetConflict, message)
                    .with(|error| error.end_offset = Some(end_offset))
            }
            AppendFailure::Fenced { epoch_current } => {
                let message = format!(
                    "a newer session of this producer has epoch {epoch_current}; this one must stop"
                );
                Self::new(ErrorCode::ProducerFenced, message)
                    .with(|error| error.producer_epoch = Some(epoch_current.into()))
            }
            AppendFailure::OutOfOrder { sequence_expected } => {
                let message = format!(
                    "a batch before this one is missing; resend from sequence {sequence_expected}"
                );
                Self::new(ErrorCode::SequenceOutOfOrder, message)
                    .with(|error| error.sequence_expected = Some(sequence_expected))
            }
            AppendFailure::UnknownProducer => Self::new(
                ErrorCode::UnknownProducer,
                format!(
                    "{what} does not know this producer, and its batch does not begin at sequence \
                     0; take a new producer id and begin at 0"
                ),
            ),
            AppendFailure::Malformed => Self::new(
                ErrorCode::BatchCorrupt,
                "the batch contradicts itself; make it anew from its records",
            ),
            AppendFailure::Stopped(_) => Self::stopping(),
        }
    }

    /// Why a read is not answered.
    pub(super) fn of_read(failure: &ReadFailure, what: &str, leader: Option<String>) -> Self {
        match failure {
            ReadFailure::NoLeader { .. } => Self::not_leader(what, leader),
            ReadFailure::Stale { lag } => {
                let lag = lag.map_or_else(
                    || "this replica can't know its lag".to_owned(),
                    |lag| format!("this replica may lag {} ms", lag.as_millis()),
                );
                let advice = "ask the leader or another replica, or allow more lag";
                Self::stale(format!("{what}: {lag}; {advice}"))
            }
            ReadFailure::OutOfRange { offset, log_start, high_watermark } => {
                let message = format!(
                    "{what} has offsets {log_start} to {high_watermark} (its end), not {offset}; \
                     seek to one of them, knowing what is skipped"
                );
                Self::new(ErrorCode::OffsetOutOfRange, message).with(|error| {
                    error.log_start_offset = Some(*log_start);
                    error.high_watermark = Some(*high_watermark);
                })
            }
            ReadFailure::Fault(fault) => {
                tracing::warn!(what, %fault, "a stored entry is not served");
                let message = format!(
                    "{what}: a stored entry can't be read on this replica and is fetched again \
                     from another; try again, or ask another replica"
                );
                Self::new(ErrorCode::CorruptEntry, message)
            }
            ReadFailure::Stopped(_) => Self::stopping(),
        }
    }

    /// Why bytes are not taken in as a batch.
    pub(super) fn of_batch(error: &BatchError) -> Self {
        let records_max = i64::from(RECORDS_MAX);
        let code = match error {
            BatchError::RecordCount { record_count, .. }
                if i64::from(*record_count) > records_max =>
            {
                ErrorCode::BatchTooLarge
            }
            BatchError::DecompressedTooLarge { .. } => ErrorCode::BatchTooLarge,
            // Bytes beyond the limit are refused by their number. A length that claims more than
            // there is, or less than a header, is no size.
            BatchError::UnsupportedMagic { .. }
            | BatchError::UnsupportedCodec { .. }
            | BatchError::UnknownCodec { .. }
            | BatchError::Transactional
            | BatchError::Control
            | BatchError::LogAppendTime
            | BatchError::UnknownAttributes { .. } => ErrorCode::BatchUnsupported,
            BatchError::Length { .. }
            | BatchError::Truncated { .. }
            | BatchError::BytesAfterBatch { .. }
            | BatchError::BaseOffset { .. }
            | BatchError::RecordCount { .. }
            | BatchError::LastOffsetDelta { .. }
            | BatchError::TooManyRecordsForSize { .. }
            | BatchError::Producer { .. }
            | BatchError::Checksum { .. }
            | BatchError::Decompress { .. }
            | BatchError::Record { .. }
            | BatchError::BytesAfterRecords { .. } => ErrorCode::BatchCorrupt,
        };
        Self::new(code, format!("{error}; an append carries exactly one whole record batch"))
    }

    pub(super) fn batch_too_large(bytes: usize, bytes_max: u32) -> Self {
        let message = format!(
            "the batch has {bytes} bytes, and the topic's max.batch.bytes is {bytes_max}; send \
             fewer records in one batch, or raise the setting"
        );
        Self::new(ErrorCode::BatchTooLarge, message)
    }

    /// A metadata command that was applied, and refused. `NotBootstrapped` is the caller's to
    /// repeat.
    pub(super) fn of_outcome(outcome: MetadataOutcome, topic: &str) -> Self {
        match outcome {
            MetadataOutcome::TopicExists { .. } => {
                let message = format!("topic {topic} is there already; use it, or choose a name");
                Self::new(ErrorCode::TopicExists, message)
            }
            MetadataOutcome::UnknownTopic => Self::unknown_topic(topic),
            MetadataOutcome::InvalidReplication { wanted, nodes } => {
                let message = format!(
                    "replication factor {wanted} is not possible: it is 1, 3 or 5, and no more \
                     than the number of nodes, which is {nodes}; choose a smaller one or add nodes"
                );
                Self::new(ErrorCode::InvalidReplication, message)
            }
            MetadataOutcome::InvalidPartitions { wanted, limit } => {
                Self::invalid(format!("partitions: a topic has 1 to {limit}, not {wanted}"))
            }
            MetadataOutcome::TooManyGroups { limit } => Self::invalid(format!(
                "partitions: the cluster can't have more than {limit} Raft groups; delete topics \
                 that are not used any more"
            )),
            MetadataOutcome::SettingFixed => Self::new(
                ErrorCode::InvalidConfig,
                "checkpoint.bytes and checkpoint.ms are fixed when the topic is made",
            ),
            MetadataOutcome::NotBootstrapped => Self::not_leader("the metadata", None),
            MetadataOutcome::LevelTooLow { needed } => Self::new(
                ErrorCode::NotSupported,
                format!(
                    "this needs feature level {needed}, which is not finalized yet: when every \
                     node runs a build that speaks it, run `quipu upgrade finalize`"
                ),
            ),
            other => Self::internal(&format!("the metadata answered {other:?}")),
        }
    }

    /// Why a feature level was not finalized.
    pub(super) fn of_level(failure: LevelFailure, in_time: bool) -> Self {
        let message = failure.to_string();
        match failure {
            LevelFailure::Lower { .. } => Self::invalid(message),
            LevelFailure::Silent { .. } | LevelFailure::NotSpoken { .. } => {
                Self::new(ErrorCode::NotSupported, message)
            }
            LevelFailure::Raft(failure) => {
                Self::of_proposal(failure, "finalizing the feature level", in_time)
            }
        }
    }

    /// Why no cluster was formed.
    pub(super) fn of_formation(failure: &FormationFailure) -> Self {
        let message = failure.to_string();
        match failure {
            FormationFailure::NoAddresses
            | FormationFailure::SameLabel { .. }
            | FormationFailure::SameNode { .. }
            | FormationFailure::NotIncluded { .. }
            | FormationFailure::LabelTaken { .. }
            | FormationFailure::TooManyNodes { .. }
            | FormationFailure::LevelNotSpoken { .. }
            | FormationFailure::Malformed(_) => Self::invalid(message),
            // Some of the nodes may have adopted the cluster; a repeat goes on with it.
            FormationFailure::Unreachable { .. } => Self::open(ErrorCode::TimedOut, message),
            FormationFailure::OtherCluster { .. } | FormationFailure::AlreadyFormed { .. } => {
                Self::new(ErrorCode::AlreadyInitialized, message)
            }
            FormationFailure::WasReplaced | FormationFailure::WasRemoved => {
                Self::new(ErrorCode::WrongCluster, message)
            }
            FormationFailure::NotInitialized => Self::not_initialized(),
            FormationFailure::Raft(failure) => {
                Self::of_proposal(failure.clone(), "the formation of the cluster", true)
            }
            FormationFailure::Identity(_)
            | FormationFailure::Storage(_)
            | FormationFailure::Open(_) => Self::internal(&message),
        }
    }
}

/// The answer of a call, as tonic wants it.
pub(super) fn answer<T>(result: Result<T, Refusal>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Refusal::into_status)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Outcome and retry by code, from the rows of docs/errors.md:
    /// "| `CODE` | gRPC status | outcome | retry | what happened, and what to do |".
    fn page() -> BTreeMap<String, (String, bool)> {
        let page = include_str!("../../../docs/errors.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            let code = cells[0].trim_end_matches('`').to_owned();
            (code, (cells[2].to_owned(), cells[3] == "yes"))
        })
        .collect()
    }

    #[test]
    fn outcome_and_retry_are_those_of_the_page() {
        let page = page();
        assert!(page.len() > 25, "{page:?}");
        for (name, (outcome, retriable)) in page {
            let code = ErrorCode::from_str_name(&name).expect("a code of the API");
            let rule = rule(code);
            let said = match rule.outcome {
                Certainty::Definite => "Definite",
                Certainty::Unknown => "Unknown",
                Certainty::Either => "Definite or Unknown",
            };
            assert_eq!((said, rule.retriable), (outcome.as_str(), retriable), "{name}");
        }
    }

    #[test]
    fn only_what_is_open_may_be_said_to_be_open() {
        let unknown = Refusal::outcome_unknown("the append", false).into_error();
        assert_eq!(unknown.code(), ErrorCode::TimedOut);
        assert_eq!(unknown.outcome(), Outcome::Unknown);
        let definite = Refusal::too_late("the read").into_error();
        assert_eq!(definite.code(), ErrorCode::TimedOut);
        assert_eq!(definite.outcome(), Outcome::Definite);
        let lost = Refusal::outcome_unknown("the append", true).into_error();
        assert_eq!(lost.code(), ErrorCode::LeadershipLost);
        assert_eq!(lost.outcome(), Outcome::Unknown);
    }

    #[test]
    fn the_leader_is_named_where_it_is_known() {
        let known = Refusal::not_leader("t/0", Some("a:1".to_owned())).into_error();
        assert_eq!(known.code(), ErrorCode::NotLeader);
        assert_eq!(known.leader_address, "a:1");
        let unknown = Refusal::not_leader("t/0", None).into_error();
        assert_eq!(unknown.code(), ErrorCode::LeaderUnknown);
        assert_eq!(unknown.leader_address, "");
    }

    #[test]
    fn what_a_program_needs_is_beside_the_message() {
        let conflict = AppendFailure::Conflict { end_offset: 7 };
        assert_eq!(Refusal::of_append(conflict, "t/0", None).into_error().end_offset, Some(7));
        let range = ReadFailure::OutOfRange { offset: 9, log_start: 2, high_watermark: 5 };
        let range = Refusal::of_read(&range, "t/0", None).into_error();
        assert_eq!((range.log_start_offset, range.high_watermark), (Some(2), Some(5)));
    }

    #[test]
    fn a_batch_that_is_too_large_is_told_from_one_that_is_damaged() {
        let length = BatchError::Length { length: -1, length_min: 49, length_max: 1 << 23 };
        assert_eq!(Refusal::of_batch(&length).code(), ErrorCode::BatchCorrupt);
        let count = |record_count| BatchError::RecordCount { record_count, record_count_max: 9 };
        assert_eq!(Refusal::of_batch(&count(i32::MAX)).code(), ErrorCode::BatchTooLarge);
        assert_eq!(Refusal::of_batch(&count(0)).code(), ErrorCode::BatchCorrupt);
        let gzip = BatchError::UnsupportedCodec { codec: "gzip" };
        assert_eq!(Refusal::of_batch(&gzip).code(), ErrorCode::BatchUnsupported);
    }

    #[test]
    fn a_message_that_quotes_the_caller_stays_short() {
        let refusal = Refusal::unknown_topic(&"ä".repeat(100_000));
        let error = refusal.into_error();
        assert!(error.message.len() <= limits::ERROR_MESSAGE_BYTES_MAX);
        assert!(error.message.starts_with("there is no topic"));
    }
}
