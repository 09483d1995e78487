//! Offsets of acknowledged appends are dense: none is left out.
//!
//! A hole would make a consumer wait for a record that never comes. Appends whose outcome is
//! unknown may fill a hole, so a hole counts only if the unknown appends of that partition could
//! not fill it. That an offset is not given twice is checked by `one_value_per_offset`.

use crate::observations::{AppendOutcome, PartitionObservations};
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut acked: Vec<(u64, u64)> = Vec::new();
    let mut unknown_records: u64 = 0;
    for append in &observed.appends {
        let record_count = u64::try_from(append.values.len()).expect("a usize fits");
        match append.outcome {
            AppendOutcome::Acked { base_offset: Some(base_offset), .. } => {
                acked.push((base_offset, record_count));
            }
            AppendOutcome::Acked { base_offset: None, .. } | AppendOutcome::Unknown => {
                unknown_records += record_count;
            }
            AppendOutcome::Refused(_) => {}
        }
    }
    acked.sort_unstable();

    let mut offset_next = 0;
    let mut hole_records: u64 = 0;
    for (base_offset, record_count) in acked {
        hole_records += base_offset.saturating_sub(offset_next);
        if hole_records > unknown_records {
            let place = Place { partition, offset: offset_next };
            return Err(Violation::OffsetMissing { place });
        }
        offset_next = offset_next.max(base_offset + record_count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn a_hole_is_a_violation() {
        let story = Story::new();
        story.appended(&[1], 0);
        story.appended(&[2], 2);
        let place = Place { partition: 0, offset: 1 };
        assert_eq!(check(0, &story.partition()), Err(Violation::OffsetMissing { place }));
    }

    #[test]
    fn a_log_that_does_not_begin_at_0_has_a_hole() {
        let story = Story::new();
        story.appended(&[1], 1);
        let place = Place { partition: 0, offset: 0 };
        assert_eq!(check(0, &story.partition()), Err(Violation::OffsetMissing { place }));
    }

    #[test]
    fn an_append_of_unknown_outcome_may_fill_a_hole_of_its_size_and_no_larger_one() {
        let story = Story::new();
        story.appended(&[1], 0);
        let unknown = story.append(&[2]);
        story.unknown(unknown);
        story.appended(&[3], 2);
        assert_eq!(check(0, &story.partition()), Ok(()));
        story.appended(&[4], 4);
        assert!(check(0, &story.partition()).is_err());
    }

    #[test]
    fn a_refused_append_fills_nothing() {
        let story = Story::new();
        let refused = story.append(&[1]);
        story.refused(refused, "OVERLOADED");
        story.appended(&[2], 1);
        assert!(check(0, &story.partition()).is_err());
    }
}
