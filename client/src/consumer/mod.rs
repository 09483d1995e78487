//! The consumer: the records of many partitions, each in order, none left out, none repeated.
//!
//! One fetcher for each partition reads ahead ([`fetcher`]); what it has read waits on a shelf
//! until the application takes it ([`shelf`]). That nothing is left out is decided in one pure
//! place ([`position`]).

mod config;
mod fetcher;
mod position;
mod shelf;

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::{ConnectError, ConsumeError, ReadError};
use crate::read::{FetchOptions, Position};
use crate::record::{ConsumedRecord, TopicPartition};
use fetcher::Fetcher;
use position::{Chunk, Given};
use shelf::Shelf;

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
    /// By slot, in order.
    assigned: Vec<TopicPartition>,
    shelf: Arc<Shelf>,
    fetchers: JoinSet<()>,
    /// What is being given out, and of which slot.
    front: Option<(usize, Chunk)>,
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
            shelf: Arc::new(Shelf::new([], 0, 0)),
            fetchers: JoinSet::new(),
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
        let wanted: std::collections::BTreeMap<TopicPartition, StartAt> = partitions
            .into_iter()
            .map(|(topic, partition, start)| (TopicPartition { topic, partition }, start))
            .collect();
        let client = &self.client;
        let lookups = wanted.into_iter().map(|(place, start)| async move {
            match find(client, &place, start).await {
                Ok(offset) => Ok((place, offset)),
                Err(source) => Err(read_error(&place, source, true)),
            }
        });
        let mut lookups = futures::stream::iter(lookups).buffered(LOOKUPS_AT_ONCE);
        let mut found = Vec::new();
        while let Some(place) = lookups.next().await {
            found.push(place?);
        }
        drop(lookups);
        self.begin(found);
        Ok(())
    }

    fn begin(&mut self, places: Vec<(TopicPartition, u64)>) {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX).max(1);
        let share = (self.config.prefetch_bytes / count).max(1);
        // Half a share, so that one fetch is on its way while the other is given out.
        let max_bytes = self.config.fetch_bytes.min((share / 2).max(1));
        let to_usize = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let offsets = places.iter().map(|(_, offset)| *offset);
        self.shelf = Arc::new(Shelf::new(offsets, to_usize(max_bytes), to_usize(share)));
        for (slot, (place, _)) in places.iter().enumerate() {
            let fetcher = Fetcher {
                client: self.client.clone(),
                config: self.config.clone(),
                options: FetchOptions {
                    level: self.config.level,
                    max_bytes,
                    min_bytes: 1,
                    max_wait: self.config.max_wait,
                    node: self.config.node,
                },
                topic: place.topic.clone(),
                partition: place.partition,
                shelf: Arc::clone(&self.shelf),
                slot,
            };
            self.fetchers.spawn(fetcher.run());
        }
        self.assigned = places.into_iter().map(|(place, _)| place).collect();
    }

    /// Stops reading; nothing is assigned any more.
    pub fn unassign(&mut self) {
        self.fetchers.abort_all();
        self.fetchers = JoinSet::new();
        self.assigned.clear();
        self.shelf = Arc::new(Shelf::new([], 0, 0));
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
            if let Some((slot, given)) = self.shelf.take(self.turn) {
                self.turn = (slot + 1) % self.assigned.len();
                match given {
                    Given::Records(chunk) => {
                        self.front = Some((slot, chunk));
                        return Some(Ok(()));
                    }
                    Given::Error { error, stopped } => {
                        return Some(Err(read_error(&self.assigned[slot], error, stopped)));
                    }
                }
            }
            if !self.shelf.is_awaited() {
                return None;
            }
            self.shelf.news.notified().await;
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
        let slot = self.slot(topic, partition)?;
        let place = &self.assigned[slot];
        let found = find(&self.client, place, to).await;
        let offset = found.map_err(|source| read_error(place, source, false))?;
        self.front.take_if(|(of, _)| *of == slot);
        self.shelf.jump(slot, offset);
        Ok(())
    }

    /// Gives out nothing of the partition until [`Consumer::resume`]. What was fetched is kept.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let slot = self.slot(topic, partition)?;
        let front = self.front.take_if(|(of, _)| *of == slot);
        let mut places = self.shelf.places();
        if let Some((_, chunk)) = front {
            places[slot].put_back(chunk);
        }
        places[slot].set_paused(true);
        Ok(())
    }

    /// Undoes [`Consumer::pause`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let slot = self.slot(topic, partition)?;
        self.shelf.places()[slot].set_paused(false);
        Ok(())
    }

    /// What is assigned, in order.
    #[must_use]
    pub fn assignment(&self) -> &[TopicPartition] {
        &self.assigned
    }

    /// The offset after the last record given out: what a group commits. `None`: not assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        let slot = self.slot(topic, partition).ok()?;
        let front = self.front.as_ref().filter(|(of, _)| *of == slot);
        let next = front.and_then(|(_, chunk)| chunk.records.as_slice().first());
        Some(next.map_or_else(|| self.shelf.places()[slot].offset(), |record| record.offset))
    }

    /// End (exclusive) of the partition as the last fetch saw it. `None`: not fetched yet.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<u64> {
        let slot = self.slot(topic, partition).ok()?;
        self.shelf.places()[slot].high_watermark()
    }

    fn slot(&self, topic: &str, partition: u32) -> Result<usize, ConsumeError> {
        let found = self
            .assigned
            .binary_search_by(|of| (of.topic.as_str(), of.partition).cmp(&(topic, partition)));
        found.map_err(|_| ConsumeError::NotAssigned { topic: topic.to_owned(), partition })
    }
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
