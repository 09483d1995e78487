//! How long something took, over many times: percentiles from a histogram of fixed size.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is longer counts as this long: a delivery is given up long before.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Digits that a percentile is exact to.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Durations in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Latencies {
        let max_us = u64::try_from(LATENCY_MAX.as_micros()).expect("ten minutes fit");
        let histogram = Histogram::new_with_bounds(1, max_us, SIGNIFICANT_DIGITS);
        Latencies(histogram.expect("the bounds are constants that make sense"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds below which the given part (0.99) lies, to a hundredth; 0 if there is none.
    pub(crate) fn percentile_ms(&self, part: f64) -> f64 {
        milliseconds(self.0.value_at_quantile(part))
    }

    /// The longest, in milliseconds; 0 if there is none.
    pub(crate) fn max_ms(&self) -> f64 {
        milliseconds(self.0.max())
    }
}

/// To a hundredth.
fn milliseconds(us: u64) -> f64 {
    (f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 10.0).round() / 100.0
}

/// How many of `count` there were in each second, to a tenth.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64().max(1e-6);
    (count as f64 / seconds * 10.0).round() / 10.0
}

/// Seconds, to a thousandth.
pub(crate) fn seconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let mut latencies = Latencies::new();
        assert!(latencies.percentile_ms(0.99).abs() < f64::EPSILON);
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        assert!((latencies.percentile_ms(0.5) - 50.0).abs() < 0.1);
        assert!((latencies.percentile_ms(0.99) - 99.0).abs() < 0.1);
        latencies.record(Duration::from_secs(100_000));
        assert!(latencies.percentile_ms(1.0) >= 599_000.0);
    }

    #[test]
    fn a_rate_is_rounded_and_never_infinite() {
        assert!((per_second(1_000, Duration::from_millis(300)) - 3_333.3).abs() < 1e-9);
        assert!(per_second(1, Duration::ZERO).is_finite());
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.235).abs() < 1e-9);
    }
}
