//! Whoever is told an end has seen all that stands below it, also what was not returned: each of
//! those appends had begun by then.
//!
//! One pass over the log finds, for each place, the append begun last among those up to there.

use super::layout::Case;
use crate::violation::Violation;

/// Checks one partition.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let batches = &case.layout.batches;
    let mut latest: Vec<usize> = Vec::with_capacity(batches.len());
    for (index, batch) in batches.iter().enumerate() {
        let before = latest.last().copied().unwrap_or(index);
        let later = batches[before].append.invoked < batch.append.invoked;
        latest.push(if later { index } else { before });
    }
    for told in &case.layout.told_ends {
        let below = case.layout.batches_below(told.end);
        let Some(last) = below.checked_sub(1).and_then(|last| latest.get(last)) else { continue };
        let batch = batches[*last];
        if batch.append.invoked > told.returned {
            return Err(Violation::EndFromFuture {
                partition: case.number,
                read: told.operation,
                end: told.end,
                append: batch.append.op,
                shown_by: batch.shown_by,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn an_end_that_takes_in_what_was_sent_only_later_is_a_violation() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.unknown(unknown);
        let read = story.has_read(1, &[], 1);
        let append = story.appended(&[2], 0);
        let expected =
            Violation::EndFromFuture { partition: 0, read, end: 1, append, shown_by: append };
        assert_eq!(story.judge(check), Err(expected));
        let repaired = Story::new();
        let unknown = repaired.append(&[1]);
        repaired.unknown(unknown);
        repaired.has_read(1, &[], 1);
        repaired.appended(&[2], 1);
        assert_eq!(repaired.judge(check), Ok(()));
    }

    #[test]
    fn a_record_that_is_read_before_it_was_sent_is_a_violation() {
        let story = Story::new();
        let read = story.has_read(0, &[1], 1);
        let append = story.appended(&[1], 0);
        let found = story.judge(check).expect_err("a violation");
        assert_eq!(found.operations(), [read, append]);
    }

    #[test]
    fn a_read_that_ends_after_an_append_began_may_take_it_in() {
        let story = Story::new();
        let read = story.read(0);
        let append = story.append(&[1]);
        story.records(read, &[1], 1);
        story.acked(append, 0);
        assert_eq!(story.judge(check), Ok(()));
    }
}
