//! Producers that append to a topic, as fast as they are taken or by a schedule.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_batch::{BatchBuilder, Record};
use quipu_client::{Client, Compression, ProduceRecord, Producer, ProducerConfig};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chunk::{Chunk, Sent};
use super::meter::Meter;
use super::pace::{Schedule, Timer};
use super::payload::{Payload, stamped};
use crate::args::{BatchArgs, CompressionArg};
use crate::failure::usage;

/// Chunks between the sender and the one who waits for them; their bytes are in the producer.
const QUEUE_CHUNKS: usize = 1_024;

/// What is overdue at the end of an open loop is still sent for so long; what is left then counts
/// as unsent.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes of the buffer that the library counts for a record besides its value, and some more.
const OVERHEAD_BYTES: usize = 1_024;

/// How much is appended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// As fast as records are taken, until the meter's window ends.
    AsFast,
    /// So many records a second from now until the meter's window ends, all producers together.
    Rate(u64),
    /// So many records, as fast as they are taken.
    Records(u64),
}

/// What is appended.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) topic: String,
    /// Of the topic.
    pub(super) partitions: u32,
    pub(super) payload: Payload,
    pub(super) config: ProducerConfig,
    pub(super) amount: Amount,
    /// Each value begins with the time since then at which it was due.
    pub(super) stamped_since: Option<Instant>,
    pub(super) producers: u64,
}

/// What one producer does.
struct Work {
    load: Load,
    schedule: Option<Schedule>,
    /// Exclusive.
    numbers_end: u64,
    /// New records are due until then.
    until: Instant,
    rng: fastrand::Rng,
}

/// Locks the meter.
pub(super) fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().expect("no panic while the lock is held")
}

impl Load {
    /// Appends until the end, and waits until every record has ended. The clients are shared out
    /// among the producers.
    pub(super) async fn run(
        self,
        clients: &[Client],
        meter: &Arc<Mutex<Meter>>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let until = lock(meter).window().end;
        let mut running = JoinSet::new();
        for (number, client) in (0..self.producers).zip(clients.iter().cycle()) {
            let producer = client.producer(self.config.clone())?;
            let (rate, numbers_end) = match self.amount {
                Amount::AsFast => (None, u64::MAX),
                Amount::Rate(rate) => (Some(rate), u64::MAX),
                Amount::Records(records) => (None, share(records, number, self.producers)),
            };
            let producers = self.producers;
            let schedule = rate.map(|rate| Schedule { start, rate, producers, producer: number });
            let work = Work {
                load: self.clone(),
                schedule,
                numbers_end,
                until: match self.amount {
                    Amount::Records(_) => start + Duration::from_secs(86_400),
                    Amount::AsFast | Amount::Rate(_) => until,
                },
                rng: fastrand::Rng::with_seed(number),
            };
            let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS);
            running.spawn(collect(chunks, Arc::clone(meter)));
            running.spawn(work.run(producer, queue, Arc::clone(meter)));
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a producer panicked")??;
        }
        Ok(())
    }
}

fn share(total: u64, number: u64, of: u64) -> u64 {
    total / of + u64::from(number < total % of)
}

/// Waits for every record and counts it.
async fn collect(
    mut chunks: mpsc::Receiver<Chunk>,
    meter: Arc<Mutex<Meter>>,
) -> anyhow::Result<()> {
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        tokio::select! {
            chunk = chunks.recv(), if is_open => match chunk {
                Some(chunk) => waiting.push(chunk),
                None => is_open = false,
            },
            Some(ended) = waiting.next(), if !waiting.is_empty() => {
                let mut meter = lock(&meter);
                for ended in ended {
                    meter.add(ended);
                }
            }
        }
    }
    Ok(())
}

impl Work {
    async fn run(
        mut self,
        producer: Producer,
        queue: mpsc::Sender<Chunk>,
        meter: Arc<Mutex<Meter>>,
    ) -> anyhow::Result<()> {
        let timer = Timer::new()?;
        let mut chunk = Chunk::new(self.load.partitions == 1);
        for number in 0..self.numbers_end {
            let now = Instant::now();
            let due = self.schedule.map_or(now, |schedule| schedule.due(number));
            if due >= self.until {
                break;
            }
            if now >= self.until + GRACE {
                self.count_unsent(number, now, &meter);
                break;
            }
            if due > now {
                hand_over(&mut chunk, &queue).await?;
                timer.wait_until(due).await?;
            }
            let value = self.value(due);
            let bytes = u32::try_from(value.len())?;
            let record = ProduceRecord::new(self.load.topic.as_str(), value);
            let mut sending = pin!(producer.send(record));
            let delivery = match futures::poll!(sending.as_mut()) {
                Poll::Ready(delivery) => delivery,
                Poll::Pending => {
                    // Those before must not wait to be counted until there is room for this one.
                    hand_over(&mut chunk, &queue).await?;
                    sending.await
                }
            };
            chunk.push(Sent { due, bytes, delivery });
            if chunk.is_full() {
                hand_over(&mut chunk, &queue).await?;
            }
        }
        hand_over(&mut chunk, &queue).await?;
        producer.flush().await;
        Ok(())
    }

    fn value(&mut self, due: Instant) -> Bytes {
        let value = self.load.payload.value(&mut self.rng);
        match self.load.stamped_since {
            Some(origin) => stamped(&value, origin, due),
            None => value,
        }
    }

    fn count_unsent(&self, first: u64, now: Instant, meter: &Mutex<Meter>) {
        let Some(schedule) = self.schedule else { return };
        let mut meter = lock(meter);
        let dues = (first..).map(|number| schedule.due(number));
        for due in dues.take_while(|due| *due < self.until) {
            meter.unsent(due, now);
        }
    }
}

async fn hand_over(chunk: &mut Chunk, queue: &mpsc::Sender<Chunk>) -> anyhow::Result<()> {
    if chunk.is_empty() {
        return Ok(());
    }
    queue.send(chunk.take()).await.ok().context("nobody counts any more")
}

/// The producer's configuration that the flags ask for.
pub(super) fn producer_config(
    args: &BatchArgs,
    payload: &Payload,
) -> anyhow::Result<ProducerConfig> {
    if args.batch_records.is_some() && !payload.is_even() {
        return usage("--batch-records needs records of one size; use --batch-bytes");
    }
    let batch_bytes = match args.batch_records {
        None => usize::try_from(args.batch_bytes)?,
        Some(records) => bytes_of_batch(records, payload.record_bytes()),
    };
    let needed = bytes_of_batch(1, payload.record_bytes());
    if needed > batch_bytes {
        let record_bytes = payload.record_bytes();
        return usage(format!(
            "a record of {record_bytes} bytes needs batches of {needed}, not {batch_bytes}"
        ));
    }
    let config = ProducerConfig {
        linger: Duration::from_millis(args.linger_ms),
        batch_bytes,
        in_flight: args.in_flight,
        compression: match args.compression {
            CompressionArg::None => Compression::None,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        },
        // A buffer that does not hold a batch would be refused, or never fill one.
        buffer_bytes: usize::try_from(args.buffer_bytes)?.max(batch_bytes + OVERHEAD_BYTES),
        ..ProducerConfig::default()
    };
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => usage(format!("no producer can be so: {error}")),
    }
}

/// Bytes of a batch that so many records fit, and one more does not. Varints make records a few
/// bytes larger or smaller, hence half a record more.
fn bytes_of_batch(records: u32, record_bytes: usize) -> usize {
    let mut builder = BatchBuilder::new(Compression::None, usize::MAX);
    let record = Record {
        timestamp_ms: 0,
        key: None,
        value: Some(Bytes::from(vec![0; record_bytes])),
        headers: Vec::new(),
    };
    for _ in 0..records {
        if builder.push(&record).is_err() {
            break;
        }
    }
    builder.estimated_bytes() + record_bytes / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shared_out_exactly() {
        let shares: Vec<u64> = (0..3).map(|number| share(10, number, 3)).collect();
        assert_eq!(shares, [4, 3, 3]);
    }

    #[test]
    fn a_batch_of_so_many_records_holds_them_and_not_one_more() {
        for (records, record_bytes) in [(1, 100), (1, 8), (10, 1_024), (640, 100)] {
            let bytes_max = bytes_of_batch(records, record_bytes);
            let mut builder = BatchBuilder::new(Compression::None, bytes_max);
            let record = |timestamp_ms| Record {
                timestamp_ms,
                key: None,
                value: Some(Bytes::from(vec![1; record_bytes])),
                headers: Vec::new(),
            };
            let fitting = (0..1_000).take_while(|_| builder.push(&record(0)).is_ok()).count();
            assert_eq!(fitting, usize::try_from(records).unwrap(), "{records} x {record_bytes}");
        }
    }
}
