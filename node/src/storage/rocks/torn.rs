//! The end of the write-ahead log: which records may be missing there, and which may not.
//!
//! After each sync the store notes the sequence number it reached in a small file, un-synced:
//! what stands there after a power cut is a lower bound of what was synced, and exact if only the
//! process ended. RocksDB drops a last record that is cut off or all zeros, synced or not; a store
//! that ends before its note has lost what was acknowledged, and does not open.
//!
//! RocksDB refuses a log in which anything else is wrong. But a disk may write the sectors of the
//! last record in its own order, so that a power cut leaves the file as long as it should be, with
//! zeros in between. That record was never acknowledged, and many nodes that lose their power
//! together may find one each; so it is cut off too. The rule, from
//! docs/adr/0004-storage-engine-settings.md, is strict, since a record that was acknowledged must
//! not be taken for a torn one:
//!
//! 1. It is the last record of the newest log: no whole record begins behind it.
//! 2. Each of its parts that doesn't read back has a sector of zeros.
//! 3. By the note it was not synced. Without a note nothing is cut off.
//!
//! What is cut off is set aside in a file beside the log.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// RocksDB's log is made of blocks of this size; no record's part crosses their border.
const BLOCK_BYTES: usize = 32 << 10;
/// Checksum u32, length u16, type u8, little-endian.
const HEADER_BYTES: usize = 4 + 2 + 1;
/// What a disk writes at once.
const SECTOR_BYTES: usize = 512;
/// Sequence number u64 and count u32 begin every record.
const RECORD_HEAD_BYTES: usize = 8 + 4;

/// The file with the sequence number that was synced; RocksDB leaves names alone that are not its
/// own.
const NOTE_FILE: &str = "SYNCED";
/// Sequence number u64, checksum u32.
const NOTE_BYTES: usize = 8 + 4;

/// The note of how far the store is known to be synced.
pub(super) struct SyncedNote(File);

impl SyncedNote {
    /// Opens the note in the directory of a store that was just opened, where everything up to
    /// `sequence` is on stable storage.
    pub(super) fn open(directory: &Path, sequence: u64) -> io::Result<Self> {
        let path = directory.join(NOTE_FILE);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let note = Self(file);
        note.write(sequence)?;
        note.0.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(note)
    }

    /// Everything up to `sequence` was synced. A note that can't be written stays what it was, a
    /// lower bound.
    pub(super) fn set(&self, sequence: u64) {
        if let Err(error) = self.write(sequence) {
            tracing::debug!(%error, "the note of what was synced can't be written");
        }
    }

    fn write(&self, sequence: u64) -> io::Result<()> {
        let mut note = [0; NOTE_BYTES];
        note[..8].copy_from_slice(&sequence.to_le_bytes());
        let checksum = crc32c::crc32c(&note[..8]);
        note[8..].copy_from_slice(&checksum.to_le_bytes());
        self.0.write_all_at(&note, 0)
    }
}

/// How far the store in `directory` is known to have been synced; `None` without a whole note.
pub(super) fn read_note(directory: &Path) -> Option<u64> {
    let note = fs::read(directory.join(NOTE_FILE)).ok()?;
    let (sequence, checksum) = note.split_at_checked(8)?;
    let checksum = u32::from_le_bytes(checksum.try_into().ok()?);
    (crc32c::crc32c(sequence) == checksum).then_some(u64::from_le_bytes(sequence.try_into().ok()?))
}

/// A last record that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TornTail {
    /// The log.
    pub(super) log: PathBuf,
    /// Where it ends now.
    pub(super) at: u64,
    /// Bytes that were cut off.
    pub(super) bytes: u64,
}

/// Cuts a torn last record off the newest log of a store that doesn't open. `None`: that is not
/// what is wrong with it, and nothing was changed.
pub(super) fn cut_off(directory: &Path) -> io::Result<Option<TornTail>> {
    let Some(synced) = read_note(directory) else { return Ok(None) };
    let Some(log) = newest_log(directory)? else { return Ok(None) };
    let bytes = fs::read(&log)?;
    let Some(at) = torn_from(&bytes, synced) else { return Ok(None) };
    let (kept, torn) = bytes.split_at(at);
    let aside = log.with_extension("torn");
    fs::write(&aside, torn)?;
    File::open(&aside)?.sync_all()?;
    let file = OpenOptions::new().write(true).open(&log)?;
    file.set_len(length_of(kept))?;
    file.sync_all()?;
    Ok(Some(TornTail { log, at: length_of(kept), bytes: length_of(torn) }))
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a usize fits 64 bits")
}

fn newest_log(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let number = path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Which part of a record a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
    /// Not of a record: RocksDB's own remarks.
    Remark,
}

/// A fragment that reads back.
struct Fragment<'a> {
    part: Part,
    payload: &'a [u8],
    end: usize,
}

/// The fragment at `at`, if its checksum holds.
fn fragment(log: &[u8], at: usize) -> Option<Fragment<'_>> {
    let header = log.get(at..at + HEADER_BYTES)?;
    let part = match header[6] {
        1 => Part::Whole,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        9 | 10 | 130 => Part::Remark,
        _ => return None,
    };
    let start = at + HEADER_BYTES;
    let end = start + usize::from(u16::from_le_bytes([header[4], header[5]]));
    if end > block_end(at) {
        return None;
    }
    let payload = log.get(start..end)?;
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    // The checksum covers type and payload, and is masked (rocksdb: util/crc32c.h).
    let crc = crc32c::crc32c(&log[start - 1..end]);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    (stored == masked).then_some(Fragment { part, payload, end })
}

fn block_end(at: usize) -> usize {
    (at / BLOCK_BYTES + 1) * BLOCK_BYTES
}

/// Where the next fragment after `end` begins: a block's last bytes hold none.
fn next_place(end: usize) -> usize {
    if block_end(end) - end < HEADER_BYTES { block_end(end) } else { end }
}

/// Where the last record begins, if it is torn and was not synced as far as `synced` tells.
fn torn_from(log: &[u8], synced: u64) -> Option<usize> {
    let (mut at, mut record_at, mut next_sequence) = (0, 0, None);
    while let Some(found) = fragment(log, at) {
        if matches!(found.part, Part::Whole | Part::First) {
            record_at = at;
            next_sequence = sequences(found.payload).or(next_sequence);
        }
        at = next_place(found.end);
        if matches!(found.part, Part::Whole | Part::Last | Part::Remark) {
            record_at = at;
        }
    }
    let bad = at;
    // Of a record whose first part reads back, the sequence number is its own.
    let first_sequence = match record_at < bad {
        true => next_sequence.map(|(first, _)| first),
        false => next_sequence.map(|(_, next)| next),
    };
    let unsynced = first_sequence.is_some_and(|first| first > synced);
    (unsynced && bad < log.len() && is_torn(log, bad)).then_some(record_at)
}

/// The first sequence number of a record, and the one after its last.
fn sequences(payload: &[u8]) -> Option<(u64, u64)> {
    let head = payload.get(..RECORD_HEAD_BYTES)?;
    let first = u64::from_le_bytes(head[..8].try_into().ok()?);
    let count = u32::from_le_bytes(head[8..].try_into().ok()?);
    Some((first, first.checked_add(u64::from(count))?))
}

/// Whether all that follows from `bad` on are the parts of one record, and those that don't read
/// back have sectors of zeros.
fn is_torn(log: &[u8], bad: usize) -> bool {
    let (mut at, mut ended) = (bad, false);
    while at < log.len() {
        if let Some(found) = fragment(log, at) {
            if ended || matches!(found.part, Part::Whole | Part::First | Part::Remark) {
                return false;
            }
            ended = found.part == Part::Last;
            at = next_place(found.end);
            continue;
        }
        // The header may be gone, and with it the place of the next one: look everywhere.
        let end = block_end(at).min(log.len());
        let resumes = (at + 1..end).find(|&place| fragment(log, place).is_some());
        let unread = at..resumes.unwrap_or(end);
        if ended || !has_zero_sector(log, &unread) {
            return false;
        }
        at = unread.end;
    }
    true
}

/// Whether some sector, as far as it lies in `part`, is all zeros.
fn has_zero_sector(log: &[u8], part: &std::ops::Range<usize>) -> bool {
    let mut start = part.start;
    while start < part.end {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(part.end);
        if log[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}
