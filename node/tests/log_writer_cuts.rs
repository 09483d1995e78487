//! The log writer under power cuts: at every write, with every part of what was not synced.
//!
//! Replicas of several groups vote, append, truncate and index through one writer. The disk dies
//! at write number N, for every N, and keeps the first K of the un-synced batches, for every K.
//! After each restart: no vote and no acknowledged entry went back, no log has a hole, and the
//! store is exactly what SOME first part of all submitted requests makes, no request half and
//! none without those before it.
//!
//! The same on RocksDB for a few N: the directory as it is when the process is killed there.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use node::storage::entry::{self, EntryKind, StoredEntry};
use node::storage::log_writer::{LogWriter, SyncDelay, WriteRequest};
use node::storage::memory::MemoryEngine;
use node::storage::rocks::{RocksEngine, RocksOptions};
use node::storage::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, WriteBatch, keys,
    sealed,
};
use node_core::ids::GroupId;
use tokio::sync::oneshot;

const GROUPS: u32 = 3;
const TERMS: u64 = 4;

/// Not the same for all, or the groups would stay in step and always share a write.
fn entries_per_term(group: GroupId) -> u64 {
    3 + u64::from(group.0)
}

/// A request as it was submitted, and what its submitter was told.
#[derive(Clone)]
struct Submitted {
    batch: WriteBatch,
    sync: bool,
    acked: bool,
}

/// All requests in the order of submission.
type History = Arc<Mutex<Vec<Submitted>>>;

/// Submits and waits; `false` if the disk died first.
async fn write(writer: &LogWriter, history: &History, batch: WriteBatch, sync: bool) -> bool {
    let (sender, receiver) = oneshot::channel();
    {
        // The lock makes the order of the history the order of submission.
        let mut submitted = history.lock().expect("no panic");
        let number = submitted.len();
        submitted.push(Submitted { batch: batch.clone(), sync, acked: false });
        let history = Arc::clone(history);
        let done = Box::new(move |outcome: Result<(), StorageError>| {
            history.lock().expect("no panic")[number].acked = outcome.is_ok();
            // The waiting replica may be gone.
            let _ = sender.send(outcome.is_ok());
        });
        writer.submit(WriteRequest { batch, sync, done });
    }
    receiver.await.unwrap_or(false)
}

fn vote(group: GroupId, term: u64) -> WriteBatch {
    let key = keys::vote(group);
    let value = sealed::seal(&key, 1, &term.to_be_bytes());
    let mut batch = WriteBatch::new();
    batch.put(Space::State, key, value);
    batch
}

fn append(batch: &mut WriteBatch, group: GroupId, index: u64, term: u64) {
    // Every second one is long enough for a blob file.
    let payload = Bytes::from(vec![1; if index.is_multiple_of(2) { 10 } else { 600 }]);
    let stored = StoredEntry { term, kind: EntryKind::Command, payload };
    batch.put(Space::Log, keys::log_entry(group, index), entry::encode(group, index, &stored));
}

/// One replica: in each term it votes, cuts its log back by one entry, and appends, with two
/// appends on their way at a time; what was appended is indexed without a sync.
async fn replica(group: GroupId, writer: LogWriter, history: History) {
    let mut index_next = 1;
    for term in 1..=TERMS {
        if !write(&writer, &history, vote(group, term), true).await {
            return;
        }
        let mut truncation = WriteBatch::new();
        index_next = (index_next - 1).max(1);
        truncation.delete_range(Space::Log, keys::log_from(group, index_next));
        append(&mut truncation, group, index_next, term);
        index_next += 1;
        let mut on_their_way = vec![truncation];
        for _ in 0..entries_per_term(group) {
            let mut batch = WriteBatch::new();
            append(&mut batch, group, index_next, term);
            index_next += 1;
            on_their_way.push(batch);
            let writes = on_their_way.drain(..).map(|batch| write(&writer, &history, batch, true));
            if !futures::future::join_all(writes).await.into_iter().all(|acked| acked) {
                return;
            }
            let mut indexed = WriteBatch::new();
            let key = keys::index(group, index_next);
            let value = sealed::seal(&key, 1, &term.to_be_bytes());
            indexed.put(Space::State, key, value);
            if !write(&writer, &history, indexed, false).await {
                return;
            }
        }
    }
}

async fn all_replicas(writer: LogWriter, history: &History) {
    let replicas: Vec<_> = (1..=GROUPS)
        .map(|group| tokio::spawn(replica(GroupId(group), writer.clone(), Arc::clone(history))))
        .collect();
    for replica in replicas {
        replica.await.expect("no panic");
    }
    writer.close().await;
}

fn on_one_thread<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("no drivers").block_on(run)
}

/// A disk that dies before its write number `dies_at`: that write and all later ones fail and
/// leave nothing. `before_write` sees the number of each write that is made.
struct MortalDisk<E, F> {
    engine: E,
    writes: AtomicUsize,
    dies_at: usize,
    /// Answers synced writes without syncing: a bug that the checks must find.
    lies: bool,
    before_write: F,
}

impl<E: Engine, F: Fn(usize) + Send + Sync> Engine for MortalDisk<E, F> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.engine.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        self.engine.scan(space, range, limit)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        self.engine.last_before(space, range)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if number >= self.dies_at {
            return Err(StorageError::Io { what: "no power".to_owned() });
        }
        (self.before_write)(number);
        self.engine.write(batch, if self.lies { Durability::Buffered } else { durability })
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        self.engine.bytes_used()
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        self.engine.space_left()
    }
}

/// Runs all replicas on a disk that dies at write `dies_at`; the same every time.
fn run_until_cut(disk: &MemoryEngine, dies_at: usize, lies: bool) -> Vec<Submitted> {
    let engine = disk.clone();
    let before_write = |_| {};
    let mortal = MortalDisk { engine, writes: AtomicUsize::new(0), dies_at, lies, before_write };
    let history = History::default();
    on_one_thread(async {
        let no_delay = SyncDelay::fixed(Duration::ZERO);
        all_replicas(LogWriter::on_task(Arc::new(mortal), no_delay), &history).await;
    });
    history.lock().expect("no panic").clone()
}

fn contents(engine: &dyn Engine) -> Vec<Vec<KeyValue>> {
    let everything = KeyRange { start: Bytes::new(), end: Bytes::from_static(&[0xff; 16]) };
    let all = ScanLimit::items(usize::MAX);
    [Space::Log, Space::State]
        .map(|space| engine.scan(space, &everything, all).expect("undamaged"))
        .to_vec()
}

/// Whether the store is what the first P requests make, for a P that leaves no acknowledged
/// synced request out.
fn is_a_first_part(found: &dyn Engine, history: &[Submitted]) -> Result<(), String> {
    let acked = history.iter().rposition(|request| request.acked && request.sync);
    let must_have = acked.map_or(0, |last| last + 1);
    let found = contents(found);
    let model = MemoryEngine::new();
    for (number, request) in history.iter().enumerate() {
        if number >= must_have && contents(&model) == found {
            return Ok(());
        }
        model.write(request.batch.clone(), Durability::Synced).expect("memory");
    }
    if contents(&model) == found {
        return Ok(());
    }
    Err(format!("no first part of {} requests that has the first {must_have}", history.len()))
}

/// What Raft needs, said directly: terms of votes don't fall, logs have no holes.
fn raft_can_start(found: &dyn Engine, history: &[Submitted]) -> Result<(), String> {
    let mut votes_acked = BTreeMap::new();
    for request in history.iter().filter(|request| request.acked) {
        for group in (1..=GROUPS).map(GroupId) {
            for term in 1..=TERMS {
                if request.batch == vote(group, term) {
                    votes_acked.insert(group, term);
                }
            }
        }
    }
    for group in (1..=GROUPS).map(GroupId) {
        let key = keys::vote(group);
        let term = found.get(Space::State, &key).expect("undamaged").map_or(0, |value| {
            let body = sealed::open(&key, value).expect("undamaged").body;
            u64::from_be_bytes(body.as_ref().try_into().expect("a term"))
        });
        let acked = votes_acked.get(&group).copied().unwrap_or(0);
        if term < acked {
            return Err(format!("group {group} voted in term {acked} and now knows {term}"));
        }
        let log = found.scan(Space::Log, &keys::log(group), ScanLimit::items(usize::MAX));
        let mut term_last = 0;
        for (expected, (key, value)) in (1..).zip(log.expect("undamaged")) {
            let (_, index) = keys::parse_log_entry(&key).expect("a log key");
            let entry = entry::decode(group, index, value).map_err(|damage| damage.to_string())?;
            if index != expected || entry.term < term_last || entry.term > term {
                return Err(format!("group {group}, term {term}: {index} follows {expected} - 1"));
            }
            term_last = entry.term;
        }
    }
    Ok(())
}

fn check(found: &dyn Engine, history: &[Submitted]) -> Result<(), String> {
    raft_can_start(found, history)?;
    is_a_first_part(found, history)
}

/// Cuts at every write and keeps every part; how many cuts there were, or what was violated.
fn cut_everywhere(lies: bool) -> Result<usize, String> {
    let mut cuts = 0;
    for dies_at in 0.. {
        let whole = MemoryEngine::new();
        let history = run_until_cut(&whole, dies_at, lies);
        for keep in 0..=whole.pending_batches() {
            let disk = MemoryEngine::new();
            let history = run_until_cut(&disk, dies_at, lies);
            assert_eq!(disk.pending_batches(), whole.pending_batches(), "runs repeat");
            disk.power_cut(keep);
            check(&disk, &history)
                .map_err(|violated| format!("cut at write {dies_at}, {keep} kept: {violated}"))?;
            cuts += 1;
        }
        let complete =
            history.iter().all(|request| request.acked) && history.len() == all_requests();
        if complete {
            return Ok(cuts);
        }
    }
    unreachable!("the range has no end")
}

fn all_requests() -> usize {
    // Per term a vote, a truncation, and for each entry an append and an index entry.
    let per_term = |group| 1 + 1 + 2 * entries_per_term(GroupId(group));
    usize::try_from((1..=GROUPS).map(per_term).sum::<u64>() * TERMS).expect("small")
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    let cuts = cut_everywhere(false).expect("no violation");
    assert!(cuts > 100, "only {cuts} cuts: the workload has become too small");
}

#[test]
fn a_disk_that_answers_before_it_syncs_is_found_out() {
    let violated = cut_everywhere(true).expect_err("un-synced votes are lost");
    assert!(violated.contains("voted in term") || violated.contains("no first part"));
}

#[test]
fn a_process_killed_at_any_write_finds_on_rocksdb_what_it_was_told() {
    let live = tempfile::tempdir().expect("a temporary directory");
    let images = tempfile::tempdir().expect("a temporary directory");
    let history = History::default();
    let killed = Arc::new(Mutex::new(Vec::new()));
    let before_write = {
        let (from, to) = (live.path().to_owned(), images.path().to_owned());
        let (history, killed) = (Arc::clone(&history), Arc::clone(&killed));
        move |number: usize| {
            if [1, 5, 11, 20].contains(&number) {
                // On the writer's own thread: no write is under way and none is answered.
                copy_directory(&from, &to.join(number.to_string()));
                let submitted = history.lock().expect("no panic").clone();
                killed.lock().expect("no panic").push((number, submitted));
            }
        }
    };
    let engine = RocksEngine::open(live.path(), RocksOptions::default()).expect("opens");
    let writes = AtomicUsize::new(0);
    let mortal = MortalDisk { engine, writes, dies_at: usize::MAX, lies: false, before_write };
    on_one_thread(async {
        let writer = LogWriter::on_thread(Arc::new(mortal)).expect("a thread can be started");
        all_replicas(writer, &history).await;
    });

    let killed = killed.lock().expect("no panic").clone();
    assert_eq!(killed.len(), 4);
    for (number, submitted) in killed {
        let image = images.path().join(number.to_string());
        let found = RocksEngine::open(&image, RocksOptions::default()).expect("opens");
        check(&found, &submitted).unwrap_or_else(|error| panic!("killed at {number}: {error}"));
    }
    let found = RocksEngine::open(live.path(), RocksOptions::default()).expect("opens");
    check(&found, &history.lock().expect("no panic")).expect("no violation");
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for file in std::fs::read_dir(from).expect("readable") {
        let file = file.expect("readable");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}
