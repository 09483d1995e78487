//! The bugs that `node` has when it is built for the zoo, and the checks that must catch them.
//!
//! A check that was never seen red is not to be trusted. Each bug is one that somebody could write;
//! within a number of seeds the check that is meant for it must find it, and the same build without
//! a bug must raise no alarm. Seeds are drawn as for any run, with the kinds of faults that the bug
//! needs: a run of all kinds meets the same faults, more rarely.

mod visit;

use node_core::zoo::Bug;

pub use visit::{Visit, list};

/// A planted bug and what must become of it.
#[derive(Debug, Clone, Copy)]
pub struct Specimen {
    /// What is wrong.
    pub bug: Bug,
    /// The promise that it breaks.
    pub breaks: &'static str,
    /// Checks that are meant for it; one of them must find it.
    pub checks: &'static [&'static str],
    /// Where it is looked for.
    pub habitat: Habitat,
    /// It is caught in a few runs, so it is looked for in every check of a commit.
    pub quick: bool,
}

/// Where a bug is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habitat {
    /// Seeds whose faults are of these kinds, with commas between them, or `all`.
    Seeds(&'static str),
    /// The same, with clients that consume in groups.
    Groups(&'static str),
    /// Power cuts at every write and sync of one node (`quipu-sim cuts`).
    Cuts,
}

/// The name under which `quipu-sim cuts` stands among the checks.
pub const CUTS: &str = "cuts";

/// By check: what it finds, by the short names of violations.
pub const CHECKS: &[(&str, &[&str])] = &[
    ("acked_appends_survive", &["lost"]),
    ("read_records_survive", &["unread"]),
    ("one_value_per_offset", &["inconsistent", "duplicated"]),
    ("offsets_are_dense", &["hole", "overlap"]),
    ("appends_follow_real_time", &["reordered"]),
    ("linearizable_reads", &["stale-read"]),
    ("ends_are_not_from_the_future", &["future-end"]),
    ("reads_return_what_was_sent", &["phantom", "damaged-read"]),
    ("applied_logs_never_fall", &["applied-fell"]),
    ("bounded_reads_are_fresh", &["too-stale"]),
    ("retries_are_written_once", &["retry-moved", "sequences-reordered", "zombie-accepted"]),
    ("producers_are_not_refused", &["producer-refused"]),
    ("conditions_hold", &["condition-ignored", "condition-held"]),
    ("batches_are_atomic", &["torn-batch"]),
    ("consumers_leave_nothing_out", &["poll-jumped"]),
    ("group_offsets_never_fall", &["group-offset-fell", "group-offset-from-nowhere"]),
    ("group_offsets_are_a_register", &["commit-misjudged", "group-offset-disorder"]),
    ("group_partitions_have_one_owner", &["two-owners"]),
    ("groups_deliver_everything", &["never-delivered"]),
    ("replicas_agree", &["replicas-differ", "batches-differ"]),
    (
        "raft_safety",
        &[
            "two-leaders",
            "elected-without-majority",
            "vote-fell",
            "raft-went-back",
            "logs-differ",
            "commit-not-durable",
            "committed-changed",
            "committed-cut-off",
            "leader-incomplete",
        ],
    ),
    ("serves_after_healing", &["not-serving", "node-stopped", "error-logged", "panicked"]),
    (CUTS, &[CUTS]),
];

/// The check that finds violations of this short name.
pub fn check_of(kind: &str) -> Option<&'static str> {
    CHECKS.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(check, _)| *check)
}

macro_rules! specimens {
    ($($bug:ident: $breaks:literal, $checks:expr, $habitat:expr, $quick:literal;)+) => {
        /// All of them, as the node has them.
        pub const SPECIMENS: &[Specimen] = &[
            $(Specimen {
                bug: Bug::$bug,
                breaks: $breaks,
                checks: &$checks,
                habitat: $habitat,
                quick: $quick,
            },)+
        ];
    };
}

use Habitat::{Cuts, Groups, Seeds};

specimens! {
    AckBeforeSync: "durable", ["acked_appends_survive", "raft_safety"],
        Seeds("power-cut-all"), true;
    AckBeforeQuorum: "durable", ["acked_appends_survive", "one_value_per_offset"],
        Seeds("crash,isolate-leader"), true;
    // By what clients lose, not only by what raft_safety sees of it before.
    EntriesNotSynced: "durable", ["acked_appends_survive"],
        Seeds("power-cut-all,slow-disk"), false;
    VoteNotAwaited: "consensus", ["raft_safety"], Seeds("power-cut,isolate-leader"), true;
    VoteNotSynced: "consensus", ["raft_safety"], Seeds("power-cut,isolate-leader"), true;
    ReadWithoutQuorum: "linearizable", ["linearizable_reads"], Seeds("isolate-leader"), true;
    ReadBeforeOwnTerm: "linearizable", ["linearizable_reads"],
        Seeds("move-leader,slow-disk"), false;
    LongLease: "linearizable", ["linearizable_reads"], Seeds("isolate-leader,pause"), true;
    ReadBeforeApply: "linearizable", ["linearizable_reads"], Seeds("slow-link"), false;
    TermsUncompared: "consensus", ["raft_safety"], Seeds("isolate-leader,power-cut"), true;
    TruncationNotStored: "consensus", [CUTS], Cuts, true;
    PurgedBeforeInstalled: "recovers", [CUTS], Cuts, true;
    HeadBeforeRows: "durable", [CUTS], Cuts, true;
    CheckpointWithoutProducers: "once", ["replicas_agree", "one_value_per_offset"],
        Seeds("retention,isolate-leader,crash"), true;
    RetryCheckedEarly: "once", ["one_value_per_offset"], Seeds("crash,isolate-leader"), true;
    EpochIgnored: "once", ["retries_are_written_once", "one_value_per_offset"],
        Seeds("none"), true;
    OffsetForetold: "ordered", ["one_value_per_offset"], Seeds("isolate-leader,crash"), true;
    UncommittedVisible: "consensus", ["raft_safety"], Seeds("isolate-leader,crash"), true;
    SlowIsRefused: "honest errors", ["reads_return_what_was_sent", "one_value_per_offset"],
        Seeds("slow-disk,slow-link"), true;
    CommitFromMemory: "group offsets", ["group_offsets_never_fall", "group_offsets_are_a_register"],
        Seeds("isolate-leader,power-cut-all"), true;
    OldGenerationCommits: "one owner", ["group_partitions_have_one_owner"],
        Groups("client-crash"), false;
    TwoOwners: "one owner", ["group_partitions_have_one_owner"], Groups("client-crash"), false;
    CommitsAhead: "at least once", ["groups_deliver_everything"], Groups("client-crash"), true;
    RecoveryCutsShort: "self-checking", ["raft_safety"], Seeds("damaged-entries"), true;
    SyncCoversLater: "durable", ["acked_appends_survive", "raft_safety"],
        Seeds("power-cut-all,overload"), true;
    WipedKeepsId: "consensus", ["raft_safety"], Seeds("lost-disk"), true;
    LateSnapshotInstalled: "recovers", ["serves_after_healing"],
        Seeds("retention,one-way-partition,pause"), false;
    LaggardForsaken: "recovers", ["serves_after_healing"],
        Seeds("retention,crash,isolate-leader"), true;
    ConflictCounted: "consensus", ["raft_safety"], Seeds("isolate-leader,power-cut"), true;
    RetryGetsNewest: "once", ["retries_are_written_once"], Seeds("none"), true;
    ConditionAtLeast: "conditional", ["conditions_hold"], Seeds("none"), true;
    OffsetsOverwritten: "group offsets",
        ["group_offsets_never_fall", "group_offsets_are_a_register"], Seeds("none"), true;
    IndexCutTooFar: "ordered", ["serves_after_healing", "offsets_are_dense"],
        Seeds("retention"), false;
    OffsetsWithinEntry: "ordered", ["reads_return_what_was_sent", "one_value_per_offset"],
        Seeds("slow-disk,overload"), false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FaultChoice;

    #[test]
    fn every_bug_of_the_nodes_is_here_and_has_checks_that_exist() {
        let here: Vec<Bug> = SPECIMENS.iter().map(|it| it.bug).collect();
        assert_eq!(here, Bug::ALL);
        for it in SPECIMENS {
            let known = |check: &&str| CHECKS.iter().any(|(name, _)| name == check);
            assert!(!it.checks.is_empty() && it.checks.iter().all(known), "{:?}", it.bug);
            assert_eq!(it.habitat == Cuts, it.checks == [CUTS], "{:?}", it.bug);
        }
    }

    #[test]
    fn the_faults_that_a_bug_needs_exist() {
        for it in SPECIMENS {
            if let Seeds(faults) | Groups(faults) = it.habitat {
                assert!(FaultChoice::parse(faults).is_ok(), "{:?}: {faults}", it.bug);
            }
        }
    }
}
