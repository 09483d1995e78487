//! What a simulated disk can do to its owner, by name, and what became of it.
//!
//! A fault that was injected has shown nothing yet: the value may never have been read, the lost
//! write may have been written over. So every fault is counted with its effect.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::image::Resolved;
use crate::storage::{Space, StorageError, entry, keys, sealed};

/// How a write, a sync or a read fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// The disk answers with an error, as EIO.
    Io,
    /// No space is left, as ENOSPC.
    Full,
}

/// What happens to a stored value behind the store's back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// One bit turns; counted from the first bit of the value, modulo its length.
    FlipBit {
        /// Which.
        bit: usize,
    },
    /// Only the first `len` bytes are left.
    Truncate {
        /// Bytes that stay.
        len: usize,
    },
    /// Other bytes stand there, as after a misdirected write.
    Replace(Bytes),
    /// The block can't be read: every read that meets the key answers `Damaged`, until the key
    /// is written again. So does RocksDB for EIO of a read and for a block whose checksum fails.
    Unreadable,
}

/// A kind of trouble, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A value's bits changed.
    BitRot,
    /// A value lost its end.
    CutShort,
    /// A value landed where another belongs.
    Misdirected,
    /// A block can't be read.
    Unreadable,
    /// A read failed once.
    ReadError,
    /// A synced write was answered and never reached the disk.
    LostWrite,
    /// A write failed.
    WriteError,
    /// A sync failed, and took the un-synced writes with it.
    SyncError,
    /// A write found no space.
    Full,
    /// A power cut kept a later write and not an earlier one: the store doesn't open.
    HoleAtCut,
    /// A power cut kept half a write, which no log with checksums does.
    HalfWriteAtCut,
    /// A power cut kept later writes without an earlier one, and nothing shows it.
    UnseenHoleAtCut,
    /// Everything is gone.
    Wiped,
    /// An old state of the whole disk came back.
    RolledBack,
}

impl FaultKind {
    /// The name under which it is counted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BitRot => "bit-rot",
            Self::CutShort => "value-cut-short",
            Self::Misdirected => "misdirected-write",
            Self::Unreadable => "unreadable-block",
            Self::ReadError => "read-error",
            Self::LostWrite => "lost-write",
            Self::WriteError => "write-error",
            Self::SyncError => "failed-sync",
            Self::Full => "disk-full",
            Self::HoleAtCut => "hole-at-power-cut",
            Self::HalfWriteAtCut => "half-write-at-power-cut",
            Self::UnseenHoleAtCut => "unseen-hole-at-power-cut",
            Self::Wiped => "lost-disk",
            Self::RolledBack => "rolled-back-disk",
        }
    }
}

/// How often something happened and what became of it. What was neither met nor written over has
/// had no effect yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// Injected, or asked for and then met by an operation.
    pub injected: u64,
    /// Damaged values that somebody read, or operations that were answered with an error.
    pub met: u64,
    /// Of these: the reader can tell, by an error or by the value's own checksum.
    pub detected: u64,
    /// Damaged values in whose place the undamaged one was written again.
    pub repaired: u64,
    /// Damaged values that were replaced by another value or deleted.
    pub written_over: u64,
}

/// Effects by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ledger(BTreeMap<FaultKind, Effects>);

impl Ledger {
    pub(super) fn of(&mut self, kind: FaultKind) -> &mut Effects {
        self.0.entry(kind).or_default()
    }

    /// An operation was answered with an error.
    pub(super) fn answered(&mut self, kind: FaultKind) {
        let effects = self.of(kind);
        effects.injected += 1;
        effects.met += 1;
        effects.detected += 1;
    }

    pub(super) fn resolved(&mut self, kind: FaultKind, resolved: Resolved) {
        let effects = self.of(kind);
        match resolved {
            Resolved::Repaired => effects.repaired += 1,
            Resolved::Overwritten | Resolved::Deleted => effects.written_over += 1,
        }
    }

    pub(super) fn all(&self) -> BTreeMap<FaultKind, Effects> {
        self.0.clone()
    }
}

/// The damage of one stored value.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    pub(super) kind: FaultKind,
    pub(super) unreadable: bool,
    /// What stood there before.
    pub(super) original: Bytes,
    /// Somebody has read it.
    pub(super) met: bool,
}

impl Damage {
    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::FlipBit { .. } => FaultKind::BitRot,
            Self::Truncate { .. } => FaultKind::CutShort,
            Self::Replace(_) => FaultKind::Misdirected,
            Self::Unreadable => FaultKind::Unreadable,
        }
    }

    /// What becomes of `value`.
    pub(super) fn of(&self, value: &Bytes) -> Bytes {
        match self {
            Self::FlipBit { bit } => {
                let mut value = value.to_vec();
                let bit = bit.checked_rem(value.len() * 8).unwrap_or(0);
                if let Some(byte) = value.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                value.into()
            }
            Self::Truncate { len } => value.slice(..value.len().min(*len)),
            Self::Replace(other) => other.clone(),
            Self::Unreadable => value.clone(),
        }
    }
}

/// Whether whoever reads this value can see that it is not what was written under this key.
pub(super) fn is_detectable(space: Space, key: &Bytes, value: &Bytes) -> bool {
    match space {
        Space::Log => keys::parse_log_entry(key)
            .is_some_and(|(group, index)| entry::decode(group, index, value.clone()).is_err()),
        Space::State => sealed::open(key, value.clone()).is_err(),
    }
}

impl MemoryFault {
    pub(super) fn during(self, operation: &str) -> StorageError {
        let what = format!("{operation} failed because a simulation said so");
        match self {
            Self::Io => StorageError::Io { what },
            Self::Full => StorageError::Full { what },
        }
    }

    pub(super) fn kind(self, otherwise: FaultKind) -> FaultKind {
        match self {
            Self::Io => otherwise,
            Self::Full => FaultKind::Full,
        }
    }
}
