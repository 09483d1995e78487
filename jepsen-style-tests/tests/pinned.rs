//! One test for each bug that the simulator found in the nodes or the client library, named by what
//! was wrong, with its seed.
//!
//! A change of the code maps its seed to another run, so a seed alone is a weak guard: whoever
//! fixes a bug also writes a direct test beside the code, and names it here; `plans/` has the plans
//! that showed it.
//!
//! - Seed 312, `plans/snapshot-below-the-end.json`: a late snapshot counted back what a replica had
//!   stored. `a_snapshot_of_what_the_log_has_already_takes_nothing_from_it` (package `node`).
//! - Seeds 1008 and 1028, `plans/ports-exhausted.json`: each call to a node that is gone was a
//!   connection attempt.
//!   `calls_of_many_groups_to_a_node_that_is_gone_cost_few_connection_attempts` (package `node`).
//! - Seed 1012, `plans/no-answer-after-healing.json`: an entry that all others had purged was
//!   waited for at a dead node. In package `node`,
//!   `an_entry_that_went_with_the_log_s_beginning_is_not_waited_for_at_hung_nodes`.
//! - Seed 1016, `plans/no-leader-after-healing.json`: a log whose last block can't be read had no
//!   end. `a_log_is_as_long_as_it_was_when_the_block_of_its_end_can_not_be_read` (package `node`).
//! - Seed 1004, `plans/full-disk-of-a-dead-node.json`: a dead node's full disk held up appends.
//!   In package `node`, `a_dead_node_s_full_disk_holds_up_nobody` and
//!   `a_dead_node_is_asked_on_a_new_connection_when_one_hangs`.
//! - Seed 1006, `plans/errors-answered-as-well-as-logged.json`: openraft's errors of what it also
//!   answers. `what_openraft_answers_as_well_as_logs_is_not_logged` (package `node`).
//! - Seed 3005, `plans/deleted-replica-made-again.json`: a node that started made a deleted replica
//!   again, by old metadata. In package `node`,
//!   `a_replica_that_was_deleted_is_not_made_again_by_what_a_node_knew_before`.
//! - Seed 7300, `plans/late-answer-proves-too-much.json`: an answer that was on its way for seconds
//!   counted as one to an append that had just been sent, and proved its leader's leadership.
//!   `what_is_sent_behind_an_unanswered_request_counts_as_sent_with_it` (package `node`).
//! - Seed 30044, `plans/stream-behind-the-purged-log.json`: a stream of entries read for ever where
//!   the log was purged. `a_stream_whose_entries_are_purged_ends_for_that` (package `node`).
//! - Seed 30149, `plans/joined-node-that-knows-nobody.json`: a node that had joined could not read
//!   whom to ask. In package `node`,
//!   `whoever_asks_and_is_not_watched_is_known_by_where_it_says_it_is`.

use std::fs;
use std::path::Path;

use jepsen_style_tests::report::read_plan;

#[test]
fn every_plan_that_was_kept_can_still_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let plans = fs::read_dir(folder).expect("the folder is there");
    let plans = plans.map(|entry| entry.expect("an entry").path());
    let read: Vec<_> = plans.map(|path| (read_plan(&path), path)).collect();
    assert!(read.len() >= 8, "{}", read.len());
    for (plan, path) in read {
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!plan.faults.is_empty() && plan.spares.is_empty() || plan.changes_members());
    }
}
