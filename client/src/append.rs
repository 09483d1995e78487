//! The one-shot append: one batch, one call, optionally on a condition.
//!
//! Sent again only where that cannot write twice: after definite refusals, or, when the caller
//! gives the batch an identity, after any failure. Many records in order are the producer's
//! business.

use bytes::Bytes;
use quipu_batch::{BATCH_BYTES_MAX, BatchBuilder, Compression, ProducerIdentity, Record};
use quipu_proto::v1;

use crate::calls::Target;
use crate::client::Client;
use crate::error::{AppendError, CallError, ErrorCode, Outcome};
use crate::read::log_client;
use crate::record::AppendRecord;

/// How to append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppendOptions {
    /// Append only if the partition's end offset is this. Checked when the batch is applied, so
    /// that nobody can come between.
    pub expect_end_offset: Option<u64>,
    /// Default: none.
    pub compression: Compression,
    /// Makes the append safe to repeat: the partition remembers who sent which sequence. Id and
    /// epoch come from [`Client::new_producer`]; the first batch of a producer to a partition has
    /// sequence 0, the next one as much more as the first had records.
    pub identity: Option<ProducerIdentity>,
}

/// An acknowledged append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where it was appended.
    pub topic: String,
    /// Where it was appended.
    pub partition: u32,
    /// Offset of the first record. `None` for a repetition so old that its place is forgotten: it
    /// was appended, once.
    pub base_offset: Option<u64>,
    /// Records appended, at offsets one after the other.
    pub record_count: u32,
    /// An earlier attempt had been appended already.
    pub duplicate: bool,
    /// Raft term under which it was first appended.
    pub leader_epoch: u64,
    /// The leader's time for the batch, milliseconds since 1970.
    pub entry_time_ms: u64,
}

impl Client {
    /// Appends `records` to a partition, all or nothing, visible together.
    ///
    /// # Errors
    /// [`AppendError::EndOffsetConflict`] where the condition does not hold. `outcome()` is
    /// unknown where the records may have been appended: read back before trying again, or give
    /// the append an identity.
    pub async fn append(
        &self,
        topic: &str,
        partition: u32,
        records: Vec<AppendRecord>,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let record_count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let batch = self.build(records, &options)?;
        let request = v1::AppendRequest {
            topic: topic.to_owned(),
            partition,
            batch,
            expect_end_offset: options.expect_end_offset,
            timeout_ms: self.shared.request_timeout_ms(),
        };
        let target = Target::Leader(topic.to_owned(), partition);
        let patience = self.shared.patience(options.identity.is_some());
        let answer = self
            .shared
            .call(&target, patience, |channel| {
                let request = request.clone();
                async move { log_client(channel).append(request).await }
            })
            .await
            .map_err(|error| conflict_or(error, options.expect_end_offset))?;
        Ok(Appended {
            topic: topic.to_owned(),
            partition,
            base_offset: answer.base_offset,
            record_count,
            duplicate: answer.duplicate,
            leader_epoch: answer.leader_epoch,
            entry_time_ms: answer.entry_time_ms,
        })
    }

    /// A producer id and its epoch, never given out before. For [`AppendOptions::identity`]; a
    /// [`Producer`](crate::Producer) gets its own.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn new_producer(&self) -> Result<ProducerIdentity, CallError> {
        let answer = self
            .shared
            .call(&Target::Any, self.shared.patience(true), |channel| async move {
                log_client(channel).new_producer(v1::NewProducerRequest {}).await
            })
            .await?;
        let epoch = u16::try_from(answer.producer_epoch)
            .map_err(|_| CallError::bad_answer("node", "a producer epoch over 16 bits"))?;
        Ok(ProducerIdentity { id: answer.producer_id, epoch, sequence_first: 0 })
    }

    fn build(
        &self,
        records: Vec<AppendRecord>,
        options: &AppendOptions,
    ) -> Result<Bytes, AppendError> {
        let invalid = |reason: String| AppendError::InvalidRecords(reason);
        let now_ms = self.shared.clock.now_ms();
        let mut batch = BatchBuilder::new(options.compression, BATCH_BYTES_MAX);
        for record in records {
            let record = Record {
                timestamp_ms: record.timestamp_ms.unwrap_or(now_ms),
                key: record.key,
                value: record.value,
                headers: record.headers,
            };
            batch.push(&record).map_err(|error| invalid(error.to_string()))?;
        }
        batch.build(options.identity).map_err(|error| invalid(error.to_string()))
    }
}

fn conflict_or(error: CallError, expected: Option<u64>) -> AppendError {
    let actual = error.detail.as_ref().and_then(|detail| detail.end_offset);
    match (expected, actual) {
        (Some(expected), Some(end_offset))
            if error.is(ErrorCode::EndOffsetConflict) && error.outcome == Outcome::Definite =>
        {
            AppendError::EndOffsetConflict { expected, end_offset }
        }
        _ => AppendError::Call(error),
    }
}
