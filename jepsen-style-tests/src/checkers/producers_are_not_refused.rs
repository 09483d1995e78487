//! A producer that numbers its batches as it must is never told that one is missing, that it is
//! unknown, or that a newer session of it exists.
//!
//! The simulated producers keep the rules: the next batch goes out when the one before it was
//! acknowledged, and an append of unknown outcome is followed by a new producer id. A partition
//! that refuses such a producer has lost or made up a part of its memory of producers. A session
//! that a newer one has fenced on purpose may be told so.

use super::layout::Case;
use crate::observations::{AppendOutcome, PartitionObservations};
use crate::violation::Violation;

/// What a node says of a session when a newer one of the same producer exists.
const FENCED: &str = "PRODUCER_FENCED";
/// What a node says when its memory of producers and the batch do not fit together.
const REFUSALS: [&str; 3] = ["SEQUENCE_OUT_OF_ORDER", "UNKNOWN_PRODUCER", FENCED];

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let refused = |append: u64, error: &crate::history::Failure| {
        let reason = format!("{}: {}", error.code, error.message);
        Err(Violation::ProducerRefused { append, reason })
    };
    for append in &case.observed.appends {
        if let AppendOutcome::Refused(error) = &append.outcome
            && REFUSALS.contains(&error.code.as_str())
            && !(error.code == FENCED && is_superseded(case.observed, append.op))
        {
            return refused(append.op, error);
        }
    }
    Ok(())
}

/// Whether a newer session of the operation's producer had sent something.
fn is_superseded(observed: &PartitionObservations, op: u64) -> bool {
    let attempts = &observed.attempts;
    let Some(old) = attempts.iter().find(|attempt| attempt.op == op) else { return false };
    let same = attempts.iter().filter(|attempt| attempt.stamp.id == old.stamp.id);
    same.into_iter().any(|attempt| attempt.stamp.epoch > old.stamp.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_sequence_that_is_said_to_be_missing_is_a_violation() {
        let story = Story::new();
        let append = story.append(&[1]);
        story.refused(append, "SEQUENCE_OUT_OF_ORDER");
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [append]);
    }

    #[test]
    fn other_refusals_are_honest() {
        let story = Story::new();
        let append = story.append(&[1]);
        story.refused(append, "OVERLOADED");
        assert_eq!(story.judge(check), Ok(()));
    }

    #[test]
    fn only_a_session_that_has_a_newer_one_is_told_that_it_is_fenced() {
        let story = Story::new();
        let old = story.numbered(7, 1, 0, &[1]);
        story.refused(old, "PRODUCER_FENCED");
        assert!(story.judge(check).is_err());
        let newer = story.numbered(7, 2, 0, &[2]);
        story.acked(newer, 0);
        assert_eq!(story.judge(check), Ok(()));
    }
}
