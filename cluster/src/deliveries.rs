//! Waits for the delivery of many records and keeps count: what `append` reports.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::ProgressBar;
use quipu_client::{Delivery, Outcome, ProduceError, RecordMetadata};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::latency::{Latencies, per_second, seconds};

/// Records between the sender and the one who waits for them; their bytes are in the producer.
const QUEUE_RECORDS: usize = 1_024;

/// Failures that are kept to be told; more are only counted.
const FAILURES_MAX: usize = 10;

/// Hands deliveries over to be waited for.
#[derive(Debug)]
pub(crate) struct Deliveries {
    queue: mpsc::Sender<Sent>,
    tally: JoinHandle<Tally>,
}

struct Sent {
    number: u64,
    at: Instant,
    delivery: Delivery,
}

/// How many records ended how, where, and after how long.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) acked: u64,
    /// By partition: smallest and largest offset acknowledged.
    pub(crate) partitions: BTreeMap<u32, OffsetSpan>,
    pub(crate) latencies: Latencies,
    /// The first failures: the record's number and why.
    pub(crate) failures: Vec<(u64, ProduceError)>,
    /// Some record may or may not have been appended.
    pub(crate) any_unknown: bool,
}

/// Offsets from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct OffsetSpan {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What `-o json` prints of an append (docs/cli.md).
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) records: u64,
    pub(crate) acked: u64,
    pub(crate) failed: u64,
    pub(crate) partitions: BTreeMap<String, OffsetSpan>,
    pub(crate) seconds: f64,
    pub(crate) records_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Deliveries {
    /// Begins to wait; the bar advances with each acknowledgement.
    pub(crate) fn start(bar: ProgressBar) -> Deliveries {
        let (queue, deliveries) = mpsc::channel(QUEUE_RECORDS);
        Deliveries { queue, tally: tokio::spawn(tally(deliveries, bar)) }
    }

    /// Waits for this record too. `at` is when it was handed to the producer.
    pub(crate) async fn add(&self, number: u64, at: Instant, delivery: Delivery) {
        let sent = Sent { number, at, delivery };
        self.queue.send(sent).await.expect("the tally ends only after the queue is closed");
    }

    /// Waits until every record has been acknowledged or has failed.
    pub(crate) async fn finish(self) -> Tally {
        drop(self.queue);
        self.tally.await.expect("counting doesn't panic")
    }
}

async fn tally(mut queue: mpsc::Receiver<Sent>, bar: ProgressBar) -> Tally {
    let mut tally = Tally::new();
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        tokio::select! {
            sent = queue.recv(), if is_open => match sent {
                Some(Sent { number, at, delivery }) => {
                    waiting.push(async move { (number, at, delivery.await) });
                }
                None => is_open = false,
            },
            Some((number, at, result)) = waiting.next(), if !waiting.is_empty() => {
                tally.add(number, at.elapsed(), result);
                bar.inc(1);
            }
        }
    }
    tally
}

impl Tally {
    fn new() -> Tally {
        Tally {
            records: 0,
            acked: 0,
            partitions: BTreeMap::new(),
            latencies: Latencies::new(),
            failures: Vec::new(),
            any_unknown: false,
        }
    }

    fn add(
        &mut self,
        number: u64,
        latency: Duration,
        result: Result<RecordMetadata, ProduceError>,
    ) {
        self.records += 1;
        match result {
            Ok(metadata) => {
                self.acked += 1;
                self.latencies.record(latency);
                if let Some(offset) = metadata.offset {
                    let span = self
                        .partitions
                        .entry(metadata.partition)
                        .or_insert(OffsetSpan { first: offset, last: offset });
                    span.first = span.first.min(offset);
                    span.last = span.last.max(offset);
                }
            }
            Err(error) => {
                self.any_unknown |= error.outcome() == Outcome::Unknown;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push((number, error));
                }
            }
        }
    }

    /// Records that were not acknowledged.
    pub(crate) fn failed(&self) -> u64 {
        self.records - self.acked
    }

    /// The summary of an append that took so long.
    pub(crate) fn summary(&self, elapsed: Duration) -> Summary {
        Summary {
            records: self.records,
            acked: self.acked,
            failed: self.failed(),
            partitions: self.partitions.iter().map(|(p, span)| (p.to_string(), *span)).collect(),
            seconds: seconds(elapsed),
            records_per_s: per_second(self.acked, elapsed),
            p50_ms: self.latencies.percentile_ms(0.5),
            p99_ms: self.latencies.percentile_ms(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(partition: u32, offset: Option<u64>) -> RecordMetadata {
        RecordMetadata {
            topic: "t".to_owned(),
            partition,
            offset,
            duplicate: false,
            timestamp_ms: 0,
            leader_epoch: 1,
        }
    }

    #[test]
    fn a_tally_keeps_spans_failures_and_whether_anything_is_unknown() {
        let mut tally = Tally::new();
        for offset in [4, 3, 5] {
            tally.add(offset, Duration::from_millis(2), Ok(metadata(1, Some(offset))));
        }
        tally.add(6, Duration::from_millis(2), Ok(metadata(0, None)));
        tally.add(7, Duration::ZERO, Err(ProduceError::Closed { outcome: Outcome::Definite }));
        assert!(!tally.any_unknown);
        tally.add(8, Duration::ZERO, Err(ProduceError::Closed { outcome: Outcome::Unknown }));
        assert!(tally.any_unknown);
        let summary = serde_json::to_string(&tally.summary(Duration::from_secs(2))).unwrap();
        assert_eq!(
            summary,
            concat!(
                r#"{"records":6,"acked":4,"failed":2,"partitions":{"1":{"first":3,"last":5}},"#,
                r#""seconds":2.0,"records_per_s":2.0,"p50_ms":2.0,"p99_ms":2.0}"#
            )
        );
    }
}
