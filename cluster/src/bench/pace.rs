//! When records are due, and waiting for it to the tens of microseconds.
//!
//! An open loop sends by a schedule that nothing can delay: what the cluster can't take in time is
//! late, and its latency counts from when it was due. Otherwise a stall would be one slow record
//! instead of all those that a real source would have sent meanwhile (coordinated omission).
//!
//! tokio's own timers round up to the next millisecond, which is as long as a good append takes, so
//! the waiting is done by the kernel's timer.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// When each record of one producer is due. All producers of a load together keep the rate, and
/// take turns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    /// Records a second, of all producers; at least 1.
    pub(super) rate: u64,
    pub(super) producers: u64,
    /// Which of the producers, from 0.
    pub(super) producer: u64,
}

impl Schedule {
    /// When the producer's record with this number (from 0) is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        let place = u128::from(number) * u128::from(self.producers) + u128::from(self.producer);
        let nanos = place * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX >> 2))
    }
}

/// A timer of the kernel's.
#[derive(Debug)]
pub(super) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Needs a runtime with I/O.
    pub(super) fn new() -> anyhow::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("no timer")?;
        #[allow(deprecated, reason = "what replaces it is unsafe; an OwnedFd stays the same file")]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE);
        Ok(Timer(timer.context("can't wait for a timer")?))
    }

    /// Returns when the time has come, at once if it is over.
    pub(super) async fn wait_until(&self, at: Instant) -> anyhow::Result<()> {
        loop {
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            let value = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(wait.subsec_nanos()),
                },
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &value).context("no timer")?;
            let mut ready = self.0.readable().await.context("can't wait for a timer")?;
            let mut expirations = [0; 8];
            // Nothing to read means that it has not expired: the loop looks at the clock.
            let _ = rustix::io::read(self.0.get_ref(), &mut expirations);
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn producers_take_turns_and_keep_the_rate_together() {
        let start = Instant::now();
        let schedule = |producer| Schedule { start, rate: 1_000, producers: 2, producer };
        let due_us = |producer, number| (schedule(producer).due(number) - start).as_micros();
        assert_eq!(
            [due_us(0, 0), due_us(1, 0), due_us(0, 1), due_us(1, 1)],
            [0, 1_000, 2_000, 3_000]
        );
        assert_eq!(due_us(0, 500), 1_000_000);
        let far = Schedule { start, rate: 1, producers: 256, producer: 0 };
        assert!(far.due(u64::MAX) > far.due(1_000_000));
    }

    #[tokio::test]
    async fn a_timer_waits_and_never_returns_early() {
        let timer = Timer::new().unwrap();
        for _ in 0..3 {
            let at = Instant::now() + Duration::from_micros(300);
            timer.wait_until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
        timer.wait_until(Instant::now()).await.unwrap();
    }
}
