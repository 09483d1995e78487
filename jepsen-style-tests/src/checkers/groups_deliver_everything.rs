//! A group is given every acknowledged record at least once.
//!
//! Judged by offsets: that a record stands where it was acknowledged, and that what was given out
//! is what stands there, other checks say. Asked for are records that were acknowledged before the
//! group's last poll began; the history must go on until the group had the time to consume them
//! all, see `workload/members.rs`.

use std::collections::BTreeMap;

use crate::observations::{Append, AppendOutcome, Delivery, Moment};
use crate::violation::{Place, Violation};

/// Checks one group in one partition.
pub fn check(
    group: &str,
    partition: u32,
    appends: &[Append],
    deliveries: &[Delivery],
    last_poll: Moment,
) -> Result<(), Violation> {
    let given = merged(deliveries);
    let before = |append: &&Append| match append.outcome {
        AppendOutcome::Acked { returned, .. } => returned < last_poll,
        _ => false,
    };
    for append in appends.iter().filter(before) {
        for (offset, value) in append.offsets() {
            let run = given.range(..=offset).next_back();
            if run.is_none_or(|(_, end)| *end <= offset) {
                return Err(Violation::NeverDelivered {
                    group: group.to_owned(),
                    place: Place { partition, offset },
                    value,
                    append: append.op,
                });
            }
        }
    }
    Ok(())
}

/// Runs of offsets that somebody was given: start to end (exclusive), apart from each other.
fn merged(deliveries: &[Delivery]) -> BTreeMap<u64, u64> {
    let mut runs: Vec<(u64, u64)> =
        deliveries.iter().map(|it| (it.base_offset, it.base_offset + it.record_count)).collect();
    runs.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in runs {
        match merged.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    merged.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(op: u64, base_offset: Option<u64>, values: &[u64]) -> Append {
        Append {
            op,
            values: values.to_vec(),
            expects: None,
            invoked: 0,
            outcome: AppendOutcome::Acked { base_offset, returned: 1 },
        }
    }

    fn delivery(base_offset: u64, record_count: u64) -> Delivery {
        Delivery { op: 9, base_offset, record_count }
    }

    #[test]
    fn a_record_that_nobody_was_given_is_a_violation() {
        let appends = [append(1, Some(0), &[10, 11]), append(2, Some(2), &[12])];
        let given = [delivery(0, 1), delivery(2, 1)];
        let found = check("g", 3, &appends, &given, 9).expect_err("a violation");
        assert_eq!((found.kind(), found.operations()), ("never-delivered", vec![1]));
        assert!(found.to_string().contains("record 11"), "{found}");
        assert!(check("g", 3, &appends, &[], 9).is_err());
    }

    #[test]
    fn records_may_be_given_twice_and_by_parts() {
        let appends = [append(1, Some(0), &[10, 11]), append(2, Some(2), &[12])];
        let given = [delivery(1, 2), delivery(0, 1), delivery(0, 2)];
        assert_eq!(check("g", 3, &appends, &given, 9), Ok(()));
    }

    #[test]
    fn what_was_acknowledged_after_the_last_poll_need_not_be_given() {
        assert_eq!(check("g", 3, &[append(1, Some(0), &[10])], &[], 1), Ok(()));
        assert!(check("g", 3, &[append(1, Some(0), &[10])], &[], 2).is_err());
    }

    #[test]
    fn what_was_not_acknowledged_need_not_be_given() {
        let unknown = Append { outcome: AppendOutcome::Unknown, ..append(1, None, &[10]) };
        assert_eq!(check("g", 3, &[unknown, append(2, None, &[11])], &[], 9), Ok(()));
    }
}
