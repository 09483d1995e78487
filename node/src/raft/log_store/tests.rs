//! What a group's log takes in, and what it must refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use tokio::sync::Notify;

use super::*;
use crate::raft::types::{Vote, log_id};
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
    GroupLog::open_repairing(parts(engine, Arc::new(Others(entries(others)))), true).await
}

fn parts(engine: &Arc<MemoryEngine>, repair: Arc<dyn EntrySource>) -> LogParts {
    let engine: Arc<dyn Engine> = engine.clone();
    LogParts {
        group: GROUP,
        engine: engine.clone(),
        writer: LogWriter::on_task(engine, SyncDelay::fixed(Duration::ZERO)),
        repair,
        keeps_committed: false,
        metrics: Arc::new(Metrics::new()),
    }
}

fn entry_at(index: u64, term: u64, bytes: usize) -> Entry {
    let payload = Bytes::from(vec![7; bytes]);
    let stored = StoredEntry { term, kind: EntryKind::Command, payload };
    wire::entry_from_stored(index, stored).expect("an entry")
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
async fn a_log_is_as_long_as_it_was_when_the_block_of_its_end_can_not_be_read() {
    for len in [1, 2, 5, 37] {
        let all = vec![1; len];
        let last = u64::try_from(len).expect("small") - 1;
        for first_damaged in last.saturating_sub(3)..=last {
            let disk = disk_with(&entries(&all), &[]);
            for index in first_damaged..=last {
                let key = keys::log_entry(GROUP, index);
                assert!(disk.damage(Space::Log, &key, Damage::Unreadable));
            }
            // Never a shorter one: this replica may have been needed to commit its end.
            let refused = open(&disk, &all[..len - 1]).await.map(drop);
            assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));

            let log = open(&disk, &all).await.expect("repaired");
            assert_eq!(terms(&log.read(0, last + 1, usize::MAX).await.expect("read")), all);
        }
    }
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

#[tokio::test]
async fn what_is_damaged_is_an_error_at_once_where_nobody_shall_be_asked() {
    let disk = disk_with(&entries(&[1, 1]), &[1]);
    let others = Arc::new(Others(entries(&[1, 1])));
    let opened = GroupLog::open_repairing(parts(&disk, others.clone()), false).await.map(drop);
    assert_eq!(opened.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));

    let disk = disk_with(&entries(&[1, 1]), &[0]);
    let log = GroupLog::open_repairing(parts(&disk, others), false).await.expect("its last is");
    assert!(log.read(0, 1, 1).await.is_err());
    assert!(log.unrepaired().is_some());
    log.allow_repair();
    assert_eq!(terms(&log.read(0, 1, 1).await.expect("repaired")), [1]);
    assert_eq!(log.unrepaired(), None);
}

#[tokio::test]
async fn a_closed_log_writes_nothing_more_whoever_is_at_work_on_it() {
    let disk = disk_with(&entries(&[1]), &[]);
    let log = open(&disk, &[]).await.expect("whole");
    let writer = log.writer.clone();
    log.close();

    let mut rows = WriteBatch::new();
    row::put(&mut rows, keys::head(GROUP), b"applied");
    log.write_later(rows, Box::new(|| panic!("it is not stored")));
    let mut store = LogStore(log.clone());
    store.append([entry_at(1, 1, 1)], IOFlushed::noop()).await.expect("queued, or not");
    assert!(store.save_vote(&Vote::new(9, 9)).await.is_err());
    assert!(store.truncate_after(None).await.is_err());
    store.purge(log_id(1, 0)).await.expect("queued, or not");
    writer.close().await;

    assert_eq!(disk.get(Space::State, &keys::head(GROUP)), Ok(None));
    assert_eq!(disk.get(Space::State, &keys::vote(GROUP)), Ok(None));
    assert_eq!(disk.get(Space::State, &keys::last_purged(GROUP)), Ok(None));
    assert_eq!(disk.get(Space::Log, &keys::log_entry(GROUP, 1)), Ok(None));
    assert!(disk.get(Space::Log, &keys::log_entry(GROUP, 0)).is_ok_and(|it| it.is_some()));
}

/// Another replica that gives entry 2 only when it is told to.
struct Slow {
    entries: BTreeMap<u64, StoredEntry>,
    asked: Notify,
    go_on: Notify,
}

impl EntrySource for Arc<Slow> {
    fn fetch(&self, _: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        let slow = self.clone();
        Box::pin(async move {
            if index == 2 {
                slow.asked.notify_one();
                slow.go_on.notified().await;
            }
            slow.entries.get(&index).cloned()
        })
    }
}

#[tokio::test]
async fn a_repaired_entry_is_not_written_behind_a_truncation_or_purge_that_took_it_away() {
    for purges in [false, true] {
        let disk = disk_with(&entries(&[1, 1, 1, 1]), &[2]);
        let (asked, go_on) = (Notify::new(), Notify::new());
        let slow = Arc::new(Slow { entries: entries(&[1, 1, 1, 1]), asked, go_on });
        let log = GroupLog::open_repairing(parts(&disk, Arc::new(slow.clone())), true);
        let log = log.await.expect("its last entry is whole");
        let reader = log.clone();
        let reading = tokio::spawn(async move { reader.read(2, 3, 1).await });
        slow.asked.notified().await;

        let mut store = LogStore(log.clone());
        if purges {
            store.purge(log_id(1, 2)).await.expect("queued");
        } else {
            store.truncate_after(Some(log_id(1, 1))).await.expect("written");
        }
        slow.go_on.notify_one();

        let read = reading.await.expect("it ends").expect("whoever began before gets it");
        assert_eq!(terms(&read), [1]);
        log.write_and_wait(WriteBatch::new()).await.expect("written");
        assert_eq!(disk.get(Space::Log, &keys::log_entry(GROUP, 2)), Ok(None));
    }
}

#[tokio::test]
async fn an_append_never_waits_for_the_disk_because_votes_would_wait_behind_it() {
    let disk = Arc::new(MemoryEngine::new());
    let parts = parts(&disk, Arc::new(Others(BTreeMap::new())));
    let engine: Arc<dyn Engine> = disk.clone();
    // No sync ends.
    let writer = LogWriter::on_task(engine, SyncDelay::fixed(Duration::from_secs(86_400)));
    let log = GroupLog::open_repairing(LogParts { writer, ..parts }, true).await.expect("empty");
    let mut store = LogStore(log.clone());
    let appends = async {
        for index in 0..40 {
            store.append([entry_at(index, 1, 1 << 20)], IOFlushed::noop()).await.expect("queued");
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), appends).await.is_ok());
    // Who brings work waits instead.
    assert!(tokio::time::timeout(Duration::from_millis(100), log.room()).await.is_err());
}
