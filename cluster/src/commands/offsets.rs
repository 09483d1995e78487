//! From positions on the command line to offsets of a partition.

use anyhow::bail;
use quipu_client::{Client, Offsets, Position as Lookup};

use crate::failure::usage;
use crate::position::Position;

/// The offset at `position`, with the bounds of the partition as they were then.
pub(super) async fn resolve(
    client: &Client,
    topic: &str,
    partition: u32,
    position: Position,
) -> anyhow::Result<Offsets> {
    let lookup = match position {
        Position::Earliest => Lookup::Earliest,
        Position::Latest | Position::Offset(_) | Position::BeforeEnd(_) => Lookup::Latest,
        Position::EntryTime(time) => {
            Lookup::EntryTime(u64::try_from(time.as_millisecond()).unwrap_or(0))
        }
        Position::EventTime(time) => Lookup::EventTime(time.as_millisecond()),
    };
    let found = client.list_offsets(topic, partition, lookup).await?;
    let offset = match position {
        Position::Offset(offset) => offset,
        Position::BeforeEnd(count) => {
            found.high_watermark.saturating_sub(count).max(found.log_start_offset)
        }
        Position::Earliest | Position::Latest | Position::EntryTime(_) | Position::EventTime(_) => {
            found.offset
        }
    };
    let bounds = found.log_start_offset..=found.high_watermark;
    if !bounds.contains(&offset) {
        bail!(
            "offset {offset} is outside partition {partition} of {topic}, which holds {} to {}",
            found.log_start_offset,
            found.high_watermark
        );
    }
    Ok(Offsets { offset, ..found })
}

/// The partitions that a command is about: those named, else all. Named ones have to exist.
pub(super) async fn partitions(
    client: &Client,
    topic: &str,
    named: &[u32],
) -> anyhow::Result<Vec<u32>> {
    let count = client.partition_count(topic).await?;
    if let Some(missing) = named.iter().find(|partition| **partition >= count) {
        return usage(format!("topic {topic} has partitions 0 to {}, no {missing}", count - 1));
    }
    let mut partitions = named.to_vec();
    partitions.sort_unstable();
    partitions.dedup();
    if partitions.is_empty() {
        partitions = (0..count).collect();
    }
    Ok(partitions)
}
