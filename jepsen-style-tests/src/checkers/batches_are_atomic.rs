//! The records of one append stand one behind the other and become visible together.
//!
//! This is the promise "atomic batch". No reader is told an end that lies inside a batch, nor
//! given only the first part of one. Where an append of unknown outcome stands is known once
//! somebody saw one of its records.

use std::collections::BTreeMap;

use crate::observations::{Append, PartitionObservations};
use crate::violation::Violation;

/// A batch that is known to stand at `base`.
struct Placed<'a> {
    base: u64,
    append: &'a Append,
}

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let torn = |append: &Append, operation: u64| Violation::TornBatch {
        partition,
        append: append.op,
        operation,
    };
    let mut places: BTreeMap<u64, (&Append, usize)> = BTreeMap::new();
    for append in &observed.appends {
        places.extend(append.values.iter().enumerate().map(|(at, value)| (*value, (append, at))));
    }
    // By offset. A batch that two operations saw at two places is another checker's business.
    let mut batches: BTreeMap<u64, Placed<'_>> = BTreeMap::new();
    let mut bases: BTreeMap<u64, u64> = BTreeMap::new();
    for (operation, offset, value) in sightings(observed) {
        let Some((append, at)) = places.get(&value) else { continue };
        let base = offset.checked_sub(length(*at)).ok_or_else(|| torn(append, operation))?;
        if *bases.entry(append.op).or_insert(base) != base {
            return Err(torn(append, operation));
        }
        batches.insert(base, Placed { base, append });
    }
    for (operation, end) in ends(observed) {
        let below = batches.range(..end).next_back();
        if let Some((_, Placed { base, append })) = below
            && end < base + length(append.values.len())
        {
            return Err(torn(append, operation));
        }
    }
    Ok(())
}

/// Operation, offset and value of all that was acknowledged or seen.
fn sightings(observed: &PartitionObservations) -> Vec<(u64, u64, u64)> {
    let mut sightings = Vec::new();
    for append in &observed.appends {
        sightings.extend(append.offsets().map(|(offset, value)| (append.op, offset, value)));
    }
    for read in &observed.reads {
        sightings.extend(read.offsets().map(|(offset, value)| (read.op, offset, value)));
    }
    for survey in &observed.surveys {
        sightings.extend(survey.offsets().map(|(offset, value)| (survey.op, offset, value)));
    }
    sightings
}

/// Where readers were told that the log ends, and where what they got ended.
fn ends(observed: &PartitionObservations) -> Vec<(u64, u64)> {
    let mut ends = Vec::new();
    for read in &observed.reads {
        ends.push((read.op, read.end));
        if !read.values.is_empty() {
            ends.push((read.op, read.from + length(read.values.len())));
        }
    }
    ends.extend(observed.surveys.iter().map(|survey| (survey.op, survey.end())));
    ends
}

fn length(count: usize) -> u64 {
    u64::try_from(count).expect("a usize fits")
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
        let torn = Violation::TornBatch { partition: 0, append, operation };
        assert_eq!(check(0, &story.partition()), Err(torn));
    }

    #[test]
    fn a_reader_that_gets_only_the_first_part_of_a_batch_is_a_violation() {
        let story = Story::new();
        let append = story.appended(&[1, 2, 3], 0);
        let operation = story.has_read(0, &[1, 2], 3);
        let torn = Violation::TornBatch { partition: 0, append, operation };
        assert_eq!(check(0, &story.partition()), Err(torn));
    }

    #[test]
    fn records_of_one_append_that_are_not_neighbours_are_a_violation() {
        let story = Story::new();
        let append = story.append(&[1, 2]);
        story.unknown(append);
        story.appended(&[3], 1);
        let operation = story.survey(1, &[1, 3, 2], "a");
        let torn = Violation::TornBatch { partition: 0, append, operation };
        assert_eq!(check(0, &story.partition()), Err(torn));
    }

    #[test]
    fn a_reader_may_begin_inside_a_batch() {
        let story = Story::new();
        story.appended(&[1, 2, 3], 0);
        story.appended(&[4], 3);
        story.has_read(1, &[2, 3], 4);
        story.survey(1, &[1, 2, 3, 4], "a");
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
