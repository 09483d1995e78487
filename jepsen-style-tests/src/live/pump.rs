//! Appends in bulk: as fast as they are acknowledged, or at a rate. Counted, not recorded:
//! gigabytes of history would measure the harness. What was appended is found again by its payload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quipu_client::{Client, Delivery, ProduceRecord, Producer, ProducerConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::live::payload;

const DELIVERY_WITHIN: Duration = Duration::from_secs(60);

const BATCH_BYTES: usize = 256 << 10;

/// Records of one producer without an answer, by bytes.
const BUFFER_BYTES: usize = 4 << 20;

/// One latency in so many is kept.
const SAMPLE_ONE_IN: u64 = 64;

const TICK: Duration = Duration::from_millis(2);

/// What to append.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Where to.
    pub(super) topic: &'static str,
    /// How many partitions it has; all get the same.
    pub(super) partitions: u32,
    /// Producers, each with a connection of its own.
    pub(super) producers: u32,
    /// Of each record.
    pub(super) value_bytes: usize,
    /// Records per second of all producers; 0: as fast as they are acknowledged.
    pub(super) rate: u32,
}

/// What was done so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// Records acknowledged.
    pub(super) acked: Arc<AtomicU64>,
    /// Records that failed; the first reason is kept.
    pub(super) failed: Arc<AtomicU64>,
    reason: Arc<Mutex<Option<String>>>,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

/// Producers at work. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) done: Done,
    stop: watch::Sender<bool>,
    producers: JoinSet<()>,
}

struct AtWork {
    producer: Producer,
    plan: Plan,
    rate: u32,
    done: Done,
    numbers: Arc<AtomicU64>,
    stopped: watch::Receiver<bool>,
}

impl Done {
    /// Records acknowledged so far.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// How many failed, and why the first did.
    pub(super) fn failed(&self) -> (u64, Option<String>) {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.failed.load(Ordering::Relaxed), reason)
    }

    /// Median and 99th percentile of what was sampled since the last call.
    pub(super) fn latencies(&self) -> (Duration, Duration) {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sampled = std::mem::take(&mut *latencies);
        sampled.sort_unstable();
        let at = |percent: usize| sampled.get(sampled.len() * percent / 100).copied();
        (at(50).unwrap_or_default(), at(99).unwrap_or_default())
    }

    fn add(&self, number: u64, took: Duration) {
        self.acked.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(SAMPLE_ONE_IN) {
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
    }

    fn add_failure(&self, reason: impl ToString) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| reason.to_string());
    }
}

impl Pump {
    /// Sets the producers to work; `done` goes on counting, `numbers` goes on numbering.
    ///
    /// # Errors
    /// If a producer's configuration is refused.
    pub(super) fn start(
        clients: &[Client],
        plan: &Plan,
        done: &Done,
        numbers: &Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut producers = JoinSet::new();
        for (_, client) in (0..plan.producers).zip(clients.iter().cycle()) {
            let config = ProducerConfig {
                delivery_timeout: DELIVERY_WITHIN,
                batch_bytes: BATCH_BYTES,
                buffer_bytes: BUFFER_BYTES,
                ..ProducerConfig::default()
            };
            let at_work = AtWork {
                producer: client.producer(config).context("a producer")?,
                plan: plan.clone(),
                rate: plan.rate.div_ceil(plan.producers),
                done: done.clone(),
                numbers: Arc::clone(numbers),
                stopped: stopped.clone(),
            };
            producers.spawn(at_work.run());
        }
        Ok(Self { done: done.clone(), stop, producers })
    }

    /// Sends nothing more, and waits until every record has come to its end.
    ///
    /// # Errors
    /// If a producer panicked, or records came to no end.
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

impl AtWork {
    async fn run(self) {
        let mut waiting = FuturesUnordered::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (paced_from, mut sent) = (Instant::now(), 0_u64);
        while !*self.stopped.borrow() {
            let due = match self.rate {
                // Sending waits while the buffer is full, which is the pace.
                0 => sent + 1,
                rate => {
                    tick.tick().await;
                    let due = paced_from.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                    u64::try_from(due).unwrap_or(u64::MAX)
                }
            };
            while sent < due && !*self.stopped.borrow() {
                let (number, sent_at, delivery) = self.send().await;
                waiting.push(async move { (number, sent_at, delivery.await) });
                sent += 1;
                self.take_ended(&mut waiting).await;
            }
            self.take_ended(&mut waiting).await;
        }
        self.producer.flush().await;
        while let Some(ended) = waiting.next().await {
            self.take(ended);
        }
    }

    /// Takes what has ended, without waiting for what has not.
    async fn take_ended<F>(&self, waiting: &mut FuturesUnordered<F>)
    where
        F: Future<Output = Ended>,
    {
        loop {
            tokio::select! {
                biased;
                Some(ended) = waiting.next(), if !waiting.is_empty() => self.take(ended),
                () = std::future::ready(()) => return,
            }
        }
    }

    async fn send(&self) -> (u64, Instant, Delivery) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let partition = number % u64::from(self.plan.partitions);
        let record = ProduceRecord {
            partition: Some(u32::try_from(partition).expect("below a u32")),
            ..ProduceRecord::new(self.plan.topic, payload::value(number, self.plan.value_bytes))
        };
        let sent_at = Instant::now();
        (number, sent_at, self.producer.send(record).await)
    }

    fn take(&self, (number, sent_at, result): Ended) {
        match result {
            Ok(_) => self.done.add(number, sent_at.elapsed()),
            Err(error) => self.done.add_failure(error),
        }
    }
}

type Ended = (u64, Instant, Result<quipu_client::RecordMetadata, quipu_client::ProduceError>);
