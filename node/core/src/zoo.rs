//! Bugs on purpose, for the zoo: whoever tests a node must catch each of them.
//!
//! Each is one that somebody could write, planted where it would be written. They exist only with
//! `--cfg quipu_zoo`, which `make zoo` sets in a target directory of its own; `quipud --version` of
//! such a build says so. One bug at a time, named by `QUIPU_ZOO`; without it such a build behaves
//! as any other. Without the cfg [`is`] is a constant, and nothing of a bug is compiled.
//!
//! What each must be caught by stands in the simulator (`jepsen-style-tests/src/zoo.rs`). Here, and
//! not in `node`, because some are in what replicas compute; it is the one place of this crate that
//! looks outside, and only in such a build. The client library, which does not know this crate, has
//! a bug of its own (`client/src/group/commits.rs`).

macro_rules! bugs {
    ($($bug:ident: $name:literal, $what:literal;)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)+];

            /// Its name in `QUIPU_ZOO`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What is wrong with a node that has it.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => $what,)+
                }
            }
        }
    };
}

bugs! {
    AckBeforeSync: "ack-before-sync",
        "the log writer answers when a write is in memory, before its fsync";
    AckBeforeQuorum: "ack-before-quorum",
        "the leader answers an append when its own log has it, before a majority does";
    EntriesNotSynced: "entries-not-synced",
        "replicas, followers too, acknowledge entries that are written and not synced";
    VoteNotAwaited: "vote-not-awaited",
        "a vote is sent before it is on the disk";
    VoteNotSynced: "vote-not-synced",
        "a vote is written and never synced";
    ReadWithoutQuorum: "read-without-quorum",
        "a leader gives a read index without asking a majority whether it still leads";
    ReadBeforeOwnTerm: "read-before-own-term",
        "a new leader gives the read index that it knew before an entry of its term is committed";
    LongLease: "long-lease",
        "a leader trusts a lease that is longer than the election time-out";
    ReadBeforeApply: "read-before-apply",
        "a read does not wait until the read index is applied";
    TermsUncompared: "terms-uncompared",
        "a follower compares the indexes of what it is sent with its log's, and not the terms";
    TruncationNotStored: "truncation-not-stored",
        "a conflicting suffix is cut off in memory only";
    PurgedBeforeInstalled: "purged-before-installed",
        "an installed snapshot's log is purged before its state is on the disk";
    HeadBeforeRows: "head-before-rows",
        "the applied position is written one batch before the rows that belong to it";
    CheckpointWithoutProducers: "checkpoint-without-producers",
        "checkpoints leave out the table of producers";
    RetryCheckedEarly: "retry-checked-early",
        "a retry is looked for before it is proposed, so one under way is not seen";
    EpochIgnored: "epoch-ignored",
        "a producer's epoch is not looked at";
    OffsetForetold: "offset-foretold",
        "the leader answers with the offset that it foresaw when it proposed";
    UncommittedVisible: "uncommitted-visible",
        "a follower applies and serves what it has, committed or not";
    SlowIsRefused: "slow-is-refused",
        "an append that takes long is answered as refused while it is on its way";
    CommitFromMemory: "commit-from-memory",
        "a group's commit is answered when its coordinator has proposed it";
    OldGenerationCommits: "old-generation-commits",
        "a commit is taken from a member of an old generation";
    TwoOwners: "two-owners",
        "a partition goes to its new owner before the old one has given it up, and both may commit";
    CommitsAhead: "commits-ahead",
        "a member's library commits one record more than it was told to be done";
    RecoveryCutsShort: "recovery-cuts-short",
        "a restart takes a table's first damaged entry for the log's end and cuts off the rest";
    SyncCoversLater: "sync-covers-later",
        "a sync answers writes that arrived while it ran";
    WipedKeepsId: "wiped-keeps-id",
        "a node that lost its disk comes back under the replica ids that it had";
    LateSnapshotInstalled: "late-snapshot-installed",
        "a snapshot is installed although the log has gone on beyond it";
    LaggardForsaken: "laggard-forsaken",
        "a follower behind the log's start is never sent a snapshot";
    ConflictCounted: "conflict-counted",
        "an append that a follower refused is counted as if it had the entries";
    RetryGetsNewest: "retry-gets-newest",
        "a retry is answered with the offset of its producer's newest batch";
    ConditionAtLeast: "condition-at-least",
        "a condition holds if the log is longer than expected";
    OffsetsOverwritten: "offsets-overwritten",
        "group offsets may go back";
    IndexCutTooFar: "index-cut-too-far",
        "retention deletes one index record too many";
    OffsetsWithinEntry: "offsets-within-entry",
        "the second batch of an entry is served with the offset of the first";
}

/// Whether this process has the bug.
#[cfg(not(quipu_zoo))]
#[inline]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this process has the bug.
///
/// # Panics
/// If `QUIPU_ZOO` names none: a test that believes to have a bug would prove nothing.
#[cfg(quipu_zoo)]
#[must_use]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| {
        let name = std::env::var("QUIPU_ZOO").ok()?;
        let named = Bug::ALL.iter().find(|bug| bug.name() == name);
        Some(*named.unwrap_or_else(|| panic!("QUIPU_ZOO names no bug of this build: {name}")))
    }) == Some(bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_bugs_have_one_name() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
