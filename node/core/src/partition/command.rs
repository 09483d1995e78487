//! What is replicated in a partition's log, and its bytes.
//!
//! The encoded command is the payload of the Raft entry, so the record batches inside it ARE the
//! stored log: they are kept verbatim, one after the other, and everything about them that apply
//! needs beside their own headers stands in a table before them. An index record points into
//! this encoding, so that a fetch slices batches out of an entry without decoding it.
//!
//! The layout is in `docs/formats/commands.md`.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{ENTRY_BATCHES_MAX, ENTRY_BYTES_MAX};
use crate::time::EntryTime;

const VERSION: u8 = 1;
const KIND_APPEND: u8 = 1;
const KIND_ADVANCE_START: u8 = 2;

/// Version, kind, time and count of batches.
const APPEND_HEADER_BYTES: usize = 1 + 1 + 8 + 4;
/// Flag, expected end offset and length of one batch.
const APPEND_ROW_BYTES: usize = 1 + 8 + 4;

/// A command of a partition's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogCommand {
    /// Appends batches.
    Append(Append),
    /// Lets retention take a prefix of the log.
    AdvanceStart(AdvanceStart),
}

/// Batches that travel in one entry; each is accepted or rejected for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// When the leader proposed it.
    pub time: EntryTime,
    /// In the order they are to be applied, 1 to [`ENTRY_BATCHES_MAX`].
    pub batches: Vec<AppendBatch>,
}

/// One batch of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendBatch {
    /// Append only if this is the next offset when the batch's turn comes.
    pub expect_end_offset: Option<u64>,
    /// The record batch, as the producer sent it.
    pub bytes: Bytes,
}

/// Moves the log start to a rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvanceStart {
    /// When the leader proposed it.
    pub time: EntryTime,
    /// Raft index of the rung. 0, or any other index that is not a rung above the log start,
    /// moves nothing; the entry's time may still make a rung due.
    pub rung_index: u64,
}

impl LogCommand {
    /// The payload of the Raft entry. Batches are copied once.
    ///
    /// # Panics
    /// If an append breaks the limits that [`Append::encode`] names.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            LogCommand::Append(append) => append.encode(),
            LogCommand::AdvanceStart(advance) => advance.encode(),
        }
    }

    /// Reads a payload; batches are slices of it. Where the error
    /// [needs a newer build](DecodeError::needs_newer_build), the replica must stop, not skip.
    pub fn decode(payload: Bytes) -> Result<LogCommand, DecodeError> {
        let mut reader = Reader::new("log command", payload);
        reader.version(VERSION)?;
        let command = match reader.u8()? {
            KIND_APPEND => LogCommand::Append(Append::read(&mut reader)?),
            KIND_ADVANCE_START => LogCommand::AdvanceStart(AdvanceStart::read(&mut reader)?),
            kind => return Err(reader.unknown_kind(kind)),
        };
        reader.finish()?;
        Ok(command)
    }

    /// When the leader proposed it.
    #[must_use]
    pub fn time(&self) -> EntryTime {
        match self {
            LogCommand::Append(append) => append.time,
            LogCommand::AdvanceStart(advance) => advance.time,
        }
    }
}

impl Append {
    /// The payload of the Raft entry, allocated in its full size and filled with one copy.
    ///
    /// # Panics
    /// Without batches, with more than [`ENTRY_BATCHES_MAX`], or over [`ENTRY_BYTES_MAX`] bytes:
    /// whoever collects batches for an entry asks [`Append::encoded_bytes`] first.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let length = self.encoded_bytes();
        assert!(!self.batches.is_empty(), "an append without batches");
        assert!(self.batches.len() <= ENTRY_BATCHES_MAX, "{} batches", self.batches.len());
        assert!(length <= ENTRY_BYTES_MAX, "an entry of {length} bytes");

        let mut writer = Writer::with_capacity(length);
        writer.u8(VERSION);
        writer.u8(KIND_APPEND);
        writer.u64(self.time.0);
        writer.count(self.batches.len());
        for batch in &self.batches {
            writer.bool(batch.expect_end_offset.is_some());
            writer.u64(batch.expect_end_offset.unwrap_or(0));
            writer.count(batch.bytes.len());
        }
        for batch in &self.batches {
            writer.raw(&batch.bytes);
        }
        assert_eq!(writer.len(), length);
        writer.finish()
    }

    /// Size of the payload in bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let batch_bytes: usize = self.batches.iter().map(|batch| batch.bytes.len()).sum();
        Append::encoded_bytes_of(self.batches.len(), batch_bytes)
    }

    /// Size of the payload of `batch_count` batches of `batch_bytes` bytes together.
    #[must_use]
    pub fn encoded_bytes_of(batch_count: usize, batch_bytes: usize) -> usize {
        APPEND_HEADER_BYTES + batch_count * APPEND_ROW_BYTES + batch_bytes
    }

    /// Where each batch stands inside the payload, in the order of `batches`.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = Append::encoded_bytes_of(self.batches.len(), 0);
        self.batches.iter().map(move |batch| {
            let range = start..start + batch.bytes.len();
            start = range.end;
            range
        })
    }

    fn read(reader: &mut Reader) -> Result<Append, DecodeError> {
        let time = EntryTime(reader.u64()?);
        let count = reader.count(ENTRY_BATCHES_MAX, APPEND_ROW_BYTES)?;
        if count == 0 {
            return Err(reader.invalid("an append without batches"));
        }
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let conditional = reader.bool()?;
            let end_offset = reader.u64()?;
            if !conditional && end_offset != 0 {
                return Err(reader.invalid("an expected end offset without its flag"));
            }
            let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
            rows.push((conditional.then_some(end_offset), length));
        }
        let mut batches = Vec::with_capacity(count);
        for (expect_end_offset, length) in rows {
            batches.push(AppendBatch { expect_end_offset, bytes: reader.raw(length)? });
        }
        Ok(Append { time, batches })
    }
}

impl AdvanceStart {
    /// The payload of the Raft entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(18);
        writer.u8(VERSION);
        writer.u8(KIND_ADVANCE_START);
        writer.u64(self.time.0);
        writer.u64(self.rung_index);
        writer.finish()
    }

    fn read(reader: &mut Reader) -> Result<AdvanceStart, DecodeError> {
        Ok(AdvanceStart { time: EntryTime(reader.u64()?), rung_index: reader.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_batch()(
            expect_end_offset in any::<Option<u64>>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) -> AppendBatch {
            AppendBatch { expect_end_offset, bytes: bytes.into() }
        }
    }

    fn any_command() -> impl Strategy<Value = LogCommand> {
        let append = (any::<u64>(), proptest::collection::vec(any_batch(), 1..8)).prop_map(
            |(time, batches)| LogCommand::Append(Append { time: EntryTime(time), batches }),
        );
        let advance = (any::<u64>(), any::<u64>()).prop_map(|(time, rung_index)| {
            LogCommand::AdvanceStart(AdvanceStart { time: EntryTime(time), rung_index })
        });
        prop_oneof![append, advance]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(command in any_command()) {
            prop_assert_eq!(LogCommand::decode(command.encode()), Ok(command));
        }

        #[test]
        fn the_ranges_point_at_the_batches(command in any_command()) {
            let payload = command.encode();
            if let LogCommand::Append(append) = command {
                for (range, batch) in append.ranges().zip(&append.batches) {
                    prop_assert_eq!(&payload[range], &batch.bytes[..]);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LogCommand::decode(bytes.into());
        }

        #[test]
        fn a_cut_command_is_refused(command in any_command(), cut in any::<prop::sample::Index>()) {
            let payload = command.encode();
            let cut = cut.index(payload.len());
            prop_assert!(LogCommand::decode(payload.slice(..cut)).is_err());
        }
    }

    #[test]
    fn a_command_of_a_newer_build_is_told_from_a_damaged_one() {
        let newer = LogCommand::decode(Bytes::from_static(&[2, 1])).expect_err("version 2");
        assert!(newer.needs_newer_build());
        let kind = LogCommand::decode(Bytes::from_static(&[1, 9])).expect_err("kind 9");
        assert!(kind.needs_newer_build());
        let damaged = LogCommand::decode(Bytes::from_static(&[1, 1, 0])).expect_err("cut");
        assert!(!damaged.needs_newer_build());
    }
}
