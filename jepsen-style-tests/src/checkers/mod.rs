//! The promises, one file each: what is promised, how it is checked, a history that breaks it.
//!
//! Each append carries records that are unique in the history and is answered with an offset, so
//! the order of a partition's log is given and need not be searched for: every check here is a
//! sort and a pass, whatever the concurrency, and together they are complete for the log. The
//! argument: appends by offset, each read between the last append below the end that it answered
//! and the next one, are one sequence. It is an order true to real time if and only if nothing in
//! it had returned when something before it was invoked: give each operation the latest moment at
//! which it or anything before it was invoked. The checks below say this for every pair of kinds.
//! `exhaustive` searches for an order instead, and `differential` holds the two together.
//!
//! | file | promise |
//! |---|---|
//! | `acked_appends_survive` | an acknowledged record is in the log at the end, at its offset |
//! | `read_records_survive` | a record that a reader was given is in the log at the end |
//! | `one_value_per_offset` | one record per offset, one offset per record |
//! | `offsets_are_dense` | no offset is left out |
//! | `appends_follow_real_time` | an append stands behind those acknowledged before it began |
//! | `batches_are_atomic` | the records of one append stand together and appear together |
//! | `conditions_hold` | a conditional append stands where it wanted to, or nowhere |
//! | `retries_are_written_once` | a numbered batch stands at one place; zombies add nothing |
//! | `producers_are_not_refused` | who numbers its batches rightly is not told otherwise |
//! | `linearizable_reads` | a read sees what was acknowledged or read before it began |
//! | `reads_return_what_was_sent` | nothing from nowhere, nothing that was refused, no damage |
//! | `ends_are_not_from_the_future` | an end takes in only what had begun |
//! | `applied_logs_never_fall` | while a node runs, what it shows only grows |
//! | `bounded_reads_are_fresh` | a read is no staler than was allowed or told |
//! | `consumers_leave_nothing_out` | a consumer is given every record once, in order |
//! | `group_offsets_never_fall` | a committed group offset is seen and never goes back |
//! | `group_offsets_are_a_register` | commits and fetches have one order, also around resets |
//! | `group_partitions_have_one_owner` | a partition has one owner at a time; zombies are fenced |
//! | `groups_deliver_everything` | a group is given every acknowledged record at least once |
//! | `replicas_agree` | all replicas have one chain hash and the same bytes |
//! | `raft_safety` | what Raft promises, seen from inside the nodes |
//! | `serves_after_healing` | a majority that is healed serves again, in time |

pub mod acked_appends_survive;
pub mod appends_follow_real_time;
pub mod applied_logs_never_fall;
pub mod batches_are_atomic;
pub mod bounded_reads_are_fresh;
pub mod conditions_hold;
pub mod consumers_leave_nothing_out;
pub mod differential;
pub mod ends_are_not_from_the_future;
pub mod exhaustive;
pub mod generated;
pub mod group_offsets_are_a_register;
pub mod group_offsets_never_fall;
pub mod group_partitions_have_one_owner;
pub mod groups_deliver_everything;
pub mod layout;
pub mod linearizable_reads;
pub mod offsets_are_dense;
pub mod one_value_per_offset;
pub mod producers_are_not_refused;
pub mod raft_safety;
pub mod read_records_survive;
pub mod reads_return_what_was_sent;
pub mod replicas_agree;
pub mod retries_are_written_once;
pub mod serves_after_healing;
#[cfg(test)]
pub(crate) mod story;

use crate::observations::{Observations, PartitionObservations};
use crate::violation::Violation;
use layout::Case;

pub(crate) type PartitionCheck = fn(&Case<'_>) -> Result<(), Violation>;

pub(crate) const PARTITION_CHECKS: [PartitionCheck; 14] = [
    acked_appends_survive::check,
    read_records_survive::check,
    one_value_per_offset::check,
    offsets_are_dense::check,
    appends_follow_real_time::check,
    batches_are_atomic::check,
    conditions_hold::check,
    retries_are_written_once::check,
    producers_are_not_refused::check,
    linearizable_reads::check,
    reads_return_what_was_sent::check,
    ends_are_not_from_the_future::check,
    applied_logs_never_fall::check,
    bounded_reads_are_fresh::check,
];

/// Runs every check on everything. Returns the first violation of each check in each partition,
/// each group and each consumer.
pub fn check_all(observations: &Observations) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, partition) in &observations.partitions {
        violations.extend(check_partition(*number, partition));
    }
    for ((group, partition), observed) in &observations.groups {
        violations.extend(group_offsets_never_fall::check(group, *partition, observed).err());
        violations.extend(group_offsets_are_a_register::check(group, *partition, observed).err());
    }
    for ((group, partition), commits) in &observations.member_commits {
        violations.extend(group_partitions_have_one_owner::check(group, *partition, commits).err());
    }
    for (group, last_poll) in &observations.last_polls {
        // A group that was given nothing of a partition at all is asked about it, too.
        for (number, observed) in &observations.partitions {
            let given = observations.deliveries.get(&(group.clone(), *number));
            let (given, appends) = (given.map_or(&[][..], Vec::as_slice), &observed.appends);
            let found =
                groups_deliver_everything::check(group, *number, appends, given, *last_poll);
            violations.extend(found.err());
        }
    }
    for ((consumer, partition), steps) in &observations.consumers {
        violations.extend(consumers_leave_nothing_out::check(consumer, *partition, steps).err());
    }
    violations
}

/// Runs every check of a partition. Returns the first violation of each.
pub fn check_partition(number: u32, observed: &PartitionObservations) -> Vec<Violation> {
    let case = Case::new(number, observed);
    let checked = PARTITION_CHECKS.iter().filter_map(|check| check(&case).err());
    checked.chain(replicas_agree::check(number, observed).err()).collect()
}
