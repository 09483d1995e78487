//! The consumer: the records of many partitions, each in order, none left out, none repeated.
//!
//! One fetcher for each partition reads ahead ([`fetcher`]); what it has read waits in its slot
//! until the application takes it ([`slot`]). That nothing is left out is decided in one pure
//! place ([`position`]).

mod config;
mod fetcher;
mod position;
mod slot;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Notify;

use crate::client::Client;
use crate::error::{ConnectError, ConsumeError, ReadError};
use crate::read::Position;
use crate::record::{ConsumedRecord, TopicPartition};
use fetcher::Fetcher;
use position::{Chunk, Given};
use slot::{Assigned, Share, Slot};

pub use config::{ConsumerConfig, OutOfRange, StartAt};

/// Starts looked up at once by [`Consumer::assign`].
const LOOKUPS_AT_ONCE: usize = 16;

/// Reads partitions from a position on, ahead of the application within bounds.
///
/// Partitions take turns: what one fetch of a partition brought is given out together.
///
/// ```no_run
/// # use quipu_client::{Client, ConsumerConfig, GroupOffset, StartAt};
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = client.consumer(ConsumerConfig::default())?;
/// consumer.assign(vec![("orders".to_owned(), 0, StartAt::Earliest)]).await?;
/// while let Some(record) = consumer.next().await {
///     let record = record?;
///     println!("{}: {:?}", record.offset, record.value);
///     let next = GroupOffset::new("orders", 0, record.offset + 1);
///     client.groups().commit("billing", vec![next]).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    /// In order.
    assigned: Vec<Assigned>,
    share: Arc<Share>,
    /// Something was put into a slot.
    news: Arc<Notify>,
    /// What is being given out, and of which slot.
    front: Option<(Arc<Slot>, Chunk)>,
    /// Whose turn it is.
    turn: usize,
}

impl Consumer {
    pub(crate) fn start(client: Client, config: ConsumerConfig) -> Result<Consumer, ConnectError> {
        config.validate()?;
        Ok(Consumer {
            client,
            config,
            assigned: Vec::new(),
            share: Arc::default(),
            news: Arc::default(),
            front: None,
            turn: 0,
        })
    }

    /// Replaces the assignment. Each start is looked up before this returns, so that records
    /// appended later are behind [`StartAt::Latest`]. Partitions that stay assigned begin again
    /// at their new start. Of a partition named twice the last start counts.
    ///
    /// # Errors
    /// The first partition whose start cannot be looked up; the assignment is then empty.
    pub async fn assign(
        &mut self,
        partitions: Vec<(String, u32, StartAt)>,
    ) -> Result<(), ConsumeError> {
        self.unassign();
        self.add(partitions).await
    }

    /// Also reads these partitions; what was assigned before goes on undisturbed, and keeps what
    /// was read ahead. One that is assigned already stays as it is; of one named twice the last
    /// start counts.
    ///
    /// # Errors
    /// The first partition whose start cannot be looked up; then none is added.
    pub async fn add(
        &mut self,
        partitions: Vec<(String, u32, StartAt)>,
    ) -> Result<(), ConsumeError> {
        let wanted: BTreeMap<TopicPartition, StartAt> = partitions
            .into_iter()
            .map(|(topic, partition, start)| (TopicPartition { topic, partition }, start))
            .filter(|(place, _)| self.index(&place.topic, place.partition).is_err())
            .collect();
        let found = find_all(&self.client, wanted).await?;
        self.add_found(found);
        Ok(())
    }

    /// Also reads these partitions, which are not assigned, from these offsets on.
    pub(crate) fn add_found(&mut self, found: Vec<(TopicPartition, u64)>) {
        self.share_among(self.assigned.len() + found.len());
        let begun: Vec<Assigned> =
            found.into_iter().map(|(place, offset)| self.begin(place, offset)).collect();
        self.assigned.extend(begun);
        self.assigned.sort_by(|a, b| a.place.cmp(&b.place));
    }

    /// Stops reading these partitions; the others go on undisturbed.
    pub fn remove(&mut self, partitions: &[TopicPartition]) {
        if let Some((slot, _)) = &self.front
            && let Some(place) = self.assigned.iter().find(|it| Arc::ptr_eq(&it.slot, slot))
            && partitions.contains(&place.place)
        {
            self.front = None;
        }
        self.assigned.retain(|it| !partitions.contains(&it.place));
        self.turn = 0;
        self.share_among(self.assigned.len());
    }

    fn share_among(&self, count: usize) {
        self.share.among(count, self.config.prefetch_bytes, self.config.fetch_bytes);
        for assigned in &self.assigned {
            assigned.slot.look_again();
        }
    }

    fn begin(&self, place: TopicPartition, offset: u64) -> Assigned {
        let slot = Slot::new(offset, Arc::clone(&self.news), Arc::clone(&self.share));
        let slot = Arc::new(slot);
        let fetcher = Fetcher {
            client: self.client.clone(),
            config: self.config.clone(),
            topic: place.topic.clone(),
            partition: place.partition,
            slot: Arc::clone(&slot),
            share: Arc::clone(&self.share),
        };
        let fetcher = tokio::spawn(fetcher.run()).abort_handle();
        Assigned { place, slot, fetcher }
    }

    /// Stops reading; nothing is assigned any more.
    pub fn unassign(&mut self) {
        self.assigned.clear();
        self.front = None;
        self.turn = 0;
    }

    /// The next record of any partition, as soon as there is one. `None`: there is nothing to wait
    /// for, because no partition is assigned that is neither paused nor stopped.
    ///
    /// Dropping the future loses no record.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        loop {
            if let Some((_, chunk)) = &mut self.front {
                match chunk.records.next() {
                    Some(record) => return Some(Ok(record)),
                    None => self.front = None,
                }
            }
            if let Err(error) = self.fill_front().await? {
                return Some(Err(error));
            }
        }
    }

    /// The next records of one partition, at least one, as many as were fetched together. As
    /// [`Consumer::next`] otherwise.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<ConsumedRecord>, ConsumeError>> {
        loop {
            if let Some((_, chunk)) = self.front.take() {
                let records: Vec<ConsumedRecord> = chunk.records.collect();
                if !records.is_empty() {
                    return Some(Ok(records));
                }
            }
            if let Err(error) = self.fill_front().await? {
                return Some(Err(error));
            }
        }
    }

    /// Waits for a chunk and puts it in front, or gives an error.
    async fn fill_front(&mut self) -> Option<Result<(), ConsumeError>> {
        loop {
            let count = self.assigned.len();
            let from = self.turn;
            let taken = (from..from + count).find_map(|at| {
                let at = at % count;
                Some((at, self.assigned[at].slot.take()?))
            });
            if let Some((at, given)) = taken {
                self.turn = (at + 1) % count;
                let Assigned { place, slot, .. } = &self.assigned[at];
                match given {
                    Given::Records(chunk) => {
                        self.front = Some((Arc::clone(slot), chunk));
                        return Some(Ok(()));
                    }
                    Given::Error { error, stopped } => {
                        return Some(Err(read_error(place, error, stopped)));
                    }
                }
            }
            if !self.assigned.iter().any(|it| it.slot.place().is_awaited()) {
                return None;
            }
            self.news.notified().await;
        }
    }

    /// Goes on elsewhere in a partition. What had been fetched of it is dropped; a partition that
    /// had stopped goes on.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`], or what prevents looking up the place; then nothing changes.
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: u32,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        let Assigned { place, slot, .. } = &self.assigned[self.index(topic, partition)?];
        let found = find(&self.client, place, to).await;
        let offset = found.map_err(|source| read_error(place, source, false))?;
        self.front.take_if(|(of, _)| Arc::ptr_eq(of, slot));
        slot.jump(offset);
        Ok(())
    }

    /// Gives out nothing of the partition until [`Consumer::resume`]. What was fetched is kept.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let slot = Arc::clone(self.slot(topic, partition)?);
        let front = self.front.take_if(|(of, _)| Arc::ptr_eq(of, &slot));
        let mut place = slot.place();
        if let Some((_, chunk)) = front {
            place.put_back(chunk);
        }
        place.set_paused(true);
        Ok(())
    }

    /// Undoes [`Consumer::pause`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        self.slot(topic, partition)?.place().set_paused(false);
        Ok(())
    }

    /// What is assigned, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.assigned.iter().map(|it| it.place.clone()).collect()
    }

    /// The offset after the last record given out: what a group commits. `None`: not assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        let slot = self.slot(topic, partition).ok()?;
        let front = self.front.as_ref().filter(|(of, _)| Arc::ptr_eq(of, slot));
        let next = front.and_then(|(_, chunk)| chunk.records.as_slice().first());
        Some(next.map_or_else(|| slot.place().offset(), |record| record.offset))
    }

    /// End (exclusive) of the partition as the last fetch saw it. `None`: not fetched yet.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<u64> {
        self.slot(topic, partition).ok()?.place().high_watermark()
    }

    fn slot(&self, topic: &str, partition: u32) -> Result<&Arc<Slot>, ConsumeError> {
        Ok(&self.assigned[self.index(topic, partition)?].slot)
    }

    fn index(&self, topic: &str, partition: u32) -> Result<usize, ConsumeError> {
        let found = self.assigned.binary_search_by(|of| {
            (of.place.topic.as_str(), of.place.partition).cmp(&(topic, partition))
        });
        found.map_err(|_| ConsumeError::NotAssigned { topic: topic.to_owned(), partition })
    }
}

/// The offsets that these starts stand for, in their order; an error if one can't be looked up.
pub(crate) async fn find_all(
    client: &Client,
    wanted: impl IntoIterator<Item = (TopicPartition, StartAt)>,
) -> Result<Vec<(TopicPartition, u64)>, ConsumeError> {
    let lookups = wanted.into_iter().map(|(place, start)| async move {
        match find(client, &place, start).await {
            Ok(offset) => Ok((place, offset)),
            Err(source) => Err(read_error(&place, source, true)),
        }
    });
    futures::stream::iter(lookups).buffered(LOOKUPS_AT_ONCE).try_collect().await
}

/// The offset that a start stands for.
async fn find(client: &Client, place: &TopicPartition, at: StartAt) -> Result<u64, ReadError> {
    let position = match at {
        StartAt::Offset(offset) => return Ok(offset),
        StartAt::Earliest => Position::Earliest,
        StartAt::Latest | StartAt::Tail(_) => Position::Latest,
        StartAt::EntryTime(ms) => Position::EntryTime(ms),
        StartAt::EventTime(ms) => Position::EventTime(ms),
    };
    let found = client.list_offsets(&place.topic, place.partition, position).await?;
    Ok(match at {
        StartAt::Tail(count) => found.offset.saturating_sub(count).max(found.log_start_offset),
        _ => found.offset,
    })
}

fn read_error(place: &TopicPartition, source: ReadError, stopped: bool) -> ConsumeError {
    let TopicPartition { topic, partition } = place.clone();
    ConsumeError::Read { topic, partition, stopped, source }
}
