//! Reads batches of one partition replica: offset → index → entry → patched bytes.
//!
//! Only what apply accepted is seen: an entry may hold batches that were refused as duplicates or
//! by their conditions. Base offset and leader epoch, which lie outside the batch's checksum, are
//! filled in here; nothing else of a batch is ever touched.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use node_core::partition::IndexRecord;
use node_core::zoo::{self, Bug};

use super::index::{IndexError, OffsetIndex};
use crate::limits;
use crate::raft::{GroupLog, LogCommandBytes};

/// Why stored batches could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadFault {
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The entry is gone (retention, a moment ago) or damaged beyond repair.
    #[error("entry {index} can't be read: {reason}")]
    Entry { index: u64, reason: String },
}

/// Batches that were read, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct BatchRun {
    pub(crate) bytes: Bytes,
    /// Offset after the last record; the one asked for where nothing was read.
    pub(crate) next_offset: u64,
}

/// What reading needs of a replica.
#[derive(Clone)]
pub(crate) struct BatchReader {
    pub(crate) log: Arc<GroupLog>,
    pub(crate) index: Arc<OffsetIndex>,
}

impl BatchReader {
    /// Reads whole batches from the one that holds `offset`, below `end`: at least one if there is
    /// one, then until they have `bytes_max` bytes.
    pub(crate) async fn read(
        &self,
        offset: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<BatchRun, ReadFault> {
        let mut run = BatchRun { bytes: Bytes::new(), next_offset: offset };
        if offset >= end {
            return Ok(run);
        }
        let records = self.index.run_from(offset, bytes_max)?;
        let mut out = BytesMut::new();
        let mut rest = records.as_slice();
        while let Some(first) = rest.first() {
            let last = rest.last().map_or(first, |last| last);
            let (start, stop) = (first.position.index, last.position.index + 1);
            let entries = self.entries(start, stop, bytes_max).await?;
            let taken = append_all(&mut out, rest, &entries, offset, end)?;
            rest = rest.get(taken..).unwrap_or_default();
            if out.len() >= bytes_max || taken == 0 {
                break;
            }
        }
        run.bytes = cut(out.freeze(), bytes_max, &mut run.next_offset);
        Ok(run)
    }

    async fn entries(
        &self,
        start: u64,
        stop: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogCommandBytes>, ReadFault> {
        let fault =
            |error: std::io::Error| ReadFault::Entry { index: start, reason: error.to_string() };
        let entries = self.log.read_commands(start, stop, bytes_max).await.map_err(fault)?;
        let first = entries.first().map(|entry| entry.index);
        if first == Some(start) {
            Ok(entries)
        } else {
            Err(ReadFault::Entry { index: start, reason: "it is not in the log".to_owned() })
        }
    }

    /// First offset at or after `from` whose record has a timestamp of at least `timestamp_ms`,
    /// looked for in at most [`limits::TIME_SEARCH_ENTRIES_MAX`] entries; then the offset reached,
    /// which is never too late.
    pub(crate) async fn first_at_event_time(
        &self,
        from: u64,
        end: u64,
        timestamp_ms: i64,
    ) -> Result<u64, ReadFault> {
        let mut offset = from;
        for _ in 0..limits::TIME_SEARCH_ENTRIES_MAX {
            let run = self.read(offset, end, 1).await?;
            if run.bytes.is_empty() {
                return Ok(end);
            }
            for batch in quipu_batch::split(run.bytes) {
                let fault = |error: quipu_batch::BatchError| ReadFault::Entry {
                    index: offset,
                    reason: error.to_string(),
                };
                let batch = batch.map_err(fault)?;
                let header = quipu_batch::BatchHeader::parse(&batch).map_err(fault)?;
                if header.max_timestamp_ms < timestamp_ms {
                    continue;
                }
                for record in quipu_batch::records(batch).map_err(fault)? {
                    let record = record.map_err(fault)?;
                    if record.offset >= from && record.record.timestamp_ms >= timestamp_ms {
                        return Ok(record.offset);
                    }
                }
            }
            offset = run.next_offset;
        }
        Ok(offset)
    }

    /// First record of the first indexed entry in `start..end` for which `reached` holds. It must
    /// hold for all entries after one for which it holds.
    pub(crate) fn first_entry_where(
        &self,
        start: u64,
        end: u64,
        reached: impl Fn(&IndexRecord) -> bool,
    ) -> Result<u64, ReadFault> {
        let (mut low, mut high) = (start, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(record) = self.index.at(middle)? else { return Ok(low) };
            if reached(&record) {
                high = record.base_offset.max(low);
                if record.base_offset <= low {
                    return Ok(low);
                }
            } else {
                low = record.next_offset();
            }
        }
        Ok(low)
    }
}

/// Appends the batches of the records whose entries were read; answers how many records.
fn append_all(
    out: &mut BytesMut,
    records: &[Arc<IndexRecord>],
    entries: &[LogCommandBytes],
    offset: u64,
    end: u64,
) -> Result<usize, ReadFault> {
    let mut taken = 0;
    let mut entries = entries.iter();
    for record in records {
        let Some(entry) = entries.find(|entry| entry.index == record.position.index) else { break };
        taken += 1;
        append_record(out, record, entry, offset, end)?;
    }
    Ok(taken)
}

fn append_record(
    out: &mut BytesMut,
    record: &IndexRecord,
    entry: &LogCommandBytes,
    offset: u64,
    end: u64,
) -> Result<(), ReadFault> {
    let fault = |reason: &str| ReadFault::Entry { index: entry.index, reason: reason.to_owned() };
    if entry.term != record.position.term {
        return Err(fault("its term is not the one that was applied"));
    }
    let epoch = u32::try_from(entry.term).map_err(|_| fault("its term is beyond 2^32"))?;
    for (base_offset, batch) in record.batches_with_offsets() {
        if base_offset + u64::from(batch.records) <= offset || base_offset >= end {
            continue;
        }
        let bytes = entry.bytes.get(batch.range()).ok_or_else(|| fault("it is cut short"))?;
        let at = out.len();
        out.extend_from_slice(bytes);
        let copy = out.get_mut(at..).ok_or_else(|| fault("it is cut short"))?;
        quipu_batch::BatchHeader::parse(copy).map_err(|error| fault(&error.to_string()))?;
        let within = zoo::is(Bug::OffsetsWithinEntry);
        let base_offset = if within { record.base_offset } else { base_offset };
        quipu_batch::patch(copy, base_offset, epoch & (u32::MAX >> 1));
    }
    Ok(())
}

/// Cuts behind the batch with which `bytes_max` is reached, and sets the offset after it.
fn cut(bytes: Bytes, bytes_max: usize, next_offset: &mut u64) -> Bytes {
    let mut kept = 0;
    for batch in quipu_batch::split(bytes.clone()) {
        let Ok(batch) = batch else { break };
        if kept > 0 && kept + batch.len() > bytes_max {
            break;
        }
        let Ok(header) = quipu_batch::BatchHeader::parse(&batch) else { break };
        kept += batch.len();
        *next_offset = header.last_offset() + 1;
    }
    bytes.slice(..kept)
}
