//! Which Raft entry holds an offset: the newest index records in memory, the rest in the store.
//!
//! Apply makes the records and queues them for the store un-waited, so the newest are not there yet
//! when a reader asks. They stay here until the store has them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node_core::ids::GroupId;
use node_core::partition::IndexRecord;

use crate::limits;
use crate::storage::{Engine, KeyRange, ScanLimit, Space, StorageError, keys, row};

/// Why an index record was not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the index of {group} is damaged at {at}")]
    Damaged { group: GroupId, at: u64 },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The offset index of one partition replica.
pub(crate) struct OffsetIndex {
    group: GroupId,
    engine: Arc<dyn Engine>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// Ascending and without gaps.
    records: VecDeque<Arc<IndexRecord>>,
    /// The store has all records whose offsets lie below.
    stored_end: u64,
}

impl OffsetIndex {
    pub(crate) fn new(group: GroupId, engine: Arc<dyn Engine>) -> Self {
        Self { group, engine, recent: Mutex::default() }
    }

    /// Takes in a record that apply made, BEFORE its offsets are announced.
    pub(crate) fn push(&self, record: IndexRecord) {
        let mut recent = self.lock();
        let follows =
            recent.records.back().is_none_or(|last| last.next_offset() == record.base_offset);
        if !follows {
            recent.records.clear();
        }
        recent.records.push_back(Arc::new(record));
    }

    /// The store has every record below `end`.
    pub(crate) fn stored(&self, end: u64) {
        let mut recent = self.lock();
        recent.stored_end = recent.stored_end.max(end);
        while recent.records.len() > limits::INDEX_RECORDS_RECENT_MAX {
            let stored_end = recent.stored_end;
            match recent.records.front() {
                Some(first) if first.next_offset() <= stored_end => {
                    recent.records.pop_front();
                }
                _ => break,
            }
        }
    }

    /// Forgets all that is in memory, after a checkpoint was installed.
    pub(crate) fn clear(&self) {
        self.lock().records.clear();
    }

    /// The record that holds `offset`, and those after it, until their payloads have
    /// `payload_bytes_max` bytes. Empty where no record holds it.
    pub(crate) fn run_from(
        &self,
        offset: u64,
        payload_bytes_max: usize,
    ) -> Result<Vec<Arc<IndexRecord>>, IndexError> {
        if let Some(run) = self.recent_run(offset, payload_bytes_max) {
            return Ok(run);
        }
        let Some(first) = self.stored_at(offset)? else { return Ok(Vec::new()) };
        let mut bytes = payload_bytes(&first);
        let mut run = vec![Arc::new(first)];
        while bytes < payload_bytes_max {
            let next = run.last().map_or(0, |record| record.next_offset());
            if let Some(recent) = self.recent_run(next, payload_bytes_max - bytes) {
                run.extend(recent);
                break;
            }
            let limit = ScanLimit::items(limits::INDEX_RECORDS_SCANNED_MAX);
            let range = keys::indexes_from(self.group, next);
            let rows = self.engine.scan(Space::State, &range, limit)?;
            if rows.is_empty() {
                break;
            }
            for (key, value) in rows {
                let record = self.decode(&key, value)?;
                bytes += payload_bytes(&record);
                run.push(Arc::new(record));
                if bytes >= payload_bytes_max {
                    break;
                }
            }
        }
        Ok(run)
    }

    /// The record that holds `offset`.
    pub(crate) fn at(&self, offset: u64) -> Result<Option<Arc<IndexRecord>>, IndexError> {
        Ok(self.run_from(offset, 1)?.into_iter().next())
    }

    fn recent_run(&self, offset: u64, payload_bytes_max: usize) -> Option<Vec<Arc<IndexRecord>>> {
        let recent = self.lock();
        if offset < recent.records.front()?.base_offset {
            return None;
        }
        let start = recent.records.partition_point(|record| record.next_offset() <= offset);
        let mut run = Vec::new();
        let mut bytes = 0;
        for record in recent.records.iter().skip(start) {
            bytes += payload_bytes(record);
            run.push(record.clone());
            if bytes >= payload_bytes_max {
                break;
            }
        }
        Some(run)
    }

    fn stored_at(&self, offset: u64) -> Result<Option<IndexRecord>, IndexError> {
        let range: KeyRange = keys::indexes_through(self.group, offset);
        let Some((key, value)) = self.engine.last_before(Space::State, &range)? else {
            return Ok(None);
        };
        let record = self.decode(&key, value)?;
        Ok((record.next_offset() > offset).then_some(record))
    }

    fn decode(&self, key: &[u8], value: bytes::Bytes) -> Result<IndexRecord, IndexError> {
        let at = keys::parse_state(key).and_then(|key| key.number).unwrap_or(0);
        let damaged = || IndexError::Damaged { group: self.group, at };
        let body = row::open(key, value).map_err(|_| damaged())?;
        IndexRecord::decode(body).map_err(|_| damaged())
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // Whole between statements; a panic elsewhere ends the process.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn payload_bytes(record: &IndexRecord) -> usize {
    usize::try_from(record.payload_bytes).unwrap_or(usize::MAX)
}
