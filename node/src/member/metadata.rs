//! Asking and changing the cluster's metadata from any node.

use std::sync::Arc;

use bytes::Bytes;
use node_core::codec::DecodeError;
use node_core::ids::{GroupId, NodeAddress, NodeUuid, NodeVersion};
use node_core::metadata::{MetadataCommand, MetadataOutcome, MetadataState, NodeSpec};
use quipu_proto::peer::v1 as pb;
use tokio::time::Instant;

use super::Member;
use crate::limits;
use crate::peer::PeerError;
use crate::raft::{Applied, RaftFailure, Role};

impl Member {
    /// The metadata with everything that was acknowledged before this call.
    pub(crate) async fn fresh_metadata(
        &self,
        deadline: Instant,
    ) -> Result<Arc<MetadataState>, RaftFailure> {
        let Some(replica) = self.registry.replica(GroupId::METADATA) else {
            return Err(RaftFailure::NotLeader { leader: None });
        };
        self.linearizer.linearize(replica.raft(), deadline).await?;
        Ok(self.metadata())
    }

    /// Has the metadata group apply a command, sent on to its leader where that is another node.
    /// While no leader is known it is tried again, until the deadline.
    pub(crate) async fn propose(
        &self,
        command: MetadataCommand,
        deadline: Instant,
    ) -> Result<MetadataOutcome, RaftFailure> {
        // Here and not only where it leads: a leader of an earlier build would not look.
        if let Some(refused) = self.refused_at_this_level(&command, deadline).await? {
            return Ok(refused);
        }
        let command = command.encode();
        loop {
            let failure = match self.propose_once(&command, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            let may_repeat = matches!(
                failure,
                RaftFailure::NotLeader { .. } | RaftFailure::NoQuorum | RaftFailure::Busy
            );
            if !may_repeat || Instant::now() + limits::READ_INDEX_RETRY >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(limits::READ_INDEX_RETRY).await;
        }
    }

    async fn propose_once(
        &self,
        command: &Bytes,
        deadline: Instant,
    ) -> Result<MetadataOutcome, RaftFailure> {
        let Some((leader, _)) = self.leader_of(GroupId::METADATA) else {
            return Err(RaftFailure::NotLeader { leader: None });
        };
        if leader.node == self.ground.me {
            return self.propose_here(command.clone(), deadline).await;
        }
        let link = self.ground.peers.get(leader.node);
        let not_leader = RaftFailure::NotLeader { leader: Some(leader) };
        let Some(link) = link else { return Err(not_leader) };
        let cluster_id = Bytes::copy_from_slice(self.cluster_id.0.as_bytes());
        let request = pb::ProposeMetadataRequest { cluster_id, command: command.clone() };
        let left = deadline.saturating_duration_since(Instant::now());
        match link.propose_metadata(request, left).await {
            // A newer leader may answer what this version can't read: it is done all the same.
            Ok(response) => {
                MetadataOutcome::decode(response.outcome).map_err(|_| RaftFailure::OutcomeUnknown)
            }
            Err(PeerError::Refused { code: tonic_code, .. })
                if tonic_code == crate::peer::NOT_LEADER =>
            {
                Err(not_leader)
            }
            Err(_) => Err(RaftFailure::OutcomeUnknown),
        }
    }

    /// Proposes on this node, which must lead the metadata group.
    pub(crate) async fn propose_here(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<MetadataOutcome, RaftFailure> {
        let Some(replica) = self.registry.replica(GroupId::METADATA) else {
            return Err(RaftFailure::NotLeader { leader: None });
        };
        let malformed = |error: DecodeError| RaftFailure::Stopped(error.to_string());
        let decoded = MetadataCommand::decode(command.clone()).map_err(malformed)?;
        if let Some(refused) = self.refused_at_this_level(&decoded, deadline).await? {
            return Ok(refused);
        }
        replica.pulse().touch();
        match replica.raft().execute(command, deadline).await? {
            (Applied::Metadata(outcome), _) => Ok(outcome),
            (other, _) => Err(RaftFailure::Stopped(format!("the metadata answered {other}"))),
        }
    }

    /// What apply would answer to a command that some member may not know. It must not get into the
    /// log at all: the members that don't know it would stop.
    async fn refused_at_this_level(
        &self,
        command: &MetadataCommand,
        deadline: Instant,
    ) -> Result<Option<MetadataOutcome>, RaftFailure> {
        let raises = matches!(command, MetadataCommand::FinalizeLevel { .. });
        if !raises && command.known_since() <= self.metadata().level() {
            return Ok(None);
        }
        // The level may have been raised, and a node exchanged, just now.
        Ok(self.fresh_metadata(deadline).await?.admits(command).err())
    }

    /// The way to another node, if its address is known.
    pub(crate) fn peer(&self, node: NodeUuid) -> Option<Arc<crate::peer::PeerLink>> {
        self.ground.peers.get(node)
    }

    /// This node leads the metadata group.
    pub(super) fn leads_metadata(&self) -> bool {
        let replica = self.registry.replica(GroupId::METADATA);
        replica.is_some_and(|replica| replica.raft().brief().role == Role::Leader)
    }

    /// How this node appears in the metadata.
    pub(super) fn own_spec(&self) -> Option<NodeSpec> {
        node_spec(
            self.ground.me,
            self.ground.label.0,
            &self.ground.config.advertise.to_string(),
            self.release().announced().ok()?.as_str(),
        )
    }

    /// A producer id that nobody had before.
    pub(crate) async fn new_producer(&self, deadline: Instant) -> Result<u64, RaftFailure> {
        let mut ids = self.producer_ids.lock().await;
        if let Some(id) = ids.next() {
            return Ok(id);
        }
        let command = MetadataCommand::AllocateProducerIds { count: limits::PRODUCER_IDS_TAKEN };
        match self.propose(command, deadline).await? {
            MetadataOutcome::ProducerIds { first, count } => {
                *ids = first + 1..first + u64::from(count);
                Ok(first)
            }
            other => Err(RaftFailure::Stopped(format!("the metadata answered {other:?}"))),
        }
    }
}

/// A node as the metadata knows it; `None` where a part of it can't be.
pub(crate) fn node_spec(
    uuid: NodeUuid,
    label: u64,
    address: &str,
    version: &str,
) -> Option<NodeSpec> {
    Some(NodeSpec {
        uuid,
        label: node_core::ids::NodeLabel(label),
        address: address.parse::<NodeAddress>().ok()?,
        version: version.parse::<NodeVersion>().ok()?,
    })
}
