//! How a node comes to belong to a cluster: it forms one with others, or it joins one.
//!
//! A fresh node waits. `InitCluster`, sent to one of several fresh nodes, makes them a cluster:
//! that node asks who the others are, has each of them adopt the cluster's id and the list of
//! members, and adopts both itself. Every step may be repeated. A fresh node that was told whom to
//! join asks those until one takes it in. What a node once adopted it keeps for ever.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use node_core::features::{FeatureLevel, FeatureRange};
use node_core::ids::{ClusterId, GroupId, NodeUuid, ReplicaId};
use node_core::metadata::{MetadataCommand, MetadataOutcome, RegisterNode};
use quipu_proto::peer::v1 as pb;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits;
use crate::member::{Ground, Hosted, HostedKind, Member, OpenFailure, node_spec};
use crate::raft::{RaftFailure, ReplicaNode};
use crate::storage::identity::{IdentityError, NodeIdentity};
use crate::storage::{Durability, StorageError, WriteBatch, manifest};
use crate::version::Release;

/// Voters of the metadata group; further nodes learn.
const METADATA_VOTERS_MAX: usize = 5;

/// Why a cluster was not formed or joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormationFailure {
    #[error("no address was given; name every node that shall form the cluster")]
    NoAddresses,
    #[error("{address} does not answer: {reason}; start that node, or leave it out")]
    Unreachable { address: String, reason: String },
    #[error("nodes {first} and {second} have the same --node-id {label}")]
    SameLabel { label: u64, first: String, second: String },
    #[error("{first} and {second} are one node")]
    SameNode { first: String, second: String },
    #[error("this node ({address}) is not among the addresses")]
    NotIncluded { address: String },
    #[error(
        "{address} belongs to cluster {cluster} already; start a fresh node with --join instead"
    )]
    OtherCluster { address: String, cluster: ClusterId },
    #[error("cluster {cluster} is formed already, without {address}; start that node with --join")]
    AlreadyFormed { cluster: ClusterId, address: String },
    #[error("node id {label} is held by a live node; choose another --node-id")]
    LabelTaken { label: u64 },
    #[error("this node was replaced by another; start it with an empty data directory")]
    WasReplaced,
    #[error("this node was removed from the cluster; start it with an empty data directory")]
    WasRemoved,
    #[error("the cluster has as many nodes as it may: {limit}")]
    TooManyNodes { limit: u32 },
    #[error(
        "the cluster has finalized feature level {finalized}, and {build} speaks {spoken}: start \
         the node with a build that speaks it"
    )]
    LevelNotSpoken { finalized: FeatureLevel, build: String, spoken: FeatureRange },
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    #[error("this node belongs to no cluster yet")]
    NotInitialized,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Open(#[from] OpenFailure),
    #[error(transparent)]
    Raft(#[from] RaftFailure),
}

/// A node's way into a cluster, and the member it then is.
pub(crate) struct Formation {
    ground: Ground,
    /// Held while the identity changes, so that two adoptions can't interleave.
    identity: Mutex<NodeIdentity>,
    member: watch::Sender<Option<Arc<Member>>>,
    /// The disk belonged to a cluster when the node started.
    resumes: bool,
}

/// One founding member, as everybody has it.
struct Founder {
    uuid: Uuid,
    label: u64,
    address: String,
}

impl Formation {
    pub(crate) fn new(ground: Ground, identity: NodeIdentity) -> Arc<Self> {
        let resumes = identity.cluster.is_some();
        let (identity, member) = (Mutex::new(identity), watch::Sender::new(None));
        Arc::new(Self { ground, identity, member, resumes })
    }

    /// The member this node is; `None` while it belongs to no cluster.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// The node belongs to a cluster already, even while it is not a member again yet.
    pub(crate) fn resumes(&self) -> bool {
        self.resumes
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<Member>>> {
        self.member.subscribe()
    }

    /// Takes up the work of a member if the disk belongs to a cluster already.
    pub(crate) async fn resume(&self) -> Result<(), FormationFailure> {
        let identity = self.identity.lock().await;
        if let Some(cluster) = identity.cluster {
            self.become_member(cluster).await?;
        }
        drop(identity);
        if let Some(member) = self.member() {
            member.opened().await;
        }
        Ok(())
    }

    async fn become_member(&self, cluster: ClusterId) -> Result<(), FormationFailure> {
        if self.member.borrow().is_none() {
            let member = Member::open(self.ground.clone(), cluster).await?;
            self.member.send_replace(Some(member));
        }
        Ok(())
    }

    /// Keeps the cluster's feature level on the disk, where it is one that this build speaks.
    pub(crate) async fn keep_level(&self, level: FeatureLevel) -> Result<(), FormationFailure> {
        self.check_spoken(level)?;
        let mut identity = self.identity.lock().await;
        if identity.level < level {
            *identity = identity.raise_level(&*self.ground.engine, level)?;
            tracing::info!(%level, "the cluster's feature level is finalized");
        }
        Ok(())
    }

    fn check_spoken(&self, finalized: FeatureLevel) -> Result<(), FormationFailure> {
        let Release { build, levels: spoken } = self.ground.config.release.clone();
        match spoken.contains(finalized) {
            true => Ok(()),
            false => Err(FormationFailure::LevelNotSpoken { finalized, build, spoken }),
        }
    }

    /// How this node's build and its levels stand in the metadata.
    fn version(&self) -> String {
        let announced = self.ground.config.release.announced();
        announced.map_or_else(|_| String::new(), |version| version.to_string())
    }

    /// Says who this node is.
    pub(crate) async fn hello(&self) -> pb::HelloResponse {
        let NodeIdentity { cluster, level, .. } = *self.identity.lock().await;
        pb::HelloResponse {
            node_uuid: Bytes::copy_from_slice(self.ground.me.0.as_bytes()),
            node_id: self.ground.label.0,
            address: self.ground.config.advertise.to_string(),
            cluster_id: cluster.map_or_else(Bytes::new, |it| bytes_of(it.0)),
            version: self.version(),
            level: level.0.into(),
        }
    }

    /// Forms a cluster of the nodes at `addresses`, this one among them.
    pub(crate) async fn init_cluster(
        &self,
        addresses: Vec<String>,
    ) -> Result<ClusterId, FormationFailure> {
        if let Some(member) = self.member()
            && member.metadata().cluster_id().is_some()
        {
            let metadata = member.metadata();
            let known = |address: &&String| {
                metadata.members().any(|(_, node)| node.address.as_str() == address.as_str())
            };
            return match addresses.iter().find(|address| !known(address)) {
                None => Ok(member.cluster_id()),
                Some(address) => Err(FormationFailure::AlreadyFormed {
                    cluster: member.cluster_id(),
                    address: address.clone(),
                }),
            };
        }
        let (founders, cluster) = self.ask_all(addresses).await?;
        let cluster = cluster.unwrap_or_else(|| cluster_of(&founders));
        let request = pb::AdoptRequest {
            cluster_id: bytes_of(cluster.0),
            members: founders.iter().map(member_of).collect(),
        };
        for founder in founders.iter().filter(|founder| founder.uuid != self.ground.me.0) {
            let link = self.ground.peers.link_to(&founder.address);
            link.adopt(request.clone(), limits::HELLO_MAX).await.map_err(|error| {
                let (address, reason) = (founder.address.clone(), error.to_string());
                FormationFailure::Unreachable { address, reason }
            })?;
        }
        // AFTER the others, so that a repeat finds their cluster and goes on with it.
        self.adopt(&request).await?;
        Ok(cluster)
    }

    /// Asks each address who is there. Answers the nodes by their labels, and the cluster some of
    /// them have adopted already.
    async fn ask_all(
        &self,
        addresses: Vec<String>,
    ) -> Result<(Vec<Founder>, Option<ClusterId>), FormationFailure> {
        if addresses.is_empty() {
            return Err(FormationFailure::NoAddresses);
        }
        let mut founders: Vec<Founder> = Vec::new();
        let mut cluster: Option<ClusterId> = None;
        for address in addresses {
            let link = self.ground.peers.link_to(&address);
            let hello = link.hello(limits::HELLO_MAX).await.map_err(|error| {
                let (address, reason) = (address.clone(), error.to_string());
                FormationFailure::Unreachable { address, reason }
            })?;
            let uuid = uuid_of(&hello.node_uuid).ok_or(FormationFailure::Malformed("node uuid"))?;
            if let Some(same) = founders.iter().find(|founder| founder.uuid == uuid) {
                let first = same.address.clone();
                return Err(FormationFailure::SameNode { first, second: address });
            }
            if let Some(same) = founders.iter().find(|founder| founder.label == hello.node_id) {
                let (label, first) = (hello.node_id, same.address.clone());
                return Err(FormationFailure::SameLabel { label, first, second: address });
            }
            if let Some(found) = uuid_of(&hello.cluster_id).map(ClusterId) {
                if cluster.is_some_and(|known| known != found) {
                    return Err(FormationFailure::OtherCluster { address, cluster: found });
                }
                cluster = Some(found);
            }
            // The node's own word counts: it is what the others will be told.
            founders.push(Founder { uuid, label: hello.node_id, address: hello.address });
        }
        if !founders.iter().any(|founder| founder.uuid == self.ground.me.0) {
            let address = self.ground.config.advertise.to_string();
            return Err(FormationFailure::NotIncluded { address });
        }
        founders.sort_by_key(|founder| founder.label);
        Ok((founders, cluster))
    }

    /// Adopts a cluster as one of its founding members. The same again changes nothing; another
    /// cluster, or other members, are refused.
    pub(crate) async fn adopt(&self, request: &pb::AdoptRequest) -> Result<(), FormationFailure> {
        let cluster = uuid_of(&request.cluster_id).map(ClusterId);
        let cluster = cluster.ok_or(FormationFailure::Malformed("cluster id"))?;
        let hosted = self.founding_record(request)?;
        let mut identity = self.identity.lock().await;
        let known = manifest::get(&*self.ground.engine, GroupId::METADATA)?;
        if identity.cluster.is_some_and(|found| found != cluster)
            || (identity.cluster.is_some() && known != Some(hosted.to_manifest()))
        {
            let address = self.ground.config.advertise.to_string();
            let cluster = identity.cluster.unwrap_or(cluster);
            return Err(FormationFailure::OtherCluster { address, cluster });
        }
        if identity.cluster.is_none() {
            let mut batch = WriteBatch::new();
            manifest::put(&mut batch, &hosted.to_manifest());
            self.ground.engine.write(batch, Durability::Synced)?;
            *identity = identity.adopt(&*self.ground.engine, cluster)?;
            tracing::info!(%cluster, "belongs to a cluster now");
        }
        self.become_member(cluster).await
    }

    /// This node's replica of the metadata group, as a founding member: its place in the list.
    fn founding_record(&self, request: &pb::AdoptRequest) -> Result<Hosted, FormationFailure> {
        let mut founders = Vec::new();
        let mut uuids = BTreeSet::new();
        for (member, id) in request.members.iter().zip(1..) {
            let uuid = uuid_of(&member.node_uuid).ok_or(FormationFailure::Malformed("member"))?;
            uuids.insert(uuid);
            let node = ReplicaNode { uuid, address: member.address.clone() };
            founders.push((ReplicaId(id), node));
        }
        if uuids.len() != founders.len() || founders.len() > METADATA_VOTERS_MAX {
            return Err(FormationFailure::Malformed("members: up to 5 nodes form a cluster"));
        }
        let mine = founders.iter().find(|(_, node)| node.uuid == self.ground.me.0);
        let replica = mine.ok_or(FormationFailure::Malformed("members: this node is missing"))?.0;
        let (group, kind) = (GroupId::METADATA, HostedKind::Metadata);
        Ok(Hosted { group, replica, kind, founders, since: 0 })
    }

    /// Asks the configured nodes to take this one in, until one does or it is adopted otherwise.
    /// A node that belongs to a cluster already makes sure that it is theirs.
    pub(crate) async fn join(&self) -> Result<(), FormationFailure> {
        if let Some(member) = self.member() {
            return self.check_join(member.cluster_id()).await;
        }
        while self.member().is_none() {
            for address in &self.ground.config.join {
                match self.join_at(&address.to_string()).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(failure @ FormationFailure::Unreachable { .. }) => {
                        tracing::debug!(%failure, "can't join there yet");
                    }
                    // Only another build can: asking again would never end.
                    Err(failure @ FormationFailure::LevelNotSpoken { .. }) => return Err(failure),
                    Err(failure) => tracing::warn!(%address, %failure, "can't join there"),
                }
            }
            tokio::time::sleep(limits::JOIN_RETRY).await;
        }
        Ok(())
    }

    async fn check_join(&self, own: ClusterId) -> Result<(), FormationFailure> {
        for address in &self.ground.config.join {
            let link = self.ground.peers.link_to(&address.to_string());
            let Ok(hello) = link.hello(limits::HELLO_MAX).await else { continue };
            let theirs = uuid_of(&hello.cluster_id).map(ClusterId);
            if let Some(expected) = theirs.filter(|theirs| *theirs != own) {
                return Err(IdentityError::OtherCluster { found: own, expected }.into());
            }
        }
        Ok(())
    }

    /// Answers `false` where there is no cluster to join (yet).
    async fn join_at(&self, address: &str) -> Result<bool, FormationFailure> {
        let link = self.ground.peers.link_to(address);
        let unreachable = |error: crate::peer::PeerError| {
            let (address, reason) = (address.to_owned(), error.to_string());
            FormationFailure::Unreachable { address, reason }
        };
        let hello = link.hello(limits::HELLO_MAX).await.map_err(unreachable)?;
        if hello.cluster_id.is_empty() {
            return Ok(false);
        }
        if let Ok(finalized @ 1..) = u16::try_from(hello.level) {
            self.check_spoken(FeatureLevel(finalized))?;
        }
        let me = Founder {
            uuid: self.ground.me.0,
            label: self.ground.label.0,
            address: self.ground.config.advertise.to_string(),
        };
        let request = pb::JoinRequest {
            member: Some(member_of(&me)),
            cluster_id: hello.cluster_id,
            version: self.version(),
        };
        let response = link.join(request, limits::PROPOSAL_MAX).await.map_err(unreachable)?;
        let cluster = uuid_of(&response.cluster_id).map(ClusterId);
        let cluster = cluster.ok_or(FormationFailure::Malformed("cluster id"))?;
        let joined = self.adopt_joined(cluster, response.metadata_replica).await?;
        for member in &response.members {
            if let Some(uuid) = uuid_of(&member.node_uuid)
                && uuid != self.ground.me.0
            {
                self.ground.peers.set_address(NodeUuid(uuid), &member.address);
            }
        }
        self.become_member(joined).await?;
        Ok(true)
    }

    /// Keeps the cluster that took this node in. Refused where it has adopted another one
    /// meanwhile: what a node once adopted it keeps for ever.
    async fn adopt_joined(
        &self,
        cluster: ClusterId,
        metadata_replica: u64,
    ) -> Result<ClusterId, FormationFailure> {
        let hosted = Hosted {
            group: GroupId::METADATA,
            replica: ReplicaId(metadata_replica),
            kind: HostedKind::Metadata,
            founders: Vec::new(),
            since: 0,
        };
        let mut identity = self.identity.lock().await;
        if identity.cluster.is_none() {
            let mut batch = WriteBatch::new();
            manifest::put(&mut batch, &hosted.to_manifest());
            self.ground.engine.write(batch, Durability::Synced)?;
            *identity = identity.adopt(&*self.ground.engine, cluster)?;
            tracing::info!(%cluster, "joined a cluster");
        }
        match identity.cluster {
            Some(found) if found != cluster => {
                Err(IdentityError::OtherCluster { found, expected: cluster }.into())
            }
            _ => Ok(cluster),
        }
    }

    /// Takes a fresh node into the cluster. One with the label of a dead node takes its place.
    pub(crate) async fn take_in(
        &self,
        request: &pb::JoinRequest,
    ) -> Result<pb::JoinResponse, FormationFailure> {
        let member = self.member().ok_or(FormationFailure::NotInitialized)?;
        let asked = request.member.as_ref().ok_or(FormationFailure::Malformed("member"))?;
        let uuid = uuid_of(&asked.node_uuid).ok_or(FormationFailure::Malformed("node uuid"))?;
        if uuid_of(&request.cluster_id) != Some(member.cluster_id().0) {
            let address = self.ground.config.advertise.to_string();
            return Err(FormationFailure::OtherCluster { address, cluster: member.cluster_id() });
        }
        let (uuid, label) = (NodeUuid(uuid), asked.node_id);
        let node = node_spec(uuid, label, &asked.address, &request.version);
        let node = node.ok_or(FormationFailure::Malformed("address or version"))?;
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        let holder = member.fresh_metadata(deadline).await?;
        let holder = holder.node_by_label(node.label).map(|(holder, _)| holder);
        let replaces_dead =
            holder.is_some_and(|it| it != uuid && member.liveness().was_found_dead(it));
        let (build, spoken) = (node.version.build().to_owned(), node.version.levels());
        let command = MetadataCommand::RegisterNode(RegisterNode { node, replaces_dead });
        match member.propose(command, deadline).await? {
            MetadataOutcome::NodeAdded
            | MetadataOutcome::NodeUpdated
            | MetadataOutcome::NodeReplaced { .. } => {}
            MetadataOutcome::LabelTaken { .. } => {
                return Err(FormationFailure::LabelTaken { label });
            }
            MetadataOutcome::NodeWasReplaced { .. } => return Err(FormationFailure::WasReplaced),
            MetadataOutcome::NodeWasRemoved => return Err(FormationFailure::WasRemoved),
            MetadataOutcome::TooManyNodes { limit } => {
                return Err(FormationFailure::TooManyNodes { limit });
            }
            MetadataOutcome::LevelNotSpoken { level: finalized } => {
                return Err(FormationFailure::LevelNotSpoken { finalized, build, spoken });
            }
            _ => return Err(FormationFailure::NotInitialized),
        }
        let metadata = member.fresh_metadata(deadline).await?;
        let mut placed = metadata.replicas_on(uuid);
        let replica = placed.find(|(group, _, _)| *group == GroupId::METADATA);
        let (_, _, replica) = replica.ok_or(FormationFailure::NotInitialized)?;
        let members = metadata.members().map(|(uuid, record)| pb::Member {
            node_uuid: bytes_of(uuid.0),
            node_id: record.label.0,
            address: record.address.to_string(),
        });
        Ok(pb::JoinResponse {
            cluster_id: bytes_of(member.cluster_id().0),
            metadata_replica: replica.id.0,
            members: members.collect(),
        })
    }
}

/// The id of the cluster that these nodes form: the same whichever of them is asked, so that two
/// requests at once make one cluster. As random as the nodes' own ids are.
fn cluster_of(founders: &[Founder]) -> ClusterId {
    let mixed = founders.iter().fold(0, |mixed, founder| mixed ^ founder.uuid.as_u128());
    ClusterId(uuid::Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid())
}

fn member_of(founder: &Founder) -> pb::Member {
    pb::Member {
        node_uuid: bytes_of(founder.uuid),
        node_id: founder.label,
        address: founder.address.clone(),
    }
}

fn bytes_of(uuid: Uuid) -> Bytes {
    Bytes::copy_from_slice(uuid.as_bytes())
}

fn uuid_of(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}
