//! A read returns only records that somebody sent and that were not refused for good, undamaged.
//!
//! A record out of nowhere is another partition's or damage; one that was refused breaks the
//! promise that a `Definite` error means that nothing happened. That a record is not read before it
//! was sent is checked by `ends_are_not_from_the_future`.

use super::layout::{Case, Source, length};
use crate::observations::AppendOutcome;
use crate::violation::{Place, Violation};

/// Codes of the client library for an answer that can't be what was appended.
const DAMAGE_CODES: [&str; 3] = ["BAD_ANSWER", "Corrupt", "Gap"];

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let damaged = |code: &str| DAMAGE_CODES.contains(&code);
    if let Some(failed) = case.observed.failed_reads.iter().find(|it| damaged(&it.error.code)) {
        let reason = failed.error.message.clone();
        return Err(Violation::DamagedRead { read: failed.op, reason });
    }
    answers_fit_themselves(case)?;
    // Each offset once: whoever saw something else there is listed as a contradiction.
    let known = case.layout.slots().filter(|(_, slot)| slot.source != Source::Acknowledged);
    let known = known.map(|(offset, slot)| (offset, slot.value, slot.operation));
    let others = case.layout.contradictions.iter();
    let others = others.map(|it| (it.offset, it.value, it.operation));
    for (offset, value, read) in known.chain(others) {
        let (why, append) = match case.layout.sender(value) {
            None => ("which nobody ever sent", None),
            Some((append, _)) if matches!(append.outcome, AppendOutcome::Refused(_)) => {
                ("which had been refused for good", Some(append.op))
            }
            Some(_) => continue,
        };
        let place = Place { partition: case.number, offset };
        return Err(Violation::PhantomRead { place, value, read, why, append });
    }
    Ok(())
}

/// No answer holds more records than its own end allows.
fn answers_fit_themselves(case: &Case<'_>) -> Result<(), Violation> {
    let reads = case.observed.reads.iter().map(|it| (it.op, it.from, it.values.len(), it.end));
    let lagging = case.observed.lagging_reads.iter();
    let lagging = lagging.map(|it| (it.op, it.from, it.values.len(), it.end));
    for (read, from, count, end) in reads.chain(lagging) {
        let last = from.saturating_add(length(count));
        if count > 0 && last > end {
            let reason = format!("it holds records up to offset {last}, and answered end {end}");
            return Err(Violation::DamagedRead { read, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    fn why(story: &Story) -> &'static str {
        match story.judge(check) {
            Err(Violation::PhantomRead { why, .. }) => why,
            other => panic!("expected a phantom, found {other:?}"),
        }
    }

    #[test]
    fn a_record_that_nobody_sent_is_a_phantom() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.has_read(0, &[9], 1);
        assert_eq!(why(&story), "which nobody ever sent");
    }

    #[test]
    fn a_record_that_was_refused_for_good_is_a_phantom() {
        let story = Story::new();
        let refused = story.append(&[1]);
        story.refused(refused, "OVERLOADED");
        story.survey(1, &[1], "a");
        assert_eq!(why(&story), "which had been refused for good");
    }

    #[test]
    fn an_answer_that_fails_its_checksum_is_a_violation() {
        let story = Story::new();
        let read = story.read(0);
        story.refused(read, "BAD_ANSWER");
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [read]);
    }

    #[test]
    fn a_record_of_unknown_outcome_may_be_read() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.has_read(0, &[1], 1);
        story.unknown(unknown);
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn a_lagging_read_and_a_poll_return_nothing_that_was_refused() {
        for lagging in [true, false] {
            let story = Story::new();
            let refused = story.append(&[1]);
            story.refused(refused, "OVERLOADED");
            let read = match lagging {
                true => story.has_read_at(2, 0, &[1], 1),
                false => story.polled("c", 0, &[1]),
            };
            let found = story.judge(check).expect_err("a violation");
            assert_eq!(found.operations(), [refused, read]);
        }
    }

    #[test]
    fn an_answer_with_records_beyond_its_own_end_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        let read = story.has_read(0, &[1], 0);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [read]);
    }
}
