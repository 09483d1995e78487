//! Nodes: how each is, draining, removing, and taking that back.

use quipu_proto::v1;

use super::{Admin, Repeated};
use crate::calls::Target;
use crate::error::{AdminError, CallError};

/// What a node is for, and how far it is on its way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Taken in; it has not the metadata yet.
    Joining,
    /// It works.
    Active,
    /// It shall lead nothing, and leads something still.
    Draining,
    /// It leads nothing that another node could lead.
    Drained,
    /// Its replicas are being moved to other nodes.
    Removing,
    /// It belongs to the cluster no more.
    Removed,
    /// One that this library does not know.
    Other,
}

/// One node, as all nodes together know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its label.
    pub node_id: u64,
    /// Its identity, kept in its data directory.
    pub uuid: String,
    /// "host:port".
    pub address: String,
    /// Of its program.
    pub version: String,
    /// Its rack, where it was told one.
    pub rack: Option<String>,
    /// It answered just now.
    pub alive: bool,
    /// What it is for.
    pub standing: Standing,
    /// Raft groups of all kinds that it leads: partitions, coordinators, the metadata.
    pub leaders: u32,
    /// Replicas of all kinds that it should hold.
    pub replicas: u32,
    /// Of its partitions, in bytes.
    pub bytes: u64,
    /// Its replicas that are not open, or miss more than a moment's entries.
    pub behind: u32,
    /// What the one that misses most does, in entries.
    pub behind_entries: u64,
    /// Groups that would have no majority if the node stopped now.
    pub critical: u32,
    /// Names of the first few of them.
    pub critical_names: Vec<String>,
    /// Groups of which it has the only replica.
    pub only_copies: u32,
    /// Names of the first few of them.
    pub only_copy_names: Vec<String>,
    /// Groups of the node about which nobody could say enough just now.
    pub unknown: u32,
    /// While it is removed: groups to be moved.
    pub moves_left: u32,
    /// And their size, in bytes.
    pub bytes_left: u64,
    /// Why the first few of them wait.
    pub waits: Vec<String>,
}

impl NodeStatus {
    /// No group that others could go on with stops if the node does now.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        self.critical == 0
    }

    /// It answers, and all its replicas are open and have their logs.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.alive && self.behind == 0 && self.unknown == 0
    }
}

/// A replica's way from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaMove {
    /// "topic/partition", or the group's name.
    pub what: String,
    /// Label of the node that it leaves.
    pub from_node: u64,
    /// Label of the node that it goes to.
    pub to_node: u64,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// What a removal does, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The node; its `moves_left` counts all moves.
    pub node: NodeStatus,
    /// Where its replicas go, as things are now.
    pub moves: Vec<ReplicaMove>,
}

impl Admin {
    /// All nodes by label, as all nodes together know them. Where `nodes` is not empty, only those.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is no such node; `UNIMPLEMENTED` by an older node.
    pub async fn describe_nodes(&self, nodes: &[u64]) -> Result<Vec<NodeStatus>, AdminError> {
        let request = v1::DescribeNodesRequest { node_ids: nodes.to_vec() };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| {
                let request = request.clone();
                async move { admin.describe_nodes(request).await }
            })
            .await?;
        Ok(answer.nodes.into_iter().map(Into::into).collect())
    }

    /// One node, as all nodes together know it.
    ///
    /// # Errors
    /// As [`Admin::describe_nodes`].
    pub async fn node_status(&self, node: u64) -> Result<NodeStatus, AdminError> {
        let nodes = self.describe_nodes(&[node]).await?;
        take(nodes.into_iter().next())
    }

    /// Has a node give its leaderships away and get none while others can have them. Returns at
    /// once; it is done when its standing is [`Standing::Drained`].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is no such node, or it is being removed.
    pub async fn drain_node(&self, node: u64) -> Result<NodeStatus, AdminError> {
        let request = v1::DrainNodeRequest { node_id: node };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.drain_node(request).await
            })
            .await?;
        take(answer.node.map(Into::into))
    }

    /// Ends a drain.
    ///
    /// # Errors
    /// As [`Admin::drain_node`].
    pub async fn resume_node(&self, node: u64) -> Result<NodeStatus, AdminError> {
        let request = v1::ResumeNodeRequest { node_id: node };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.resume_node(request).await
            })
            .await?;
        take(answer.node.map(Into::into))
    }

    /// Has all that a node holds moved to other nodes, and then the node taken out of the cluster.
    /// Returns at once. With `dry_run` nothing is done but saying what would be moved.
    ///
    /// # Errors
    /// `INVALID_REPLICATION` where too few nodes would be left for some topic.
    pub async fn remove_node(&self, node: u64, dry_run: bool) -> Result<Removal, AdminError> {
        let request = v1::RemoveNodeRequest { node_id: node, dry_run };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.remove_node(request).await
            })
            .await?;
        let node = take(answer.node.map(Into::into))?;
        Ok(Removal { node, moves: answer.moves.into_iter().map(Into::into).collect() })
    }

    /// Ends a removal: moves under way are undone, those that are over stay.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where the node is not being removed.
    pub async fn cancel_removal(&self, node: u64) -> Result<NodeStatus, AdminError> {
        let request = v1::CancelRemovalRequest { node_id: node };
        let answer = self
            .call(Target::Any, Repeated::Harmful, |mut admin| async move {
                admin.cancel_removal(request).await
            })
            .await?;
        take(answer.node.map(Into::into))
    }
}

fn take(node: Option<NodeStatus>) -> Result<NodeStatus, AdminError> {
    node.ok_or_else(|| AdminError::Call(CallError::bad_answer("node", "described no node")))
}

impl Standing {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Joining => "joining",
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Drained => "drained",
            Standing::Removing => "removing",
            Standing::Removed => "removed",
            Standing::Other => "unknown",
        }
    }
}

impl From<v1::Standing> for Standing {
    fn from(standing: v1::Standing) -> Standing {
        match standing {
            v1::Standing::Unspecified => Standing::Other,
            v1::Standing::Joining => Standing::Joining,
            v1::Standing::Active => Standing::Active,
            v1::Standing::Draining => Standing::Draining,
            v1::Standing::Drained => Standing::Drained,
            v1::Standing::Removing => Standing::Removing,
            v1::Standing::Removed => Standing::Removed,
        }
    }
}

impl From<v1::NodeStatus> for NodeStatus {
    fn from(node: v1::NodeStatus) -> NodeStatus {
        let standing = node.standing().into();
        NodeStatus {
            node_id: node.node_id,
            uuid: node.uuid,
            address: node.address,
            version: node.version,
            rack: (!node.rack.is_empty()).then_some(node.rack),
            alive: node.alive,
            standing,
            leaders: node.leaders,
            replicas: node.replicas,
            bytes: node.bytes,
            behind: node.behind,
            behind_entries: node.behind_entries,
            critical: node.critical,
            critical_names: node.critical_names,
            only_copies: node.only_copies,
            only_copy_names: node.only_copy_names,
            unknown: node.unknown,
            moves_left: node.moves_left,
            bytes_left: node.bytes_left,
            waits: node.waits,
        }
    }
}

impl From<v1::ReplicaMove> for ReplicaMove {
    fn from(told: v1::ReplicaMove) -> ReplicaMove {
        ReplicaMove {
            what: told.what,
            from_node: told.from_node,
            to_node: told.to_node,
            bytes: told.bytes,
        }
    }
}
