//! The bugs that `node` has when it is built for the zoo, and the checks that must catch them.
//!
//! A check that was never seen red is not to be trusted. Each bug here is one that somebody could
//! write; it must be caught within a number of seeds, by a violation that it is expected to cause,
//! and the same build without it must be clean.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bug {
    /// Its name in `QUIPU_ZOO`.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
    /// The violations that count as catching it.
    pub caught_as: &'static [&'static str],
}

/// All of them.
pub const BUGS: [Bug; 2] = [
    Bug {
        name: "ack-before-sync",
        what: "the log writer answers when a write is in memory, before its fsync",
        caught_as: &["lost", "inconsistent", "stale-read", "replicas-differ"],
    },
    Bug {
        name: "ack-before-quorum",
        what: "the leader answers an append when its own log has it, before a majority does",
        caught_as: &["lost", "inconsistent", "stale-read"],
    },
];
