//! Topics, partitions, nodes: what an operator asks and orders.
//!
//! Orders go to the leader of the metadata group and are not sent again once they may have had
//! their effect, unless repeating them does no harm. A call to one chosen node is attempted once:
//! whoever asks a certain node wants to know about it, dead or alive.

mod description;
mod nodes;
mod rebalance;

use quipu_proto::MESSAGE_BYTES_MAX;
use quipu_proto::v1;
use quipu_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::calls::{Patience, Target};
use crate::client::Client;
use crate::error::{AdminError, CallError, Code, ErrorCode, Outcome};

pub use description::{
    Cluster, Features, Finding, Health, LedGroup, NewTopic, Node, NodeLevels, NodeReport,
    Partition, Replica, ReplicaRole, Severity, Topic, TopicSummary, VoterLag,
};
pub use nodes::{NodeStatus, Removal, ReplicaMove, Standing};
pub use rebalance::{LeaderMove, PlannedChange, RebalancePlan};

/// The administrative calls of a [`Client`].
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    /// Ask this node and no other.
    only: Option<Target>,
}

/// What a call does if it arrives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    /// Nothing more.
    Harmless,
    /// It would fail, or do something else.
    Harmful,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client, only: None }
    }

    /// The same calls, each sent once, to the node of this label.
    #[must_use]
    pub fn at_node(&self, node: u64) -> Admin {
        Admin { client: self.client.clone(), only: Some(Target::Node(node)) }
    }

    /// The same calls, each sent once, to the node at "host:port". It may belong to no cluster yet.
    #[must_use]
    pub fn at_address(&self, address: impl Into<String>) -> Admin {
        Admin { client: self.client.clone(), only: Some(Target::Address(address.into())) }
    }

    /// Forms the cluster, once, from fresh nodes. Safe to repeat. Returns the cluster's id.
    ///
    /// # Errors
    /// `ALREADY_INITIALIZED` where a node belongs to another cluster.
    pub async fn init_cluster(&self, addresses: &[String]) -> Result<String, AdminError> {
        let request = v1::InitClusterRequest { addresses: addresses.to_vec() };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| {
                let request = request.clone();
                async move { admin.init_cluster(request).await }
            })
            .await?;
        Ok(answer.cluster_id)
    }

    /// The nodes, and which of them the asked one hears.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn describe_cluster(&self) -> Result<Cluster, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.describe_cluster(v1::DescribeClusterRequest {}).await
            })
            .await?;
        self.client.shared.learn_nodes(&answer);
        Ok(answer.into())
    }

    /// What the asked node thinks is wrong.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn health(&self) -> Result<Health, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.health(v1::HealthRequest::default()).await
            })
            .await?;
        Ok(answer.into())
    }

    /// What all nodes together find wrong, and what to do about it.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn cluster_health(&self) -> Result<Health, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.health(v1::HealthRequest { all_nodes: true }).await
            })
            .await?;
        Ok(answer.into())
    }

    /// What the asked node knows at first hand.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn inspect(&self) -> Result<NodeReport, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.inspect_node(v1::InspectNodeRequest {}).await
            })
            .await?;
        Ok(answer.into())
    }

    /// The finalized feature level, and what each node speaks.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn describe_features(&self) -> Result<Features, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.describe_features(v1::DescribeFeaturesRequest {}).await
            })
            .await?;
        Ok(answer.into())
    }

    /// Raises the finalized feature level, for ever: from then on nodes of an older build are
    /// refused. `None`: to the highest that every node speaks. Returns the level that is finalized.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` where a node does not speak it, or does not answer.
    pub async fn finalize_level(&self, level: Option<u32>) -> Result<u32, AdminError> {
        let request = v1::FinalizeLevelRequest { level: level.unwrap_or(0) };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.finalize_level(request).await
            })
            .await?;
        Ok(answer.level)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`AdminError::TopicExists`], `INVALID_CONFIG`, `INVALID_REPLICATION`.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<Topic, AdminError> {
        let request = v1::CreateTopicRequest {
            topic: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic.configs.into_iter().collect(),
        };
        let answer = self
            .call(Target::Metadata, Repeated::Harmful, |mut admin| {
                let request = request.clone();
                async move { admin.create_topic(request).await }
            })
            .await
            .map_err(|error| about_topic(&topic.name, error))?;
        self.take_topic(answer.topic)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, AdminError> {
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.list_topics(v1::ListTopicsRequest {}).await
            })
            .await?;
        let mut topics: Vec<TopicSummary> = answer.topics.into_iter().map(Into::into).collect();
        topics.sort();
        Ok(topics)
    }

    /// Settings, partitions, leaders and replicas of a topic.
    ///
    /// # Errors
    /// [`AdminError::UnknownTopic`].
    pub async fn describe_topic(&self, topic: &str) -> Result<Topic, AdminError> {
        let request = v1::DescribeTopicRequest { topic: topic.to_owned() };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| {
                let request = request.clone();
                async move { admin.describe_topic(request).await }
            })
            .await
            .map_err(|error| about_topic(topic, error))?;
        self.take_topic(answer.topic)
    }

    /// Changes the named settings; an empty value sets the default again.
    ///
    /// # Errors
    /// [`AdminError::UnknownTopic`], `INVALID_CONFIG`.
    pub async fn alter_topic<I>(&self, topic: &str, configs: I) -> Result<Topic, AdminError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let request = v1::AlterTopicRequest {
            topic: topic.to_owned(),
            configs: configs.into_iter().collect(),
        };
        let answer = self
            .call(Target::Metadata, Repeated::Harmless, |mut admin| {
                let request = request.clone();
                async move { admin.alter_topic(request).await }
            })
            .await
            .map_err(|error| about_topic(topic, error))?;
        self.take_topic(answer.topic)
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// [`AdminError::UnknownTopic`].
    pub async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        let request = v1::DeleteTopicRequest { topic: topic.to_owned() };
        self.call(Target::Metadata, Repeated::Harmful, |mut admin| {
            let request = request.clone();
            async move { admin.delete_topic(request).await }
        })
        .await
        .map_err(|error| about_topic(topic, error))?;
        self.client.shared.routing().forget_topic(topic);
        Ok(())
    }

    /// What node `node` knows of its own replica of a partition. The chain hash is told for
    /// `at_offset`, else for the replica's own high watermark.
    ///
    /// # Errors
    /// `UNKNOWN_PARTITION` where the node holds no replica of it.
    pub async fn describe_replica(
        &self,
        node: u64,
        topic: &str,
        partition: u32,
        at_offset: Option<u64>,
    ) -> Result<Replica, AdminError> {
        let request = v1::DescribeReplicaRequest { topic: topic.to_owned(), partition, at_offset };
        let answer = self
            .call(Target::Node(node), Repeated::Harmless, |mut admin| {
                let request = request.clone();
                async move { admin.describe_replica(request).await }
            })
            .await
            .map_err(|error| about_topic(topic, error))?;
        Ok(answer.into())
    }

    /// Moves the leadership of a partition to the node of label `to_node`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where that node holds no replica of it.
    pub async fn move_leader(
        &self,
        topic: &str,
        partition: u32,
        to_node: u64,
    ) -> Result<(), AdminError> {
        let request = v1::MoveLeaderRequest {
            topic: topic.to_owned(),
            partition,
            to_node,
            ..v1::MoveLeaderRequest::default()
        };
        let target = Target::Leader(topic.to_owned(), partition);
        self.call(target, Repeated::Harmless, |mut admin| {
            let request = request.clone();
            async move { admin.move_leader(request).await }
        })
        .await
        .map_err(|error| about_topic(topic, error))?;
        Ok(())
    }

    async fn call<T, F, R>(
        &self,
        target: Target,
        repeated: Repeated,
        request: F,
    ) -> Result<T, AdminError>
    where
        F: Fn(AdminClient<Channel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.client.shared;
        let patience = shared.patience(repeated == Repeated::Harmless);
        let (target, patience) = match &self.only {
            Some(only) => (only.clone(), Patience { once: true, ..patience }),
            None => (target, patience),
        };
        shared
            .call(&target, patience, |channel| {
                let admin = AdminClient::new(channel);
                request(admin.max_decoding_message_size(MESSAGE_BYTES_MAX))
            })
            .await
            .map_err(|error| match target {
                Target::Node(node) if error.code == Code::InvalidInput => {
                    AdminError::UnknownNode { node }
                }
                _ => AdminError::Call(error),
            })
    }

    fn take_topic(&self, topic: Option<v1::TopicInfo>) -> Result<Topic, AdminError> {
        let topic = topic.ok_or_else(|| CallError::bad_answer("node", "described no topic"))?;
        self.client.shared.learn_topic(&topic);
        Ok(topic.into())
    }
}

fn about_topic(topic: &str, error: AdminError) -> AdminError {
    if error.outcome() == Outcome::Unknown {
        return error;
    }
    match error.code() {
        Code::Server(ErrorCode::TopicExists) => AdminError::TopicExists { topic: topic.to_owned() },
        Code::Server(ErrorCode::UnknownTopic) => {
            AdminError::UnknownTopic { topic: topic.to_owned() }
        }
        _ => error,
    }
}
