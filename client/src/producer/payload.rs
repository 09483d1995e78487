//! What a batch carries through the queue: its bytes, and who waits for its records.

use bytes::Bytes;
use quipu_batch::{BATCH_BYTES_MAX, BatchBuilder, Compression, ProducerIdentity};
use quipu_proto::v1::AppendResponse;
use tokio::sync::oneshot;

use crate::error::{CallError, ProduceError};
use crate::producer::RecordMetadata;

/// Who waits for one record.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) timestamp_ms: i64,
    pub(crate) answer: oneshot::Sender<Result<RecordMetadata, ProduceError>>,
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Payload {
    contents: Contents,
    compression: Compression,
    /// One for each record, in order.
    waiting: Vec<Waiting>,
    pub(crate) held_bytes: usize,
}

#[derive(Debug)]
enum Contents {
    /// Not sent yet: compressed and numbered when it is, because only then its numbers are known.
    Gathered(BatchBuilder),
    Encoded {
        batch: Bytes,
        identity: Option<ProducerIdentity>,
    },
    /// Encoding has failed; told to whoever asks again.
    Failed,
}

impl Payload {
    pub(crate) fn new(
        builder: BatchBuilder,
        compression: Compression,
        waiting: Vec<Waiting>,
        held_bytes: usize,
    ) -> Payload {
        Payload { contents: Contents::Gathered(builder), compression, waiting, held_bytes }
    }

    /// The batch, numbered so. A repetition with the same numbers is the same bytes.
    ///
    /// # Errors
    /// The identity is out of bounds, which a sound node does not give.
    pub(crate) fn encode(
        &mut self,
        identity: Option<ProducerIdentity>,
    ) -> Result<Bytes, CallError> {
        let builder = match std::mem::replace(&mut self.contents, Contents::Failed) {
            Contents::Gathered(builder) => builder,
            Contents::Encoded { batch, identity: numbered } if numbered == identity => {
                self.contents = Contents::Encoded { batch: batch.clone(), identity: numbered };
                return Ok(batch);
            }
            Contents::Encoded { batch, .. } => self.reopen(batch)?,
            Contents::Failed => return Err(CallError::invalid_input("the batch has no encoding")),
        };
        let batch = builder.build(identity).map_err(|error| invalid(&error))?;
        self.contents = Contents::Encoded { batch: batch.clone(), identity };
        Ok(batch)
    }

    /// Takes an encoded batch apart to number it anew. Rare: a batch before it failed for good.
    fn reopen(&self, batch: Bytes) -> Result<BatchBuilder, CallError> {
        let mut builder = BatchBuilder::new(self.compression, BATCH_BYTES_MAX);
        for record in quipu_batch::records(batch).map_err(|error| invalid(&error))? {
            let record = record.map_err(|error| invalid(&error))?.record;
            builder.push(&record).map_err(|error| invalid(&error))?;
        }
        Ok(builder)
    }

    /// Tells everybody how it ended.
    pub(crate) fn tell(
        self,
        topic: &str,
        partition: u32,
        result: &Result<AppendResponse, ProduceError>,
    ) {
        for (index, waiting) in (0_u64..).zip(self.waiting) {
            let told = match result {
                Ok(answer) => Ok(RecordMetadata {
                    topic: topic.to_owned(),
                    partition,
                    offset: answer.base_offset.map(|base| base + index),
                    duplicate: answer.duplicate,
                    timestamp_ms: waiting.timestamp_ms,
                    leader_epoch: answer.leader_epoch,
                }),
                Err(error) => Err(error.clone()),
            };
            // Nobody may be waiting any more; that is their choice.
            let _ = waiting.answer.send(told);
        }
    }
}

fn invalid(error: &dyn std::error::Error) -> CallError {
    CallError::invalid_input(format!("no batch can be made: {error}"))
}

#[cfg(test)]
mod tests {
    use quipu_batch::Record;

    use super::*;

    #[test]
    fn a_batch_numbered_anew_holds_the_same_records() {
        let mut builder = BatchBuilder::new(Compression::Lz4, 1 << 16);
        let value = Some(Bytes::from(vec![b'v'; 1000]));
        for timestamp_ms in 0..3 {
            let record = Record { timestamp_ms, value: value.clone(), ..Record::default() };
            builder.push(&record).unwrap();
        }
        let mut payload = Payload::new(builder, Compression::Lz4, Vec::new(), 0);
        let identity = ProducerIdentity { id: 1, epoch: 0, sequence_first: 9 };
        let first = payload.encode(Some(identity)).unwrap();
        assert_eq!(payload.encode(Some(identity)).unwrap(), first);

        let other = ProducerIdentity { id: 2, epoch: 0, sequence_first: 0 };
        let second = payload.encode(Some(other)).unwrap();
        assert_eq!(quipu_batch::verify(&second).unwrap().producer(), Some(other));
        assert_eq!(quipu_batch::verify(&second).unwrap().compression, Compression::Lz4);
        assert_eq!(quipu_batch::decode(first).unwrap(), quipu_batch::decode(second).unwrap());
    }
}
