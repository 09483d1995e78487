//! The wall clocks of simulated hosts: simulated time, each a little off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use node::env::Clock;

/// When simulations begin: some time in November 2026.
const EPOCH: Duration = Duration::from_secs(1_795_000_000);

/// The time at which simulations begin.
pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + EPOCH
}

/// The wall clock of one host.
pub(super) struct SimulatedClock {
    offset_ms: i64,
    /// What it told last; told again where there is no simulated time, as while a host is torn
    /// down.
    last_ms: AtomicU64,
}

impl SimulatedClock {
    /// A clock that is off by this.
    pub(super) fn new(offset_ms: i64) -> Self {
        Self { offset_ms, last_ms: AtomicU64::new(millis(EPOCH).saturating_add_signed(offset_ms)) }
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        if let Some(now) = turmoil::since_epoch() {
            let now_ms = millis(now).saturating_add_signed(self.offset_ms);
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
        self.last_ms.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
