//! Which prefix of a partition may go.
//!
//! Only the leader asks, and what it gets is proposed as a command: replicas never cut their logs
//! by their own clocks.

use super::{PartitionState, RungSummary};

/// How long records are kept. Either limit alone lets a record go, as in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Let the oldest go while at least so many payload bytes stay. `None`: no limit.
    pub bytes: Option<u64>,
    /// Let go what is older than this, by entry time. `None`: no limit.
    pub ms: Option<u64>,
}

/// What retention looks at.
#[derive(Debug, Clone, Copy)]
pub struct RetainedLog<'a> {
    /// Oldest first.
    pub rungs: &'a [RungSummary],
    /// First offset still to be read.
    pub log_start: u64,
    /// Payload bytes since the partition's beginning.
    pub bytes_total: u64,
}

/// What decides whether a rung would be made by time alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RungClock {
    /// Next offset at the last rung; 0 before the first.
    pub rung_next_offset: u64,
    /// The log's time at the last rung, or at the first append; `None` before it.
    pub rung_ms: Option<u64>,
    /// The log's time at its last entry.
    pub last_ms: u64,
    /// Log time after which a rung is due.
    pub ladder_ms: u64,
    /// Next offset of the log.
    pub next_offset: u64,
}

impl RungClock {
    /// Whether records would have to go which only a rung not made yet could let go. The leader
    /// then proposes an advance of the start to nowhere (index 0), whose time makes that rung:
    /// needed where nobody appends any more.
    #[must_use]
    pub fn wants_rung(self, retention: Retention, now_ms: u64) -> bool {
        let rung_ms = self.rung_ms.unwrap_or(u64::MAX);
        let due = now_ms.saturating_sub(rung_ms) >= self.ladder_ms;
        let all_old = retention.ms.is_some_and(|ms| is_older(self.last_ms, ms, now_ms));
        self.next_offset > self.rung_next_offset && due && all_old
    }
}

impl PartitionState {
    /// What retention looks at.
    #[must_use]
    pub fn retained(&self) -> RetainedLog<'_> {
        RetainedLog {
            rungs: self.rungs(),
            log_start: self.log_start(),
            bytes_total: self.bytes_total(),
        }
    }

    /// What decides whether a rung would be made by time alone.
    #[must_use]
    pub fn rung_clock(&self) -> RungClock {
        let last = self.rungs().last();
        RungClock {
            rung_next_offset: last.map_or(0, |rung| rung.next_offset),
            rung_ms: last.map(|rung| rung.time).or(self.time_first).map(|time| time.ms()),
            last_ms: self.time_last().ms(),
            ladder_ms: self.ladder_limits().ms,
            next_offset: self.next_offset(),
        }
    }
}

/// Raft index of the highest rung to which the log start may move: by time, if every record
/// before the rung is older than the limit; by bytes, if what stays is not less than the limit.
/// `None`: nothing may go.
#[must_use]
pub fn rung_to_advance_to(log: RetainedLog<'_>, retention: Retention, now_ms: u64) -> Option<u64> {
    let by_time =
        |rung: &RungSummary| retention.ms.is_some_and(|ms| is_older(rung.time.ms(), ms, now_ms));
    let by_bytes = |rung: &RungSummary| {
        let bytes_left = log.bytes_total.saturating_sub(rung.bytes_total);
        retention.bytes.is_some_and(|bytes| bytes_left >= bytes)
    };
    let removable =
        |rung: &&RungSummary| rung.next_offset > log.log_start && (by_time(rung) || by_bytes(rung));
    log.rungs.iter().rev().find(removable).map(|rung| rung.position.index)
}

/// A time from before `retention_ms` ago. A clock that is behind the log makes nothing old.
fn is_older(time_ms: u64, retention_ms: u64, now_ms: u64) -> bool {
    now_ms.checked_sub(time_ms).is_some_and(|age_ms| age_ms > retention_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::RaftPosition;
    use crate::time::EntryTime;

    /// Three rungs: 100 bytes and one minute apart, at indices 10, 20, 30; 50 bytes follow.
    fn rungs() -> Vec<RungSummary> {
        let rung = |number: u64| RungSummary {
            number,
            position: RaftPosition { term: 1, index: number * 10 },
            next_offset: number * 5,
            bytes_total: number * 100,
            time: EntryTime::from_ms(number * 60_000),
        };
        vec![rung(1), rung(2), rung(3)]
    }

    fn plan(log_start: u64, retention: Retention, now_ms: u64) -> Option<u64> {
        let rungs = rungs();
        let log = RetainedLog { rungs: &rungs, log_start, bytes_total: 350 };
        rung_to_advance_to(log, retention, now_ms)
    }

    fn by_ms(ms: u64) -> Retention {
        Retention { ms: Some(ms), bytes: None }
    }

    fn by_bytes(bytes: u64) -> Retention {
        Retention { bytes: Some(bytes), ms: None }
    }

    #[test]
    fn without_limits_everything_stays() {
        assert_eq!(plan(0, Retention::default(), u64::MAX), None);
    }

    #[test]
    fn by_time_the_log_moves_to_the_last_rung_before_which_all_is_old() {
        assert_eq!(plan(0, by_ms(60_000), 120_000), None, "exactly as old as the limit");
        assert_eq!(plan(0, by_ms(60_000), 120_001), Some(10));
        assert_eq!(plan(0, by_ms(60_000), 239_999), Some(20));
        assert_eq!(plan(0, by_ms(60_000), 900_000), Some(30));
    }

    #[test]
    fn by_bytes_at_least_the_limit_stays() {
        assert_eq!(plan(0, by_bytes(251), 0), None);
        assert_eq!(plan(0, by_bytes(250), 0), Some(10));
        assert_eq!(plan(0, by_bytes(51), 0), Some(20));
        assert_eq!(plan(0, by_bytes(50), 0), Some(30));
    }

    #[test]
    fn either_limit_lets_records_go() {
        let both = Retention { bytes: Some(250), ms: Some(60_000) };
        assert_eq!(plan(0, both, 0), Some(10));
        assert_eq!(plan(0, both, 200_000), Some(20));
    }

    #[test]
    fn a_rung_at_or_below_the_log_start_moves_nothing() {
        assert_eq!(plan(5, by_bytes(250), 0), None);
        assert_eq!(plan(10, by_ms(1), 170_000), None);
    }

    #[test]
    fn a_clock_behind_the_log_makes_nothing_old() {
        assert_eq!(plan(0, by_ms(0), 59_000), None);
    }

    #[test]
    fn a_rung_is_wanted_where_all_records_are_old_and_none_was_made_since() {
        let clock = RungClock {
            rung_next_offset: 5,
            rung_ms: Some(60_000),
            last_ms: 90_000,
            ladder_ms: 100_000,
            next_offset: 6,
        };
        let wants = |clock: RungClock, now_ms| clock.wants_rung(by_ms(50_000), now_ms);
        assert!(wants(clock, 160_000));
        assert!(!wants(clock, 159_999), "a rung would not be due");
        assert!(!wants(RungClock { last_ms: 110_000, ..clock }, 160_000), "not all are old");
        assert!(!wants(RungClock { next_offset: 5, ..clock }, 160_000), "nothing since the last");
        assert!(!wants(RungClock { rung_ms: None, ..clock }, 160_000), "nothing at all");
        assert!(!clock.wants_rung(by_bytes(0), 160_000), "kept by size alone");
    }
}
