//! What a store answers when it can't do its work, in words that don't name the store behind it.

use std::path::PathBuf;

/// Why a storage call failed. Cheap to clone: one failed sync answers many waiting writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Stored bytes are not what was written. Never retried: a read of one entry is repaired from
    /// another replica, a store that doesn't open is lost.
    #[error("stored data is damaged: {what}; {advice}")]
    Damaged {
        /// What was read and what was wrong with it.
        what: String,
        /// What a person, or the caller, can do about it.
        advice: &'static str,
    },
    /// The disk or the operating system refused. After a failed write the process must stop.
    #[error("storage failed: {what}")]
    Io {
        /// The operation and the system's reason.
        what: String,
    },
    /// No space is left. Like `Io` once it comes from a write: admission control should have
    /// refused work before this point.
    #[error("the disk is full: {what}")]
    Full {
        /// The operation that found no space.
        what: String,
    },
    /// Another process, or another part of this one, has the store open.
    #[error("{} is in use by another process; stop it or give this node its own directory",
        path.display())]
    InUse {
        /// The directory of the store.
        path: PathBuf,
    },
    /// A newer version wrote this store and changed its format.
    #[error(
        "the store has format {found}, this version reads up to {supported}; start the newer \
        version again"
    )]
    NewerFormat {
        /// Format of the store.
        found: u32,
        /// Newest format this version reads.
        supported: u32,
    },
    /// The writer stopped after an earlier failure, or was closed. This write was not attempted.
    #[error("the log writer has stopped: {reason}")]
    Stopped {
        /// The failure that stopped it.
        reason: String,
    },
}

/// Advice for a single value: other replicas have it.
pub(super) const ADVICE_VALUE: &str = "it will be fetched again from another replica";

/// Advice for a whole store: decision 5a.5, never bring such a disk back under its old identity.
pub(super) const ADVICE_STORE: &str = "count this disk as lost: move its directory away, start \
     with an empty one, and let the node catch up from the others as a new replica";
