//! The one writer of a node: the writes of all groups become one batch and one fsync.
//!
//! A request is answered when it is on the disk (or, if it did not ask for a sync, when it is
//! written). Requests take effect and are answered in the order in which they were submitted,
//! whatever group they come from: that a vote is durable BEFORE the entries of its term, and a
//! truncation BEFORE what replaces the truncated, is a safety rule of Raft. While one fsync runs
//! the next group gathers, so the batch grows with the load by itself.
//!
//! A write or a sync that fails stops the writer for good: that request and all others get an
//! error and [`LogWriter::failed`] resolves, so that the process can stop. Nothing is retried on
//! a disk that said no, for the kernel may have dropped the very pages that could not be written.
//!
//! Two ways to run, one loop: on a thread of its own in production, or as a task of a simulation
//! where the sync takes simulated time and a power cut may come between write and sync.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(quipu_zoo)]
use node_core::zoo::{self, Bug};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::limits::{
    GROUP_COMMIT_BYTES_MAX, GROUP_COMMIT_REQUESTS_MAX, WRITER_QUEUE_BYTES_MAX, WRITER_REQUEST_BYTES,
};
use super::writer_stats::{Counters, LogWriterStats};
use super::{Durability, Engine, StorageError, WriteBatch};

/// Called once with the outcome of a request, on the writer's thread or task: be quick, and
/// don't wait for the writer.
pub type WriteDone = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// One atomic write.
pub struct WriteRequest {
    /// Written as a whole or not at all.
    pub batch: WriteBatch,
    /// Whether `done` waits until a power cut can't lose it.
    pub sync: bool,
    /// Gets the outcome.
    pub done: WriteDone,
}

/// How long a simulated disk takes for each sync.
pub struct SyncDelay(Box<dyn FnMut() -> Duration + Send>);

impl SyncDelay {
    /// The same for every sync. Even if it is zero, other tasks run before the sync.
    pub fn fixed(delay: Duration) -> Self {
        Self(Box::new(move || delay))
    }

    /// Asked before each sync, so that a simulation can draw it, or make a disk slow.
    pub fn drawn(draw: impl FnMut() -> Duration + Send + 'static) -> Self {
        Self(Box::new(draw))
    }
}

/// The handle of the writer. Clones share it; when the last one is dropped the writer finishes
/// what was submitted and ends. A writer on a thread has let go of its engine when that drop
/// returns: a process that ends while RocksDB is open on some thread is aborted by it.
#[derive(Clone)]
pub struct LogWriter {
    handle: Arc<Handle>,
}

/// Closes the writer when no clone of [`LogWriter`] is left.
struct Handle {
    shared: Arc<Shared>,
    /// Of a real node.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A request arrived, or the writer shall end.
    arrived: Notify,
    /// The queue became shorter, or the writer failed.
    freed: Notify,
    failure: watch::Sender<Option<StorageError>>,
    ended: watch::Sender<bool>,
    counters: Counters,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<WriteRequest>,
    /// Of the requests that wait and of the group that is being written.
    bytes: usize,
    /// No handle is left, or `close` was called: end when the queue is empty.
    closing: bool,
    /// Nobody will look at the queue again.
    ended: bool,
}

/// What goes to the disk together.
#[derive(Default)]
struct Group {
    batch: WriteBatch,
    sync: bool,
    done: Vec<WriteDone>,
    queue_bytes: usize,
}

impl LogWriter {
    /// Starts the writer of a real node, on a thread of its own: an fsync blocks for
    /// milliseconds, which no runtime thread may.
    pub fn on_thread(engine: Arc<dyn Engine>) -> Result<Self, StorageError> {
        let shared = Shared::new();
        let running = run(engine, shared.clone(), None);
        let thread = std::thread::Builder::new()
            .name("quipu-log".to_owned())
            .spawn(move || futures::executor::block_on(running))
            .map_err(|error| StorageError::Io {
                what: format!("starting the thread of the log writer: {error}"),
            })?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Some(thread) }) })
    }

    /// Starts the writer of a simulated node as a task of the current tokio runtime.
    ///
    /// Each group is written `Buffered`, then the delay passes, then it is synced: a power cut
    /// that comes before the sync loses it, as far as the engine's cut says so.
    pub fn on_task(engine: Arc<dyn Engine>, delay: SyncDelay) -> Self {
        let shared = Shared::new();
        tokio::spawn(run(engine, shared.clone(), Some(delay)));
        Self { handle: Arc::new(Handle { shared, thread: None }) }
    }

    /// Queues a request. Never blocks and never refuses; once the writer has stopped, `done` gets
    /// [`StorageError::Stopped`].
    ///
    /// The queue is bounded by callers that await [`LogWriter::room`] before they submit work
    /// which could wait. Votes and truncations, small and few, needn't.
    pub fn submit(&self, request: WriteRequest) {
        let shared = &self.handle.shared;
        let mut queue = shared.queue();
        if queue.ended {
            drop(queue);
            let stopped = shared.stopped();
            shared.answer(request.done, Err(stopped));
            return;
        }
        queue.bytes += request.queue_bytes();
        queue.requests.push_back(request);
        drop(queue);
        shared.arrived.notify_one();
    }

    /// Waits until the queue is shorter than [`WRITER_QUEUE_BYTES_MAX`]: the back-pressure of the
    /// disk. An error says that the writer has stopped and there will be no room again.
    pub async fn room(&self) -> Result<(), StorageError> {
        let shared = &self.handle.shared;
        loop {
            let mut freed = std::pin::pin!(shared.freed.notified());
            // Listening BEFORE looking, or a notification in between would be missed.
            freed.as_mut().enable();
            if shared.failure().is_some() || shared.queue().ended {
                return Err(shared.stopped());
            }
            if shared.queue().bytes < WRITER_QUEUE_BYTES_MAX {
                return Ok(());
            }
            freed.await;
        }
    }

    /// Resolves with the first error, and never if there is none. The process must then stop.
    /// It holds no handle, so it doesn't keep the writer open.
    pub fn failed(&self) -> impl Future<Output = StorageError> + Send + 'static {
        let mut failure = self.handle.shared.failure.subscribe();
        async move {
            if let Ok(error) = failure.wait_for(Option::is_some).await
                && let Some(error) = error.clone()
            {
                return error;
            }
            std::future::pending().await
        }
    }

    /// The first error, if there was one.
    pub fn failure(&self) -> Option<StorageError> {
        self.handle.shared.failure()
    }

    /// Ends the writer after everything submitted so far is written and answered. When this
    /// returns the writer has let go of its engine.
    pub async fn close(self) {
        let mut ended = self.handle.shared.ended.subscribe();
        self.handle.shared.close();
        // An error means that the writer is gone, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Something waits or is being written or synced.
    pub fn is_busy(&self) -> bool {
        self.handle.shared.queue().bytes > 0
    }

    /// What the writer did so far, for the metrics.
    pub fn stats(&self) -> LogWriterStats {
        let shared = &self.handle.shared;
        let (requests, bytes) = {
            let queue = shared.queue();
            (queue.requests.len(), queue.bytes)
        };
        shared.counters.read(requests, bytes)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take()
            // A completion may be the last to hold the handle: it runs on the writer's thread.
            && thread.thread().id() != std::thread::current().id()
        {
            // Its only way to fail is a panic, which was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl WriteRequest {
    fn queue_bytes(&self) -> usize {
        self.batch.bytes() + WRITER_REQUEST_BYTES
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            arrived: Notify::new(),
            freed: Notify::new(),
            failure: watch::Sender::new(None),
            ended: watch::Sender::new(false),
            counters: Counters::default(),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code that holds this lock can panic")
    }

    fn failure(&self) -> Option<StorageError> {
        self.failure.borrow().clone()
    }

    fn stopped(&self) -> StorageError {
        let reason = self.failure().map_or("it was closed".to_owned(), |error| error.to_string());
        StorageError::Stopped { reason }
    }

    /// Stops the writer for good. Only the first error is kept: it is the cause of the others.
    fn fail(&self, error: StorageError) {
        let first = self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| error.clone());
            first
        });
        if first {
            tracing::error!(%error, "the log writer has stopped; this process must stop too");
        }
    }

    fn close(&self) {
        self.queue().closing = true;
        self.arrived.notify_one();
    }

    /// The oldest requests, as many as go into one group; `None` when the writer shall end.
    async fn next_group(&self) -> Option<Group> {
        loop {
            {
                let mut queue = self.queue();
                if !queue.requests.is_empty() {
                    return Some(queue.take_group());
                }
                if queue.closing {
                    // Under the lock: a request comes either before and is written, or after and
                    // is answered that the writer has stopped.
                    queue.ended = true;
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Answers every request of a group, in order.
    fn finish(&self, group: Group, outcome: &Result<(), StorageError>) {
        if let Err(error) = outcome {
            self.fail(error.clone());
        }
        self.queue().bytes -= group.queue_bytes;
        self.freed.notify_waiters();
        for done in group.done {
            self.answer(done, outcome.clone());
        }
    }

    /// A panic in a completion is a bug that leaves its group waiting for ever: it stops the
    /// writer, loudly, but not before the others have their answers.
    fn answer(&self, done: WriteDone, outcome: Result<(), StorageError>) {
        if catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            self.fail(StorageError::Stopped {
                reason: "a completion panicked, which is a bug".to_owned(),
            });
        }
    }
}

#[cfg(quipu_zoo)]
impl Shared {
    /// [`Bug::AckBeforeSync`]: what is to be synced is written and answered, and synced only then.
    fn acknowledge_before_sync(
        &self,
        engine: &dyn Engine,
        batch: WriteBatch,
        group: &mut Group,
    ) -> WriteBatch {
        if !group.sync || !zoo::is(Bug::AckBeforeSync) {
            return batch;
        }
        let written = checked_write(engine, batch, Durability::Buffered);
        for done in std::mem::take(&mut group.done) {
            self.answer(done, written.clone());
        }
        WriteBatch::new()
    }

    /// [`Bug::SyncCoversLater`]: what arrived during a sync is answered with it.
    fn join_later(&self, engine: &dyn Engine, group: &mut Group) {
        let mut queue = self.queue();
        if !zoo::is(Bug::SyncCoversLater) || queue.requests.is_empty() {
            return;
        }
        let mut later = queue.take_group();
        drop(queue);
        if checked_write(engine, later.batch, Durability::Buffered).is_ok() {
            group.queue_bytes += later.queue_bytes;
            group.done.append(&mut later.done);
        }
    }
}

impl Queue {
    fn take_group(&mut self) -> Group {
        let mut group = Group::default();
        while let Some(request) = self.requests.front() {
            let bytes = group.batch.bytes() + request.batch.bytes();
            let full =
                bytes > GROUP_COMMIT_BYTES_MAX || group.done.len() >= GROUP_COMMIT_REQUESTS_MAX;
            if full && !group.done.is_empty() {
                break;
            }
            let request = self.requests.pop_front().expect("looked at above");
            group.queue_bytes += request.queue_bytes();
            group.sync |= request.sync;
            group.done.push(request.done);
            group.batch.append(request.batch);
        }
        group
    }
}

/// Marks the end of the loop, also when its task is dropped in the middle of a write.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let unanswered = {
            let mut queue = self.0.queue();
            queue.ended = true;
            std::mem::take(&mut queue.requests)
        };
        // Outside the lock: dropping a completion may run code that submits again. They are not
        // called: a task that is dropped is a host that lost its power, and hears nothing.
        drop(unanswered);
        self.0.freed.notify_waiters();
        self.0.ended.send_replace(true);
    }
}

async fn run(engine: Arc<dyn Engine>, shared: Arc<Shared>, mut delay: Option<SyncDelay>) {
    // In this order, so that the engine is let go of BEFORE the end is announced.
    let end = EndOnDrop(shared);
    let engine = engine;
    let shared = &end.0;
    while let Some(mut group) = shared.next_group().await {
        let batch = std::mem::take(&mut group.batch);
        #[cfg(quipu_zoo)]
        let batch = shared.acknowledge_before_sync(&*engine, batch, &mut group);
        let bytes = batch.bytes();
        let started = Instant::now();
        let outcome = if shared.failure().is_some() {
            Err(shared.stopped())
        } else {
            write(&*engine, batch, group.sync, delay.as_mut()).await
        };
        #[cfg(quipu_zoo)]
        shared.join_later(&*engine, &mut group);
        if outcome.is_ok() {
            let sync = group.sync.then(|| started.elapsed());
            shared.counters.wrote(group.done.len(), bytes, sync);
        }
        shared.finish(group, &outcome);
    }
}

async fn write(
    engine: &dyn Engine,
    batch: WriteBatch,
    sync: bool,
    delay: Option<&mut SyncDelay>,
) -> Result<(), StorageError> {
    match (sync, delay) {
        (false, _) => checked_write(engine, batch, Durability::Buffered)?,
        (true, None) => checked_write(engine, batch, Durability::Synced)?,
        (true, Some(SyncDelay(draw))) => {
            checked_write(engine, batch, Durability::Buffered)?;
            match draw() {
                Duration::ZERO => tokio::task::yield_now().await,
                delay => tokio::time::sleep(delay).await,
            }
            checked_write(engine, WriteBatch::new(), Durability::Synced)?;
        }
    }
    Ok(())
}

/// A panic of the engine becomes an error, so that it stops the process in the ordinary way
/// instead of killing the thread that everybody waits for.
fn checked_write(
    engine: &dyn Engine,
    batch: WriteBatch,
    durability: Durability,
) -> Result<(), StorageError> {
    catch_unwind(AssertUnwindSafe(|| engine.write(batch, durability))).unwrap_or_else(|_| {
        Err(StorageError::Io { what: "the engine panicked during a write, a bug".to_owned() })
    })
}
