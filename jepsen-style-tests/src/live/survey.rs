//! The end of a run with a history: every node is asked for its whole log and its chain hash.
//!
//! Read at level linearizable from each node's own replica, every value compared with what was
//! sent. What a node can't tell within the time is a violation, not a reason to end the harness.

use std::time::Duration;

use quipu_client::{Client, FetchOptions, ReadError, ReadLevel};
use tokio::time::{Instant, sleep};

use crate::history::{Answer, Call};
use crate::live::cluster::LiveCluster;
use crate::live::payload;
use crate::live::recorder::{Recorder, read_failure};
use crate::violation::Violation;

/// Each replica must be readable to its end within this time after the last fault.
const WITHIN: Duration = Duration::from_secs(60);

const AGAIN_AFTER: Duration = Duration::from_millis(100);

const FETCH_BYTES: u32 = 4 << 20;

const PROCESS: &str = "survey";

/// The whole log of every partition from every node, into the history.
pub(super) async fn survey(
    cluster: &LiveCluster,
    client: &Client,
    topic: (&str, u32),
    recorder: &Recorder,
) -> Vec<Violation> {
    survey_nodes(&cluster.ids(), client, topic, recorder).await
}

/// The same of nodes that are no children of this process.
pub(super) async fn survey_nodes(
    nodes: &[u64],
    client: &Client,
    (topic, partitions): (&str, u32),
    recorder: &Recorder,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for partition in 0..partitions {
        for node in nodes.iter().copied() {
            let op = recorder.invoke(PROCESS, Call::Survey { partition, node });
            match survey_one(client, node, (topic, partition)).await {
                Ok(log) => recorder.ok(PROCESS, op, log),
                Err(error) => {
                    let what =
                        format!("node {node} can't be read in partition {partition}: {error}");
                    let failure = read_failure(&error);
                    recorder.failed(PROCESS, op, error.outcome(), failure);
                    violations.push(Violation::NotServing { what });
                }
            }
        }
    }
    violations
}

async fn survey_one(
    client: &Client,
    node: u64,
    (topic, partition): (&str, u32),
) -> Result<Answer, ReadError> {
    let deadline = Instant::now() + WITHIN;
    let (start, values) = loop {
        match read_all(client, node, (topic, partition)).await {
            Ok(all) => break all,
            // Damage doesn't go away by asking again.
            Err(error @ (ReadError::Corrupt { .. } | ReadError::Gap { .. })) => return Err(error),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(AGAIN_AFTER).await,
        }
    };
    let end = start + u64::try_from(values.len()).expect("a usize fits");
    let admin = client.admin();
    let chain_hash = loop {
        match admin.describe_replica(node, topic, partition, Some(end)).await {
            Ok(replica) => break replica.chain_hash.filter(|_| replica.chain_hash_offset == end),
            Err(_) if Instant::now() < deadline => sleep(AGAIN_AFTER).await,
            // Seen by `replicas_are_compared`.
            Err(_) => break None,
        }
    };
    Ok(Answer::Log { start, values, chain_hash: chain_hash.map(|hash| hex(&hash)) })
}

/// The numbers of all records that a node serves, and the offset of the first.
pub(super) async fn read_all(
    client: &Client,
    node: u64,
    (topic, partition): (&str, u32),
) -> Result<(u64, Vec<u64>), ReadError> {
    let options = FetchOptions {
        level: ReadLevel::Linearizable,
        node: Some(node),
        max_bytes: FETCH_BYTES,
        ..FetchOptions::default()
    };
    let first = client.fetch(topic, partition, 0, options.clone()).await;
    let start = match first {
        Ok(fetched) => fetched.log_start_offset,
        Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) => log_start_offset,
        Err(error) => return Err(error),
    };
    let (mut values, mut offset) = (Vec::new(), start);
    loop {
        let fetched = client.fetch(topic, partition, offset, options.clone()).await?;
        for record in &fetched.records {
            let Some(number) = payload::number(record.value.as_deref()) else {
                let reason = "the value is not what was sent".to_owned();
                return Err(ReadError::Corrupt { offset: record.offset, reason });
            };
            values.push(number);
        }
        if fetched.next_offset >= fetched.high_watermark {
            return Ok((start, values));
        }
        if fetched.next_offset == offset {
            let reason = format!(
                "nothing came from offset {offset}, and the end is {}",
                fetched.high_watermark
            );
            return Err(ReadError::Corrupt { offset, reason });
        }
        offset = fetched.next_offset;
    }
}

/// Bytes as people write them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
