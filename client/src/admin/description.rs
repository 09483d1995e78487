//! What the cluster tells of itself, as plain values.
//!
//! The wire's "0 means none" and "empty means unknown" end here: they become `Option`. Settings
//! are ordered by name, so that two descriptions of one topic print alike.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quipu_proto::v1;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; at least one.
    pub partitions: u32,
    /// 1, 3 or 5; 0: 3 where there are three nodes, else 1.
    pub replication_factor: u32,
    /// Settings other than the defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with default settings and replication.
    pub fn new(name: impl Into<String>, partitions: u32) -> NewTopic {
        NewTopic { name: name.into(), partitions, replication_factor: 0, configs: BTreeMap::new() }
    }
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `None` before the cluster is formed.
    pub cluster_id: Option<String>,
    /// Label of the node that answered.
    pub asked_node: u64,
    /// By label.
    pub nodes: Vec<Node>,
    /// Label of the metadata group's leader, where one is known.
    pub metadata_leader: Option<u64>,
}

/// A node as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its label.
    pub node_id: u64,
    /// Its identity, kept in its data directory.
    pub uuid: String,
    /// "host:port".
    pub address: String,
    /// The asked node hears its beats.
    pub alive: bool,
    /// Partitions it leads.
    pub leaders: u32,
    /// Replicas it holds.
    pub replicas: u32,
    /// Of its program.
    pub version: String,
}

/// What a node thinks is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Nothing is.
    pub healthy: bool,
    /// One line for each thing wrong, and what to do about it.
    pub problems: Vec<String>,
    /// Raft groups.
    pub groups: u32,
    /// Raft groups without a leader.
    pub leaderless_groups: u32,
    /// Nodes that are not heard.
    pub dead_nodes: u32,
    /// What all nodes together found, the worst first; empty where one alone was asked.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong, or could be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind, for scripts: "node_down", "leaderless", "behind", …
    pub trouble: String,
    /// How bad.
    pub severity: Severity,
    /// Label of the node it is about, where it is about one.
    pub node: Option<u64>,
    /// What is.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// All is well, and could be better.
    Advice,
    /// Everything is served, with less to spare than it should have.
    Warning,
    /// Something is not served.
    Critical,
}

impl Severity {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::Advice => "advice",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What a node knows at first hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its label.
    pub node_id: u64,
    /// Of its program.
    pub version: String,
    /// Of the disk with its data, where it can be told.
    pub disk_free_bytes: Option<u64>,
    /// Below so much free space it refuses appends.
    pub disk_reserve_bytes: u64,
    /// Raft groups that it leads.
    pub led: Vec<LedGroup>,
    /// Raft groups of which it should have a replica that runs, and has none.
    pub closed: Vec<String>,
}

/// A Raft group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedGroup {
    /// "orders/0", "coordinator 2", "metadata".
    pub name: String,
    /// The leader itself, too.
    pub voters: Vec<VoterLag>,
}

/// How far a voter is behind its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterLag {
    /// Label of its node.
    pub node_id: u64,
    /// Entries that it is not known to have; `None` where nothing is known.
    pub behind_entries: Option<u64>,
}

impl From<v1::InspectNodeResponse> for NodeReport {
    fn from(answer: v1::InspectNodeResponse) -> NodeReport {
        let lag = |voter: v1::VoterLag| VoterLag {
            node_id: voter.node_id,
            behind_entries: voter.behind_entries,
        };
        let led = answer.led.into_iter().map(|group| LedGroup {
            name: group.name,
            voters: group.voters.into_iter().map(lag).collect(),
        });
        NodeReport {
            node_id: answer.node_id,
            version: answer.version,
            disk_free_bytes: answer.disk_free_bytes,
            disk_reserve_bytes: answer.disk_reserve_bytes,
            led: led.collect(),
            closed: answer.closed,
        }
    }
}

/// The cluster's feature level, and what its nodes speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Finalized; never taken back.
    pub level: u32,
    /// The highest that every node speaks, if there is one.
    pub level_common: Option<u32>,
    /// By label.
    pub nodes: Vec<NodeLevels>,
}

/// The feature levels that a node speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLevels {
    /// Its label.
    pub node_id: u64,
    /// Of its program.
    pub version: String,
    /// The lowest.
    pub level_min: u32,
    /// The highest.
    pub level_max: u32,
}

impl From<v1::DescribeFeaturesResponse> for Features {
    fn from(answer: v1::DescribeFeaturesResponse) -> Features {
        let nodes = answer.nodes.into_iter().map(|node| NodeLevels {
            node_id: node.node_id,
            version: node.version,
            level_min: node.level_min,
            level_max: node.level_max,
        });
        let mut nodes: Vec<NodeLevels> = nodes.collect();
        nodes.sort_by_key(|node| node.node_id);
        let level_common = Some(answer.level_common).filter(|level| *level > 0);
        Features { level: answer.level, level_common, nodes }
    }
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication_factor: u32,
}

/// A topic with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Differs from that of an earlier topic of the same name.
    pub topic_id: String,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// Every setting, those left at their default too.
    pub configs: BTreeMap<String, String>,
    /// By number.
    pub partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 0.
    pub partition: u32,
    /// Its Raft group.
    pub group: u32,
    /// Label of the leader, where the asked node knows one.
    pub leader: Option<u64>,
    /// "host:port" of the leader, where the asked node knows it.
    pub leader_address: Option<String>,
    /// Raft term of that leader.
    pub leader_epoch: u64,
    /// Labels of the nodes that hold a replica; the first is the preferred leader.
    pub replicas: Vec<u64>,
}

/// What a node knows of its own replica of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Label of the node.
    pub node_id: u64,
    /// Given once, never used again.
    pub replica_id: u64,
    /// What it does in its Raft group.
    pub role: ReplicaRole,
    /// Raft term.
    pub term: u64,
    /// First offset kept.
    pub log_start_offset: u64,
    /// End (exclusive) of what this replica may serve.
    pub high_watermark: u64,
    /// Chain hash over everything below `chain_hash_offset`; `None` where it is not known any
    /// more. Replicas that agree have the same hash at the same offset.
    pub chain_hash: Option<Bytes>,
    /// Where the chain hash ends (exclusive).
    pub chain_hash_offset: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Producers remembered.
    pub producers: u64,
    /// How far it may lag, where it can know.
    pub staleness: Option<Duration>,
}

/// What a replica does in its Raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Orders appends.
    Leader,
    /// Votes and follows.
    Follower,
    /// Wants to lead.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Sleeps until it is needed.
    Parked,
    /// A role this library does not know yet.
    Other(String),
}

impl ReplicaRole {
    /// As on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            ReplicaRole::Leader => "leader",
            ReplicaRole::Follower => "follower",
            ReplicaRole::Candidate => "candidate",
            ReplicaRole::Learner => "learner",
            ReplicaRole::Parked => "parked",
            ReplicaRole::Other(name) => name,
        }
    }

    fn of_name(name: String) -> ReplicaRole {
        match name.as_str() {
            "leader" => ReplicaRole::Leader,
            "follower" => ReplicaRole::Follower,
            "candidate" => ReplicaRole::Candidate,
            "learner" => ReplicaRole::Learner,
            "parked" => ReplicaRole::Parked,
            _ => ReplicaRole::Other(name),
        }
    }
}

impl From<v1::DescribeClusterResponse> for Cluster {
    fn from(answer: v1::DescribeClusterResponse) -> Cluster {
        let mut nodes: Vec<Node> = answer.nodes.into_iter().map(Into::into).collect();
        nodes.sort_by_key(|node| node.node_id);
        Cluster {
            cluster_id: (!answer.cluster_id.is_empty()).then_some(answer.cluster_id),
            asked_node: answer.asked_node,
            nodes,
            metadata_leader: (answer.metadata_leader != 0).then_some(answer.metadata_leader),
        }
    }
}

impl From<v1::NodeInfo> for Node {
    fn from(node: v1::NodeInfo) -> Node {
        Node {
            node_id: node.node_id,
            uuid: node.uuid,
            address: node.address,
            alive: node.alive,
            leaders: node.leaders,
            replicas: node.replicas,
            version: node.version,
        }
    }
}

impl From<v1::HealthResponse> for Health {
    fn from(answer: v1::HealthResponse) -> Health {
        Health {
            healthy: answer.healthy,
            problems: answer.problems,
            groups: answer.groups,
            leaderless_groups: answer.leaderless_groups,
            dead_nodes: answer.dead_nodes,
            findings: answer.findings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::Finding> for Finding {
    fn from(finding: v1::Finding) -> Finding {
        let severity = match finding.severity() {
            v1::Severity::Advice => Severity::Advice,
            v1::Severity::Warning => Severity::Warning,
            // Better to look at one too many.
            v1::Severity::Critical | v1::Severity::Unspecified => Severity::Critical,
        };
        Finding {
            severity,
            trouble: finding.trouble,
            node: (finding.node_id != 0).then_some(finding.node_id),
            what: finding.what,
            advice: finding.advice,
        }
    }
}

impl From<v1::TopicSummary> for TopicSummary {
    fn from(topic: v1::TopicSummary) -> TopicSummary {
        TopicSummary {
            name: topic.topic,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
        }
    }
}

impl From<v1::TopicInfo> for Topic {
    fn from(topic: v1::TopicInfo) -> Topic {
        let mut partitions: Vec<Partition> = topic.partitions.into_iter().map(Into::into).collect();
        partitions.sort_by_key(|partition| partition.partition);
        Topic {
            name: topic.topic,
            topic_id: topic.topic_id,
            replication_factor: topic.replication_factor,
            configs: topic.configs.into_iter().collect(),
            partitions,
        }
    }
}

impl From<v1::PartitionInfo> for Partition {
    fn from(partition: v1::PartitionInfo) -> Partition {
        let address = partition.leader_address;
        Partition {
            partition: partition.partition,
            group: partition.group,
            leader: (partition.leader != 0).then_some(partition.leader),
            leader_address: (!address.is_empty()).then_some(address),
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas,
        }
    }
}

impl From<v1::DescribeReplicaResponse> for Replica {
    fn from(replica: v1::DescribeReplicaResponse) -> Replica {
        Replica {
            node_id: replica.node_id,
            replica_id: replica.replica_id,
            role: ReplicaRole::of_name(replica.role),
            term: replica.term,
            log_start_offset: replica.log_start_offset,
            high_watermark: replica.high_watermark,
            chain_hash: (!replica.chain_hash.is_empty()).then_some(replica.chain_hash),
            chain_hash_offset: replica.chain_hash_offset,
            bytes: replica.bytes,
            producers: replica.producers,
            staleness: replica.staleness_ms.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}
