//! Quipu's client library: append, read, consume, administer.
//!
//! ```no_run
//! use quipu_client::{Client, ClientConfig, ProduceRecord, ProducerConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::new(["localhost:9400"])).await?;
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send(ProduceRecord::keyed("orders", "order-7", "placed")).await;
//! println!("appended at {:?}", delivery.await?.offset);
//! # Ok(())
//! # }
//! ```

mod admin;
mod append;
mod calls;
mod client;
mod config;
mod connections;
mod consumer;
mod discovery;
mod error;
mod groups;
mod producer;
mod read;
mod record;
mod retry;
mod routing;
mod status;

pub use admin::{
    Admin, Cluster, Health, NewTopic, Node, Partition, Replica, ReplicaRole, Topic, TopicSummary,
};
pub use append::{AppendOptions, Appended};
pub use client::Client;
pub use config::{Backoff, ClientConfig, Clock, Connector, Socket};
pub use consumer::{Consumer, ConsumerConfig, OutOfRange, StartAt};
pub use error::{
    AdminError, AppendError, CallError, Code, ConnectError, ConsumeError, ErrorCode, GroupError,
    Outcome, ProduceError, ReadError,
};
pub use groups::{GroupDescription, GroupOffset, Groups, PartitionLag};
pub use producer::{Delivery, Producer, ProducerConfig, RecordMetadata};
pub use quipu_batch::{Compression, Header, ProducerIdentity};
pub use read::{FetchOptions, Fetched, Offsets, Position, ReadLevel};
pub use record::{AppendRecord, ConsumedRecord, ProduceRecord, TopicPartition};
