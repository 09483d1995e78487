//! An acknowledged record is in the log that every node serves at the end, at its offset.
//!
//! This is the promise "durable". The surveys are made after all faults have been removed. Records
//! below a node's log start were given up by retention and are not looked for; a run that wants
//! them all switches retention off.

use super::layout::Case;
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    for survey in &case.observed.surveys {
        for append in &case.observed.appends {
            for (offset, value) in append.offsets() {
                let Some(index) = offset.checked_sub(survey.start) else { continue };
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                if survey.values.get(index) != Some(&value) {
                    let place = Place { partition: case.number, offset };
                    let (append, survey, node) = (append.op, survey.op, survey.node);
                    return Err(Violation::Lost { place, value, append, survey, node });
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
        let survey = story.survey(2, &[1, 2], "b");
        let place = Place { partition: 0, offset: 2 };
        let lost = Violation::Lost { place, value: 3, append, survey, node: 2 };
        assert_eq!(story.judge(check), Err(lost));
    }

    #[test]
    fn an_acknowledged_record_that_was_replaced_is_lost() {
        let story = Story::new();
        let append = story.appended(&[1], 0);
        let other = story.append(&[2]);
        story.unknown(other);
        let survey = story.survey(1, &[2], "a");
        let place = Place { partition: 0, offset: 0 };
        let lost = Violation::Lost { place, value: 1, append, survey, node: 1 };
        assert_eq!(story.judge(check), Err(lost));
    }

    #[test]
    fn a_record_of_unknown_outcome_may_be_there_or_not() {
        let story = Story::new();
        story.appended(&[1], 0);
        let unknown = story.append(&[2]);
        story.unknown(unknown);
        story.survey(1, &[1], "a");
        story.survey(2, &[1, 2], "b");
        assert_eq!(story.judge(check), Ok(()));
    }
}
