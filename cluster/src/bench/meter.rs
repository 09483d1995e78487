//! Counts what ends in the time that is measured: rates, latencies, and both over time.
//!
//! Throughput counts what was acknowledged within the window. Latency counts what was due within
//! the window, whenever it ended, so that the slowest records are not cut off with the end of it.

use std::time::Duration;

use quipu_client::{Outcome, ProduceError};
use serde::Serialize;
use tokio::time::Instant;

use super::chunk::Ended;
use crate::latency::Latencies;

/// Points of a curve over time.
const POINTS: u32 = 120;

/// Shorter intervals hold too little to speak of percentiles.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Failures that are kept to be told; more are only counted.
const FAILURES_MAX: usize = 10;

/// The time that is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    /// Exclusive.
    pub(super) end: Instant,
}

impl Window {
    /// Begins after a warm-up that begins now.
    pub(super) fn after(warmup: Duration, length: Duration) -> Window {
        let start = Instant::now() + warmup;
        Window { start, end: start + length }
    }

    pub(super) fn contains(&self, at: Instant) -> bool {
        (self.start..self.end).contains(&at)
    }

    pub(super) fn length(&self) -> Duration {
        self.end - self.start
    }
}

/// One interval of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    /// Seconds from the begin of the window to the end of the interval.
    pub(super) at_s: f64,
    pub(super) records_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// Counts what ends.
#[derive(Debug)]
pub(super) struct Meter {
    window: Window,
    /// Of records due within the window.
    pub(super) latencies: Latencies,
    /// Acknowledged within the window.
    pub(super) records: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// Acknowledged at all.
    pub(super) acked: u64,
    /// At any time.
    pub(super) failed: u64,
    /// The first failures.
    pub(super) failures: Vec<ProduceError>,
    /// Some record may or may not have been appended.
    pub(super) any_unknown: bool,
    /// Due within the window and not sent, because the cluster could not take them so fast.
    pub(super) unsent: u64,
    interval: Duration,
    /// The interval that is being filled.
    open: Interval,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Interval {
    end: Instant,
    records: u64,
    bytes: u64,
    latencies: Latencies,
}

impl Meter {
    pub(super) fn new(window: Window) -> Meter {
        let interval = (window.length() / POINTS).max(INTERVAL_MIN);
        Meter {
            window,
            latencies: Latencies::new(),
            records: 0,
            bytes: 0,
            acked: 0,
            failed: 0,
            failures: Vec::new(),
            any_unknown: false,
            unsent: 0,
            interval,
            open: Interval {
                end: window.start + interval,
                records: 0,
                bytes: 0,
                latencies: Latencies::new(),
            },
            points: Vec::new(),
        }
    }

    /// Counts a record that an append ended.
    pub(super) fn add(&mut self, ended: Ended) {
        match ended.result {
            Ok(()) => self.acked(ended.due, ended.at, ended.bytes),
            Err(error) => {
                self.failed += 1;
                self.any_unknown |= error.outcome() == Outcome::Unknown;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(error);
                }
            }
        }
    }

    /// Counts a record that was due at one time and done at another.
    pub(super) fn acked(&mut self, due: Instant, at: Instant, bytes: u32) {
        self.acked += 1;
        let latency = at.saturating_duration_since(due);
        if self.window.contains(due) {
            self.latencies.record(latency);
        }
        if self.window.contains(at) {
            self.roll_to(at);
            self.records += 1;
            self.bytes += u64::from(bytes);
            self.open.records += 1;
            self.open.bytes += u64::from(bytes);
            self.open.latencies.record(latency);
        }
    }

    /// Counts records that were read together.
    pub(super) fn read(&mut self, at: Instant, records: u64, bytes: u64) {
        self.acked += records;
        if self.window.contains(at) {
            self.roll_to(at);
            self.records += records;
            self.bytes += bytes;
            self.open.records += records;
            self.open.bytes += bytes;
        }
    }

    /// Counts a record that was due and could not be sent until `at`: it takes at least as long.
    pub(super) fn unsent(&mut self, due: Instant, at: Instant) {
        if self.window.contains(due) {
            self.unsent += 1;
            self.latencies.record(at.saturating_duration_since(due));
        }
    }

    /// Closes the intervals that are over. Tasks tell what ended a little out of order: what comes
    /// late counts in the interval that is open.
    fn roll_to(&mut self, at: Instant) {
        while at >= self.open.end {
            self.close_interval();
        }
    }

    fn close_interval(&mut self) {
        let seconds = self.interval.as_secs_f64();
        let Interval { end, records, bytes, latencies } = &mut self.open;
        self.points.push(Point {
            at_s: (*end - self.window.start).as_secs_f64(),
            records_per_s: *records as f64 / seconds,
            bytes_per_s: *bytes as f64 / seconds,
            p50_ms: latencies.percentile_ms(0.5),
            p99_ms: latencies.percentile_ms(0.99),
            max_ms: latencies.max_ms(),
        });
        *end += self.interval;
        (*records, *bytes) = (0, 0);
        latencies.clear();
    }

    /// The curve over time, all of the window.
    pub(super) fn points(&mut self) -> Vec<Point> {
        while self.open.end <= self.window.end {
            self.close_interval();
        }
        self.points.clone()
    }

    /// The time that is measured.
    pub(super) fn window(&self) -> Window {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Schedule;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    /// A server that answers within a millisecond, but stands still for a second in the middle of
    /// ten; it is sent 1,000 records a second, one after the other.
    fn with_a_stall(counted_from: impl Fn(Instant, Instant) -> Instant) -> Meter {
        let start = Instant::now();
        let mut meter = Meter::new(Window { start, end: start + 10 * SECOND });
        let schedule = Schedule { start, rate: 1_000, producers: 1, producer: 0 };
        let stall = (start + 5 * SECOND)..(start + 6 * SECOND);
        let mut free_at = start;
        for number in 0..10_000 {
            let due = schedule.due(number);
            let sent = due.max(free_at);
            let begun = if stall.contains(&sent) { stall.end } else { sent };
            free_at = begun + MS / 2;
            meter.acked(counted_from(due, sent), free_at, 100);
        }
        meter
    }

    #[tokio::test]
    async fn a_stall_shows_in_the_percentiles_because_latency_counts_from_the_due_time() {
        let meter = with_a_stall(|due, _| due);
        // A second of ten stood still, and as long again was needed to catch up at twice the rate.
        assert!(meter.latencies.percentile_ms(0.75) < 1.0);
        assert!(meter.latencies.percentile_ms(0.9) > 300.0);
        assert!(meter.latencies.percentile_ms(0.99) > 800.0);
        // Counted from the sending, as a closed loop counts, nothing but one record is slow.
        let omitted = with_a_stall(|_, sent| sent);
        assert!(omitted.latencies.percentile_ms(0.999) < 1.0);
    }

    #[tokio::test]
    async fn a_stall_shows_in_the_curve_over_time() {
        let mut meter = with_a_stall(|due, _| due);
        let points = meter.points();
        assert_eq!(points.len(), 100);
        let of = |at_s: f64| points.iter().find(|point| (point.at_s - at_s).abs() < 0.05).unwrap();
        assert!((of(1.0).records_per_s - 1_000.0).abs() < 50.0);
        assert!(of(5.5).records_per_s < 1.0);
        assert!(of(6.2).records_per_s > 1_500.0);
        assert!(of(6.2).p50_ms > 500.0);
    }

    #[tokio::test]
    async fn the_warm_up_and_what_ends_after_the_window_do_not_count_as_throughput() {
        let start = Instant::now() + 10 * SECOND;
        let mut meter = Meter::new(Window { start, end: start + SECOND });
        meter.acked(start - SECOND, start - MS, 1);
        meter.acked(start - MS, start + MS, 1);
        meter.acked(start, start + MS, 1);
        meter.acked(start + SECOND - MS, start + SECOND + MS, 1);
        assert_eq!((meter.records, meter.acked), (2, 4));
        // The last two were due within the window.
        assert_eq!(meter.latencies.count(), 2);
    }

    #[tokio::test]
    async fn a_record_that_could_not_be_sent_counts_as_slow() {
        let start = Instant::now();
        let mut meter = Meter::new(Window { start, end: start + SECOND });
        meter.unsent(start, start + 3 * SECOND);
        assert_eq!(meter.unsent, 1);
        assert!(meter.latencies.percentile_ms(0.5) >= 2_990.0);
    }

    #[tokio::test]
    async fn failures_are_counted_and_the_first_are_kept() {
        let start = Instant::now();
        let mut meter = Meter::new(Window { start, end: start + SECOND });
        for _ in 0..20 {
            let error = ProduceError::Closed { outcome: Outcome::Unknown };
            meter.add(Ended { due: start, at: start, bytes: 1, result: Err(error) });
        }
        assert_eq!((meter.failed, meter.failures.len(), meter.any_unknown), (20, 10, true));
        assert_eq!(meter.records, 0);
    }
}
