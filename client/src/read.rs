//! One-shot reads: fetch from an offset, and find an offset by position or time.
//!
//! What a node returns is checked before it is given out: the producer's checksum of each batch,
//! and that the offsets are dense from the one asked for.

use std::time::Duration;

use bytes::Bytes;
use quipu_proto::MESSAGE_BYTES_MAX;
use quipu_proto::v1;
use quipu_proto::v1::log_client::LogClient;
use tonic::transport::Channel;

use crate::calls::{Patience, Target};
use crate::client::{Client, millis_u32};
use crate::error::{CallError, ErrorCode, ReadError};
use crate::record::ConsumedRecord;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadLevel {
    /// Sees at least all that was acknowledged before the read began, from any replica.
    #[default]
    Linearizable,
    /// The asked replica's applied prefix: never uncommitted data, may lag.
    Committed,
    /// As `Committed`, but refused with `STALE_REPLICA` if the replica may lag more than this.
    Bounded(Duration),
}

/// How to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// Default: linearizable.
    pub level: ReadLevel,
    /// At most so many bytes of batches, but always at least one batch. Default: 1 MiB.
    pub max_bytes: u32,
    /// Wait for so many bytes, at most `max_wait`. Default: 0, do not wait.
    pub min_bytes: u32,
    /// Longest wait for `min_bytes`. Default: 0.
    pub max_wait: Duration,
    /// Read at the replica of the node with this label. Default: at the leader.
    pub node: Option<u64>,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            level: ReadLevel::Linearizable,
            max_bytes: 1 << 20,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            node: None,
        }
    }
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// In order, from the offset asked for. May be empty.
    pub records: Vec<ConsumedRecord>,
    /// Where to go on.
    pub next_offset: u64,
    /// First offset kept.
    pub log_start_offset: u64,
    /// End (exclusive) of what the replica may serve.
    pub high_watermark: u64,
    /// How far the replica's end may lie behind the partition's, where it can know.
    pub staleness: Option<Duration>,
    /// Label of the node that read the bytes.
    pub served_by: u64,
}

/// A place in a partition, to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record that the leader stamped at or after this time, milliseconds since 1970.
    EntryTime(u64),
    /// The first record whose own timestamp is at or after this time, milliseconds since 1970.
    EventTime(i64),
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// The offset looked up; for times, the high watermark when there is no such record.
    pub offset: u64,
    /// First offset kept.
    pub log_start_offset: u64,
    /// End (exclusive) of what may be read.
    pub high_watermark: u64,
}

impl Client {
    /// Reads once from `offset` on.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] outside the partition, [`ReadError::Corrupt`] and
    /// [`ReadError::Gap`] where what came is not what was appended.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        options: FetchOptions,
    ) -> Result<Fetched, ReadError> {
        let patience = self.shared.patience(true);
        let patience = Patience { deadline: patience.deadline + options.max_wait, ..patience };
        self.fetch_patiently((topic, partition), offset, &options, patience).await
    }

    pub(crate) async fn fetch_patiently(
        &self,
        (topic, partition): (&str, u32),
        offset: u64,
        options: &FetchOptions,
        patience: Patience,
    ) -> Result<Fetched, ReadError> {
        let (level, max_lag_ms) = options.level.to_wire();
        let request = v1::FetchRequest {
            topic: topic.to_owned(),
            partition,
            offset,
            max_bytes: options.max_bytes,
            min_bytes: options.min_bytes,
            max_wait_ms: millis_u32(options.max_wait),
            level: level.into(),
            max_lag_ms,
        };
        let target = match options.node {
            Some(node) => Target::Node(node),
            None => Target::Leader(topic.to_owned(), partition),
        };
        let patience = Patience { may_wait: options.max_wait, ..patience };
        let answer = self
            .shared
            .call(&target, patience, |channel| {
                let request = request.clone();
                async move { log_client(channel).fetch(request).await }
            })
            .await
            .map_err(|error| out_of_range_or(error, offset))?;
        fetched(topic, partition, offset, answer)
    }

    /// Finds an offset, as of now: linearizable, at the leader.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partition: u32,
        position: Position,
    ) -> Result<Offsets, ReadError> {
        use v1::list_offsets_request::Position as Wire;
        let position = match position {
            Position::Earliest => Wire::Earliest(true),
            Position::Latest => Wire::Latest(true),
            Position::EntryTime(ms) => Wire::EntryTimeMs(ms),
            Position::EventTime(ms) => Wire::EventTimeMs(ms),
        };
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            position: Some(position),
            level: v1::ReadLevel::Linearizable.into(),
        };
        let target = Target::Leader(topic.to_owned(), partition);
        let answer = self
            .shared
            .call(&target, self.shared.patience(true), |channel| {
                let request = request.clone();
                async move { log_client(channel).list_offsets(request).await }
            })
            .await?;
        Ok(Offsets {
            offset: answer.offset,
            log_start_offset: answer.log_start_offset,
            high_watermark: answer.high_watermark,
        })
    }
}

impl ReadLevel {
    fn to_wire(self) -> (v1::ReadLevel, u32) {
        match self {
            ReadLevel::Linearizable => (v1::ReadLevel::Linearizable, 0),
            ReadLevel::Committed => (v1::ReadLevel::Committed, 0),
            ReadLevel::Bounded(lag) => (v1::ReadLevel::Bounded, millis_u32(lag)),
        }
    }
}

pub(crate) fn log_client(channel: Channel) -> LogClient<Channel> {
    LogClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn out_of_range_or(error: CallError, offset: u64) -> ReadError {
    let bounds = error
        .detail
        .as_ref()
        .and_then(|detail| Some((detail.log_start_offset?, detail.high_watermark?)));
    match bounds {
        Some((log_start_offset, high_watermark)) if error.is(ErrorCode::OffsetOutOfRange) => {
            ReadError::OffsetOutOfRange { offset, log_start_offset, high_watermark }
        }
        _ => ReadError::Call(error),
    }
}

fn fetched(
    topic: &str,
    partition: u32,
    offset: u64,
    answer: v1::FetchResponse,
) -> Result<Fetched, ReadError> {
    let records = decode(topic, partition, offset, answer.record_set)?;
    let next_offset = records.last().map_or(offset, |record| record.offset + 1);
    if answer.next_offset != next_offset {
        return Err(ReadError::Gap { expected: next_offset, found: answer.next_offset });
    }
    Ok(Fetched {
        records,
        next_offset,
        log_start_offset: answer.log_start_offset,
        high_watermark: answer.high_watermark,
        staleness: answer.staleness_ms.map(|ms| Duration::from_millis(ms.into())),
        served_by: answer.served_by,
    })
}

/// The records of `record_set` from `offset` on, dense.
fn decode(
    topic: &str,
    partition: u32,
    offset: u64,
    record_set: Bytes,
) -> Result<Vec<ConsumedRecord>, ReadError> {
    let corrupt =
        |error: quipu_batch::BatchError| ReadError::Corrupt { offset, reason: error.to_string() };
    let mut records = Vec::new();
    let mut expected = offset;
    for batch in quipu_batch::split(record_set) {
        let batch = quipu_batch::records(batch.map_err(corrupt)?).map_err(corrupt)?;
        let leader_epoch = u64::try_from(batch.header().partition_leader_epoch).unwrap_or(0);
        for record in batch {
            let quipu_batch::OffsetRecord { offset: found, record } = record.map_err(corrupt)?;
            if found < expected {
                if records.is_empty() {
                    continue;
                }
                return Err(ReadError::Gap { expected, found });
            }
            if found > expected {
                return Err(ReadError::Gap { expected, found });
            }
            expected += 1;
            records.push(ConsumedRecord {
                topic: topic.to_owned(),
                partition,
                offset: found,
                timestamp_ms: record.timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
                leader_epoch,
            });
        }
    }
    Ok(records)
}
