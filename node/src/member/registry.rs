//! The replicas that are open on this node: opening, finding, closing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use node_core::groups::GroupTable;
use node_core::ids::{ClusterId, Generation, GroupId};
use node_core::metadata::MetadataState;
use quipu_proto::peer::v1 as pb;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::hosted::{Hosted, HostedKind};
use crate::limits;
use crate::liveness::{Liveness, Pulse};
use crate::partition::{Partition, PartitionContext, PartitionMachine, PartitionParts};
use crate::peer::Peers;
use crate::raft::{
    EntrySource, GroupContext, RaftFailure, RaftGroup, entry_for_repair, open_log, open_partition,
    open_table,
};
use crate::storage::entry::StoredEntry;
use crate::storage::log_writer::WriteRequest;
use crate::storage::{StorageError, WriteBatch, keys, manifest};
use crate::tables::{Shared, TableMachine};

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Raft(#[from] RaftFailure),
    #[error("the stored state can't be read: {0}")]
    State(#[from] std::io::Error),
    #[error("the record of group {group} can't be read: {reason}")]
    Record { group: GroupId, reason: String },
}

/// One open replica.
pub(crate) struct Replica {
    hosted: Hosted,
    raft: Arc<RaftGroup>,
    pulse: Arc<Pulse>,
    role: ReplicaRole,
    /// Ends the replica's own tasks.
    closed: CancellationToken,
}

enum ReplicaRole {
    Partition(Arc<Partition>),
    Groups(Arc<Shared<GroupTable>>, watch::Receiver<Generation>),
    Metadata,
}

impl Replica {
    pub(crate) fn hosted(&self) -> &Hosted {
        &self.hosted
    }

    pub(crate) fn raft(&self) -> &Arc<RaftGroup> {
        &self.raft
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    pub(crate) fn partition(&self) -> Option<&Arc<Partition>> {
        match &self.role {
            ReplicaRole::Partition(partition) => Some(partition),
            ReplicaRole::Groups(..) | ReplicaRole::Metadata => None,
        }
    }

    pub(crate) fn groups(&self) -> Option<&Arc<Shared<GroupTable>>> {
        match &self.role {
            ReplicaRole::Groups(table, _) => Some(table),
            ReplicaRole::Partition(_) | ReplicaRole::Metadata => None,
        }
    }

    /// The last generation of any group in a coordinator's table, as it changes.
    pub(crate) fn group_changes(&self) -> Option<watch::Receiver<Generation>> {
        match &self.role {
            ReplicaRole::Groups(_, changes) => Some(changes.clone()),
            ReplicaRole::Partition(_) | ReplicaRole::Metadata => None,
        }
    }
}

/// All open replicas.
pub(crate) struct Registry {
    groups: GroupContext,
    partitions: Arc<PartitionContext>,
    liveness: Arc<Liveness>,
    publish_metadata: watch::Sender<Arc<MetadataState>>,
    replicas: Mutex<BTreeMap<GroupId, Arc<Replica>>>,
}

impl Registry {
    pub(super) fn new(
        groups: GroupContext,
        partitions: Arc<PartitionContext>,
        liveness: Arc<Liveness>,
        publish_metadata: watch::Sender<Arc<MetadataState>>,
    ) -> Self {
        Self { groups, partitions, liveness, publish_metadata, replicas: Mutex::default() }
    }

    pub(crate) fn replica(&self, group: GroupId) -> Option<Arc<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    pub(crate) fn partition(&self, group: GroupId) -> Option<Arc<Partition>> {
        self.replica(group)?.partition().cloned()
    }

    /// All open replicas, in the order of their groups.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Makes a replica that this disk does not have yet: first its record, then the replica. One
    /// that it has, and that could not be opened, is opened as it is: its vote and its entries
    /// count in its group, so they are never made anew.
    pub(super) async fn create(&self, hosted: Hosted) -> Result<Arc<Replica>, OpenFailure> {
        if let Some(known) = manifest::get(&*self.groups.engine, hosted.group)? {
            let known = Hosted::of_manifest(&known)
                .map_err(|error| record(hosted.group, &error.to_string()))?;
            if known.replica == hosted.replica {
                return self.open(known).await;
            }
        }
        let mut batch = WriteBatch::new();
        // What an earlier replica of the group may have left must not be taken for this one's.
        keys::delete_group(&mut batch, hosted.group);
        manifest::put(&mut batch, &hosted.to_manifest());
        self.write(batch).await?;
        self.open(hosted).await
    }

    /// Opens a replica whose record is on the disk.
    pub(super) async fn open(&self, hosted: Hosted) -> Result<Arc<Replica>, OpenFailure> {
        let replica = match &hosted.kind {
            HostedKind::Partition { .. } => self.open_partition(hosted).await?,
            HostedKind::Coordinator => self.open_groups(hosted).await?,
            HostedKind::Metadata => self.open_metadata(hosted).await?,
        };
        let replica = Arc::new(replica);
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.insert(replica.hosted.group, replica.clone());
        Ok(replica)
    }

    async fn open_partition(&self, hosted: Hosted) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
        let HostedKind::Partition { topic, config, .. } = hosted.kind.clone() else {
            return Err(record(group, "it is not of a partition"));
        };
        let log = open_log(&self.groups, group, false).await?;
        let (machine, shared) =
            PartitionMachine::open(group, self.groups.engine.clone(), config.ladder)?;
        let raft = open_partition(&self.groups, (group, hosted.replica), log, machine).await?;
        let raft = Arc::new(raft);
        let pulse = self.liveness.watch_group(raft.clone());
        let partition = Arc::new(Partition::new(PartitionParts {
            topic,
            config,
            context: self.partitions.clone(),
            raft: raft.clone(),
            shared,
            pulse: pulse.clone(),
        }));
        let closed = CancellationToken::new();
        let following = partition.clone();
        spawn_until(&closed, async move { following.follow_log_start().await });
        Ok(Replica { hosted, raft, pulse, role: ReplicaRole::Partition(partition), closed })
    }

    async fn open_groups(&self, hosted: Hosted) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
        let log = open_log(&self.groups, group, true).await?;
        let (publish, changes) = watch::channel(Generation::default());
        let published = move |table: &GroupTable| {
            let last = table.generation_last();
            publish.send_if_modified(|known| std::mem::replace(known, last) != last);
        };
        let (machine, shared) = TableMachine::<GroupTable>::open(
            group,
            self.groups.engine.clone(),
            Box::new(published),
        )?;
        let id = (group, hosted.replica);
        let raft = Arc::new(open_table(&self.groups, id, log, Box::new(machine)).await?);
        let closed = snapshots_of(&raft, shared.clone());
        let pulse = self.liveness.watch_group(raft.clone());
        Ok(Replica { hosted, raft, pulse, role: ReplicaRole::Groups(shared, changes), closed })
    }

    async fn open_metadata(&self, hosted: Hosted) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
        let log = open_log(&self.groups, group, true).await?;
        let publish = self.publish_metadata.clone();
        let published = move |state: &MetadataState| {
            publish.send_replace(Arc::new(state.clone()));
        };
        let (machine, shared) = TableMachine::<MetadataState>::open(
            group,
            self.groups.engine.clone(),
            Box::new(published),
        )?;
        let id = (group, hosted.replica);
        let raft = Arc::new(open_table(&self.groups, id, log, Box::new(machine)).await?);
        let closed = snapshots_of(&raft, shared);
        let pulse = self.liveness.watch_group(raft.clone());
        Ok(Replica { hosted, raft, pulse, role: ReplicaRole::Metadata, closed })
    }

    /// Closes every replica. Their data stays.
    pub(super) async fn close_all(&self) {
        let replicas =
            std::mem::take(&mut *self.replicas.lock().unwrap_or_else(PoisonError::into_inner));
        for replica in replicas.values() {
            replica.closed.cancel();
            replica.raft.shutdown().await;
        }
    }

    /// Closes a replica and deletes its data.
    pub(super) async fn remove(&self, group: GroupId) -> Result<(), StorageError> {
        let removed = self.replicas.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
        if let Some(replica) = removed {
            self.liveness.forget_group(group);
            replica.closed.cancel();
            replica.raft.shutdown().await;
        }
        let mut batch = WriteBatch::new();
        keys::delete_group(&mut batch, group);
        self.write(batch).await
    }

    /// In line behind what the group's replica may have queued un-waited: written past it, those
    /// rows would come after, into what was just deleted.
    async fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.groups.writer.submit(WriteRequest { batch, sync: true, done });
        let gone = StorageError::Stopped { reason: "its writer is gone".to_owned() };
        receiver.await.unwrap_or(Err(gone))
    }
}

fn record(group: GroupId, reason: &str) -> OpenFailure {
    OpenFailure::Record { group, reason: reason.to_owned() }
}

fn spawn_until(closed: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let closed = closed.clone();
    crate::env::spawn(async move {
        tokio::select! {
            biased;
            () = closed.cancelled() => {}
            () = task => {}
        }
    });
}

/// Makes a table's snapshot whenever its log has grown long.
fn snapshots_of<T: Send + 'static>(
    raft: &Arc<RaftGroup>,
    shared: Arc<Shared<T>>,
) -> CancellationToken {
    let closed = CancellationToken::new();
    let raft = raft.clone();
    spawn_until(&closed, async move {
        loop {
            shared.wants_snapshot.notified().await;
            raft.snapshot().await;
        }
    });
    closed
}

/// Fetches damaged entries from the group's other replicas.
struct Repairer {
    cluster_id: ClusterId,
    peers: Arc<Peers>,
}

pub(super) fn repairer(cluster_id: ClusterId, peers: Arc<Peers>) -> Arc<dyn EntrySource> {
    Arc::new(Repairer { cluster_id, peers })
}

impl EntrySource for Repairer {
    fn fetch(&self, group: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        const ANSWER_MAX: Duration = Duration::from_secs(2);
        let cluster_id = bytes::Bytes::copy_from_slice(self.cluster_id.0.as_bytes());
        let peers = self.peers.clone();
        // Any replica of the group will do; which one a node has it knows itself.
        let target = pb::Target { cluster_id, group: group.0, replica: 0 };
        let request = pb::ReadEntryRequest { target: Some(target), index };
        Box::pin(async move {
            // Just started, a node may not know the others yet, nor they it.
            for _ in 0..limits::REPAIR_ROUNDS {
                for link in peers.all() {
                    let answer = link.read_entry(request.clone(), ANSWER_MAX).await;
                    let entry = answer.ok().and_then(|it| entry_for_repair(it).ok());
                    if let Some((found, entry)) = entry
                        && found == index
                    {
                        return Some(entry);
                    }
                }
                tokio::time::sleep(limits::REPAIR_PAUSE).await;
            }
            None
        })
    }
}
