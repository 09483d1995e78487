//! Records as an application writes and reads them.
//!
//! Three types, because a record to send has no offset yet and may leave partition and time to
//! the library, while a record that was read has all of them.

use bytes::Bytes;
use quipu_batch::Header;

/// A record of a one-shot append; topic and partition are named by the call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppendRecord {
    /// What orders this record among others.
    pub key: Option<Bytes>,
    /// The payload. `None` says that the key has no value any more.
    pub value: Option<Bytes>,
    /// In this order; names may repeat.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970. `None`: the time of the append by this client's clock.
    pub timestamp_ms: Option<i64>,
}

/// A record for a [`Producer`](crate::Producer).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceRecord {
    /// Where it goes.
    pub topic: String,
    /// `None`: chosen by the key, or, without a key, one that fills a batch.
    pub partition: Option<u32>,
    /// What orders this record among others. An empty key is a key.
    pub key: Option<Bytes>,
    /// The payload. `None` says that the key has no value any more.
    pub value: Option<Bytes>,
    /// In this order; names may repeat.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970. `None`: the time of the send by this client's clock.
    pub timestamp_ms: Option<i64>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since 1970, as the producer said.
    pub timestamp_ms: i64,
    /// What orders this record among others.
    pub key: Option<Bytes>,
    /// The payload. `None` says that the key has no value any more.
    pub value: Option<Bytes>,
    /// In the producer's order; names may repeat.
    pub headers: Vec<Header>,
    /// Raft term under which its batch was appended.
    pub leader_epoch: u64,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition, from 0.
    pub partition: u32,
}

impl AppendRecord {
    /// A record with a value and nothing else.
    pub fn new(value: impl Into<Bytes>) -> AppendRecord {
        AppendRecord { value: Some(value.into()), ..AppendRecord::default() }
    }
}

impl ProduceRecord {
    /// A record with a value and nothing else.
    pub fn new(topic: impl Into<String>, value: impl Into<Bytes>) -> ProduceRecord {
        ProduceRecord { topic: topic.into(), value: Some(value.into()), ..ProduceRecord::default() }
    }

    /// A record whose key chooses its partition.
    pub fn keyed(
        topic: impl Into<String>,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> ProduceRecord {
        ProduceRecord { key: Some(key.into()), ..ProduceRecord::new(topic, value) }
    }
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<String>, partition: u32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}
