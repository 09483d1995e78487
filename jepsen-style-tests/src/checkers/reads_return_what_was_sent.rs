//! A read returns only records that somebody had sent by then and that were not refused for good,
//! undamaged.
//!
//! A record out of nowhere is another partition's or damage; one that was refused breaks the
//! promise that a `Definite` error means that nothing happened. The end that a read answers is
//! bounded in the same way: no more records can stand below it than had been sent.

use std::collections::BTreeMap;

use crate::observations::{Append, AppendOutcome, Moment, PartitionObservations};
use crate::violation::{Place, Violation};

/// Codes of the client library for an answer that can't be what was appended.
const DAMAGE_CODES: [&str; 1] = ["BAD_ANSWER"];

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let damaged = |code: &str| DAMAGE_CODES.contains(&code);
    if let Some(failed) = observed.failed_reads.iter().find(|it| damaged(&it.error.code)) {
        let reason = failed.error.message.clone();
        return Err(Violation::DamagedRead { read: failed.op, reason });
    }
    let mut senders: BTreeMap<u64, &Append> = BTreeMap::new();
    for append in &observed.appends {
        senders.extend(append.values.iter().map(|value| (*value, append)));
    }
    let phantom = |read: u64, returned: Moment, offset: u64, value: u64| {
        let why = match senders.get(&value) {
            None => "which nobody ever sent",
            Some(append) if append.invoked > returned => "which was sent only later",
            Some(append) if matches!(append.outcome, AppendOutcome::Refused(_)) => {
                "which had been refused for good"
            }
            Some(_) => return Ok(()),
        };
        let place = Place { partition, offset };
        Err(Violation::PhantomRead { place, value, read, why })
    };
    for read in &observed.reads {
        for (offset, value) in read.offsets() {
            phantom(read.op, read.returned, offset, value)?;
        }
    }
    for survey in &observed.surveys {
        for (offset, value) in survey.offsets() {
            phantom(survey.op, survey.returned, offset, value)?;
        }
    }
    ends_are_possible(partition, observed)
}

/// In the order in which the reads returned, beside the order in which appends were invoked.
fn ends_are_possible(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut reads: Vec<_> = observed.reads.iter().collect();
    reads.sort_unstable_by_key(|read| read.returned);
    let mut appends = observed.appends.iter().peekable();
    let mut records_sent: u64 = 0;
    for read in reads {
        while let Some(append) = appends.next_if(|append| append.invoked < read.returned) {
            if !matches!(append.outcome, AppendOutcome::Refused(_)) {
                records_sent += u64::try_from(append.values.len()).expect("a usize fits");
            }
        }
        if read.end > records_sent {
            let reason = format!("it answered end {}, and {records_sent} were sent", read.end);
            let reason = format!("partition {partition}: {reason}");
            return Err(Violation::DamagedRead { read: read.op, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    fn why(story: &Story) -> &'static str {
        match check(0, &story.partition()) {
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
    fn a_record_that_was_sent_only_later_is_a_phantom() {
        let story = Story::new();
        story.has_read(0, &[1], 1);
        story.appended(&[1], 0);
        assert_eq!(why(&story), "which was sent only later");
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
    fn an_end_beyond_all_that_was_sent_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.has_read(1, &[], 2);
        let found = check(0, &story.partition()).expect_err("a violation");
        assert_eq!(found.kind(), "damaged-read");
    }

    #[test]
    fn an_answer_that_fails_its_checksum_is_a_violation() {
        let story = Story::new();
        let read = story.read(0);
        story.refused(read, "BAD_ANSWER");
        let found = check(0, &story.partition()).expect_err("a violation");
        assert_eq!(found.operations(), [read]);
    }

    #[test]
    fn a_record_of_unknown_outcome_may_be_read() {
        let story = Story::new();
        let unknown = story.append(&[1]);
        story.has_read(0, &[1], 1);
        story.unknown(unknown);
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
