//! A snapshot is installed, and the power is cut between any two writes.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::BoxFuture;
use node_core::groups::GroupTable;
use node_core::ids::GroupId;
use openraft::storage::RaftLogStorage;

use super::*;
use crate::metrics::Metrics;
use crate::raft::log_store::{EntrySource, LogParts, LogStore};
use crate::storage::entry::{self, EntryKind, StoredEntry};
use crate::storage::log_writer::{LogWriter, SyncDelay};
use crate::storage::memory::MemoryEngine;
use crate::storage::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, keys,
};
use crate::tables::TableMachine;

const GROUP: GroupId = GroupId(2);

/// A disk whose power is cut after some writes: the rest is lost, and nobody is told.
struct CutDisk {
    memory: MemoryEngine,
    writes_left: Mutex<usize>,
}

impl Engine for CutDisk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.memory.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        self.memory.scan(space, range, limit)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        self.memory.last_before(space, range)
    }

    fn write(&self, batch: WriteBatch, _: Durability) -> Result<(), StorageError> {
        let mut left = self.writes_left.lock().expect("whole");
        if !batch.is_empty() && *left > 0 {
            *left -= 1;
            self.memory.write(batch, Durability::Synced)?;
        }
        Ok(())
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        self.memory.bytes_used()
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        self.memory.space_left()
    }
}

struct Nobody;

impl EntrySource for Nobody {
    fn fetch(&self, _: GroupId, _: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        Box::pin(std::future::ready(None))
    }
}

async fn open(engine: Arc<dyn Engine>) -> (Arc<GroupLog>, Machine) {
    let parts = LogParts {
        group: GROUP,
        engine: engine.clone(),
        writer: LogWriter::on_task(engine.clone(), SyncDelay::fixed(Duration::ZERO)),
        repair: Arc::new(Nobody),
        keeps_committed: true,
        metrics: Arc::new(Metrics::new()),
    };
    let log = GroupLog::open_repairing(parts, true).await.expect("it opens");
    let table =
        TableMachine::<GroupTable>::open(GROUP, engine, Box::new(|_| {})).expect("it opens");
    let kind = MachineKind::Table(Box::new(table.0));
    let (machine, _) = Machine::new(kind, log.clone(), Box::new(|_| {}));
    (log, machine)
}

fn table_at(end: u64) -> (LogId, Bytes) {
    let mut table = GroupTable::default();
    for index in 0..end {
        table.apply_blank(RaftPosition { term: 2, index });
    }
    (log_id(2, end - 1), table.encode_snapshot())
}

#[tokio::test]
async fn a_snapshot_and_the_log_it_replaces_change_together_wherever_the_power_is_cut() {
    let (last, snapshot) = table_at(10);
    let mut ends = Vec::new();
    for cut in 0..4 {
        let memory = MemoryEngine::new();
        let mut old = WriteBatch::new();
        for index in 0..5 {
            let kind = EntryKind::Blank;
            let stored = StoredEntry { term: 1, kind, payload: Bytes::new() };
            let value = entry::encode(GROUP, index, &stored);
            old.put(Space::Log, keys::log_entry(GROUP, index), value);
        }
        memory.write(old, Durability::Synced).expect("memory");
        let disk = CutDisk { memory: memory.clone(), writes_left: Mutex::new(cut) };
        let (log, mut machine) = open(Arc::new(disk)).await;
        let meta = SnapshotMeta { last_log_id: Some(last), ..SnapshotMeta::default() };
        // As openraft does both.
        machine.install_snapshot(&meta, snapshot.clone()).await.expect("installed");
        let mut store = LogStore(log.clone());
        store.purge(last).await.expect("queued");
        log.write_and_wait(WriteBatch::new()).await.expect("written");

        let (log, mut machine) = open(Arc::new(memory)).await;
        let state = LogStore(log).get_log_state().await.expect("read");
        let (applied, _) = machine.applied_state().await.expect("read");
        ends.push((applied, state.last_purged_log_id, state.last_log_id));
    }
    let before = (None, None, Some(log_id(1, 4)));
    let after = (Some(last), Some(last), Some(last));
    assert_eq!(ends, [before, after, after, after]);
}
