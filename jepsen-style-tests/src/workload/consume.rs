//! A client that follows the whole topic with the library's consumer.

use std::collections::BTreeMap;
use std::time::Duration;

use quipu_client::{ConsumeError, Consumer, ConsumerConfig, OutOfRange, ReadError, StartAt};
use tokio::time::timeout;

use super::{TOPIC, Worker, value_of};
use crate::history::{Answer, Call};

/// A poll that brought nothing for so long is over, and another begins.
const POLL_FOR: Duration = Duration::from_millis(500);

/// Follows every partition from its beginning; now and then it seeks.
pub async fn follow(mut worker: Worker) {
    let Some(client) = worker.client().await else { return };
    // Somebody goes on where retention took records; what is missing then is no fault.
    let config = ConsumerConfig {
        out_of_range: OutOfRange::Error,
        max_wait: Duration::from_millis(200),
        fetch_bytes: 64 << 10,
        ..ConsumerConfig::default()
    };
    let mut consumer = client.consumer(config).expect("a valid configuration");
    let mut nexts: BTreeMap<u32, u64> = BTreeMap::new();
    for partition in 0..worker.partitions {
        nexts.insert(partition, 0);
    }
    let places = nexts.keys().map(|it| (TOPIC.to_owned(), *it, StartAt::Offset(0))).collect();
    if consumer.assign(places).await.is_err() {
        return;
    }
    for (partition, offset) in &nexts {
        took(&worker, *partition, *offset);
    }
    while worker.is_working() {
        if worker.rng.u8(0..100) == 0 {
            let partition = worker.partition();
            let next = nexts.get(&partition).copied().unwrap_or(0);
            let offset = next.saturating_sub(worker.rng.u64(0..=100));
            seek(&worker, &mut consumer, &mut nexts, partition, offset).await;
        }
        poll(&worker, &mut consumer, &mut nexts).await;
    }
}

/// Takes down that the consumer is at a place now.
fn took(worker: &Worker, partition: u32, offset: u64) {
    let consumer = worker.process.clone();
    let op = worker.invoke(Call::Seek { consumer, partition, offset });
    worker.ok(op, Answer::Done);
}

async fn seek(
    worker: &Worker,
    consumer: &mut Consumer,
    nexts: &mut BTreeMap<u32, u64>,
    partition: u32,
    offset: u64,
) {
    if consumer.seek(TOPIC, partition, StartAt::Offset(offset)).await.is_ok() {
        took(worker, partition, offset);
        nexts.insert(partition, offset);
    }
}

async fn poll(worker: &Worker, consumer: &mut Consumer, nexts: &mut BTreeMap<u32, u64>) {
    let op = worker.invoke(Call::Poll { consumer: worker.process.clone() });
    match timeout(POLL_FOR, consumer.next_batch()).await {
        Ok(Some(Ok(records))) => {
            let Some(first) = records.first() else { return };
            let (partition, base_offset) = (first.partition, first.offset);
            let values: Vec<u64> =
                records.iter().map(|record| value_of(record.value.as_ref())).collect();
            let count = u64::try_from(values.len()).expect("a usize fits");
            nexts.insert(partition, base_offset + count);
            worker.ok(op, Answer::Polled { partition, base_offset, values });
        }
        Ok(Some(Err(error))) => {
            worker.failed(op, error.code(), error.outcome(), &error);
            let ConsumeError::Read { partition, source, .. } = error else { return };
            if let ReadError::OffsetOutOfRange { log_start_offset, .. } = source {
                seek(worker, consumer, nexts, partition, log_start_offset).await;
            }
        }
        // A poll that brought nothing has nothing to tell.
        Ok(None) | Err(_) => worker.ok(op, Answer::Done),
    }
}
