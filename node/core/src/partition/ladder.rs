//! The ladder: at which positions of the log a checkpoint is kept, and which of them go again.
//!
//! A rung is a checkpoint of the whole state at a position that every replica computes alike.
//! Retention may cut the log only at a rung, so that a new replica can begin with that rung and
//! then read every entry after it.
//!
//! Rungs are numbered from 1. Of a log that is kept for ever they would grow without end, so they
//! thin out with age, by number alone: a rung whose number is divisible by 2^k (and by no higher
//! power) goes when 512 * 2^k newer ones exist. At any age the distance between rungs is then
//! below 1/256 of that age, and n rungs ever made leave about 512 + 256 * log2(n / 512).
//!
//! Invariant: what happens to a rung does not depend on the rungs below it. A replica that began
//! with a rung never saw those, and must thin the rest like everyone else.

use std::sync::Arc;

use super::RungSummary;
use crate::limits::RUNGS_FINE;
use crate::time::EntryTime;

/// When a rung is due. Part of the replicated state from a partition's creation on; settings of
/// the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LadderLimits {
    /// Payload bytes since the last rung (`checkpoint.bytes`).
    pub bytes: u64,
    /// Log time since the last rung, in milliseconds (`checkpoint.ms`).
    pub ms: u64,
}

impl Default for LadderLimits {
    fn default() -> LadderLimits {
        LadderLimits { bytes: 64 * 1024 * 1024, ms: 10 * 60 * 1_000 }
    }
}

/// The rungs of one partition, oldest first. Never empty again after the first was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ladder {
    pub(super) limits: LadderLimits,
    /// Shared with readers, who look at it often; it changes seldom.
    pub(super) rungs: Arc<Vec<RungSummary>>,
}

/// Where the log stands after an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogEnd {
    pub(super) next_offset: u64,
    pub(super) bytes_total: u64,
    pub(super) time: EntryTime,
    /// Of the first append of all.
    pub(super) time_first: EntryTime,
}

impl Ladder {
    pub(super) fn new(limits: LadderLimits) -> Ladder {
        Ladder { limits, rungs: Arc::default() }
    }

    /// Whether a rung is to be made at `end`. Not where nothing was accepted since the last one:
    /// it would let retention cut nothing that a reader could see.
    pub(super) fn is_due(&self, end: LogEnd) -> bool {
        let (next_offset, bytes_total, time) = match self.rungs.last() {
            Some(last) => (last.next_offset, last.bytes_total, last.time),
            None => (0, 0, end.time_first),
        };
        let bytes = end.bytes_total.saturating_sub(bytes_total);
        let ms = end.time.ms().saturating_sub(time.ms());
        end.next_offset > next_offset && (bytes >= self.limits.bytes || ms >= self.limits.ms)
    }

    /// The number of the next rung.
    pub(super) fn number_next(&self) -> u64 {
        self.rungs.last().map_or(1, |last| last.number + 1)
    }

    /// Puts a rung on top and answers the Raft indices of those that go for it.
    pub(super) fn push(&mut self, rung: RungSummary, log_start: u64) -> Vec<u64> {
        assert_eq!(rung.number, self.number_next());
        let rungs = Arc::make_mut(&mut self.rungs);
        rungs.push(rung);
        let mut removed = Vec::new();
        let mut age = RUNGS_FINE;
        for power in 0..u64::BITS {
            let Some(number) = rung.number.checked_sub(age).filter(|number| *number > 0) else {
                break;
            };
            if number.trailing_zeros() == power
                && let Ok(place) = rungs.binary_search_by_key(&number, |rung| rung.number)
                // The rung at the log start is what a new replica begins with.
                && rungs[place].next_offset > log_start
            {
                removed.push(rungs.remove(place).position.index);
            }
            let Some(next_age) = age.checked_mul(2) else { break };
            age = next_age;
        }
        removed
    }

    /// The rung at a Raft index.
    pub(super) fn find(&self, rung_index: u64) -> Option<RungSummary> {
        let place =
            self.rungs.binary_search_by_key(&rung_index, |rung| rung.position.index).ok()?;
        self.rungs.get(place).copied()
    }

    /// Takes away all rungs below a Raft index and answers theirs.
    pub(super) fn remove_below(&mut self, rung_index: u64) -> Vec<u64> {
        let kept = self.rungs.partition_point(|rung| rung.position.index < rung_index);
        let rungs = Arc::make_mut(&mut self.rungs);
        rungs.drain(..kept).map(|rung| rung.position.index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::RaftPosition;

    fn rung(number: u64) -> RungSummary {
        RungSummary {
            number,
            position: RaftPosition { term: 1, index: number * 10 },
            next_offset: number * 100,
            bytes_total: number * 1_000,
            time: EntryTime::from_ms(number * 60_000),
        }
    }

    fn ladder_of(count: u64) -> Ladder {
        let mut ladder = Ladder::new(LadderLimits::default());
        for number in 1..=count {
            ladder.push(rung(number), 0);
        }
        ladder
    }

    #[test]
    fn a_rung_is_due_by_bytes_or_by_time_but_not_without_records() {
        let ladder = Ladder {
            limits: LadderLimits { bytes: 500, ms: 1_000 },
            rungs: Arc::new(vec![rung(1)]),
        };
        let end = |next_offset, bytes_total, ms| LogEnd {
            next_offset,
            bytes_total,
            time: EntryTime::from_ms(ms),
            time_first: EntryTime::from_ms(0),
        };
        assert!(!ladder.is_due(end(101, 1_499, 60_999)));
        assert!(ladder.is_due(end(101, 1_500, 60_000)));
        assert!(ladder.is_due(end(101, 1_000, 61_000)));
        assert!(!ladder.is_due(end(100, 9_000, 99_000)));
    }

    #[test]
    fn the_first_rung_is_measured_from_the_first_append() {
        let ladder = Ladder::new(LadderLimits { bytes: 500, ms: 1_000 });
        let end = |ms| LogEnd {
            next_offset: 1,
            bytes_total: 10,
            time: EntryTime::from_ms(ms),
            time_first: EntryTime::from_ms(5_000),
        };
        assert!(!ladder.is_due(end(5_999)));
        assert!(ladder.is_due(end(6_000)));
    }

    #[test]
    fn the_newest_512_rungs_are_all_kept() {
        let ladder = ladder_of(5_000);
        let newest: Vec<u64> = ladder.rungs.iter().rev().take(512).map(|r| r.number).collect();
        assert_eq!(newest, (4_489..=5_000).rev().collect::<Vec<u64>>());
    }

    #[test]
    fn the_distance_between_rungs_stays_below_a_256th_of_their_age() {
        let ladder = ladder_of(40_000);
        for pair in ladder.rungs.windows(2) {
            let (distance, age) = (pair[1].number - pair[0].number, 40_000 - pair[0].number);
            assert!(distance == 1 || distance * 256 <= age, "{distance} at the age of {age}");
        }
        assert!(ladder.rungs.len() <= 512 + 256 * 7, "{} rungs", ladder.rungs.len());
    }

    #[test]
    fn the_rung_at_the_log_start_is_never_thinned_out() {
        let mut ladder = ladder_of(3);
        ladder.remove_below(30);
        for number in 4..=2_000 {
            ladder.push(rung(number), 300);
        }
        assert_eq!(ladder.rungs[0], rung(3));
    }

    #[test]
    fn thinning_does_not_depend_on_the_rungs_below() {
        let mut whole = ladder_of(700);
        let mut begun_later = Ladder::new(LadderLimits::default());
        begun_later.rungs = Arc::new(vec![rung(700)]);
        for number in 701..=4_000 {
            whole.push(rung(number), 0);
            begun_later.push(rung(number), 70_000);
        }
        whole.remove_below(7_010);
        begun_later.remove_below(7_010);
        assert_eq!(whole, begun_later);
    }
}
