//! A producer that numbers its batches as it must is never told that one is missing, that it is
//! unknown, or that a newer session of it exists.
//!
//! The simulated producers keep the rules: the next batch goes out when the one before it was
//! acknowledged, and an append of unknown outcome is followed by a new producer id. A partition
//! that refuses such a producer has lost or made up a part of its memory of producers.

use crate::observations::{AppendOutcome, PartitionObservations};
use crate::violation::Violation;

/// What a node says when its memory of producers and the batch do not fit together.
const REFUSALS: [&str; 3] = ["SEQUENCE_OUT_OF_ORDER", "UNKNOWN_PRODUCER", "PRODUCER_FENCED"];

/// Checks one partition.
pub fn check(_partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    for append in &observed.appends {
        if let AppendOutcome::Refused(error) = &append.outcome
            && REFUSALS.contains(&error.code.as_str())
        {
            let reason = format!("{}: {}", error.code, error.message);
            return Err(Violation::ProducerRefused { append: append.op, reason });
        }
    }
    Ok(())
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
        let found = check(0, &story.partition()).expect_err("a violation");
        assert_eq!(found.operations(), [append]);
    }

    #[test]
    fn other_refusals_are_honest() {
        let story = Story::new();
        let append = story.append(&[1]);
        story.refused(append, "OVERLOADED");
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
