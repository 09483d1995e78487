//! A running hash over everything a partition has accepted.
//!
//! Two replicas with the same chain hash at the same offset hold the same records at the same
//! offsets, from the very first one. It is computed in apply, so an error in storing, sending or
//! applying shows as a difference between replicas. It guards against faults, not against people
//! who forge bytes: XXH3-128 is not a cryptographic hash.

use std::fmt;

use xxhash_rust::xxh3::Xxh3Default;

use crate::codec::{DecodeError, Reader, Writer};

/// The chain hash after some accepted batch; all zero before the first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ChainHash(pub [u8; 16]);

impl ChainHash {
    /// The hash after one more batch: XXH3-128 (seed 0, big-endian) of the hash before it, its
    /// base offset (8 bytes, big-endian) and its content, which is the batch without what a
    /// reader fills in (base offset and leader epoch).
    ///
    /// # Panics
    /// If `batch` is shorter than a batch header.
    #[must_use]
    pub fn after(self, base_offset: u64, batch: &[u8]) -> ChainHash {
        let mut hash = Xxh3Default::new();
        hash.update(&self.0);
        hash.update(&base_offset.to_be_bytes());
        for part in quipu_batch::content(batch) {
            hash.update(part);
        }
        ChainHash(hash.digest128().to_be_bytes())
    }

    /// Appends 16 bytes.
    pub fn write(self, writer: &mut Writer) {
        writer.raw(&self.0);
    }

    /// Reads what [`ChainHash::write`] wrote.
    pub fn read(reader: &mut Reader) -> Result<ChainHash, DecodeError> {
        reader.array().map(ChainHash)
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_covers_all_but_what_a_reader_fills_in() {
        let batch: Vec<u8> = (0..100).collect();
        let hash = ChainHash::default().after(7, &batch);
        for place in 0..batch.len() {
            let mut other = batch.clone();
            other[place] ^= 1;
            let filled_in = place < 8 || (12..16).contains(&place);
            assert_eq!(ChainHash::default().after(7, &other) == hash, filled_in, "byte {place}");
        }
    }

    #[test]
    fn the_hash_depends_on_the_offset_and_on_all_before_it() {
        let batch = [5; 61];
        let first = ChainHash::default().after(0, &batch);
        assert_ne!(first, ChainHash::default().after(1, &batch));
        assert_ne!(first.after(1, &batch), ChainHash::default().after(1, &batch));
    }

    #[test]
    fn the_definition_holds_over_one_buffer_too() {
        let batch: Vec<u8> = (0..100).collect();
        let before = ChainHash([9; 16]);
        let whole = [&before.0[..], &7_u64.to_be_bytes(), &batch[8..12], &batch[16..]].concat();
        let hash = xxhash_rust::xxh3::xxh3_128(&whole);
        assert_eq!(before.after(7, &batch), ChainHash(hash.to_be_bytes()));
    }
}
