//! One record per offset, and one offset per record, whoever looks.
//!
//! Acknowledgements, reads and surveys all say what stands where; they must say the same. Two
//! records at one offset is a log that two consumers disagree about; one record at two offsets is
//! a retry that was written twice, which the promise "once" forbids.

use std::collections::BTreeMap;

use super::layout::Case;
use crate::violation::{Place, Seen, SeenAt, Violation};

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    if let Some(sighting) = case.layout.contradictions.first() {
        let place = Place { partition: case.number, offset: sighting.offset };
        let known = case.layout.slots().find(|(offset, _)| *offset == sighting.offset);
        let known = known.map(|(_, slot)| Seen { value: slot.value, operation: slot.operation });
        let other = Seen { value: sighting.value, operation: sighting.operation };
        let seen = [known.unwrap_or(other), other];
        return Err(Violation::TwoValuesAtOffset { place, seen });
    }
    offsets_of_values(case)
}

fn offsets_of_values(case: &Case<'_>) -> Result<(), Violation> {
    let mut sent: Vec<Option<SeenAt>> = vec![None; case.layout.record_count()];
    let mut unsent: BTreeMap<u64, SeenAt> = BTreeMap::new();
    for (offset, slot) in case.layout.slots() {
        let seen = SeenAt { offset, operation: slot.operation };
        let before = match case.layout.record_number(slot.value) {
            Some(number) => sent[number].replace(seen),
            None => unsent.insert(slot.value, seen),
        };
        if let Some(before) = before {
            let (partition, value) = (case.number, slot.value);
            let seen = [before, seen];
            return Err(Violation::ValueAtTwoOffsets { partition, value, seen });
        }
    }
    Ok(())
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
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn two_reads_that_saw_different_records_at_one_offset_are_a_violation() {
        let story = Story::new();
        story.has_read(0, &[1, 2], 2);
        story.has_read(1, &[3], 2);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.kind(), "inconsistent");
    }

    #[test]
    fn a_record_that_stands_at_two_offsets_is_a_violation() {
        let story = Story::new();
        let append = story.appended(&[7], 0);
        let survey = story.survey(1, &[7, 7], "a");
        let seen = [(0, append), (1, survey)];
        let seen = seen.map(|(offset, operation)| SeenAt { offset, operation });
        let expected = Violation::ValueAtTwoOffsets { partition: 0, value: 7, seen };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn all_who_look_may_see_the_same() {
        let story = Story::new();
        story.appended(&[1, 2], 0);
        story.has_read(1, &[2], 2);
        story.survey(1, &[1, 2], "a");
        assert_eq!(story.judge(check), Ok(()));
    }
}
