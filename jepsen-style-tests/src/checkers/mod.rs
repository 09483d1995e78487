//! The promises, one file each: what is promised, how it is checked, a history that breaks it.
//!
//! Each append carries records that are unique in the history and is answered with an offset, so
//! the order of a partition's log is given and need not be searched for: every check here is a
//! sort and a pass, whatever the concurrency, and together they are complete for the log. (The
//! argument: choose for each operation the greater of its own invocation and the latest invocation
//! among the appends it includes; the checks below are what makes these points an order.)
//!
//! | file | promise |
//! |---|---|
//! | `acked_appends_survive` | an acknowledged record is in the log at the end, at its offset |
//! | `one_value_per_offset` | one record per offset, one offset per record |
//! | `offsets_are_dense` | no offset is left out |
//! | `appends_follow_real_time` | an append stands behind those acknowledged before it began |
//! | `batches_are_atomic` | the records of one append stand together and appear together |
//! | `linearizable_reads` | a read sees what was acknowledged or read before it began |
//! | `reads_return_what_was_sent` | nothing from nowhere, nothing that was refused, no damage |
//! | `producers_are_not_refused` | who numbers its batches rightly is not told otherwise |
//! | `group_offsets_never_fall` | a committed group offset is seen and never goes back |
//! | `replicas_agree` | all replicas have one chain hash below one offset |

pub mod acked_appends_survive;
pub mod appends_follow_real_time;
pub mod batches_are_atomic;
pub mod group_offsets_never_fall;
pub mod linearizable_reads;
pub mod offsets_are_dense;
pub mod one_value_per_offset;
pub mod producers_are_not_refused;
pub mod reads_return_what_was_sent;
pub mod replicas_agree;
#[cfg(test)]
pub(crate) mod story;

use crate::observations::{Observations, PartitionObservations};
use crate::violation::Violation;

type PartitionCheck = fn(u32, &PartitionObservations) -> Result<(), Violation>;

const PARTITION_CHECKS: [PartitionCheck; 9] = [
    acked_appends_survive::check,
    one_value_per_offset::check,
    offsets_are_dense::check,
    appends_follow_real_time::check,
    batches_are_atomic::check,
    linearizable_reads::check,
    reads_return_what_was_sent::check,
    producers_are_not_refused::check,
    replicas_agree::check,
];

/// Runs every check on everything. Returns the first violation of each check in each partition and
/// each group.
pub fn check_all(observations: &Observations) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, partition) in &observations.partitions {
        let found = PARTITION_CHECKS.iter().filter_map(|check| check(*number, partition).err());
        violations.extend(found);
    }
    for ((group, partition), observed) in &observations.groups {
        let checked = group_offsets_never_fall::check(group, *partition, observed);
        violations.extend(checked.err());
    }
    violations
}
