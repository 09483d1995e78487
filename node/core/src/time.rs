//! The time of log entries: a hybrid logical clock, so that time never goes back in a partition.
//!
//! A leader stamps each entry it proposes. Wall clocks jump and differ between nodes, so a stamp
//! is the wall clock's milliseconds where they are ahead of everything seen, and otherwise the
//! last stamp plus one tick (Kulkarni et al., "Logical Physical Clocks", 2014). Nothing here
//! reads a clock: the present is an argument.

use std::fmt;

const COUNTER_BITS: u32 = 16;

/// When a leader proposed an entry: milliseconds since 1970 in the upper 48 bits, a counter in
/// the lower 16. Enough until the year 10889.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryTime(pub u64);

impl EntryTime {
    /// The last millisecond that can be told.
    pub const MS_MAX: u64 = u64::MAX >> COUNTER_BITS;

    /// The first instant of a millisecond; later ones than [`EntryTime::MS_MAX`] count as it.
    #[must_use]
    pub fn from_ms(ms: u64) -> EntryTime {
        EntryTime(ms.min(EntryTime::MS_MAX) << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for EntryTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04x}", self.ms(), self.0 & 0xffff)
    }
}

/// Gives out entry times, each later than any given out or observed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HybridClock {
    last: EntryTime,
}

impl HybridClock {
    /// The time of an entry proposed at `now_ms` by this node's wall clock. Later than every
    /// stamp before; only at the very end of the range (year 10889) do stamps repeat.
    pub fn stamp(&mut self, now_ms: u64) -> EntryTime {
        let wall = EntryTime::from_ms(now_ms);
        // Past 65,535 stamps in one millisecond the counter runs over into the milliseconds:
        // the clock then leads the wall clock until that catches up.
        let next = EntryTime(self.last.0.saturating_add(1));
        self.last = wall.max(next);
        self.last
    }

    /// Takes note of a time from elsewhere (an entry of another leader), so that later stamps
    /// are after it.
    pub fn observe(&mut self, time: EntryTime) {
        self.last = self.last.max(time);
    }

    /// The latest time given out or observed.
    #[must_use]
    pub fn last(self) -> EntryTime {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_the_wall_clock_when_it_moves_on() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.stamp(5), EntryTime::from_ms(5));
        assert_eq!(clock.stamp(9), EntryTime::from_ms(9));
    }

    #[test]
    fn stamps_grow_while_the_wall_clock_stands_or_goes_back() {
        let mut clock = HybridClock::default();
        let first = clock.stamp(5);
        let second = clock.stamp(5);
        let third = clock.stamp(1);
        assert!(first < second && second < third);
        assert_eq!(third.ms(), 5);
    }

    #[test]
    fn a_stamp_is_later_than_what_was_observed() {
        let mut clock = HybridClock::default();
        clock.observe(EntryTime::from_ms(100));
        assert!(clock.stamp(50) > EntryTime::from_ms(100));
        clock.observe(EntryTime::from_ms(20));
        assert!(clock.stamp(50) > EntryTime::from_ms(100));
    }

    #[test]
    fn more_stamps_than_the_counter_holds_run_over_into_the_milliseconds() {
        let mut clock = HybridClock::default();
        let mut last = clock.stamp(7);
        for _ in 0..70_000 {
            let next = clock.stamp(7);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.ms(), 8);
        assert!(clock.stamp(9) > last);
    }

    #[test]
    fn the_end_of_the_range_is_reached_without_wrapping() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.stamp(u64::MAX).ms(), EntryTime::MS_MAX);
        clock.observe(EntryTime(u64::MAX));
        assert_eq!(clock.stamp(0), EntryTime(u64::MAX));
    }
}
