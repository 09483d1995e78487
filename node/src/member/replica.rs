//! One open replica, and how its parts are put together: log, machine, Raft, and what reads them.

use std::io;
use std::sync::Arc;

use node_core::features::FeatureRange;
use node_core::groups::GroupTable;
use node_core::ids::{Generation, GroupId};
use node_core::metadata::MetadataState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hosted::{Hosted, HostedKind};
use crate::liveness::{Liveness, Pulse};
use crate::partition::{Partition, PartitionContext, PartitionMachine, PartitionParts};
use crate::raft::{
    GroupContext, GroupLog, OpenLog, RaftFailure, RaftGroup, Unrepaired, open_log, open_partition,
    open_table,
};
use crate::storage::StorageError;
use crate::tables::{Shared, TableMachine};

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Raft(#[from] RaftFailure),
    #[error("the stored state can't be read: {0}")]
    State(#[from] io::Error),
    #[error("the record of group {group} can't be read: {reason}")]
    Record { group: GroupId, reason: String },
    /// What this disk has of the group is not what was written, and nobody could give it again.
    #[error(transparent)]
    Damaged(#[from] Unrepaired),
    #[error("another replica of the group is known here, or none is wanted")]
    NotWanted,
}

impl OpenFailure {
    /// What the disk has of this replica can't be trusted.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Storage(StorageError::Damaged { .. }) => true,
            Self::State(error) => {
                let inner = error.get_ref().and_then(|it| it.downcast_ref::<StorageError>());
                error.kind() == io::ErrorKind::InvalidData
                    || matches!(inner, Some(StorageError::Damaged { .. }))
            }
            Self::Storage(_) | Self::Raft(_) | Self::Record { .. } | Self::NotWanted => false,
        }
    }
}

/// One open replica.
pub(crate) struct Replica {
    hosted: Hosted,
    raft: Arc<RaftGroup>,
    pulse: Arc<Pulse>,
    role: ReplicaRole,
    /// Ends the replica's own tasks.
    closed: CancellationToken,
    /// How many it took to open it.
    attempts: u32,
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

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
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

    pub(super) async fn close(&self) {
        self.closed.cancel();
        self.raft.shutdown().await;
    }
}

/// What replicas are opened with.
pub(super) struct Opener {
    pub(super) groups: GroupContext,
    pub(super) partitions: Arc<PartitionContext>,
    pub(super) liveness: Arc<Liveness>,
    pub(super) publish_metadata: watch::Sender<Arc<MetadataState>>,
    /// What this build speaks.
    pub(super) levels: FeatureRange,
}

/// Closes a log, unless it is kept: what was begun on it and given up must not write any more.
pub(super) struct Unfinished(Option<Arc<GroupLog>>);

impl Unfinished {
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(log) = self.0.take() {
            log.close();
        }
    }
}

impl Opener {
    /// Opens a replica that the disk has; `repairs`: with what other nodes have of its log.
    pub(super) async fn open(
        &self,
        hosted: Hosted,
        attempts: u32,
        repairs: bool,
    ) -> Result<(Replica, Unfinished), OpenFailure> {
        let keeps_committed = !matches!(hosted.kind, HostedKind::Partition { .. });
        let how = OpenLog { keeps_committed, repairs };
        let log = open_log(&self.groups, hosted.group, how).await?;
        let unfinished = Unfinished(Some(log.clone()));
        let opened = match &hosted.kind {
            HostedKind::Partition { .. } => self.open_partition(hosted, log.clone()).await,
            HostedKind::Coordinator => self.open_groups(hosted, log.clone()).await,
            HostedKind::Metadata => self.open_metadata(hosted, log.clone()).await,
        };
        let replica = opened.map_err(|failure| match log.unrepaired() {
            Some(damaged) => OpenFailure::Damaged(damaged),
            None => failure,
        })?;
        Ok((Replica { attempts, ..replica }, unfinished))
    }

    async fn open_partition(
        &self,
        hosted: Hosted,
        log: Arc<GroupLog>,
    ) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
        let HostedKind::Partition { topic, config, .. } = hosted.kind.clone() else {
            let reason = "it is not of a partition".to_owned();
            return Err(OpenFailure::Record { group, reason });
        };
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
        Ok(Replica {
            hosted,
            raft,
            pulse,
            role: ReplicaRole::Partition(partition),
            closed,
            attempts: 0,
        })
    }

    async fn open_groups(
        &self,
        hosted: Hosted,
        log: Arc<GroupLog>,
    ) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
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
        Ok(Replica {
            hosted,
            raft,
            pulse,
            role: ReplicaRole::Groups(shared, changes),
            closed,
            attempts: 0,
        })
    }

    async fn open_metadata(
        &self,
        hosted: Hosted,
        log: Arc<GroupLog>,
    ) -> Result<Replica, OpenFailure> {
        let group = hosted.group;
        let publish = self.publish_metadata.clone();
        let published = move |state: &MetadataState| {
            publish.send_replace(Arc::new(state.clone()));
        };
        let (machine, shared) = TableMachine::<MetadataState>::open_speaking(
            self.levels,
            group,
            self.groups.engine.clone(),
            Box::new(published),
        )?;
        let id = (group, hosted.replica);
        let raft = Arc::new(open_table(&self.groups, id, log, Box::new(machine)).await?);
        let closed = snapshots_of(&raft, shared);
        let pulse = self.liveness.watch_group(raft.clone());
        Ok(Replica { hosted, raft, pulse, role: ReplicaRole::Metadata, closed, attempts: 0 })
    }
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
