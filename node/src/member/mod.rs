//! What a node is and does once it belongs to a cluster.
//!
//! - `hosted`: what the disk remembers of each group it has a replica of.
//! - `registry`: the replicas, open and closed; `replica`: one that is open.
//! - `opening`: opens them, and replaces those that are lost.
//! - `repairer`: damaged entries, had again from other nodes.
//! - `metadata`: asking and changing the cluster's metadata from any node.
//! - `coordinators`: consumer groups, on the coordinator groups.
//! - `positions`: where partitions end, on whichever node.
//! - `standing`: draining this node, and moving replicas away from those that are removed.
//! - `survey`: asking every node what it has.
//! - `reconcile`: makes what is hosted, and the groups' members, what the metadata says.
//! - `upkeep`: retention, the disk's watermark, figures.

mod coordinators;
mod hosted;
mod metadata;
mod opening;
mod positions;
mod reconcile;
mod registry;
mod repairer;
mod replica;
mod standing;
mod survey;
mod upkeep;

use std::sync::{Arc, Mutex, PoisonError};

use node_core::ids::{ClusterId, GroupId, NodeLabel, NodeUuid, TopicName};
use node_core::metadata::MetadataState;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use coordinators::{CoordinatorFailure, GroupSessions, Standing};
pub(crate) use hosted::{Hosted, HostedKind};
pub(crate) use metadata::node_spec;
pub(crate) use positions::{Measured, PositionAsked, answer_of, asked_of};
pub(crate) use registry::Registry;
pub(crate) use replica::{OpenFailure, Replica};

use self::replica::Opener;
use crate::config::NodeConfig;
use crate::env::Clock;
use crate::limits;
use crate::linearize::Linearizer;
use crate::liveness::{Liveness, LivenessParts};
use crate::metrics::Metrics;
use crate::partition::{Partition, PartitionContext};
use crate::peer::Peers;
use crate::raft::{GroupContext, Place, RaftFailure, RaftTiming};
use crate::storage::log_writer::LogWriter;
use crate::storage::{Engine, manifest};
use crate::version::Release;

/// What a node has before it belongs to a cluster.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) me: NodeUuid,
    pub(crate) label: NodeLabel,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) writer: LogWriter,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends every task of the node.
    pub(crate) stop: CancellationToken,
}

/// A node that belongs to a cluster.
pub(crate) struct Member {
    ground: Ground,
    cluster_id: ClusterId,
    liveness: Arc<Liveness>,
    linearizer: Linearizer,
    registry: Registry,
    metadata: watch::Receiver<Arc<MetadataState>>,
    /// Producer ids taken from the metadata and not given out yet.
    producer_ids: AsyncMutex<std::ops::Range<u64>>,
    reconcile_now: Notify,
    lanes: opening::Lanes,
    recreated: Mutex<coordinators::Recreated>,
    /// What the disk had when the node started: each ends when it was tried.
    first_tries: Mutex<Vec<oneshot::Receiver<()>>>,
    sessions: GroupSessions,
    recent_syncs: Mutex<survey::RecentSyncs>,
}

/// Why a partition can't be reached on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteFailure {
    #[error("there is no such topic")]
    UnknownTopic,
    #[error("the topic has {count} partitions")]
    UnknownPartition { count: u32 },
    #[error("this node has no replica of group {group}")]
    NotHere { group: GroupId },
    #[error("this node's replica of group {group} is not open: {why}")]
    NotOpen { group: GroupId, why: String },
}

impl Member {
    /// Begins to open every replica this disk has, and to take part. The others can reach this
    /// node from now on: what they need to open theirs it may have.
    pub(crate) async fn open(
        ground: Ground,
        cluster_id: ClusterId,
    ) -> Result<Arc<Self>, OpenFailure> {
        let liveness = Liveness::new(LivenessParts {
            me: ground.me,
            cluster_id: cluster_id.0,
            address: ground.config.advertise.to_string(),
            clock: ground.clock.clone(),
            peers: ground.peers.clone(),
            metrics: ground.metrics.clone(),
        });
        let linearizer = Linearizer {
            cluster_id: cluster_id.0,
            peers: ground.peers.clone(),
            liveness: liveness.clone(),
            metrics: ground.metrics.clone(),
        };
        let (publish, metadata) = watch::channel(Arc::new(MetadataState::default()));
        let registry = Self::registry(&ground, cluster_id, linearizer.clone(), publish);
        let member = Arc::new(Self {
            ground,
            cluster_id,
            liveness,
            linearizer,
            registry,
            metadata,
            producer_ids: AsyncMutex::new(0..0),
            reconcile_now: Notify::new(),
            lanes: opening::Lanes::default(),
            recreated: Mutex::default(),
            first_tries: Mutex::default(),
            sessions: GroupSessions::new(),
            recent_syncs: Mutex::default(),
        });
        member.open_hosted().await?;
        member.spawn_tasks();
        Ok(member)
    }

    fn registry(
        ground: &Ground,
        cluster_id: ClusterId,
        linearizer: Linearizer,
        publish: watch::Sender<Arc<MetadataState>>,
    ) -> Registry {
        let permits = usize::try_from(ground.config.append_in_flight_bytes_max);
        let permits = permits.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let partitions = Arc::new(PartitionContext {
            clock: ground.clock.clone(),
            linearizer: linearizer.clone(),
            metrics: ground.metrics.clone(),
            append_bytes: Arc::new(Semaphore::new(permits)),
        });
        let groups = GroupContext {
            cluster_id: cluster_id.0,
            engine: ground.engine.clone(),
            writer: ground.writer.clone(),
            peers: ground.peers.clone(),
            repair: repairer::repairer(cluster_id, ground.peers.clone()),
            metrics: ground.metrics.clone(),
            timing: RaftTiming {
                election: ground.config.election_timeout,
                heartbeat: ground.config.heartbeat,
            },
        };
        let (liveness, publish_metadata) = (linearizer.liveness, publish);
        let levels = ground.config.release.levels;
        Registry::new(Opener { groups, partitions, liveness, publish_metadata, levels })
    }

    async fn open_hosted(self: &Arc<Self>) -> Result<(), OpenFailure> {
        let records = manifest::list(&*self.ground.engine)?;
        for record in records {
            let hosted = Hosted::of_manifest(&record).map_err(|error| OpenFailure::Record {
                group: record.group,
                reason: error.to_string(),
            })?;
            // A damaged log is repaired from the others while it is opened.
            self.know_founders(&hosted);
            let tried = self.begin_opening(hosted).await;
            self.first_tries.lock().unwrap_or_else(PoisonError::into_inner).push(tried);
        }
        Ok(())
    }

    /// Waits until each replica that the disk had is open, or did not open; not for long.
    pub(crate) async fn opened(&self) {
        let tries =
            std::mem::take(&mut *self.first_tries.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures::future::join_all(tries);
        drop(tokio::time::timeout(limits::OPEN_AT_START_MAX, all).await);
    }

    fn spawn_tasks(self: &Arc<Self>) {
        self.spawn(self.liveness.clone().tend());
        self.spawn(self.clone().reconcile_always());
        self.spawn(self.clone().keep_up());
        self.spawn(self.clone().retain_always());
        self.spawn(self.clone().stand_aside_always());
        self.spawn(self.clone().tend_groups());
    }

    /// Runs a task until the node stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.ground.stop.clone();
        crate::env::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// The replica of a partition on this node.
    pub(crate) fn partition(
        &self,
        topic: &TopicName,
        number: u32,
    ) -> Result<Arc<Partition>, RouteFailure> {
        let group = {
            let metadata = self.metadata.borrow();
            let record = metadata.topics().get(topic).ok_or(RouteFailure::UnknownTopic)?;
            let count = u32::try_from(record.partitions.len()).unwrap_or(u32::MAX);
            let group = metadata.partition_group(topic, number);
            group.ok_or(RouteFailure::UnknownPartition { count })?
        };
        self.registry.partition(group).ok_or_else(|| match self.registry.why_closed(group) {
            Some(why) => RouteFailure::NotOpen { group, why },
            None => RouteFailure::NotHere { group },
        })
    }

    /// The metadata as applied on this node; may lag.
    pub(crate) fn metadata(&self) -> Arc<MetadataState> {
        self.metadata.borrow().clone()
    }

    /// Every change of the metadata on this node.
    pub(crate) fn watch_metadata(&self) -> watch::Receiver<Arc<MetadataState>> {
        self.metadata.clone()
    }

    /// What this node says it is.
    pub(crate) fn release(&self) -> &Release {
        &self.ground.config.release
    }

    pub(crate) fn registry_ref(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.ground.clock
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.ground.metrics
    }

    pub(crate) fn me(&self) -> NodeUuid {
        self.ground.me
    }

    pub(crate) fn label(&self) -> NodeLabel {
        self.ground.label
    }

    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// "host:port" of a member.
    pub(crate) fn address_of(&self, node: NodeUuid) -> Option<String> {
        if node == self.ground.me {
            return Some(self.ground.config.advertise.to_string());
        }
        let known = self.metadata.borrow().nodes().get(&node).map(|it| it.address.to_string());
        known.or_else(|| self.ground.peers.get(node).map(|link| link.address().to_owned()))
    }

    /// What people call a member.
    pub(crate) fn label_of(&self, node: NodeUuid) -> Option<NodeLabel> {
        if node == self.ground.me {
            return Some(self.ground.label);
        }
        self.metadata.borrow().nodes().get(&node).map(|record| record.label)
    }

    /// Who leads a group as far as this node knows, and in which term.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<(Place, u64)> {
        if let Some(replica) = self.registry.replica(group) {
            let status = replica.raft().status();
            if let Some(leader) = status.leader
                && status.vote_committed
            {
                return Some((leader, status.term));
            }
        }
        self.liveness.lead_of(group)
    }

    /// Moves the leadership of a group that this node leads, and waits until it has moved.
    pub(crate) async fn move_leader(
        &self,
        group: GroupId,
        to: NodeUuid,
        deadline: Instant,
    ) -> Result<(), RaftFailure> {
        let replica = self.registry.replica(group);
        let Some(replica) = replica else { return Err(RaftFailure::NotLeader { leader: None }) };
        // Followers of a parked group have no timers; a transfer that fails would need them.
        replica.pulse().touch();
        replica.raft().ensure_writable(deadline).await?;
        let status = replica.raft().status();
        let target = status.members.iter().find(|(_, node)| **node == to);
        let Some((target, _)) = target else { return Err(RaftFailure::NoQuorum) };
        replica.raft().hand_over(*target, limits::HAND_OVER_HOLD).await?;
        while Instant::now() < deadline {
            if self.leader_of(group).is_some_and(|(place, _)| place.replica == *target) {
                return Ok(());
            }
            tokio::time::sleep(limits::QUORUM_POLL).await;
        }
        Err(RaftFailure::OutcomeUnknown)
    }

    /// Ends all groups. Their data stays.
    pub(crate) async fn close(&self) {
        self.liveness.forget_all();
        self.registry.close_all().await;
    }
}
