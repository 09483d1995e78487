//! When each event of a demo is sent: evenly, then a burst, then evenly again.
//!
//! The leader is killed within the burst, when as much as possible is on its way: a node that
//! acknowledged what a majority doesn't have yet would lose it there.

use std::ops::Range;
use std::time::Duration;

/// In hundredths of the events: where the burst begins and ends.
const BURST: Range<usize> = 30..50;

/// In hundredths of the time: when the burst is.
const BURST_AT: u32 = 40;

/// In hundredths of the time: how long the killed node stays down.
const DOWN: u32 = 20;

/// A plan for `count` events over `duration`.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    count: usize,
    duration: Duration,
}

impl Schedule {
    pub(super) fn new(count: usize, duration: Duration) -> Schedule {
        Schedule { count, duration }
    }

    /// Which events are sent all at once.
    pub(super) fn burst(&self) -> Range<usize> {
        self.count * BURST.start / 100..self.count * BURST.end / 100
    }

    /// How long the killed node stays down.
    pub(super) fn down(&self) -> Duration {
        self.duration * DOWN / 100
    }

    /// When the event of this index is sent, counted from the first.
    pub(super) fn due(&self, index: usize) -> Duration {
        let burst = self.burst();
        let burst_at = self.duration * BURST_AT / 100;
        if index < burst.start {
            return part(burst_at, index, burst.start);
        }
        if index < burst.end {
            return burst_at;
        }
        burst_at + part(self.duration - burst_at, index - burst.end, self.count - burst.end)
    }
}

/// `index` of `count` steps of a time.
fn part(whole: Duration, index: usize, count: usize) -> Duration {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    whole.mul_f64(f64::from(number(index)) / f64::from(number(count).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_in_order_within_the_time_with_a_burst_between() {
        for count in [1, 2, 3, 7, 12_134] {
            let schedule = Schedule::new(count, Duration::from_secs(10));
            let mut last = Duration::ZERO;
            for index in 0..count {
                let due = schedule.due(index);
                assert!(due >= last && due <= Duration::from_secs(10), "{index} of {count}");
                last = due;
            }
        }
        let schedule = Schedule::new(1_000, Duration::from_secs(10));
        assert_eq!(schedule.burst(), 300..500);
        assert_eq!(schedule.due(300), schedule.due(499));
        assert!(schedule.due(501) > schedule.due(500));
    }
}
