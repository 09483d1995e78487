//! Quipu's client library: append, read, consume, administer.
//!
//! A [`Client`] is connected to a cluster through any of its nodes, finds the leaders and follows
//! them. What it promises, retries and means by its errors is docs/client.md.
//!
//! # Many records
//!
//! A [`Producer`] batches records, keeps their order in each partition, and writes each once:
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
//!
//! # One record, on a condition
//!
//! [`Client::append`] appends only if nobody has appended since the log was read:
//!
//! ```no_run
//! # use quipu_client::{AppendError, AppendOptions, AppendRecord, Client, FetchOptions};
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let seen = client.fetch("account", 0, 0, FetchOptions::default()).await?;
//! let condition =
//!     AppendOptions { expect_end_offset: Some(seen.high_watermark), ..Default::default() };
//! match client.append("account", 0, vec![AppendRecord::new("-30")], condition).await {
//!     Ok(appended) => println!("at {:?}", appended.base_offset),
//!     Err(AppendError::EndOffsetConflict { end_offset, .. }) => println!("now {end_offset}"),
//!     Err(error) => println!("{error}; its outcome is {}", error.outcome()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Reading on and on
//!
//! A [`Consumer`] reads many partitions ahead of the application and survives failovers without
//! leaving out or repeating a record; [`Groups`] remember how far an application has come. A
//! [`GroupConsumer`] shares topics with the other members of a group.
//!
//! # Errors
//!
//! Each error says what happened ([`Code`]), whether it may have happened all the same
//! ([`Outcome`]), and whether the same call may succeed later:
//!
//! ```
//! use quipu_client::{Code, Outcome, ProduceError};
//!
//! let error = ProduceError::Closed { outcome: Outcome::Definite };
//! assert_eq!(error.code(), Code::Closed);
//! assert_eq!(error.code().name(), "CLOSED");
//! assert_eq!(error.outcome(), Outcome::Definite);
//! assert!(!error.retriable());
//! ```
//!
//! # Inside
//!
//! What decides is pure and tested without a server: `routing`, `retry`, `producer/batcher`,
//! `producer/queue`, `consumer/position`, `group/membership`. What runs (`calls`,
//! `producer/sender`, `consumer/fetcher`, `group/heart`) only sequences, on tokio's clock, so that
//! a simulation can replay it.

mod admin;
mod append;
mod calls;
mod client;
mod config;
mod connections;
mod consumer;
mod discovery;
mod error;
mod group;
mod group_description;
mod groups;
mod producer;
mod read;
mod record;
mod retry;
mod routing;
mod status;

pub use admin::{
    Admin, Cluster, Features, Finding, Health, LeaderMove, LedGroup, NewTopic, Node, NodeLevels,
    NodeReport, NodeStatus, Partition, PlannedChange, RebalancePlan, Removal, Replica, ReplicaMove,
    ReplicaRole, Severity, Standing, Topic, TopicSummary, VoterLag,
};
pub use append::{AppendOptions, Appended};
pub use client::Client;
pub use config::{Backoff, ClientConfig, Clock, Connector, Socket};
pub use consumer::{Consumer, ConsumerConfig, OutOfRange, StartAt};
pub use error::{
    AdminError, AppendError, CallError, Code, ConnectError, ConsumeError, ErrorCode, GroupError,
    Outcome, ProduceError, ReadError,
};
pub use group::{
    CommitMode, GroupConfig, GroupConsumeError, GroupConsumer, Listener, PartitionEvent,
    ProcessError, ResetPolicy,
};
pub use group_description::{GroupDescription, GroupMember, PartitionLag};
pub use groups::{GroupOffset, Groups, GroupsPage};
pub use producer::{Delivery, Producer, ProducerConfig, RecordMetadata};
pub use quipu_batch::{Compression, Header, ProducerIdentity};
pub use read::{FetchOptions, Fetched, Offsets, Position, ReadLevel};
pub use record::{AppendRecord, ConsumedRecord, ProduceRecord, TopicPartition};
