//! Clients that append: one batch after the other, or many records under way.
//!
//! Both number what they send, so that a retry is written once. An append of unknown outcome ends
//! the producer's identity, because nobody knows which number is next.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_client::{
    AppendOptions, AppendRecord, Client, Outcome, ProduceRecord, ProducerConfig, ProducerIdentity,
};

use super::{TOPIC, Worker};
use crate::history::{Answer, Call};

/// Records of one batch.
const BATCH_RECORDS_MAX: usize = 5;
/// Records under way of a pipelined producer.
const BURST_RECORDS_MAX: usize = 30;
/// Longest pause between two appends, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;

/// Appends one batch after the other.
pub async fn one_shot(mut worker: Worker) {
    let Some(client) = worker.client().await else { return };
    let mut identity: Option<ProducerIdentity> = None;
    // The next sequence, by partition.
    let mut sequences: BTreeMap<u32, u32> = BTreeMap::new();
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let Some(known) = identity else {
            // Asking has no effect that a history could show.
            identity = client.new_producer().await.ok();
            sequences.clear();
            continue;
        };
        let partition = worker.partition();
        let sequence = sequences.entry(partition).or_default();
        let numbered = ProducerIdentity { sequence_first: *sequence, ..known };
        match append(&mut worker, &client, partition, numbered).await {
            Ok(record_count) => *sequence += record_count,
            Err(Outcome::Definite) => {}
            Err(Outcome::Unknown) => identity = None,
        }
    }
}

async fn append(
    worker: &mut Worker,
    client: &Client,
    partition: u32,
    identity: ProducerIdentity,
) -> Result<u32, Outcome> {
    let count = worker.rng.usize(1..=BATCH_RECORDS_MAX);
    let values = worker.take_values(count);
    let records: Vec<AppendRecord> =
        values.iter().map(|value| AppendRecord::new(worker.payload(*value))).collect();
    let options = AppendOptions { identity: Some(identity), ..AppendOptions::default() };
    let op = worker.invoke(Call::Append { partition, values });
    match client.append(TOPIC, partition, records, options).await {
        Ok(appended) => {
            worker.ok(op, Answer::Appended { base_offset: appended.base_offset });
            Ok(appended.record_count)
        }
        Err(error) => {
            worker.failed(op, error.code(), error.outcome(), &error);
            Err(error.outcome())
        }
    }
}

/// Appends bursts of records through the library's producer.
pub async fn pipelined(mut worker: Worker) {
    let Some(client) = worker.client().await else { return };
    let config =
        ProducerConfig { delivery_timeout: Duration::from_secs(10), ..ProducerConfig::default() };
    let producer = client.producer(config).expect("a valid configuration");
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let mut under_way = FuturesUnordered::new();
        let count = worker.rng.usize(1..=BURST_RECORDS_MAX);
        for value in worker.take_values(count) {
            let partition = worker.partition();
            let record = ProduceRecord {
                partition: Some(partition),
                ..ProduceRecord::new(TOPIC, worker.payload(value))
            };
            let op = worker.invoke(Call::Append { partition, values: vec![value] });
            let delivery = producer.send(record).await;
            under_way.push(async move { (op, delivery.await) });
        }
        while let Some((op, delivered)) = under_way.next().await {
            match delivered {
                Ok(metadata) => worker.ok(op, Answer::Appended { base_offset: metadata.offset }),
                Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
            }
        }
    }
    producer.close().await;
}
