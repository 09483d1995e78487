//! The consumer: the records of many partitions, each in order, none left out, none repeated.

mod config;

use crate::client::Client;
use crate::error::{ConnectError, ConsumeError};
use crate::record::ConsumedRecord;

pub use config::{ConsumerConfig, OutOfRange, StartAt};

/// Reads partitions from a position on, ahead of the application within bounds.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
}

impl Consumer {
    pub(crate) fn start(client: Client, config: ConsumerConfig) -> Result<Consumer, ConnectError> {
        config.validate()?;
        Ok(Consumer { client, config })
    }

    /// Replaces the assignment. Each start is looked up before this returns, so that records
    /// appended later are behind [`StartAt::Latest`]. Partitions that stay assigned begin again
    /// at their new start.
    ///
    /// # Errors
    /// The first partition whose start cannot be looked up; the assignment is then empty.
    pub async fn assign(
        &mut self,
        partitions: Vec<(String, u32, StartAt)>,
    ) -> Result<(), ConsumeError> {
        for (topic, partition, _) in &partitions {
            self.known(topic, *partition)?;
        }
        Ok(())
    }

    /// The next record of any partition, as soon as there is one. `None`: there is nothing to wait
    /// for, because nothing is assigned or every partition has stopped after an error.
    ///
    /// Dropping the future loses no record.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ConsumeError>> {
        None
    }

    /// The next records of one partition, at least one, as many as were fetched together.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<ConsumedRecord>, ConsumeError>> {
        None
    }

    /// Goes on elsewhere in a partition. What had been fetched of it is dropped; a partition that
    /// had stopped goes on.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`], or what prevents looking up the place.
    pub async fn seek(
        &mut self,
        topic: &str,
        partition: u32,
        to: StartAt,
    ) -> Result<(), ConsumeError> {
        let _ = to;
        self.known(topic, partition)
    }

    /// Gives out nothing of the partition until [`Consumer::resume`]. It keeps what was fetched.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        self.known(topic, partition)
    }

    /// Undoes [`Consumer::pause`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        self.known(topic, partition)
    }

    /// The offset after the last record given out: what a group commits. `None`: not assigned.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.known(topic, partition).ok().map(|()| 0)
    }

    /// End (exclusive) of the partition as the last fetch saw it. `None`: not fetched yet.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<u64> {
        self.position(topic, partition)
    }

    fn known(&self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let _ = (&self.client, &self.config);
        Err(ConsumeError::NotAssigned { topic: topic.to_owned(), partition })
    }
}
