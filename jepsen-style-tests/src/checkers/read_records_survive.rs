//! A record that any reader was given is in the log at the end, at its offset.
//!
//! A read at any level and a consumer see committed data only: what was shown once stays, also if
//! its append was never acknowledged. Who was given a record that is gone has read something
//! uncommitted, or something that was lost.

use super::layout::{Case, Source};
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let observed = case.observed;
    let returned_before = |read: u64, moment: usize| {
        let reads = observed.reads.iter().map(|it| (it.op, it.returned));
        let lagging = observed.lagging_reads.iter().map(|it| (it.op, it.returned));
        reads.chain(lagging).any(|(op, returned)| op == read && returned < moment)
    };
    for survey in &observed.surveys {
        for (offset, slot) in case.layout.slots() {
            if slot.source != Source::Read {
                continue;
            }
            let Some(index) = offset.checked_sub(survey.start) else { continue };
            let found = survey.values.get(usize::try_from(index).unwrap_or(usize::MAX));
            if found != Some(&slot.value) && returned_before(slot.operation, survey.invoked) {
                return Err(Violation::SeenThenGone {
                    place: Place { partition: case.number, offset },
                    value: slot.value,
                    read: slot.operation,
                    survey: survey.op,
                    node: survey.node,
                });
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
    fn a_record_that_a_lagging_read_was_given_must_not_vanish() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let read = story.has_read_at(2, 0, &[1], 1);
        let survey = story.survey(1, &[], "a");
        let place = Place { partition: 0, offset: 0 };
        let gone = Violation::SeenThenGone { place, value: 1, read, survey, node: 1 };
        assert_eq!(story.judge(check), Err(gone));
    }

    #[test]
    fn a_record_that_a_consumer_was_given_must_not_be_replaced() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let poll = story.polled("c", 0, &[1]);
        story.appended(&[2], 0);
        let survey = story.survey(1, &[2], "a");
        let found = story.verdict();
        assert!(found.iter().any(|it| it.kind() == "inconsistent"), "{found:?}");
        let repaired = Story::new();
        let unknown = repaired.append(&[1]);
        repaired.unknown(unknown);
        repaired.polled("c", 0, &[1]);
        repaired.appended(&[2], 1);
        repaired.survey(1, &[1, 2], "a");
        assert_eq!(repaired.verdict(), []);
        assert!(poll < survey);
    }

    #[test]
    fn what_only_one_survey_saw_may_have_come_after_the_other() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        story.survey(1, &[], "a");
        story.survey(2, &[1], "b");
        assert_eq!(story.judge(check), Ok(()));
    }
}
