//! What the log writer counts, without locks: how much it wrote and how long the syncs took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the latency histogram.
pub const SYNC_LATENCY_BUCKETS: usize = 25;

/// Counts since the start, and the queue at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogWriterStats {
    /// Requests that were written.
    pub requests: u64,
    /// Groups of requests, each one atomic write.
    pub groups: u64,
    /// Groups that were synced.
    pub syncs: u64,
    /// Bytes of all groups.
    pub bytes: u64,
    /// Requests that wait.
    pub queue_requests: usize,
    /// Bytes that wait or are being written.
    pub queue_bytes: usize,
    /// Synced writes by how long they took. Bucket `i` counts those under `2^i` microseconds and
    /// not under `2^(i-1)`; the last one also counts the slower ones (from 8.4 s).
    pub sync_latency: [u64; SYNC_LATENCY_BUCKETS],
    /// Time that all synced writes took together.
    pub sync_time: Duration,
}

impl LogWriterStats {
    /// The least upper bound of bucket `index`, for a metric's label.
    pub fn bucket_end(index: usize) -> Duration {
        Duration::from_micros(1 << index.min(SYNC_LATENCY_BUCKETS - 1))
    }
}

#[derive(Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    groups: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
    sync_latency: [AtomicU64; SYNC_LATENCY_BUCKETS],
    sync_micros: AtomicU64,
}

impl Counters {
    /// Counts one group; `sync` is how long it took if it was synced.
    pub(super) fn wrote(&self, requests: usize, bytes: usize, sync: Option<Duration>) {
        add(&self.groups, 1);
        add(&self.requests, count(requests));
        add(&self.bytes, count(bytes));
        if let Some(took) = sync {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            add(&self.syncs, 1);
            add(&self.sync_micros, micros);
            add(&self.sync_latency[bucket(micros)], 1);
        }
    }

    pub(super) fn read(&self, queue_requests: usize, queue_bytes: usize) -> LogWriterStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogWriterStats {
            requests: read(&self.requests),
            groups: read(&self.groups),
            syncs: read(&self.syncs),
            bytes: read(&self.bytes),
            queue_requests,
            queue_bytes,
            sync_latency: std::array::from_fn(|index| read(&self.sync_latency[index])),
            sync_time: Duration::from_micros(read(&self.sync_micros)),
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn count(of: usize) -> u64 {
    u64::try_from(of).expect("a usize fits 64 bits")
}

fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    usize::try_from(bits).expect("at most 64").min(SYNC_LATENCY_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_that_ends_above_it() {
        for micros in [0, 1, 2, 3, 4, 1023, 1024, 1_000_000] {
            let index = bucket(micros);
            assert!(Duration::from_micros(micros) < LogWriterStats::bucket_end(index));
            let not_below = index == 0
                || Duration::from_micros(micros) >= LogWriterStats::bucket_end(index - 1);
            assert!(not_below, "{micros} us");
        }
        assert_eq!(bucket(u64::MAX), SYNC_LATENCY_BUCKETS - 1);
    }

    #[test]
    fn only_synced_groups_count_as_syncs() {
        let counters = Counters::default();
        counters.wrote(3, 100, Some(Duration::from_micros(700)));
        counters.wrote(1, 10, None);
        let stats = counters.read(0, 0);
        assert_eq!((stats.requests, stats.groups, stats.syncs, stats.bytes), (4, 2, 1, 110));
        assert_eq!(stats.sync_latency.iter().sum::<u64>(), 1);
        assert_eq!(stats.sync_latency[10], 1, "512 to 1024 microseconds");
    }
}
