//! Reading and writing of the encodings of this crate: commands, index records, checkpoints.
//!
//! Integers are big-endian, lengths stand before what they measure, and each length and count is
//! checked against a limit BEFORE anything is allocated for it. Bytes from a disk or a peer may
//! be anything: every reading function answers with a [`DecodeError`], none panics.
//!
//! There are no variable-length integers: what is written often is laid out by hand instead, and
//! the rest is too rare to matter.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

const CHECKSUM_BYTES: usize = 8;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what}: ends {missing_bytes} bytes too early")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How much more there should have been, at least.
        missing_bytes: usize,
    },
    /// The value ends before the bytes do.
    #[error("{what}: {extra_bytes} bytes follow its end")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// How much follows.
        extra_bytes: usize,
    },
    /// A length or a count is over its limit.
    #[error("{what}: a length or count of {length} is over the limit of {limit}")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// As the bytes say.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Written by a build that knows a newer version. Whoever replays a log must stop here:
    /// skipping the value would make replicas differ.
    #[error("{what}: version {version} is not known to this build, which knows {known}")]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// As the bytes say.
        version: u8,
        /// The newest known version.
        known: u8,
    },
    /// A kind this build does not know. As with an unknown version, replay must stop.
    #[error("{what}: kind {kind} is not known to this build")]
    UnknownKind {
        /// What was being read.
        what: &'static str,
        /// As the bytes say.
        kind: u16,
    },
    /// Well-formed, but not a value that is ever written.
    #[error("{what}: {reason}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

impl DecodeError {
    /// The value was written by a newer build, or is damaged just so; an upgrade may read it.
    #[must_use]
    pub fn needs_newer_build(&self) -> bool {
        matches!(self, DecodeError::UnknownVersion { .. } | DecodeError::UnknownKind { .. })
    }
}

/// Builds one encoded value.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// An empty writer with room for `capacity_bytes`.
    #[must_use]
    pub fn with_capacity(capacity_bytes: usize) -> Writer {
        Writer { bytes: BytesMut::with_capacity(capacity_bytes) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.put_u8(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.put_u16(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.put_u32(value);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.put_u64(value);
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.bytes.put_u8(u8::from(value));
    }

    /// The bytes themselves, without a length.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.put_slice(value);
    }

    /// A count or length in four bytes.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("limits keep every count and length below 2^32"));
    }

    /// Four bytes of length, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.raw(value);
    }

    /// Four bytes of length, then the text in UTF-8.
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// A flag, then the value where there is one.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A count, then the items.
    ///
    /// # Panics
    /// Over `limit` items: they could not be read again.
    pub fn list<T>(&mut self, items: &[T], limit: usize, mut write: impl FnMut(&mut Writer, &T)) {
        assert!(items.len() <= limit, "{} items, over the limit of {limit}", items.len());
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The encoded value.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }

    /// The encoded value and, behind it, the checksum that [`Reader::with_checksum`] looks for:
    /// XXH3-64 (seed 0) of all before it.
    #[must_use]
    pub fn finish_with_checksum(mut self) -> Bytes {
        let checksum = xxh3_64(&self.bytes);
        self.u64(checksum);
        self.finish()
    }
}

/// Reads one encoded value; byte strings are slices of the input, not copies.
#[derive(Debug)]
pub struct Reader {
    what: &'static str,
    rest: Bytes,
}

impl Reader {
    /// Starts at the beginning of `bytes`; `what` names the value in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: Bytes) -> Reader {
        Reader { what, rest: bytes }
    }

    /// Starts behind the version of a value with a checksum at its end, after checking both. The
    /// version comes first: a newer build may have another checksum, or none.
    pub fn with_checksum(
        what: &'static str,
        known_version: u8,
        bytes: Bytes,
    ) -> Result<Reader, DecodeError> {
        let mut reader = Reader::new(what, bytes.clone());
        reader.version(known_version)?;
        let Some((content, stored)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(DecodeError::Truncated { what, missing_bytes: CHECKSUM_BYTES });
        };
        if *stored != xxh3_64(content).to_be_bytes() {
            return Err(reader.invalid("its checksum does not match"));
        }
        let content_bytes = content.len();
        if content_bytes == 0 {
            return Err(reader.invalid("it has a checksum and nothing else"));
        }
        reader.rest = bytes.slice(1..content_bytes);
        Ok(reader)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_i64())
    }

    /// One byte that must be 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("a flag is neither 0 nor 1")),
        }
    }

    /// As many bytes as the array holds.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.need(N)?;
        let mut array = [0; N];
        self.rest.copy_to_slice(&mut array);
        Ok(array)
    }

    /// The next `length` bytes, shared with the input.
    pub fn raw(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// A count of items that take at least `item_bytes_min` each, so that no bytes can make the
    /// caller reserve more memory than they have themselves.
    pub fn count(&mut self, limit: usize, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.length(limit)?;
        self.need(count.saturating_mul(item_bytes_min))?;
        Ok(count)
    }

    /// A length of at most `limit_bytes`, then so many bytes, shared with the input.
    pub fn bytes(&mut self, limit_bytes: usize) -> Result<Bytes, DecodeError> {
        let length = self.length(limit_bytes)?;
        self.raw(length)
    }

    /// A length of at most `limit_bytes`, then text in UTF-8.
    pub fn text(&mut self, limit_bytes: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes(limit_bytes)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.invalid("a text is not UTF-8")),
        }
    }

    /// A flag, then the value where the flag is set.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A count of at most `limit`, then so many items of at least `item_bytes_min` each.
    pub fn list<T>(
        &mut self,
        limit: usize,
        item_bytes_min: usize,
        mut read: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(limit, item_bytes_min)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// One byte that must be `known`.
    pub fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        let version = self.u8()?;
        if version == known {
            Ok(())
        } else {
            Err(DecodeError::UnknownVersion { what: self.what, version, known })
        }
    }

    /// Nothing may follow.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { what: self.what, extra_bytes: self.rest.len() })
        }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error that names what is being read and the rule it breaks.
    #[must_use]
    pub fn invalid(&self, reason: &'static str) -> DecodeError {
        DecodeError::Invalid { what: self.what, reason }
    }

    /// An error for a kind this build does not know.
    #[must_use]
    pub fn unknown_kind(&self, kind: impl Into<u16>) -> DecodeError {
        DecodeError::UnknownKind { what: self.what, kind: kind.into() }
    }

    fn length(&mut self, limit: usize) -> Result<usize, DecodeError> {
        let what = self.what;
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > limit { Err(DecodeError::TooLong { what, length, limit }) } else { Ok(length) }
    }

    fn need(&self, wanted_bytes: usize) -> Result<(), DecodeError> {
        match wanted_bytes.checked_sub(self.rest.len()) {
            None | Some(0) => Ok(()),
            Some(missing_bytes) => Err(DecodeError::Truncated { what: self.what, missing_bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new("value", Bytes::from_static(bytes))
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut writer = Writer::default();
        writer.u16(0x0102);
        writer.text("knot");
        writer.option(Some(7), Writer::u32);
        writer.option(None, Writer::u32);
        let mut reader = Reader::new("value", writer.finish());
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.text(4), Ok("knot".to_owned()));
        assert_eq!(reader.option(Reader::u32), Ok(Some(7)));
        assert_eq!(reader.option(Reader::u32), Ok(None));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn missing_bytes_are_an_error_that_says_how_many() {
        let truncated = DecodeError::Truncated { what: "value", missing_bytes: 3 };
        assert_eq!(reader(&[1, 2, 3, 4, 5]).u64(), Err(truncated));
    }

    #[test]
    fn a_length_over_its_limit_is_refused_before_its_bytes_are_looked_at() {
        let too_long = DecodeError::TooLong { what: "value", length: 9, limit: 8 };
        assert_eq!(reader(&[0, 0, 0, 9]).bytes(8), Err(too_long));
    }

    #[test]
    fn a_count_that_its_bytes_cannot_hold_is_refused() {
        let truncated = DecodeError::Truncated { what: "value", missing_bytes: 799 };
        assert_eq!(reader(&[0, 0, 0, 100, 1]).count(1_000, 8), Err(truncated));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let trailing = DecodeError::Trailing { what: "value", extra_bytes: 1 };
        assert_eq!(reader(&[1]).finish(), Err(trailing));
    }

    #[test]
    fn a_changed_bit_breaks_the_checksum() {
        let mut writer = Writer::default();
        writer.u8(1);
        writer.u32(7);
        let good = writer.finish_with_checksum();
        let mut reader = Reader::with_checksum("value", 1, good.clone()).expect("as written");
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.finish(), Ok(()));
        for bit in 8..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::with_checksum("value", 1, bad.into()).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(Reader::with_checksum("value", 1, good.slice(..length)).is_err());
        }
    }

    #[test]
    fn an_unknown_version_asks_for_a_newer_build() {
        let error = reader(&[2]).version(1).expect_err("only version 1 is known");
        assert_eq!(error, DecodeError::UnknownVersion { what: "value", version: 2, known: 1 });
        assert!(error.needs_newer_build());
    }
}
