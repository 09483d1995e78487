//! One record per offset, and one offset per record, whoever looks.
//!
//! Acknowledgements, reads and surveys all say what stands where; they must say the same. Two
//! records at one offset is a log that two consumers disagree about; one record at two offsets is
//! a retry that was written twice, which the promise "once" forbids.

use crate::observations::PartitionObservations;
use crate::violation::{Place, Seen, SeenAt, Violation};

/// A record at an offset, as one operation put or saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sighting {
    offset: u64,
    value: u64,
    operation: u64,
}

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut sightings = sightings(observed);
    sightings.sort_unstable();
    for pair in sightings.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        if a.offset == b.offset && a.value != b.value {
            let place = Place { partition, offset: a.offset };
            let seen = [a, b].map(|it| Seen { value: it.value, operation: it.operation });
            return Err(Violation::TwoValuesAtOffset { place, seen });
        }
    }
    sightings.sort_unstable_by_key(|it| (it.value, it.offset, it.operation));
    for pair in sightings.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        if a.value == b.value && a.offset != b.offset {
            let seen = [a, b].map(|it| SeenAt { offset: it.offset, operation: it.operation });
            return Err(Violation::ValueAtTwoOffsets { partition, value: a.value, seen });
        }
    }
    Ok(())
}

fn sightings(observed: &PartitionObservations) -> Vec<Sighting> {
    let mut sightings = Vec::new();
    let mut add = |operation: u64, offset: u64, value: u64| {
        sightings.push(Sighting { offset, value, operation });
    };
    for append in &observed.appends {
        append.offsets().for_each(|(offset, value)| add(append.op, offset, value));
    }
    for read in &observed.reads {
        read.offsets().for_each(|(offset, value)| add(read.op, offset, value));
    }
    for survey in &observed.surveys {
        survey.offsets().for_each(|(offset, value)| add(survey.op, offset, value));
    }
    sightings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn two_records_acknowledged_at_one_offset_are_a_violation() {
        let story = Story::new();
        let first = story.appended(&[10, 11], 0);
        let second = story.appended(&[12], 1);
        let place = Place { partition: 0, offset: 1 };
        let seen = [Seen { value: 11, operation: first }, Seen { value: 12, operation: second }];
        let expected = Violation::TwoValuesAtOffset { place, seen };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn two_reads_that_saw_different_records_at_one_offset_are_a_violation() {
        let story = Story::new();
        story.has_read(0, &[1, 2], 2);
        story.has_read(1, &[3], 2);
        let found = check(0, &story.partition()).expect_err("a violation");
        assert_eq!(found.kind(), "inconsistent");
    }

    #[test]
    fn a_record_that_stands_at_two_offsets_is_a_violation() {
        let story = Story::new();
        story.appended(&[7], 0);
        let survey = story.survey(1, &[7, 7], "a");
        let seen = [0, 1].map(|offset| SeenAt { offset, operation: survey });
        let expected = Violation::ValueAtTwoOffsets { partition: 0, value: 7, seen };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn all_who_look_may_see_the_same() {
        let story = Story::new();
        story.appended(&[1, 2], 0);
        story.has_read(1, &[2], 2);
        story.survey(1, &[1, 2], "a");
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
