//! Opens the replicas of this node: log, machine and core of each group, put together.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use node_core::ids::{GroupId, ReplicaId};
use openraft::SnapshotPolicy;
use uuid::Uuid;

use super::group::{GroupParts, RaftFailure, RaftGroup};
use super::log_store::{EntrySource, GroupLog, LogParts};
use super::machine::{Machine, MachineKind};
use super::network::Network;
use crate::limits;
use crate::metrics::Metrics;
use crate::partition::PartitionMachine;
use crate::peer::Peers;
use crate::storage::Engine;
use crate::storage::log_writer::LogWriter;
use crate::tables::AnyTable;

/// How long leaders and followers wait for each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RaftTiming {
    /// Least silence of a leader after which a follower calls an election by itself; the
    /// greatest is twice that.
    pub(crate) election: Duration,
    /// Between two heartbeats of an active group.
    pub(crate) heartbeat: Duration,
}

/// What all groups of a node have in common.
#[derive(Clone)]
pub(crate) struct GroupContext {
    pub(crate) cluster_id: Uuid,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) writer: LogWriter,
    pub(crate) peers: Arc<Peers>,
    pub(crate) repair: Arc<dyn EntrySource>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) timing: RaftTiming,
}

fn stopped(error: impl std::fmt::Display) -> RaftFailure {
    RaftFailure::Stopped(error.to_string())
}

/// How the log of a group is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLog {
    /// Remember what was committed, since applied state is not kept beside the log.
    pub(crate) keeps_committed: bool,
    /// Ask other replicas for damaged entries; else they are errors until the replica is open.
    pub(crate) repairs: bool,
}

/// Opens the log of a group. Needed before its machine is.
pub(crate) async fn open_log(
    context: &GroupContext,
    group: GroupId,
    how: OpenLog,
) -> io::Result<Arc<GroupLog>> {
    let parts = LogParts {
        group,
        engine: context.engine.clone(),
        writer: context.writer.clone(),
        repair: context.repair.clone(),
        keeps_committed: how.keeps_committed,
        metrics: context.metrics.clone(),
    };
    GroupLog::open_repairing(parts, how.repairs).await
}

/// Opens a partition's replica.
pub(crate) async fn open_partition(
    context: &GroupContext,
    (group, replica): (GroupId, ReplicaId),
    log: Arc<GroupLog>,
    machine: PartitionMachine,
) -> Result<RaftGroup, RaftFailure> {
    // The log is the data: nothing is purged but what the log start has left behind, exactly.
    let config = config(context, 0)?;
    let kind = MachineKind::Partition(Box::new(machine));
    open(context, (group, replica), log, kind, config).await
}

/// Opens a replica of the metadata or of a coordinator group.
pub(crate) async fn open_table(
    context: &GroupContext,
    (group, replica): (GroupId, ReplicaId),
    log: Arc<GroupLog>,
    machine: Box<dyn AnyTable>,
) -> Result<RaftGroup, RaftFailure> {
    let config = config(context, limits::TABLE_ENTRIES_KEPT)?;
    open(context, (group, replica), log, MachineKind::Table(machine), config).await
}

async fn open(
    context: &GroupContext,
    (group, replica): (GroupId, ReplicaId),
    log: Arc<GroupLog>,
    kind: MachineKind,
    config: Arc<openraft::Config>,
) -> Result<RaftGroup, RaftFailure> {
    let metrics = context.metrics.clone();
    let installed = Box::new(move |bytes: usize| {
        metrics.raft.snapshots_installed.inc();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        metrics.raft.snapshots_installed_bytes.inc_by(bytes);
    });
    let (machine, applied_end) = Machine::new(kind, log.clone(), installed);
    let network = Network {
        cluster_id: context.cluster_id,
        group,
        peers: context.peers.clone(),
        log: log.clone(),
        metrics: context.metrics.clone(),
    };
    // Openraft's lease is the greatest election time-out, twice this.
    let quorum_fresh = limits::QUORUM_FRESH_MAX.min(context.timing.election);
    let opened = log.clone();
    let parts =
        GroupParts { group, replica, config, log, machine, network, applied_end, quorum_fresh };
    let raft = RaftGroup::open(parts).await?;
    opened.allow_repair();
    Ok(raft)
}

fn config(context: &GroupContext, entries_kept: u64) -> Result<Arc<openraft::Config>, RaftFailure> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election = ms(context.timing.election);
    let config = openraft::Config {
        cluster_name: "quipu".to_owned(),
        heartbeat_interval: ms(context.timing.heartbeat),
        election_timeout_min: election,
        election_timeout_max: election * 2,
        max_payload_entries: limits::REPLICATE_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: entries_kept,
        purge_batch_size: 1,
        install_snapshot_timeout: ms(limits::SNAPSHOT_ANSWER_MAX),
        // Whoever opened the group decides when its timers run (liveness.rs).
        enable_tick: false,
        enable_pre_vote: Some(true),
        // A restarted leader must ask: its applied state may be older than what it acknowledged.
        enable_leader_restore: Some(false),
        // A follower whose disk came back old, or lost what it had acknowledged, is sent all of it
        // again. Without this its leader panics, or never sends it anything any more.
        allow_log_reversion: Some(true),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(stopped)
}
