//! Bugs on purpose, for the zoo: whoever tests this node must catch each of them.
//!
//! Compiled only with `--cfg quipu_zoo`, which `make zoo` sets in a target directory of its own;
//! `quipud --version` of such a build says so. One bug at a time, named by `QUIPU_ZOO`; without it
//! such a build behaves as any other.

use std::sync::OnceLock;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The log writer answers when a write is in memory, before its fsync.
    AckBeforeSync,
    /// The leader answers an append when its own log has it, before a majority does.
    AckBeforeQuorum,
}

/// Whether this process has the bug.
pub(crate) fn is_planted(bug: Bug) -> bool {
    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    *PLANTED.get_or_init(|| {
        let name = std::env::var("QUIPU_ZOO").ok()?;
        let bug = match name.as_str() {
            "ack-before-sync" => Bug::AckBeforeSync,
            "ack-before-quorum" => Bug::AckBeforeQuorum,
            // A test that believes to have a bug and has none would prove nothing.
            _ => panic!("QUIPU_ZOO names no bug of this build: {name}"),
        };
        tracing::warn!(?bug, "this node has a bug on purpose");
        Some(bug)
    }) == Some(bug)
}
