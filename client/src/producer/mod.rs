//! The producer: many records, batched, in order for each partition, each written once.
//!
//! `send` puts a record into a batch and returns; one task ([`sender`]) does the rest. The parts
//! that decide are pure: `batcher` (records to batches), `queue` (what is sent again, and when
//! that is safe), `agenda` (where to look). `stream` is one connection's worth of requests.

mod agenda;
mod batcher;
mod config;
mod intake;
mod payload;
mod queue;
mod sender;
mod stream;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quipu_batch::{Header, Record};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::error::{ConnectError, Outcome, ProduceError};
use crate::record::ProduceRecord;
use batcher::Entering;
use intake::Intake;
use payload::Waiting;
use sender::Sender;

pub use config::ProducerConfig;

/// Bytes of the buffer that a record holds besides its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Sends records. Cheap to clone; clones share buffer, batches and order.
///
/// When the last clone is dropped the records handed over are still sent, as long as the runtime
/// lives; [`Producer::close`] waits for them.
///
/// ```no_run
/// # use quipu_client::{Client, ProduceRecord, ProducerConfig};
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer(ProducerConfig::default())?;
/// let mut deliveries = Vec::new();
/// for number in 0..1000 {
///     let record = ProduceRecord::keyed("orders", format!("order-{number}"), "placed");
///     deliveries.push(producer.send(record).await);
/// }
/// for delivery in deliveries {
///     delivery.await?;
/// }
/// producer.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    handle: Arc<Handle>,
}

/// Closes the producer with its last clone.
#[derive(Debug)]
struct Handle {
    intake: Arc<Intake>,
    rng: Mutex<fastrand::Rng>,
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
///
/// Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "whether the record was appended is told here and nowhere else"]
pub struct Delivery {
    state: DeliveryState,
}

#[derive(Debug)]
enum DeliveryState {
    /// Never taken; told once.
    Refused(Option<ProduceError>),
    Taken(oneshot::Receiver<Result<RecordMetadata, ProduceError>>),
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            DeliveryState::Refused(error) => {
                let closed = ProduceError::Closed { outcome: Outcome::Definite };
                Poll::Ready(Err(error.take().unwrap_or(closed)))
            }
            DeliveryState::Taken(answer) => Pin::new(answer).poll(cx).map(|answer| {
                // The task that sends is gone, with its runtime: it may have sent the record.
                answer.unwrap_or(Err(ProduceError::Closed { outcome: Outcome::Unknown }))
            }),
        }
    }
}

impl Producer {
    pub(crate) fn start(client: Client, config: ProducerConfig) -> Result<Producer, ConnectError> {
        config.validate()?;
        let intake = Arc::new(Intake::new(&config));
        let rng = Mutex::new(client.shared.fork_rng());
        tokio::spawn(Sender::run(client.clone(), config.clone(), Arc::clone(&intake)));
        Ok(Producer { client, config, handle: Arc::new(Handle { intake, rng }) })
    }

    /// Hands a record over. Waits while the buffer is full; the result tells how it ended.
    ///
    /// Records sent one after the other to one partition are appended in this order.
    pub async fn send(&self, record: ProduceRecord) -> Delivery {
        let state = match self.enter(record).await {
            Ok(answer) => DeliveryState::Taken(answer),
            Err(error) => DeliveryState::Refused(Some(error)),
        };
        Delivery { state }
    }

    async fn enter(
        &self,
        record: ProduceRecord,
    ) -> Result<oneshot::Receiver<Result<RecordMetadata, ProduceError>>, ProduceError> {
        let deadline = Instant::now() + self.config.delivery_timeout;
        let partition_count = self.client.shared.partition_count(&record.topic, deadline).await?;
        if let Some(partition) = record.partition.filter(|wanted| *wanted >= partition_count) {
            return Err(ProduceError::UnknownPartition {
                topic: record.topic,
                partition,
                partition_count,
            });
        }
        let held_bytes = self.hold(&record, deadline).await?;
        let intake = &self.handle.intake;
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.client.shared.clock.now_ms());
        let (sender, answer) = oneshot::channel();
        let entering = Entering {
            topic: &record.topic,
            partition_count,
            partition: record.partition,
            record: Record {
                timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
            },
            held_bytes,
            waiting: Waiting { timestamp_ms, answer: sender },
        };
        let pushed = {
            let mut rng = self.handle.rng.lock().expect("no panic while the lock is held");
            let mut batcher = intake.batcher();
            if intake.room.is_closed() {
                return Err(ProduceError::Closed { outcome: Outcome::Definite });
            }
            batcher.push(entering, Instant::now(), &mut rng)
        };
        match pushed {
            Ok(true) => intake.wake.notify_one(),
            Ok(false) => {}
            Err(error) => {
                intake.room.add_permits(held_bytes);
                return Err(error.into());
            }
        }
        Ok(answer)
    }

    /// Waits until the buffer has room for the record, and takes it.
    async fn hold(&self, record: &ProduceRecord, deadline: Instant) -> Result<usize, ProduceError> {
        let headers = record
            .headers
            .iter()
            .map(|Header { name, value }| name.len() + value.as_ref().map_or(0, bytes::Bytes::len));
        let bytes = [&record.key, &record.value].into_iter().flatten().map(bytes::Bytes::len);
        let held_bytes = RECORD_OVERHEAD_BYTES + bytes.chain(headers).sum::<usize>();
        let Some(permits) =
            u32::try_from(held_bytes).ok().filter(|_| held_bytes <= self.config.buffer_bytes)
        else {
            let buffer_bytes = self.config.buffer_bytes;
            return Err(ProduceError::InvalidRecord(format!(
                "record of {held_bytes} bytes does not fit into the buffer of {buffer_bytes} bytes"
            )));
        };
        let room = self.handle.intake.room.acquire_many(permits);
        match timeout_at(deadline, room).await {
            Ok(Ok(room)) => room.forget(),
            Ok(Err(_)) => return Err(ProduceError::Closed { outcome: Outcome::Definite }),
            Err(_) => {
                return Err(ProduceError::Expired {
                    after: self.config.delivery_timeout,
                    outcome: Outcome::Definite,
                    last: "the buffer is full".to_owned(),
                });
            }
        }
        Ok(held_bytes)
    }

    /// Sends what lingers at once, and returns when every record handed over before has been
    /// acknowledged or has failed. How each ended is told by its [`Delivery`].
    pub async fn flush(&self) {
        let intake = &self.handle.intake;
        let target = intake.batcher().flush();
        intake.wake.notify_one();
        let mut settled_below = intake.settled_below.subscribe();
        // The sender of the watch lives in `intake`, so that the wait cannot fail.
        let _ = settled_below.wait_for(|below| *below >= target).await;
    }

    /// Takes no more records, flushes, and stops. Records handed over later are refused.
    pub async fn close(&self) {
        self.handle.intake.room.close();
        self.flush().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.intake.room.close();
        self.intake.batcher().flush();
        self.intake.wake.notify_one();
    }
}
