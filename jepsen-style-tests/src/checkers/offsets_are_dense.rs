//! Offsets are dense: below everything that was acknowledged, seen or told, none is left out.
//!
//! A hole would make a consumer wait for a record that never comes. An append whose outcome is
//! unknown may fill a hole, if it began before the first thing behind the hole had returned, if it
//! is as long as the hole or a part of it, and if its condition allows the place. Finding out who
//! fills what is packing, hence hard for many candidates; then only the lengths are added up,
//! which raises no false alarm. That an offset is not given twice is checked by
//! `one_value_per_offset`.

use super::layout::{Case, length};
use crate::observations::{Append, Moment};
use crate::violation::{Place, Violation};

/// More candidates than this are not tried one by one.
const CANDIDATES_MAX: usize = 14;
/// Steps after which a search for who fills what is given up, with the benefit of the doubt.
const STEPS_MAX: u32 = 20_000;

/// Offsets that nobody is known to fill.
#[derive(Debug, Clone, Copy)]
struct Hole {
    start: u64,
    end: u64,
    /// Something that stands behind it, or was told that something does, had returned then.
    filled_before: Moment,
    /// That operation.
    shown_by: u64,
}

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let holes = holes(case);
    let missing = |hole: &Hole| Violation::OffsetMissing {
        place: Place { partition: case.number, offset: hole.start },
        shown_by: hole.shown_by,
    };
    let mut candidates = case.layout.adrift.clone();
    candidates.sort_unstable_by_key(|append| append.invoked);
    let mut records_wanted: u64 = 0;
    let mut records_ready: u64 = 0;
    let mut ready = candidates.iter().peekable();
    for hole in &holes {
        records_wanted = records_wanted.saturating_add(hole.end - hole.start);
        while let Some(append) = ready.next_if(|append| append.invoked < hole.filled_before) {
            records_ready += length(append.values.len());
        }
        if records_wanted > records_ready {
            return Err(missing(hole));
        }
    }
    if let Some(first) = holes.first()
        && candidates.len() <= CANDIDATES_MAX
    {
        let mut packing = Packing { candidates, holes: &holes, steps: 0 };
        if !packing.fills(0, first.start, 0) {
            return Err(missing(first));
        }
    }
    Ok(())
}

/// All holes, ascending. A place that is known to be between two batches divides a hole.
fn holes(case: &Case<'_>) -> Vec<Hole> {
    let told_ends = &case.layout.told_ends;
    let mut holes = gaps(case);
    if holes.is_empty() {
        return holes;
    }
    let mut dividers = Vec::new();
    for told in told_ends {
        let hole = holes.partition_point(|hole| hole.end <= told.end);
        if holes.get(hole).is_some_and(|hole| hole.start < told.end) {
            dividers.push(told.end);
        }
    }
    for divider in dividers {
        let index = holes.partition_point(|hole| hole.end < divider);
        let Some(hole) = holes.get_mut(index) else { continue };
        if hole.start < divider && divider < hole.end {
            let rest = Hole { start: divider, ..*hole };
            hole.end = divider;
            holes.insert(index + 1, rest);
        }
    }
    let mut show = |end: u64, returned: Moment, operation: u64| {
        let behind = holes.partition_point(|hole| hole.end <= end);
        if let Some(hole) = behind.checked_sub(1).and_then(|last| holes.get_mut(last))
            && (returned < hole.filled_before || hole.shown_by == 0)
        {
            (hole.filled_before, hole.shown_by) = (returned, operation);
        }
    };
    for told in told_ends {
        show(told.end, told.returned, told.operation);
    }
    for batch in &case.layout.batches {
        show(batch.base, batch.returned().unwrap_or(Moment::MAX), batch.shown_by);
    }
    // What stands behind a hole stands behind those before it.
    let mut earliest: Option<Hole> = None;
    for hole in holes.iter_mut().rev() {
        if let Some(later) = earliest
            && (later.filled_before <= hole.filled_before || hole.shown_by == 0)
        {
            (hole.filled_before, hole.shown_by) = (later.filled_before, later.shown_by);
        }
        earliest = Some(*hole);
    }
    holes
}

/// Between the batches, and up to the highest end that somebody was told.
fn gaps(case: &Case<'_>) -> Vec<Hole> {
    let (filled_before, shown_by) = (Moment::MAX, 0);
    let mut gaps = Vec::new();
    let mut reach = 0;
    let mut skip_to = |start: u64, gaps: &mut Vec<Hole>, end: u64| {
        if start > reach {
            gaps.push(Hole { start: reach, end: start, filled_before, shown_by });
        }
        reach = end.max(reach);
    };
    for batch in &case.layout.batches {
        skip_to(batch.base, &mut gaps, batch.end());
    }
    let told_end = case.layout.told_ends.iter().map(|told| told.end).max().unwrap_or(0);
    skip_to(told_end, &mut gaps, told_end);
    gaps
}

/// Looks for a way to fill all holes with candidates.
struct Packing<'a> {
    candidates: Vec<&'a Append>,
    holes: &'a [Hole],
    steps: u32,
}

impl Packing<'_> {
    /// Whether the holes from `hole` on can be filled, that one from `offset` on, with candidates
    /// whose bits are not in `used`.
    fn fills(&mut self, hole: usize, offset: u64, used: u32) -> bool {
        let Some(current) = self.holes.get(hole).copied() else { return true };
        if offset == current.end {
            let start = self.holes.get(hole + 1).map_or(0, |next| next.start);
            return self.fills(hole + 1, start, used);
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return true;
        }
        for index in 0..self.candidates.len() {
            let append = self.candidates[index];
            let end = offset.saturating_add(length(append.values.len()));
            let fits = used & (1 << index) == 0
                && end > offset
                && end <= current.end
                && append.invoked < current.filled_before
                && append.expects.is_none_or(|expected| expected == offset);
            if fits && self.fills(hole, end, used | 1 << index) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_hole_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        let shown_by = story.appended(&[2], 2);
        let place = Place { partition: 0, offset: 1 };
        assert_eq!(story.judge(check), Err(Violation::OffsetMissing { place, shown_by }));
    }

    #[test]
    fn a_log_that_does_not_begin_at_0_has_a_hole() {
        let story = Story::new();
        let shown_by = story.appended(&[1], 1);
        let place = Place { partition: 0, offset: 0 };
        assert_eq!(story.judge(check), Err(Violation::OffsetMissing { place, shown_by }));
    }

    #[test]
    fn an_append_of_unknown_outcome_may_fill_a_hole_of_its_size_and_no_larger_one() {
        let story = Story::new();
        story.appended(&[1], 0);
        let unknown = story.append(&[2]);
        story.unknown(unknown);
        story.appended(&[3], 2);
        assert_eq!(story.judge(check), Ok(()));
        story.appended(&[4], 4);
        assert!(story.judge(check).is_err());
    }

    #[test]
    fn a_refused_append_fills_nothing() {
        let story = Story::new();
        let refused = story.append(&[1]);
        story.refused(refused, "OVERLOADED");
        story.appended(&[2], 1);
        assert!(story.judge(check).is_err());
    }

    #[test]
    fn an_append_that_began_only_later_fills_no_hole() {
        let story = Story::new();
        let read = story.has_read(1, &[], 1);
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let place = Place { partition: 0, offset: 0 };
        let expected = Violation::OffsetMissing { place, shown_by: read };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn a_batch_that_is_too_long_fills_no_hole_and_two_short_ones_do() {
        let story = Story::new();
        let long = story.append(&[1, 2, 3]);
        story.unknown(long);
        story.appended(&[9], 2);
        assert!(story.judge(check).is_err());
        for value in [4, 5] {
            let story = &story;
            let short = story.append(&[value]);
            story.unknown(short);
        }
        // They began after the acknowledgement that shows the hole.
        assert!(story.judge(check).is_err());
        let repaired = Story::new();
        for value in [4, 5] {
            let short = repaired.append(&[value]);
            repaired.unknown(short);
        }
        repaired.appended(&[9], 2);
        assert_eq!(repaired.judge(check), Ok(()));
    }

    #[test]
    fn a_conditional_append_fills_only_the_place_of_its_condition() {
        for (expected, fills) in [(0, true), (1, false)] {
            let story = Story::new();
            let unknown = story.append_if(&[1], expected);
            story.unknown(unknown);
            story.appended(&[2], 1);
            assert_eq!(story.judge(check).is_ok(), fills);
        }
    }

    #[test]
    fn an_end_beyond_all_that_was_sent_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        let read = story.has_read(1, &[], 2);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [read]);
    }
}
