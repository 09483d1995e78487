//! A read that is bounded sees at least what had been acknowledged so long before it began, and a
//! node that tells how stale it may be is no staler.
//!
//! Judged by simulated time. The node looks after the read began, so everything acknowledged
//! before the beginning less the bound must be there. One millisecond is forgiven, because what is
//! told is rounded to milliseconds.

use super::layout::{Case, returned};
use crate::violation::Violation;

const ROUNDING_MS: u64 = 1;

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    if case.observed.lagging_reads.iter().all(|read| read.staleness_ms.is_none()) {
        return Ok(());
    }
    let times_us = &case.observed.course.times_us;
    let time_us = |moment: usize| times_us.get(moment).copied().unwrap_or(u64::MAX);
    // When acknowledged, the end that this showed, by whom.
    let mut acked: Vec<(u64, u64, u64)> = Vec::new();
    for append in &case.observed.appends {
        if let Some(returned) = returned(append)
            && let Some((last, _)) = append.offsets().last()
        {
            acked.push((time_us(returned), last.saturating_add(1), append.op));
        }
    }
    acked.sort_unstable();
    // The highest end shown up to and with each acknowledgement.
    let mut highest: Vec<(u64, u64)> = Vec::with_capacity(acked.len());
    for (_, end, append) in &acked {
        let before = highest.last().copied().unwrap_or((0, *append));
        highest.push(if *end > before.0 { (*end, *append) } else { before });
    }
    for read in &case.observed.lagging_reads {
        let Some(staleness_ms) = read.staleness_ms else { continue };
        let staleness_us = staleness_ms.saturating_add(ROUNDING_MS).saturating_mul(1_000);
        let Some(fresh_from) = time_us(read.invoked).checked_sub(staleness_us) else { continue };
        let before = acked.partition_point(|(at, ..)| *at < fresh_from);
        let Some((needed, append)) = before.checked_sub(1).map(|last| highest[last]) else {
            continue;
        };
        if read.end < needed {
            let (partition, end, read) = (case.number, read.end, read.op);
            return Err(Violation::TooStale { partition, read, end, staleness_ms, needed, append });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;
    use crate::history::Level;

    fn read_after(
        ms: u64,
        level: Level,
        told_ms: Option<u64>,
    ) -> (Result<(), Violation>, [u64; 2]) {
        let story = Story::new();
        let append = story.appended(&[1], 0);
        story.wait_ms(ms);
        let read = story.read_at(2, 0, level);
        story.records_as_of(read, &[], 0, told_ms);
        (story.judge(check), [append, read])
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_before_its_bound_is_a_violation() {
        let (judged, operations) = read_after(150, Level::Bounded { max_ms: 100 }, None);
        assert_eq!(judged.expect_err("a violation").operations(), operations);
    }

    #[test]
    fn a_read_may_miss_what_was_acknowledged_within_its_bound() {
        assert_eq!(read_after(100, Level::Bounded { max_ms: 100 }, None).0, Ok(()));
    }

    #[test]
    fn a_node_must_not_be_staler_than_it_says() {
        assert!(read_after(150, Level::Committed, Some(20)).0.is_err());
        assert_eq!(read_after(150, Level::Committed, Some(200)).0, Ok(()));
        assert_eq!(read_after(150, Level::Committed, None).0, Ok(()));
    }
}
