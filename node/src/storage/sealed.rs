//! The frame of every value that is not a log entry: checksummed, versioned, bound to its key.
//!
//! RocksDB checks its blocks, but only from the moment it has the bytes, and it can't know that a
//! value stands under the wrong key. A vote that went back one term breaks consensus, so each
//! value carries a checksum over its key, its version and its body, made by whoever encoded it.
//!
//! The version is the body's: what it means is decided where the body is encoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::StorageError;
use super::error::ADVICE_VALUE;

/// Checksum u32, version u8.
pub const SEAL_BYTES: usize = 4 + 1;

const CHECKSUM_BYTES: usize = 4;

/// A value whose checksum held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Format of the body; from 1.
    pub version: u8,
    /// Shares the memory of the value it came in.
    pub body: Bytes,
}

/// A value that must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("value of key {key:02x?}: {reason}")]
pub struct DamagedValue {
    /// Where it was read.
    pub key: Bytes,
    /// What is wrong.
    pub reason: &'static str,
}

impl From<DamagedValue> for StorageError {
    fn from(damaged: DamagedValue) -> Self {
        Self::Damaged { what: damaged.to_string(), advice: ADVICE_VALUE }
    }
}

/// The value to store under `key`.
pub fn seal(key: &[u8], version: u8, body: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(SEAL_BYTES + body.len());
    value.put_u32(0);
    value.put_u8(version);
    value.put_slice(body);
    let checksum = checksum(key, &value[CHECKSUM_BYTES..]);
    value[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    value.freeze()
}

/// What was sealed in `value`, which was read from `key`.
pub fn open(key: &[u8], value: Bytes) -> Result<Sealed, DamagedValue> {
    let damaged = |reason| DamagedValue { key: Bytes::copy_from_slice(key), reason };
    if value.len() < SEAL_BYTES {
        return Err(damaged("too few bytes"));
    }
    let mut rest = value;
    let stored = rest.get_u32();
    if stored != checksum(key, &rest) {
        return Err(damaged("its checksum doesn't hold"));
    }
    let version = rest.get_u8();
    Ok(Sealed { version, body: rest })
}

/// Keys of one space have one length per first byte, so key and rest can't be cut differently.
fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_reads_back_as_it_was_sealed(
            key in prop::collection::vec(any::<u8>(), 0..20), version: u8,
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let value = seal(&key, version, &body);
            prop_assert_eq!(open(&key, value), Ok(Sealed { version, body: body.into() }));
        }

        #[test]
        fn bytes_of_strangers_never_panic(value in prop::collection::vec(any::<u8>(), 0..32)) {
            let _ = open(b"key", value.into());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let value = seal(b"key", 1, b"body");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"key", flipped.into()).is_err(), "bit {bit}");
        }
        for len in 0..value.len() {
            assert!(open(b"key", value.slice(..len)).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_value_of_another_key_is_found() {
        assert!(open(b"kez", seal(b"key", 1, b"body")).is_err());
    }
}
