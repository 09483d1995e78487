//! How prompt the answers in a history were: what was not done in time, and the longest time in
//! which a partition acknowledged nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Call, History, What};

/// Of appends alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Promptness {
    /// Appends that were asked for.
    pub(super) asked: usize,
    /// Those of them that were not acknowledged within the deadline.
    pub(super) late: usize,
    /// The longest time between two acknowledgements of one partition.
    pub(super) stall: Duration,
}

impl Promptness {
    /// Looks at every append of a history.
    pub(super) fn of(history: &History, deadline: Duration) -> Promptness {
        let deadline_us = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        let mut waiting: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut found, mut stall_us) = (Promptness::default(), 0);
        for event in &history.events {
            match &event.what {
                What::Invoke { op, call: Call::Append { partition, .. } } => {
                    found.asked += 1;
                    waiting.insert(*op, (*partition, event.at_us));
                }
                What::Ok { op, .. } => {
                    let Some((partition, asked_us)) = waiting.remove(op) else { continue };
                    found.late += usize::from(event.at_us.saturating_sub(asked_us) > deadline_us);
                    let before = last.insert(partition, event.at_us).unwrap_or(event.at_us);
                    stall_us = event.at_us.saturating_sub(before).max(stall_us);
                }
                _ => {}
            }
        }
        // What failed, or was never answered, was not done in time either.
        found.late += waiting.len();
        found.stall = Duration::from_micros(stall_us);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Event};

    fn at(at_ms: u64, what: What) -> Event {
        Event { at_us: at_ms * 1_000, process: "p".to_owned(), what }
    }

    fn asked(op: u64, partition: u32) -> What {
        What::Invoke { op, call: Call::Append { partition, values: vec![op] } }
    }

    fn acked(op: u64) -> What {
        What::Ok { op, answer: Answer::Appended { base_offset: Some(op) } }
    }

    #[test]
    fn late_and_unanswered_appends_are_counted_and_the_longest_stall_is_of_one_partition() {
        let events = vec![
            at(0, asked(1, 0)),
            at(0, asked(2, 1)),
            at(10, acked(1)),
            at(20, acked(2)),
            at(30, asked(3, 0)),
            at(40, asked(4, 1)),
            at(50, acked(4)),
            at(2_100, acked(3)),
            at(2_200, asked(5, 0)),
        ];
        let found = Promptness::of(&History { events }, Duration::from_secs(2));
        let stall = Duration::from_millis(2_090);
        assert_eq!(found, Promptness { asked: 5, late: 2, stall });
    }
}
