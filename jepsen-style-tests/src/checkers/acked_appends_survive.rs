//! An acknowledged record is in the log that every node serves at the end, at its offset.
//!
//! This is the promise "durable". The surveys are made after all faults have been removed. Records
//! below a node's log start were given up by retention and are not looked for; a run that wants
//! them all switches retention off.

use std::collections::BTreeMap;

use crate::observations::PartitionObservations;
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    for survey in &observed.surveys {
        let there: BTreeMap<u64, u64> = survey.offsets().collect();
        for append in &observed.appends {
            for (offset, value) in append.offsets() {
                if offset >= survey.start && there.get(&offset) != Some(&value) {
                    let place = Place { partition, offset };
                    let (append, node) = (append.op, survey.node);
                    return Err(Violation::Lost { place, value, append, node });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn an_acknowledged_record_that_one_node_lacks_at_the_end_is_lost() {
        let story = Story::new();
        story.appended(&[1, 2], 0);
        let append = story.appended(&[3], 2);
        story.survey(1, &[1, 2, 3], "a");
        story.survey(2, &[1, 2], "b");
        let place = Place { partition: 0, offset: 2 };
        let lost = Violation::Lost { place, value: 3, append, node: 2 };
        assert_eq!(check(0, &story.partition()), Err(lost));
    }

    #[test]
    fn an_acknowledged_record_that_was_replaced_is_lost() {
        let story = Story::new();
        let append = story.appended(&[1], 0);
        let other = story.append(&[2]);
        story.unknown(other);
        story.survey(1, &[2], "a");
        let place = Place { partition: 0, offset: 0 };
        let lost = Violation::Lost { place, value: 1, append, node: 1 };
        assert_eq!(check(0, &story.partition()), Err(lost));
    }

    #[test]
    fn a_record_of_unknown_outcome_may_be_there_or_not() {
        let story = Story::new();
        story.appended(&[1], 0);
        let unknown = story.append(&[2]);
        story.unknown(unknown);
        story.survey(1, &[1], "a");
        story.survey(2, &[1, 2], "b");
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
