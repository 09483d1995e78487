//! Idempotent producers at a given rate, whose every record is in the history.
//!
//! Records go out by the clock, not as fast as answers come, so that a cluster that stops answering
//! shows as a gap in the acknowledgements and not as a slower test. What may be unanswered at once
//! is bounded; while that many are, nothing is sent and nothing is owed for later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quipu_client::{
    Client, Compression, Delivery, ProduceError, ProduceRecord, Producer, ProducerConfig,
    RecordMetadata,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::history::{Answer, Call};
use crate::live::payload;
use crate::live::recorder::{Recorder, failure};

/// Between two looks at how many records are due.
const TICK: Duration = Duration::from_millis(2);

/// Unanswered records of one producer. Four seconds' worth at the usual rate, and far below what
/// the producer's own buffer holds.
const UNANSWERED_MAX: usize = 20_000;

/// A record that no healthy cluster acknowledged for so long has failed.
const DELIVERY_WITHIN: Duration = Duration::from_secs(60);

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Where to.
    pub(super) topic: &'static str,
    /// How many partitions it has; all get the same.
    pub(super) partitions: u32,
    /// Producers, each with a connection of its own.
    pub(super) producers: u32,
    /// Records per second, of all together.
    pub(super) rate: u32,
    /// Of each record.
    pub(super) value_bytes: usize,
}

/// One acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    /// When it came.
    pub(super) at: Instant,
    /// Of which partition.
    pub(super) partition: u32,
    /// The term of the leader that gave it.
    pub(super) leader_epoch: u64,
}

/// Every acknowledgement so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks(Arc<Mutex<Vec<Ack>>>);

/// Producers at work. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Load {
    /// What they were told.
    pub(super) acks: Acks,
    stop: watch::Sender<bool>,
    producers: JoinSet<()>,
}

impl Acks {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all().len()
    }

    /// The first that came to each partition at or after this moment, those that got none left out.
    pub(super) fn first_since(&self, moment: Instant, partitions: u32) -> Vec<Ack> {
        let all = self.all();
        // They stand in the order in which they came.
        let later = &all[all.partition_point(|ack| ack.at < moment)..];
        let first = |partition| later.iter().find(|ack| ack.partition == partition);
        (0..partitions).filter_map(first).copied().collect()
    }

    /// The first of this partition from a leader of a higher term.
    pub(super) fn first_above(&self, partition: u32, epoch: u64) -> Option<Ack> {
        let all = self.all();
        let mut above = all.iter().filter(|ack| ack.partition == partition);
        above.find(|ack| ack.leader_epoch > epoch).copied()
    }

    /// How many came between two moments.
    pub(super) fn count_between(&self, from: Instant, to: Instant) -> usize {
        let all = self.all();
        let place = |moment| all.partition_point(|ack| ack.at < moment);
        place(to).saturating_sub(place(from))
    }

    fn add(&self, metadata: &RecordMetadata) {
        let (partition, leader_epoch) = (metadata.partition, metadata.leader_epoch);
        let mut all = self.all();
        // With the lock held, so that they stand in the order of their times.
        all.push(Ack { at: Instant::now(), partition, leader_epoch });
    }

    fn all(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Sets the producers to work, each on one of these clients.
    ///
    /// # Errors
    /// If a producer's configuration is refused.
    pub(super) fn start(
        clients: &[Client],
        plan: &Plan,
        recorder: &Recorder,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let acks = Acks::default();
        let numbers = Arc::new(AtomicU64::new(1));
        let mut producers = JoinSet::new();
        for (index, client) in (0..plan.producers).zip(clients.iter().cycle()) {
            let config = ProducerConfig {
                delivery_timeout: DELIVERY_WITHIN,
                compression: Compression::None,
                ..ProducerConfig::default()
            };
            let at_work = AtWork {
                process: format!("producer-{index}"),
                producer: client.producer(config).context("a producer")?,
                plan: plan.clone(),
                rate: plan.rate.div_ceil(plan.producers),
                recorder: recorder.clone(),
                acks: acks.clone(),
                numbers: Arc::clone(&numbers),
                stopped: stopped.clone(),
            };
            producers.spawn(at_work.run());
        }
        Ok(Self { acks, stop, producers })
    }

    /// Sends nothing more, and waits until every record has come to its end.
    ///
    /// # Errors
    /// If a producer panicked, or records did not end within the time the producer promises.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(ended) = self.producers.join_next().await {
                ended.context("a producer's task panicked")?;
            }
            anyhow::Ok(())
        };
        timeout(DELIVERY_WITHIN * 2, all).await.context("records came to no end")?
    }
}

struct AtWork {
    process: String,
    producer: Producer,
    plan: Plan,
    /// Records per second of this producer.
    rate: u32,
    recorder: Recorder,
    acks: Acks,
    numbers: Arc<AtomicU64>,
    stopped: watch::Receiver<bool>,
}

type Ending = (u64, Result<RecordMetadata, ProduceError>);

impl AtWork {
    async fn run(self) {
        let mut waiting = FuturesUnordered::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut paced_from = Instant::now();
        let mut sent = 0_u64;
        while !*self.stopped.borrow() {
            tokio::select! {
                Some(ending) = waiting.next(), if !waiting.is_empty() => self.take_down(ending),
                _ = tick.tick() => {
                    let due = due(paced_from.elapsed(), self.rate);
                    while sent < due {
                        if waiting.len() >= UNANSWERED_MAX {
                            (paced_from, sent) = (Instant::now(), 0);
                            break;
                        }
                        let (op, delivery) = self.send().await;
                        waiting.push(async move { (op, delivery.await) });
                        sent += 1;
                    }
                }
            }
        }
        self.producer.flush().await;
        while let Some(ending) = waiting.next().await {
            self.take_down(ending);
        }
    }

    async fn send(&self) -> (u64, Delivery) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let partition = number % u64::from(self.plan.partitions);
        let partition = u32::try_from(partition).expect("below a u32");
        let values = vec![number];
        let op = self.recorder.invoke(&self.process, Call::Append { partition, values });
        let record = ProduceRecord {
            partition: Some(partition),
            ..ProduceRecord::new(self.plan.topic, payload::value(number, self.plan.value_bytes))
        };
        (op, self.producer.send(record).await)
    }

    fn take_down(&self, (op, result): Ending) {
        match result {
            Ok(metadata) => {
                let base_offset = metadata.offset;
                self.recorder.ok(&self.process, op, Answer::Appended { base_offset });
                self.acks.add(&metadata);
            }
            Err(error) => {
                let failure = failure(error.code(), &error);
                self.recorder.failed(&self.process, op, error.outcome(), failure);
            }
        }
    }
}

/// How many records a rate (per second) asks for in so long a time.
fn due(elapsed: Duration, rate: u32) -> u64 {
    let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(partition: u32, leader_epoch: u64) -> RecordMetadata {
        RecordMetadata {
            topic: "t".to_owned(),
            partition,
            offset: Some(0),
            duplicate: false,
            timestamp_ms: 0,
            leader_epoch,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_are_found_by_time_and_by_term() {
        let acks = Acks::default();
        let start = Instant::now();
        for (partition, epoch) in [(0, 1), (1, 1), (0, 2)] {
            acks.add(&ack(partition, epoch));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let later = start + Duration::from_millis(10);
        let first: Vec<u32> = acks.first_since(later, 3).iter().map(|it| it.partition).collect();
        assert_eq!(first, [0, 1]);
        assert_eq!(acks.first_above(0, 1).map(|it| it.leader_epoch), Some(2));
        assert_eq!(acks.count_between(start, later), 1);
        assert!(acks.first_above(1, 1).is_none());
    }
}
