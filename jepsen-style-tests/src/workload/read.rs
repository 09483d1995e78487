//! A client that reads at all nodes: mostly at the end of the log, mostly linearizable.

use std::collections::BTreeMap;
use std::time::Duration;

use quipu_client::{Client, FetchOptions, Position, ReadError, ReadLevel};

use super::{Place, Worker, value_of};
use crate::history::{Answer, Call, Level};
use crate::nemesis::LeaderBoard;

/// Longest pause between two reads, in milliseconds.
const PAUSE_MS_MAX: u64 = 100;
/// A node that is down or cut off must not keep a reader from reading elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);
/// Small, so that a read often ends before the log does.
const READ_BYTES_MAX: u32 = 16 << 10;

/// Reads at whichever node has a replica.
pub async fn everywhere(mut worker: Worker, board: LeaderBoard) {
    worker.config.request_timeout = PATIENCE;
    worker.config.retry_timeout = PATIENCE;
    let Some(client) = worker.client().await else { return };
    let mut ends: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let place = worker.place();
        let Some(node) = worker.rng.choice(board.replicas(place.partition)) else { continue };
        if worker.rng.u8(0..16) == 0 {
            list_offsets(&worker, &client, &place).await;
            continue;
        }
        let end = ends.entry((place.partition, node)).or_default();
        let again = worker.rng.u8(0..8) == 0;
        let from = if again { worker.rng.u64(end.saturating_sub(200)..=*end) } else { *end };
        let level = draw_level(&mut worker);
        let next = read(&worker, &client, (&place, node), (from, level)).await;
        *end = next.unwrap_or(0).max(*end);
    }
}

async fn list_offsets(worker: &Worker, client: &Client, place: &Place) {
    let op = worker.invoke(Call::ListOffsets { partition: place.number });
    match client.list_offsets(&place.topic, place.partition, Position::Latest).await {
        Ok(found) => {
            let (log_start, end) = (found.log_start_offset, found.high_watermark);
            worker.ok(op, Answer::Offsets { log_start, end });
        }
        Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
    }
}

/// Answers where to go on.
async fn read(
    worker: &Worker,
    client: &Client,
    (place, node): (&Place, u64),
    (from, level): (u64, ReadLevel),
) -> Option<u64> {
    let options = FetchOptions {
        level,
        max_bytes: READ_BYTES_MAX,
        node: Some(node),
        ..FetchOptions::default()
    };
    let op = worker.invoke(call(place.number, node, from, level));
    match client.fetch(&place.topic, place.partition, from, options).await {
        Ok(fetched) => {
            let records = fetched.records.iter();
            let values = records.map(|record| value_of(record.value.as_ref())).collect();
            worker.ok(op, answer(values, fetched.high_watermark, fetched.staleness, level));
            Some(fetched.next_offset)
        }
        // This says where the log ends, and must be no less true than an answer; but not how
        // stale that is.
        Err(ReadError::OffsetOutOfRange { high_watermark, log_start_offset, .. }) => {
            worker.ok(op, answer(Vec::new(), high_watermark, None, level));
            Some(log_start_offset)
        }
        Err(error) => {
            worker.failed(op, error.code(), error.outcome(), &error);
            None
        }
    }
}

fn draw_level(worker: &mut Worker) -> ReadLevel {
    match worker.rng.u8(0..6) {
        0 => ReadLevel::Committed,
        1 => ReadLevel::Bounded(Duration::from_millis(worker.rng.u64(100..=5_000))),
        _ => ReadLevel::Linearizable,
    }
}

fn call(partition: u32, node: u64, from: u64, level: ReadLevel) -> Call {
    let level = match level {
        ReadLevel::Linearizable => return Call::Read { partition, node, from },
        ReadLevel::Committed => Level::Committed,
        ReadLevel::Bounded(lag) => {
            Level::Bounded { max_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX) }
        }
    };
    Call::ReadAt { partition, node, from, level }
}

fn answer(values: Vec<u64>, end: u64, staleness: Option<Duration>, level: ReadLevel) -> Answer {
    if level == ReadLevel::Linearizable {
        return Answer::Records { values, end };
    }
    let ms = |staleness: Duration| u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX);
    Answer::RecordsAsOf { values, end, staleness_ms: staleness.map(ms) }
}
