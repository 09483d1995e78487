//! Handling records of several partitions side by side, those of each one after the other.
//!
//! A partition with records at work is paused, so what is read ahead of a slow handler is bounded.
//! What is done is known record by record: a partition that goes to another member ends behind the
//! record at work, which is waited for, and not behind all that was read with it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::sleep_until;

use super::{GroupConsumeError, GroupConsumer, next_batch};
use crate::consumer::StartAt;
use crate::record::{ConsumedRecord, TopicPartition};

/// Why [`GroupConsumer::process`] ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProcessError<E> {
    /// The handler failed. This record and those after it are not committed.
    #[error("topic {topic}, partition {partition}, offset {offset}: {error}")]
    Handler {
        /// The record's topic.
        topic: String,
        /// The record's partition.
        partition: u32,
        /// The record.
        offset: u64,
        /// What the handler said.
        error: E,
    },
    /// The group's coordinator or a partition refused.
    #[error(transparent)]
    Consume(#[from] GroupConsumeError),
}

/// Records of one partition at work.
#[derive(Debug)]
pub(super) struct Work {
    /// The next record to handle.
    done: AtomicU64,
    /// End after the record at work.
    halted: AtomicBool,
}

impl Work {
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }
}

/// What is at work, by partition.
pub(super) type AtWork = BTreeMap<TopicPartition, Arc<Work>>;

/// A partition whose records were handled, and perhaps why they were not.
struct Ended<E> {
    place: TopicPartition,
    failed: Option<(u64, E)>,
}

impl GroupConsumer {
    /// Calls `handle` for each record: at most `at_once` partitions side by side, the records of
    /// each one after the other. What is handled is committed as the
    /// [mode](crate::CommitMode) says; nothing is with `Manual`. Ends when `stop` does, behind the
    /// records at work.
    ///
    /// Handlers are polled by this call. One that computes for long should do so in a task of its
    /// own, or the others wait. If the session ends all the same, handlers are dropped where they
    /// wait: others are at work on their records.
    ///
    /// # Errors
    /// The first error of a handler, after the others have ended, or an error that is not
    /// [retriable](GroupConsumeError::retriable).
    pub async fn process<H, W, E>(
        &mut self,
        at_once: usize,
        stop: impl Future<Output = ()>,
        handle: H,
    ) -> Result<(), ProcessError<E>>
    where
        H: Fn(ConsumedRecord) -> W,
        W: Future<Output = Result<(), E>>,
    {
        let mut stop = pin!(stop);
        let mut working = FuturesUnordered::new();
        let mut failure = None;
        let mut is_stopping = false;
        loop {
            if is_stopping && working.is_empty() {
                break;
            }
            if self.is_another_membership() {
                working = FuturesUnordered::new();
                self.at_work.clear();
            }
            if !is_stopping && let Err(error) = self.keep_up_at_work() {
                if !error.retriable() {
                    failure = Some(ProcessError::Consume(error));
                    is_stopping = true;
                    self.halt_all();
                    continue;
                }
                tracing::debug!(%error, "consuming goes on");
            }
            let takes = !is_stopping && working.len() < at_once.max(1);
            tokio::select! {
                biased;
                () = &mut stop, if !is_stopping => {
                    is_stopping = true;
                    self.halt_all();
                }
                Some(ended) = working.next(), if !working.is_empty() => {
                    let error = self.has_ended(ended).await;
                    if let Some(error) = error {
                        is_stopping = true;
                        self.halt_all();
                        failure.get_or_insert(error);
                    }
                }
                () = self.heart.news.notified() => {}
                () = sleep_until(self.commit_at), if !is_stopping => {}
                () = self.errands.ended(), if !is_stopping => {}
                batch = next_batch(&mut self.consumer), if takes => match batch {
                    Ok(records) => {
                        if let Some((place, work)) = self.set_to_work(&records) {
                            working.push(handle_all(place, records, work, &handle));
                        }
                    }
                    Err(error) if error.retriable() => tracing::debug!(%error, "read on"),
                    Err(error) => {
                        failure = Some(ProcessError::Consume(error.into()));
                        is_stopping = true;
                        self.halt_all();
                    }
                }
            }
        }
        drop(working);
        if self.commits_itself() {
            let committed = self.commit().await;
            if failure.is_none()
                && let Err(error) = committed
            {
                return Err(ProcessError::Consume(error));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Follows the assignment as far as nothing is at work on what goes, and commits what is due.
    fn keep_up_at_work(&mut self) -> Result<(), GroupConsumeError> {
        let going = self.revoked();
        let mut is_free = true;
        for work in going.iter().filter_map(|place| self.at_work.get(place)) {
            work.halted.store(true, Ordering::Release);
            is_free = false;
        }
        if is_free || self.heart.ended().is_some() {
            return self.keep_up();
        }
        self.take_errands_in()?;
        self.commit_what_is_due();
        Ok(())
    }

    fn halt_all(&self) {
        for work in self.at_work.values() {
            work.halted.store(true, Ordering::Release);
        }
    }

    fn set_to_work(&mut self, records: &[ConsumedRecord]) -> Option<(TopicPartition, Arc<Work>)> {
        let first = records.first()?;
        let place = TopicPartition { topic: first.topic.clone(), partition: first.partition };
        // It is assigned, or it would not have been given.
        self.consumer.pause(&place.topic, place.partition).ok()?;
        let work = Work { done: AtomicU64::new(first.offset), halted: AtomicBool::new(false) };
        let work = Arc::new(work);
        self.at_work.insert(place.clone(), Arc::clone(&work));
        Some((place, work))
    }

    async fn has_ended<E>(&mut self, ended: Ended<E>) -> Option<ProcessError<E>> {
        let Ended { place, failed } = ended;
        let work = self.at_work.remove(&place)?;
        self.commits.done(&place, work.done());
        let TopicPartition { topic, partition } = place;
        if self.consumer.position(&topic, partition).is_some_and(|at| at != work.done()) {
            // The rest is given again, to this member or to the next owner. An offset needs no
            // look-up, so this can't fail.
            let again = StartAt::Offset(work.done());
            if let Err(error) = self.consumer.seek(&topic, partition, again).await {
                tracing::debug!(%error, "it is not read any more");
            }
        }
        if !self.is_paused(&topic, partition)
            && let Err(error) = self.consumer.resume(&topic, partition)
        {
            tracing::debug!(%error, "it is not read any more");
        }
        let (offset, error) = failed?;
        Some(ProcessError::Handler { topic, partition, offset, error })
    }
}

async fn handle_all<H, W, E>(
    place: TopicPartition,
    records: Vec<ConsumedRecord>,
    work: Arc<Work>,
    handle: &H,
) -> Ended<E>
where
    H: Fn(ConsumedRecord) -> W,
    W: Future<Output = Result<(), E>>,
{
    for record in records {
        if work.halted.load(Ordering::Acquire) {
            break;
        }
        let offset = record.offset;
        if let Err(error) = handle(record).await {
            return Ended { place, failed: Some((offset, error)) };
        }
        work.done.store(offset + 1, Ordering::Release);
    }
    Ended { place, failed: None }
}
