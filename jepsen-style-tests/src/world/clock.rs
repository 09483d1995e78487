//! The wall clocks of simulated hosts: simulated time, each a little off, and bent by faults.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use node::env::Clock;

/// When simulations begin: some time in November 2026.
const EPOCH: Duration = Duration::from_secs(1_795_000_000);

/// The time at which simulations begin.
pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + EPOCH
}

/// The wall clock of one host. Clones are the same clock.
#[derive(Clone)]
pub struct SimulatedClock(Arc<Mutex<Inner>>);

struct Inner {
    /// How far it was off at `since_ms`.
    offset_ms: i64,
    /// Millionths that it is too fast since `since_ms`.
    drift_ppm: i64,
    since_ms: u64,
    /// True time, as last seen; taken where there is no simulated time, as while a host is torn
    /// down.
    last_ms: u64,
    /// What it tells while it stands.
    stands_at: Option<u64>,
}

impl SimulatedClock {
    /// A clock that is off by this and runs too fast by so many millionths.
    pub(super) fn new(offset_ms: i64, drift_ppm: i64) -> Self {
        let begin_ms = millis(EPOCH);
        let inner =
            Inner { offset_ms, drift_ppm, since_ms: begin_ms, last_ms: begin_ms, stands_at: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// It jumps.
    pub fn step(&self, by_ms: i64) {
        let mut inner = self.inner();
        inner.offset_ms = inner.offset_ms.saturating_add(by_ms);
    }

    /// It runs faster by so many millionths than it did, and is where it should be apart from what
    /// it was off at the beginning.
    pub fn drift(&self, by_ppm: i64) {
        let mut inner = self.inner();
        inner.drift_ppm = inner.drift_ppm.saturating_add(by_ppm);
        inner.since_ms = inner.last_ms;
    }

    /// It stands, or goes on as if it had not stood.
    pub(super) fn stand(&self, stands: bool) {
        let mut inner = self.inner();
        inner.stands_at = stands.then(|| inner.tells());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tells(&self) -> u64 {
        let since = i64::try_from(self.last_ms.saturating_sub(self.since_ms)).unwrap_or(i64::MAX);
        let drifted = since.saturating_mul(self.drift_ppm) / 1_000_000;
        self.last_ms.saturating_add_signed(self.offset_ms.saturating_add(drifted))
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        let mut inner = self.inner();
        if let Some(now) = turmoil::since_epoch() {
            inner.last_ms = millis(now);
        }
        inner.stands_at.unwrap_or_else(|| inner.tells())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_can_be_taken_back() {
        let clock = SimulatedClock::new(500, 0);
        let before = clock.now_ms();
        clock.step(-3_000);
        assert_eq!(clock.now_ms(), before - 3_000);
        clock.step(3_000);
        assert_eq!(clock.now_ms(), before);
    }

    #[test]
    fn a_clock_that_is_too_fast_gains_with_time() {
        let clock = SimulatedClock::new(0, 10_000);
        clock.inner().last_ms += 100_000;
        assert_eq!(clock.now_ms(), millis(EPOCH) + 101_000);
    }
}
