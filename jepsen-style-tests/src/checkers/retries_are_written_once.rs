//! One batch of a producer stands at one place, whoever asks and how often; batches of a producer
//! stand in the order of their sequences; a fenced session adds nothing.
//!
//! This is the promise "once" as the answers tell it. That the records themselves do not stand in
//! the log twice is checked by `one_value_per_offset`. A very old retry is told no offset, which
//! is no contradiction.

use std::collections::BTreeMap;

use super::layout::Case;
use crate::observations::{Attempt, Moment};
use crate::violation::{SeenAt, Violation};

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let attempts = &case.observed.attempts;
    let placed = retries_stand_still(case.number, attempts)?;
    sequences_ascend(case.number, &placed)?;
    zombies_are_refused(case.number, attempts)
}

/// Producer, epoch, sequence; then offset and operation.
type Placed = BTreeMap<(u64, u32, u32), SeenAt>;

fn retries_stand_still(partition: u32, attempts: &[Attempt]) -> Result<Placed, Violation> {
    let mut placed = Placed::new();
    for attempt in attempts {
        let Some((_, Some(offset))) = attempt.acked else { continue };
        let told = SeenAt { offset, operation: attempt.op };
        let stamp = attempt.stamp;
        let first = placed.entry((stamp.id, stamp.epoch, stamp.sequence_first)).or_insert(told);
        if first.offset != offset {
            return Err(Violation::RetryMoved { partition, told: [*first, told] });
        }
    }
    Ok(placed)
}

fn sequences_ascend(partition: u32, placed: &Placed) -> Result<(), Violation> {
    let mut before: Option<((u64, u32), SeenAt)> = None;
    for ((id, epoch, _), told) in placed {
        let session = (*id, *epoch);
        if let Some((same, lower)) = before
            && same == session
            && lower.offset >= told.offset
        {
            let (first, second) = (lower.operation, told.operation);
            return Err(Violation::SequencesReordered { partition, first, second });
        }
        before = Some((session, *told));
    }
    Ok(())
}

/// A session is fenced from the moment on at which anything of a newer one was acknowledged.
fn zombies_are_refused(partition: u32, attempts: &[Attempt]) -> Result<(), Violation> {
    // By producer and epoch: the first acknowledgement.
    let mut first: BTreeMap<(u64, u32), (Moment, u64)> = BTreeMap::new();
    for attempt in attempts {
        let Some((returned, _)) = attempt.acked else { continue };
        let session = (attempt.stamp.id, attempt.stamp.epoch);
        let known = first.entry(session).or_insert((returned, attempt.op));
        *known = (*known).min((returned, attempt.op));
    }
    for attempt in attempts.iter().filter(|attempt| attempt.acked.is_some()) {
        let (id, epoch) = (attempt.stamp.id, attempt.stamp.epoch);
        let newer = first.range((id, epoch.saturating_add(1))..=(id, u32::MAX));
        if let Some((_, (_, newer))) = newer
            .filter(|((_, newer), (returned, _))| *newer > epoch && *returned < attempt.invoked)
            .min_by_key(|(_, (returned, _))| *returned)
        {
            let (newer, zombie) = (*newer, attempt.op);
            return Err(Violation::ZombieAccepted { partition, newer, zombie });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_retry_that_is_told_another_offset_is_a_violation() {
        let story = Story::new();
        let first = story.numbered(7, 0, 0, &[1]);
        story.acked(first, 0);
        let retry = story.numbered(7, 0, 0, &[1]);
        story.acked(retry, 1);
        let told = [(0, first), (1, retry)];
        let told = told.map(|(offset, operation)| SeenAt { offset, operation });
        assert_eq!(story.judge(check), Err(Violation::RetryMoved { partition: 0, told }));
    }

    #[test]
    fn a_retry_is_told_the_same_offset_or_none() {
        let story = Story::new();
        let first = story.numbered(7, 0, 0, &[1]);
        story.unknown(first);
        let retry = story.numbered(7, 0, 0, &[1]);
        story.acked(retry, 0);
        let again = story.numbered(7, 0, 0, &[1]);
        story.acked_somewhere(again);
        story.survey(1, &[1], "a");
        assert_eq!(story.verdict(), []);
    }

    #[test]
    fn a_retry_that_was_written_again_is_found_though_it_was_told_the_first_offset() {
        let story = Story::new();
        let first = story.numbered(7, 0, 0, &[1]);
        story.acked(first, 0);
        story.survey(1, &[1, 1], "a");
        let found = story.verdict();
        assert!(found.iter().any(|it| it.kind() == "duplicated"), "{found:?}");
    }

    #[test]
    fn a_lower_sequence_behind_a_higher_one_is_a_violation() {
        let story = Story::new();
        let second = story.numbered(7, 0, 1, &[2]);
        let first = story.numbered(7, 0, 0, &[1]);
        story.acked(second, 0);
        story.acked(first, 1);
        let expected = Violation::SequencesReordered { partition: 0, first, second };
        assert_eq!(story.judge(check), Err(expected));
    }

    #[test]
    fn an_old_session_that_is_accepted_after_a_newer_one_is_a_violation() {
        let play = |late: bool| {
            let story = Story::new();
            let (newer, mut zombie) = (story.numbered(7, 1, 0, &[1]), 0);
            if !late {
                zombie = story.numbered(7, 0, 0, &[2]);
            }
            story.acked(newer, 0);
            if late {
                zombie = story.numbered(7, 0, 0, &[2]);
            }
            story.acked(zombie, 1);
            (story.judge(check), newer, zombie)
        };
        let (judged, newer, zombie) = play(true);
        let expected = Violation::ZombieAccepted { partition: 0, newer, zombie };
        assert_eq!(judged, Err(expected));
        assert_eq!(play(false).0, Ok(()), "it may have come first");
    }
}
