//! Whether the replicas of bulk partitions hold the same: their ends, then their chain hashes at
//! one offset.

use std::time::Duration;

use quipu_client::{Client, Position};
use tokio::time::{Instant, sleep};

/// A follower has applied everything within this time after the last append.
const WITHIN: Duration = Duration::from_secs(60);

const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Compares every partition on every node while nobody appends. Returns the sum of the ends, and
/// what differs.
///
/// # Errors
/// If the end of a partition can't be learned.
pub(super) async fn compare(
    client: &Client,
    nodes: &[u64],
    (topic, partitions): (&str, u32),
) -> anyhow::Result<(u64, Vec<String>)> {
    let (mut ends, mut differences) = (0, Vec::new());
    for partition in 0..partitions {
        let end = client.list_offsets(topic, partition, Position::Latest).await?.high_watermark;
        ends += end;
        let mut hashes = Vec::new();
        for node in nodes {
            match hash_at(client, *node, (topic, partition), end).await {
                Ok(hash) => hashes.push((*node, hash)),
                Err(why) => differences.push(format!("partition {partition}, node {node}: {why}")),
            }
        }
        if let Some((first, rest)) = hashes.split_first()
            && let Some(other) = rest.iter().find(|other| other.1 != first.1)
        {
            differences.push(format!(
                "partition {partition}: nodes {} and {} differ below offset {end}",
                first.0, other.0
            ));
        }
    }
    Ok((ends, differences))
}

async fn hash_at(
    client: &Client,
    node: u64,
    (topic, partition): (&str, u32),
    end: u64,
) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + WITHIN;
    let admin = client.admin();
    loop {
        let why = match admin.describe_replica(node, topic, partition, Some(end)).await {
            Ok(replica) if replica.high_watermark >= end => {
                let hash = replica.chain_hash.filter(|_| replica.chain_hash_offset == end);
                return hash.map(|hash| hash.to_vec()).ok_or("no chain hash is told".to_owned());
            }
            Ok(replica) => format!("its end is {}, not {end}", replica.high_watermark),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        sleep(AGAIN_AFTER).await;
    }
}
