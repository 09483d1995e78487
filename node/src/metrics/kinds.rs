//! The kinds of metric that the node has, thin over `prometheus-client`, and their labels.
//!
//! Series with labels exist from the start, at 0: a rate over a series that appears with its first
//! event would miss that event.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};
use quipu_proto::v1::ErrorCode;

/// Only grows; 0 at each start of the process.
pub type Count = Counter<u64, AtomicU64>;

/// How it is at the moment.
#[derive(Debug, Clone, Default)]
pub struct Now(Gauge<u64, AtomicU64>);

/// How long something took.
#[derive(Debug, Clone)]
pub struct Seconds(Histogram);

/// A [`Count`] for each error code.
#[derive(Debug, Clone)]
pub struct ByCode(Family<CodeLabel, Count>);

/// A [`Count`] for each level of read.
#[derive(Debug, Clone)]
pub struct ByLevel {
    linearizable: Count,
    committed: Count,
    bounded: Count,
}

/// What a read asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Sees all that was acknowledged before.
    Linearizable,
    /// This replica's applied prefix.
    Committed,
    /// As committed, within a lag that the client names.
    Bounded,
}

/// Counts for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    of: Now,
    amount: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

impl Now {
    /// Replaces the value.
    pub fn set(&self, value: usize) {
        // More than 2^64 of anything do not fit in memory.
        self.0.set(u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// Adds `amount` until the returned guard is dropped.
    pub fn hold(&self, amount: usize) -> InFlight {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        self.0.inc_by(amount);
        InFlight { of: self.clone(), amount }
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.of.0.dec_by(self.amount);
    }
}

impl Seconds {
    /// Counts one event that took `duration`.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

impl ByCode {
    /// The counter of `code`.
    pub fn at(&self, code: ErrorCode) -> Count {
        self.0.get_or_create_owned(&CodeLabel { code: code.as_str_name() })
    }
}

impl ByLevel {
    /// The counter of `level`.
    pub fn at(&self, level: Level) -> &Count {
        match level {
            Level::Linearizable => &self.linearizable,
            Level::Committed => &self.committed,
            Level::Bounded => &self.bounded,
        }
    }
}

/// Makes metrics and registers them.
pub(super) struct Registrar<'a>(pub(super) &'a mut Registry);

impl Registrar<'_> {
    pub(super) fn count(&mut self, name: &str, help: &str) -> Count {
        self.register(name, help, None, Count::default())
    }

    pub(super) fn bytes(&mut self, name: &str, help: &str) -> Count {
        self.register(name, help, Some(Unit::Bytes), Count::default())
    }

    pub(super) fn now(&mut self, name: &str, help: &str) -> Now {
        Now(self.register(name, help, None, Gauge::default()))
    }

    pub(super) fn now_in(&mut self, name: &str, help: &str, unit: Unit) -> Now {
        Now(self.register(name, help, Some(unit), Gauge::default()))
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str) -> Seconds {
        Seconds(self.register(name, help, Some(Unit::Seconds), Histogram::new(BUCKETS_SECONDS)))
    }

    pub(super) fn by_code(&mut self, name: &str, help: &str) -> ByCode {
        let by_code = ByCode(Family::default());
        for code in error_codes() {
            by_code.at(code);
        }
        self.register(name, help, None, by_code.0.clone());
        by_code
    }

    pub(super) fn by_level(&mut self, name: &str, help: &str, unit: Option<Unit>) -> ByLevel {
        let family = Family::<LevelLabel, Count>::default();
        let count = |level| family.get_or_create_owned(&LevelLabel { level });
        let by_level = ByLevel {
            linearizable: count("linearizable"),
            committed: count("committed"),
            bounded: count("bounded"),
        };
        self.register(name, help, unit, family);
        by_level
    }

    fn register<M>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M
    where
        M: Metric + Clone,
    {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, metric.clone()),
            None => self.0.register(name, help, metric.clone()),
        }
        metric
    }
}

/// From a sync on a fast disk to the longest time that an append is waited for.
const BUCKETS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 30.0,
];

/// Every code of the API but "unspecified".
fn error_codes() -> impl Iterator<Item = ErrorCode> {
    // Codes are numbered with gaps, all below 100; a test sees that none lies beyond.
    (1..ERROR_CODE_END).filter_map(|number| ErrorCode::try_from(number).ok())
}

const ERROR_CODE_END: i32 = 100;

impl fmt::Debug for Registrar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registrar")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_series_from_the_start() {
        let last = include_str!("../../../proto/quipu/v1/errors.proto")
            .lines()
            .filter_map(|line| line.trim().strip_suffix(';')?.split_once(" = "))
            .filter(|(name, _)| ErrorCode::from_str_name(name).is_some())
            .map(|(_, number)| number.parse::<i32>().unwrap())
            .max();
        assert!(last.is_some_and(|last| (40..ERROR_CODE_END).contains(&last)));

        let mut registry = Registry::default();
        Registrar(&mut registry).by_code("errors", "Errors");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("errors_total{code=\"DISK_FULL\"} 0\n"), "{text}");
        assert!(!text.contains("UNSPECIFIED"), "{text}");
        let series = text.lines().filter(|line| line.starts_with("errors_total")).count();
        assert_eq!(series, error_codes().count());
    }

    #[test]
    fn what_is_in_flight_goes_down_when_it_ends() {
        let now = Now::default();
        let first = now.hold(5);
        let second = now.hold(7);
        assert_eq!(now.get(), 12);
        drop(first);
        assert_eq!(now.get(), 7);
        drop(second);
        assert_eq!(now.get(), 0);
    }
}
