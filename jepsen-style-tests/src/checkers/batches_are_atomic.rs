//! The records of one append stand one behind the other and become visible together.
//!
//! This is the promise "atomic batch". No reader is told an end that lies inside a batch, nor
//! given only the first part of one; no two batches reach into each other. Where an append of
//! unknown outcome stands is known once somebody saw one of its records.

use std::collections::BTreeMap;

use super::layout::{Batch, Case};
use crate::violation::Violation;

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    records_are_neighbours(case)?;
    batches_keep_apart(case)?;
    ends_are_between_batches(case)
}

fn torn(case: &Case<'_>, append: u64, operation: u64, shown_by: u64) -> Violation {
    Violation::TornBatch { partition: case.number, append, operation, shown_by }
}

fn records_are_neighbours(case: &Case<'_>) -> Result<(), Violation> {
    // By append: where it stands, and who shows it.
    let mut bases: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (offset, slot) in case.layout.slots() {
        let Some((append, at)) = case.layout.sender(slot.value) else { continue };
        // An acknowledgement places all records alike; single records always stand together.
        let acked = append.offsets().next().map(|(base, _)| base + at);
        if append.values.len() < 2 || acked == Some(offset) {
            continue;
        }
        if acked.is_some() {
            return Err(torn(case, append.op, slot.operation, append.op));
        }
        let base = offset.checked_sub(at);
        let base = base.ok_or_else(|| torn(case, append.op, slot.operation, slot.operation))?;
        let (first, shown_by) = *bases.entry(append.op).or_insert((base, slot.operation));
        if first != base {
            return Err(torn(case, append.op, slot.operation, shown_by));
        }
    }
    Ok(())
}

fn batches_keep_apart(case: &Case<'_>) -> Result<(), Violation> {
    let mut reaches: Option<&Batch<'_>> = None;
    for batch in &case.layout.batches {
        if let Some(before) = reaches
            && batch.base < before.end()
        {
            return Err(Violation::BatchesOverlap {
                partition: case.number,
                appends: [before.append.op, batch.append.op],
                shown_by: [before.shown_by, batch.shown_by],
            });
        }
        reaches = Some(batch);
    }
    Ok(())
}

fn ends_are_between_batches(case: &Case<'_>) -> Result<(), Violation> {
    let batches = &case.layout.batches;
    for told in &case.layout.told_ends {
        let below = case.layout.batches_below(told.end);
        if let Some(last) = below.checked_sub(1).and_then(|last| batches.get(last))
            && told.end < last.end()
        {
            return Err(torn(case, last.append.op, told.operation, last.shown_by));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn an_end_inside_a_batch_is_a_violation() {
        let story = Story::new();
        let append = story.append(&[1, 2, 3]);
        let operation = story.has_read(2, &[], 2);
        story.acked(append, 0);
        let torn = Violation::TornBatch { partition: 0, append, operation, shown_by: append };
        assert_eq!(story.judge(check), Err(torn));
    }

    #[test]
    fn a_reader_that_gets_only_the_first_part_of_a_batch_is_a_violation() {
        let story = Story::new();
        let append = story.appended(&[1, 2, 3], 0);
        let operation = story.has_read(0, &[1, 2], 3);
        let torn = Violation::TornBatch { partition: 0, append, operation, shown_by: append };
        assert_eq!(story.judge(check), Err(torn));
    }

    #[test]
    fn records_of_one_append_that_are_not_neighbours_are_a_violation() {
        let story = Story::new();
        let append = story.append(&[1, 2]);
        story.unknown(append);
        story.appended(&[3], 1);
        let operation = story.survey(1, &[1, 3, 2], "a");
        let torn = Violation::TornBatch { partition: 0, append, operation, shown_by: operation };
        assert_eq!(story.judge(check), Err(torn));
    }

    #[test]
    fn a_batch_that_reaches_into_another_is_a_violation_though_nobody_saw_both_there() {
        let story = Story::new();
        let unknown = story.append(&[1, 2, 3]);
        story.unknown(unknown);
        let read = story.has_read(1, &[2, 3], 3);
        let acked = story.append(&[4]);
        story.acked(acked, 0);
        let expected = Violation::BatchesOverlap {
            partition: 0,
            appends: [unknown, acked],
            shown_by: [read, acked],
        };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn a_reader_may_begin_inside_a_batch() {
        let story = Story::new();
        story.appended(&[1, 2, 3], 0);
        story.appended(&[4], 3);
        story.has_read(1, &[2, 3], 4);
        story.survey(1, &[1, 2, 3, 4], "a");
        assert_eq!(story.judge(check), Ok(()));
    }
}
