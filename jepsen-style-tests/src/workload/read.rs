//! A client that reads at one node, always linearizable, mostly at the end of the log.

use quipu_client::{FetchOptions, ReadError, ReadLevel};

use super::{TOPIC, Worker, value_of};
use crate::history::{Answer, Call};

/// Longest pause between two reads, in milliseconds.
const PAUSE_MS_MAX: u64 = 60;
/// Small, so that a read often ends before the log does.
const READ_BYTES_MAX: u32 = 16 << 10;

/// Reads at the node with this label.
pub async fn at_node(mut worker: Worker, node: u64) {
    let Some(client) = worker.client().await else { return };
    let mut ends = vec![0_u64; usize::try_from(worker.partitions).expect("a u32 fits")];
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let partition = worker.partition();
        let end = &mut ends[usize::try_from(partition).expect("a u32 fits")];
        let again = worker.rng.u8(0..8) == 0;
        let from = if again { worker.rng.u64(0..=*end) } else { *end };
        let options = FetchOptions {
            level: ReadLevel::Linearizable,
            max_bytes: READ_BYTES_MAX,
            node: Some(node),
            ..FetchOptions::default()
        };
        let op = worker.invoke(Call::Read { partition, node, from });
        match client.fetch(TOPIC, partition, from, options).await {
            Ok(fetched) => {
                let records = fetched.records.iter();
                let values = records.map(|record| value_of(record.value.as_ref())).collect();
                *end = fetched.next_offset;
                worker.ok(op, Answer::Records { values, end: fetched.high_watermark });
            }
            // This says where the log ends, and must be no less true than an answer.
            Err(ReadError::OffsetOutOfRange { high_watermark, .. }) => {
                worker.ok(op, Answer::Records { values: Vec::new(), end: high_watermark });
            }
            Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
        }
    }
}
