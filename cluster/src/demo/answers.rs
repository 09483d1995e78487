//! What a fresh reader finds and what the replicas say, when everything is over.

use std::time::Duration;

use bytes::Bytes;
use quipu_client::{Client, FetchOptions, Position};
use tokio::time::Instant;

use crate::demo::history::{Found, History, ReplicaAnswer};
use crate::demo::{PARTITIONS, TOPIC, content};

/// The restarted node has caught up by then, or is broken.
const CAUGHT_UP_TIMEOUT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(50);

/// Reads every partition from its start to its end, linearizable.
pub(super) async fn read_all(client: &Client) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let ends = client.list_offsets(TOPIC, partition, Position::Latest).await?;
        let mut next = ends.log_start_offset;
        while next < ends.high_watermark {
            let fetched = client.fetch(TOPIC, partition, next, FetchOptions::default()).await?;
            found.extend(fetched.records.iter().map(content::of_record));
            next = fetched.next_offset;
        }
    }
    Ok(found)
}

/// Asks every node for the chain hash of each of its replicas at the end that was read. One that
/// lags is asked again for a while.
pub(super) async fn replicas(
    client: &Client,
    history: &History,
) -> anyhow::Result<Vec<ReplicaAnswer>> {
    let deadline = Instant::now() + CAUGHT_UP_TIMEOUT;
    let mut answers = Vec::new();
    for partition in 0..PARTITIONS {
        let in_partition = history.read.iter().filter(|found| found.partition == partition);
        let Some(end) = in_partition.map(|found| found.offset + 1).max() else { continue };
        for node in &history.nodes {
            answers.push(replica(client, (*node, partition), end, deadline).await);
        }
    }
    Ok(answers)
}

async fn replica(
    client: &Client,
    (node, partition): (u64, u32),
    end: u64,
    deadline: Instant,
) -> ReplicaAnswer {
    loop {
        let asked = client.admin().describe_replica(node, TOPIC, partition, Some(end)).await;
        let hash = asked.ok().filter(|replica| replica.chain_hash_offset == end);
        let chain_hash = hash.and_then(|replica| replica.chain_hash).unwrap_or_else(Bytes::new);
        if !chain_hash.is_empty() || Instant::now() >= deadline {
            return ReplicaAnswer { node, partition, offset: end, chain_hash };
        }
        tokio::time::sleep(POLL).await;
    }
}
