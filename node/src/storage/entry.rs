//! A Raft entry as it is stored: checksummed, versioned, and bound to its place in the log.
//!
//! The checksum covers the group and the index, which are in the key and not in the value. So a
//! value that the disk returns under another entry's key is found like a flipped bit is. It is
//! checked on every read, before anything else of the value is believed: what is damaged is
//! repaired from another replica, never served.
//!
//! `docs/formats/storage-keys.md` has the layout and an example that a test decodes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use node_core::ids::GroupId;

use super::StorageError;
use super::error::ADVICE_VALUE;

/// Checksum u32, version u8, kind u8, term u64.
pub const ENTRY_HEADER_BYTES: usize = 4 + 1 + 1 + 8;

const CHECKSUM_BYTES: usize = 4;
const VERSION: u8 = 1;

/// What an entry is for. The numbers are stored and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Nothing to apply: a new leader's first entry.
    Blank = 0,
    /// A command of the replicated state machine.
    Command = 1,
    /// A change of the group's members.
    Membership = 2,
}

impl EntryKind {
    /// The number it is stored and sent as.
    pub const fn number(self) -> u8 {
        match self {
            Self::Blank => 0,
            Self::Command => 1,
            Self::Membership => 2,
        }
    }
}

impl TryFrom<u8> for EntryKind {
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        match number {
            0 => Ok(Self::Blank),
            1 => Ok(Self::Command),
            2 => Ok(Self::Membership),
            unknown => Err(unknown),
        }
    }
}

/// One entry of one group's log. Its index is in its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The term in which a leader proposed it.
    pub term: u64,
    /// How to read the payload.
    pub kind: EntryKind,
    /// Opaque to storage.
    pub payload: Bytes,
}

/// A stored entry that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of group {}: {reason}", group.0)]
pub struct DamagedEntry {
    /// Whose log.
    pub group: GroupId,
    /// Which entry.
    pub index: u64,
    /// What is wrong.
    pub reason: EntryDamage,
}

/// What is wrong with a stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryDamage {
    /// Shorter than the shortest entry.
    #[error("{bytes} bytes are too few")]
    Truncated {
        /// Bytes found.
        bytes: usize,
    },
    /// Bits changed, or these bytes belong under another key.
    #[error("checksum {computed:#010x} instead of {stored:#010x}")]
    Checksum {
        /// As stored.
        stored: u32,
        /// Of the bytes found.
        computed: u32,
    },
    /// The checksum holds, so this is no damage of the disk: a newer version wrote it.
    #[error("format version {version} is not known here")]
    UnknownVersion {
        /// As stored.
        version: u8,
    },
    /// The checksum holds and the version is ours, but no such kind was ever defined.
    #[error("kind {kind} is not known here")]
    UnknownKind {
        /// As stored.
        kind: u8,
    },
}

impl From<DamagedEntry> for StorageError {
    fn from(damaged: DamagedEntry) -> Self {
        Self::Damaged { what: damaged.to_string(), advice: ADVICE_VALUE }
    }
}

/// The value to store under [`super::keys::log_entry`] of the same group and index.
pub fn encode(group: GroupId, index: u64, entry: &StoredEntry) -> Bytes {
    let mut value = BytesMut::with_capacity(ENTRY_HEADER_BYTES + entry.payload.len());
    value.put_u32(0);
    value.put_u8(VERSION);
    value.put_u8(entry.kind.number());
    value.put_u64(entry.term);
    value.put_slice(&entry.payload);
    let checksum = checksum(group, index, &value[CHECKSUM_BYTES..]);
    value[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    value.freeze()
}

/// The entry in `value`, which was read from `index` of `group`. The payload shares its memory.
pub fn decode(group: GroupId, index: u64, value: Bytes) -> Result<StoredEntry, DamagedEntry> {
    let damaged = |reason| DamagedEntry { group, index, reason };
    if value.len() < ENTRY_HEADER_BYTES {
        return Err(damaged(EntryDamage::Truncated { bytes: value.len() }));
    }
    let mut rest = value;
    let stored = rest.get_u32();
    let computed = checksum(group, index, &rest);
    if stored != computed {
        return Err(damaged(EntryDamage::Checksum { stored, computed }));
    }
    // The checksum stands at the same place in every version, so what follows is as written.
    let version = rest.get_u8();
    if version != VERSION {
        return Err(damaged(EntryDamage::UnknownVersion { version }));
    }
    let kind = EntryKind::try_from(rest.get_u8())
        .map_err(|kind| damaged(EntryDamage::UnknownKind { kind }))?;
    let term = rest.get_u64();
    Ok(StoredEntry { term, kind, payload: rest })
}

fn checksum(group: GroupId, index: u64, rest: &[u8]) -> u32 {
    let of_group = crc32c::crc32c(&group.0.to_be_bytes());
    let of_place = crc32c::crc32c_append(of_group, &index.to_be_bytes());
    crc32c::crc32c_append(of_place, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn entry(payload: &'static [u8]) -> StoredEntry {
        StoredEntry { term: 3, kind: EntryKind::Command, payload: Bytes::from_static(payload) }
    }

    fn any_kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![Just(EntryKind::Blank), Just(EntryKind::Command), Just(EntryKind::Membership)]
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_it_was_written(
            group: u32, index: u64, term: u64, kind in any_kind(),
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let entry = StoredEntry { term, kind, payload: payload.into() };
            let value = encode(GroupId(group), index, &entry);
            prop_assert_eq!(decode(GroupId(group), index, value), Ok(entry));
        }

        #[test]
        fn bytes_of_strangers_never_panic(value in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(GROUP, 1, value.into()).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let value = encode(GROUP, 9, &entry(b"knots"));
        for bit in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(GROUP, 9, flipped.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let value = encode(GROUP, 9, &entry(b"knots"));
        for len in 0..value.len() {
            assert!(decode(GROUP, 9, value.slice(..len)).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_value_under_another_key_is_found() {
        let value = encode(GROUP, 9, &entry(b"knots"));
        assert!(decode(GROUP, 10, value.clone()).is_err(), "another index");
        assert!(decode(GroupId(8), 9, value).is_err(), "another group");
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut value = encode(GROUP, 9, &entry(b"knots")).to_vec();
        value[CHECKSUM_BYTES] = VERSION + 1;
        let checksum = checksum(GROUP, 9, &value[CHECKSUM_BYTES..]);
        value[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
        let reason = decode(GROUP, 9, value.into()).expect_err("a version of the future").reason;
        assert_eq!(reason, EntryDamage::UnknownVersion { version: VERSION + 1 });
    }

    #[test]
    fn the_payload_is_not_copied() {
        let value = encode(GROUP, 9, &entry(b"knots"));
        let whole = value.as_ptr_range();
        let payload = decode(GROUP, 9, value).expect("just encoded").payload;
        assert!(whole.contains(&payload.as_ptr()));
    }
}
