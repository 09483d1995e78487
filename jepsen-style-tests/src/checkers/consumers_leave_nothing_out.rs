//! A consumer is given every record from where it began, in order, each once.
//!
//! Offsets are dense, so a poll begins where the one before it ended, or where the consumer was
//! sent since. Jumping ahead leaves records out; going back repeats them.

use crate::observations::ConsumerStep;
use crate::violation::{Place, Violation};

/// Checks one consumer in one partition.
pub fn check(consumer: &str, partition: u32, steps: &[ConsumerStep]) -> Result<(), Violation> {
    // The next offset, and who left the consumer there.
    let mut position: Option<(u64, u64)> = None;
    for step in steps {
        position = match *step {
            ConsumerStep::Seek { op, offset } => Some((offset, op)),
            ConsumerStep::Poll { record_count: 0, .. } => position,
            ConsumerStep::Poll { op, base_offset, record_count } => {
                if let Some((offset, before)) = position
                    && offset != base_offset
                {
                    return Err(Violation::PollJumped {
                        consumer: consumer.to_owned(),
                        place: Place { partition, offset },
                        found: base_offset,
                        before,
                        poll: op,
                    });
                }
                Some((base_offset.saturating_add(record_count), op))
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    fn judge(story: &Story) -> Result<(), Violation> {
        check("c", 0, &story.consumer("c"))
    }

    #[test]
    fn a_poll_that_leaves_a_record_out_is_a_violation() {
        let story = Story::new();
        let before = story.polled("c", 0, &[1, 2]);
        let poll = story.polled("c", 3, &[4]);
        let found = judge(&story).expect_err("a violation");
        assert_eq!(found.operations(), [before, poll]);
        assert!(found.to_string().starts_with("poll skipped"), "{found}");
    }

    #[test]
    fn a_poll_that_repeats_a_record_is_a_violation() {
        let story = Story::new();
        story.polled("c", 0, &[1, 2]);
        story.polled("c", 1, &[2]);
        let found = judge(&story).expect_err("a violation");
        assert!(found.to_string().starts_with("poll went back"), "{found}");
    }

    #[test]
    fn a_consumer_that_was_sent_elsewhere_goes_on_there_and_nowhere_else() {
        let story = Story::new();
        story.polled("c", 0, &[1, 2]);
        story.sought("c", 7);
        story.polled("c", 7, &[8]);
        story.polled("c", 8, &[9]);
        assert_eq!(judge(&story), Ok(()));
        story.sought("c", 0);
        story.polled("c", 9, &[10]);
        assert!(judge(&story).is_err());
    }
}
