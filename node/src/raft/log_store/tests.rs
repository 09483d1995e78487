//! What a group's log takes in, and what it must refuse.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::*;
use crate::storage::entry::EntryKind;
use crate::storage::log_writer::SyncDelay;
use crate::storage::memory::{Damage, MemoryEngine};
use crate::storage::{Durability, Engine};

const GROUP: GroupId = GroupId(1_000);

/// The committed entries of the group's other replicas, by index.
struct Others(BTreeMap<u64, StoredEntry>);

impl EntrySource for Others {
    fn fetch(&self, _: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        Box::pin(std::future::ready(self.0.get(&index).cloned()))
    }
}

fn entries(terms: &[u64]) -> BTreeMap<u64, StoredEntry> {
    let stored = |term: &u64| StoredEntry {
        term: *term,
        kind: EntryKind::Command,
        payload: Bytes::from(format!("of term {term}")),
    };
    (0..).zip(terms.iter().map(stored)).collect()
}

fn disk_with(entries: &BTreeMap<u64, StoredEntry>, damaged: &[u64]) -> Arc<MemoryEngine> {
    let engine = Arc::new(MemoryEngine::new());
    let mut batch = WriteBatch::new();
    for (index, stored) in entries {
        let value = entry::encode(GROUP, *index, stored);
        batch.put(Space::Log, keys::log_entry(GROUP, *index), value);
    }
    engine.write(batch, Durability::Synced).expect("memory");
    for index in damaged {
        let key = keys::log_entry(GROUP, *index);
        assert!(engine.damage(Space::Log, &key, Damage::FlipBit { bit: 77 }));
    }
    engine
}

async fn open(engine: &Arc<MemoryEngine>, others: &[u64]) -> io::Result<Arc<GroupLog>> {
    let engine: Arc<dyn Engine> = engine.clone();
    GroupLog::open(LogParts {
        group: GROUP,
        engine: engine.clone(),
        writer: LogWriter::on_task(engine, SyncDelay::fixed(std::time::Duration::ZERO)),
        repair: Arc::new(Others(entries(others))),
        keeps_committed: false,
        metrics: Arc::new(Metrics::new()),
    })
    .await
}

fn terms(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| term_of(&entry.log_id)).collect()
}

#[tokio::test]
async fn damaged_entries_at_the_end_are_repaired_where_the_log_is_the_committed_one() {
    let disk = disk_with(&entries(&[1, 1, 2, 2, 2]), &[3, 4]);
    let log = open(&disk, &[1, 1, 2, 2, 2, 3]).await.expect("repaired");
    assert_eq!(terms(&log.read(0, 5, usize::MAX).await.expect("read")), [1, 1, 2, 2, 2]);
}

#[tokio::test]
async fn a_log_that_was_overruled_does_not_take_in_a_committed_entry_behind_its_own() {
    // A later leader committed other entries at 2 and 3, and this replica does not know it yet.
    let disk = disk_with(&entries(&[1, 1, 1, 1]), &[3]);
    let refused = open(&disk, &[1, 1, 3, 3]).await.map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
}

#[tokio::test]
async fn an_applied_entry_is_repaired_without_looking_at_those_before_it() {
    let disk = disk_with(&entries(&[1, 1, 1, 1]), &[1]);
    let log = open(&disk, &[9, 1]).await.expect("its last entry is whole");
    log.applied(3);
    assert_eq!(terms(&log.read(0, 4, usize::MAX).await.expect("read")), [1, 1, 1, 1]);
}

#[tokio::test]
async fn a_missing_entry_is_an_error_to_whoever_applies_the_log_and_never_its_end() {
    let mut stored = entries(&[1, 1, 1, 1]);
    stored.remove(&2);
    let disk = disk_with(&stored, &[]);
    let log = open(&disk, &[]).await.expect("its last entry is whole");
    let mut store = LogStore(log);
    for end in [3, 4] {
        let applied: Vec<_> = store.entries_stream(0..end).await.collect().await;
        assert!(applied.last().is_some_and(Result::is_err));
    }
}

#[tokio::test]
async fn a_missing_entry_is_had_again_from_another_replica() {
    let mut stored = entries(&[1, 1, 1, 1]);
    stored.remove(&2);
    let disk = disk_with(&stored, &[]);
    let log = open(&disk, &[1, 1, 1, 1]).await.expect("its last entry is whole");
    assert_eq!(log.read(0, 3, usize::MAX).await.expect("read").len(), 3);
}
