//! Order, grouping and stopping of the log writer, on a thread and as a task.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::storage::memory::{MemoryEngine, MemoryFault};
use crate::storage::{KeyRange, KeyValue, ScanLimit, Space};

/// A disk that can be held up, refuses to be written to, or panics.
struct HeldDisk {
    memory: MemoryEngine,
    /// Each write waits for one message; a closed channel lets all pass.
    pass: Mutex<mpsc::Receiver<()>>,
    waiting: AtomicUsize,
    panics: bool,
}

impl HeldDisk {
    fn new(panics: bool) -> (Arc<Self>, mpsc::Sender<()>) {
        let (sender, receiver) = mpsc::channel();
        let disk = Self {
            memory: MemoryEngine::new(),
            pass: Mutex::new(receiver),
            waiting: AtomicUsize::new(0),
            panics,
        };
        (Arc::new(disk), sender)
    }

    /// Until the writer is in the middle of its `nth` write.
    async fn wait_for_write(&self, nth: usize) {
        while self.waiting.load(Ordering::SeqCst) < nth {
            tokio::task::yield_now().await;
        }
    }
}

impl Engine for HeldDisk {
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

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _ = self.pass.lock().expect("one writer").recv();
        assert!(!self.panics, "a bug in the engine");
        self.memory.write(batch, durability)
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        self.memory.bytes_used()
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        self.memory.space_left()
    }
}

fn batch(key: &str, value_bytes: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let key = Bytes::copy_from_slice(key.as_bytes());
    batch.put(Space::State, key, Bytes::from(vec![7; value_bytes]));
    batch
}

fn submit(writer: &LogWriter, batch: WriteBatch) -> oneshot::Receiver<Result<(), StorageError>> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |outcome| {
        // The test may not care for the outcome.
        let _ = sender.send(outcome);
    });
    writer.submit(WriteRequest { batch, sync: true, done });
    receiver
}

fn on_task(disk: &MemoryEngine) -> LogWriter {
    LogWriter::on_task(Arc::new(disk.clone()), SyncDelay::fixed(Duration::ZERO))
}

fn on_thread(disk: Arc<dyn Engine>) -> LogWriter {
    LogWriter::on_thread(disk).expect("a thread can be started")
}

fn is_stopped(outcome: &Result<(), StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Stopped { .. }))
}

#[tokio::test]
async fn an_answered_request_survives_a_power_cut() {
    for thread in [false, true] {
        let disk = MemoryEngine::new();
        let writer = if thread { on_thread(Arc::new(disk.clone())) } else { on_task(&disk) };
        assert_eq!(submit(&writer, batch("key", 10)).await, Ok(Ok(())));
        disk.power_cut(0);
        assert!(disk.get(Space::State, b"key").expect("undamaged").is_some());
    }
}

#[tokio::test]
async fn a_power_cut_between_write_and_sync_loses_the_batch_and_nobody_was_told() {
    let disk = MemoryEngine::new();
    let slow = SyncDelay::fixed(Duration::from_secs(3600));
    let writer = LogWriter::on_task(Arc::new(disk.clone()), slow);
    let mut outcome = submit(&writer, batch("key", 10));
    while disk.pending_batches() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(outcome.try_recv().is_err(), "not synced, not answered");
    disk.power_cut(0);
    assert_eq!(disk.get(Space::State, b"key"), Ok(None));
}

#[tokio::test]
async fn answers_come_in_the_order_of_submission_synced_or_not() {
    for thread in [false, true] {
        let disk = MemoryEngine::new();
        let writer = if thread { on_thread(Arc::new(disk.clone())) } else { on_task(&disk) };
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..500 {
            let sender = sender.clone();
            let done = Box::new(move |outcome: Result<(), StorageError>| {
                outcome.expect("the disk is sound");
                sender.send(number).expect("the test waits");
            });
            writer.submit(WriteRequest { batch: batch("key", 10), sync: number % 3 == 0, done });
        }
        for number in 0..500 {
            assert_eq!(receiver.recv().await, Some(number));
        }
    }
}

#[tokio::test]
async fn what_arrives_during_a_sync_goes_out_with_one_write() {
    let (disk, pass) = HeldDisk::new(false);
    let writer = on_thread(disk.clone());
    let first = submit(&writer, batch("first", 10));
    disk.wait_for_write(1).await;
    let rest: Vec<_> = (0..100).map(|n| submit(&writer, batch(&n.to_string(), 10))).collect();
    drop(pass);
    assert_eq!(first.await, Ok(Ok(())));
    for outcome in rest {
        assert_eq!(outcome.await, Ok(Ok(())));
    }
    let stats = writer.stats();
    assert_eq!((stats.requests, stats.groups, stats.syncs), (101, 2, 2));
    assert_eq!((stats.queue_requests, stats.queue_bytes), (0, 0));
    assert_eq!(disk.memory.counts().syncs, 2);
}

#[tokio::test]
async fn a_group_is_bounded_in_bytes() {
    let (disk, pass) = HeldDisk::new(false);
    let writer = on_thread(disk.clone());
    let first = submit(&writer, batch("first", 10));
    disk.wait_for_write(1).await;
    let third = GROUP_COMMIT_BYTES_MAX / 3;
    let rest: Vec<_> = (0..4).map(|n| submit(&writer, batch(&n.to_string(), third))).collect();
    let huge = submit(&writer, batch("huge", GROUP_COMMIT_BYTES_MAX + 1));
    drop(pass);
    assert_eq!((first.await, huge.await), (Ok(Ok(())), Ok(Ok(()))));
    drop(rest);
    assert_eq!(writer.stats().groups, 4, "the first, two and two of the thirds, the huge one");
}

#[tokio::test]
async fn a_group_without_a_sync_request_is_not_synced() {
    let disk = MemoryEngine::new();
    let writer = on_task(&disk);
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |outcome| sender.send(outcome).expect("the test waits"));
    writer.submit(WriteRequest { batch: batch("key", 10), sync: false, done });
    assert_eq!(receiver.await, Ok(Ok(())));
    assert_eq!((disk.counts().syncs, disk.pending_batches()), (0, 1));
    assert_eq!(writer.stats().syncs, 0);
}

#[tokio::test]
async fn a_failed_write_or_sync_stops_the_writer_for_good() {
    for thread in [false, true] {
        for fail in [MemoryEngine::fail_next_write, MemoryEngine::fail_next_sync] {
            let disk = MemoryEngine::new();
            let writer = if thread { on_thread(Arc::new(disk.clone())) } else { on_task(&disk) };
            let failed = writer.failed();
            fail(&disk, MemoryFault::Full);
            let first = submit(&writer, batch("first", 10)).await.expect("answered");
            assert!(matches!(first, Err(StorageError::Full { .. })), "{first:?}");
            let error = failed.await;
            assert!(matches!(error, StorageError::Full { .. }));
            assert_eq!(writer.failure(), Some(error));

            let writes = disk.counts().writes;
            let second = submit(&writer, batch("second", 10)).await.expect("answered");
            assert!(is_stopped(&second), "{second:?}");
            assert!(is_stopped(&writer.room().await));
            assert_eq!(disk.counts().writes, writes, "nothing is tried on a disk that said no");
        }
    }
}

#[tokio::test]
async fn requests_that_wait_behind_a_failure_are_answered_too() {
    let (disk, pass) = HeldDisk::new(false);
    disk.memory.fail_next_write(MemoryFault::Io);
    let writer = on_thread(disk.clone());
    let first = submit(&writer, batch("first", 10));
    disk.wait_for_write(1).await;
    let second = submit(&writer, batch("second", 10));
    drop(pass);
    assert!(matches!(first.await, Ok(Err(StorageError::Io { .. }))));
    assert!(is_stopped(&second.await.expect("answered")));
}

#[tokio::test]
async fn a_panicking_completion_stops_the_writer_loudly_and_the_others_are_answered() {
    let disk = MemoryEngine::new();
    let writer = on_thread(Arc::new(disk.clone()));
    let done = Box::new(|_| panic!("a bug in a completion"));
    writer.submit(WriteRequest { batch: batch("key", 10), sync: true, done });
    assert!(matches!(writer.failed().await, StorageError::Stopped { .. }));
    assert!(is_stopped(&submit(&writer, batch("key", 10)).await.expect("answered")));
}

#[tokio::test]
async fn a_panicking_engine_is_a_failed_write() {
    let (disk, pass) = HeldDisk::new(true);
    drop(pass);
    let writer = on_thread(disk);
    let outcome = submit(&writer, batch("key", 10)).await.expect("answered");
    assert!(matches!(outcome, Err(StorageError::Io { .. })));
    assert!(matches!(writer.failed().await, StorageError::Io { .. }));
}

#[tokio::test]
async fn room_waits_while_the_queue_is_full() {
    let (disk, pass) = HeldDisk::new(false);
    let writer = on_thread(disk.clone());
    assert_eq!(writer.room().await, Ok(()));
    let outcome = submit(&writer, batch("key", WRITER_QUEUE_BYTES_MAX));
    let room = tokio::spawn({
        let writer = writer.clone();
        async move { writer.room().await }
    });
    disk.wait_for_write(1).await;
    tokio::task::yield_now().await;
    assert!(!room.is_finished(), "what is being written still counts");
    drop(pass);
    assert_eq!(outcome.await, Ok(Ok(())));
    assert_eq!(room.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn closing_finishes_what_was_submitted_and_lets_go_of_the_engine() {
    for thread in [false, true] {
        let disk = MemoryEngine::new();
        let engine: Arc<dyn Engine> = Arc::new(disk.clone());
        let writer = if thread {
            on_thread(engine.clone())
        } else {
            LogWriter::on_task(engine.clone(), SyncDelay::fixed(Duration::ZERO))
        };
        let late = writer.clone();
        let outcomes: Vec<_> = (0..50).map(|_| submit(&writer, batch("key", 10))).collect();
        writer.close().await;
        for mut outcome in outcomes {
            assert_eq!(outcome.try_recv(), Ok(Ok(())));
        }
        assert_eq!(Arc::strong_count(&engine), 1);
        assert!(is_stopped(&submit(&late, batch("late", 10)).await.expect("answered")));
        assert!(is_stopped(&late.room().await));
        assert_eq!(late.failure(), None);
    }
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_what_was_submitted() {
    let disk = MemoryEngine::new();
    let writer = on_thread(Arc::new(disk.clone()));
    let outcome = submit(&writer, batch("key", 10));
    drop(writer);
    assert_eq!(outcome.await, Ok(Ok(())));
}

#[test]
fn a_writer_on_a_thread_has_let_go_of_its_engine_when_the_last_handle_is_dropped() {
    let disk: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let engine = Arc::downgrade(&disk);
    let writer = on_thread(disk);
    let request = WriteRequest { batch: batch("key", 10), sync: true, done: Box::new(|_| ()) };
    writer.submit(request);
    drop(writer);
    assert_eq!(engine.strong_count(), 0);
}
