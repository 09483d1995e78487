//! One partition's replica on this node: appending where it leads, reading anywhere.
//!
//! - `append`: the leader's way: many waiting appends become one Raft entry.
//! - `fetch`: reading at a level, and waiting for more.
//! - `read`, `index`: offset → entry → batches.
//! - `machine`: what applying an entry changes, in memory and in the store.
//! - `retention`: the leader's proposals to let old records go.

mod append;
mod barrier;
mod fetch;
mod index;
mod machine;
mod read;
mod retention;

use std::sync::Arc;

use node_core::ids::{GroupId, ReplicaId, TopicName};
use node_core::time::EntryTime;
use node_core::topic_config::TopicConfig;
use tokio::sync::{Semaphore, watch};

pub(crate) use append::{AppendFailure, Appended, Appender, NewAppend};
pub(crate) use barrier::{Level, ReadFailure};
pub(crate) use fetch::{FetchQuery, Fetched, OffsetPosition, OffsetsFound};
pub(crate) use machine::{CommandOutcome, PartitionMachine, PartitionShared, PartitionView};
pub(crate) use read::BatchReader;

use crate::env::Clock;
use crate::linearize::Linearizer;
use crate::liveness::Pulse;
use crate::metrics::Metrics;
use crate::raft::RaftGroup;

/// What all partitions of a node use.
pub(crate) struct PartitionContext {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) linearizer: Linearizer,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes of appends that may wait on this node, one permit each.
    pub(crate) append_bytes: Arc<Semaphore>,
}

/// One partition's replica.
pub(crate) struct Partition {
    pub(crate) topic: TopicName,
    context: Arc<PartitionContext>,
    raft: Arc<RaftGroup>,
    pulse: Arc<Pulse>,
    shared: Arc<PartitionShared>,
    reader: BatchReader,
    appender: Appender,
    config: watch::Sender<TopicConfig>,
}

/// What makes a partition replica.
pub(crate) struct PartitionParts {
    pub(crate) topic: TopicName,
    pub(crate) config: TopicConfig,
    pub(crate) context: Arc<PartitionContext>,
    pub(crate) raft: Arc<RaftGroup>,
    pub(crate) shared: Arc<PartitionShared>,
    pub(crate) pulse: Arc<Pulse>,
}

impl Partition {
    pub(crate) fn new(parts: PartitionParts) -> Self {
        let PartitionParts { topic, config, context, raft, shared, pulse } = parts;
        let reader = BatchReader { log: raft.log().clone(), index: shared.index.clone() };
        let appender =
            Appender::start(raft.clone(), shared.clone(), context.clone(), pulse.clone());
        let config = watch::Sender::new(config);
        Self { topic, context, raft, pulse, shared, reader, appender, config }
    }

    pub(crate) fn group(&self) -> GroupId {
        self.raft.group()
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.raft.replica()
    }

    pub(crate) fn raft(&self) -> &Arc<RaftGroup> {
        &self.raft
    }

    /// What this replica has applied so far.
    pub(crate) fn view(&self) -> PartitionView {
        self.shared.view.borrow().clone()
    }

    /// The topic's settings as this node last heard them.
    pub(crate) fn config(&self) -> TopicConfig {
        self.config.borrow().clone()
    }

    pub(crate) fn set_config(&self, config: TopicConfig) {
        self.config.send_if_modified(|current| {
            let changed = *current != config;
            *current = config;
            changed
        });
    }

    /// Has openraft take the rung at the log start as its snapshot whenever the start has moved.
    pub(crate) async fn follow_log_start(&self) {
        loop {
            self.shared.start_moved.notified().await;
            self.raft.snapshot().await;
        }
    }

    /// When the entry with the record at `offset` was stamped, where it is applied and kept.
    pub(crate) fn entry_time_at(&self, offset: u64) -> Option<EntryTime> {
        Some(self.shared.index.at(offset).ok()??.time)
    }

    /// The chain hash over everything below `offset`, where an entry ends there and its record is
    /// still kept.
    pub(crate) fn chain_hash_at(&self, offset: u64) -> Option<[u8; 16]> {
        let view = self.view();
        if offset == view.high_watermark {
            return Some(view.chain_hash.0);
        }
        let record = self.shared.index.at(offset.checked_sub(1)?).ok()??;
        (record.next_offset() == offset).then_some(record.chain_hash.0)
    }
}
