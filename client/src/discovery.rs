//! Learns the cluster: its nodes, its topics, who leads what.
//!
//! Asking changes nothing, so every failure here is definite for the call that wanted to know.

use std::time::Duration;

use quipu_proto::v1;
use quipu_proto::v1::admin_client::AdminClient;
use tokio::time::{Instant, sleep_until};

use crate::calls::Patience;
use crate::client::Shared;
use crate::error::{CallError, ErrorCode, Outcome};
use crate::retry::{Attempts, Next};
use crate::routing::{LeaderNews, Lookup};

impl Shared {
    /// The address of the node with this label.
    pub(crate) async fn node(&self, node: u64) -> Result<String, CallError> {
        if let Some(address) = self.routing().node(node) {
            return Ok(address);
        }
        let address = self.any_node();
        self.learn_cluster(&address).await.map_err(not_sent)?;
        let found = self.routing().node(node);
        found.ok_or_else(|| CallError::invalid_input(format!("the cluster has no node {node}")))
    }

    /// Who leads the partition; asks the cluster if that is not known.
    ///
    /// # Errors
    /// Always definite: the call itself has not been sent.
    pub(crate) async fn leader(
        &self,
        topic: &str,
        partition: u32,
        deadline: Instant,
    ) -> Result<String, CallError> {
        let asked_at = Instant::now();
        if let Some(found) = self.known_leader(topic, partition) {
            return found;
        }
        self.refresh_topic(topic, asked_at, deadline).await?;
        self.known_leader(topic, partition).unwrap_or_else(|| {
            let message = format!("topic {topic}, partition {partition} has no leader known");
            Err(CallError {
                retriable: true,
                ..CallError::refused_here(ErrorCode::LeaderUnknown, message)
            })
        })
    }

    fn known_leader(&self, topic: &str, partition: u32) -> Option<Result<String, CallError>> {
        match self.routing().leader(topic, partition) {
            Lookup::Leader(address) => Some(Ok(address)),
            Lookup::LeaderUnknown | Lookup::TopicUnknown => None,
            Lookup::NoSuchPartition(count) => {
                let message = format!("topic {topic} has {count} partitions, no {partition}");
                Some(Err(CallError::refused_here(ErrorCode::UnknownPartition, message)))
            }
        }
    }

    /// How many partitions the topic has.
    pub(crate) async fn partition_count(
        &self,
        topic: &str,
        deadline: Instant,
    ) -> Result<u32, CallError> {
        let mut attempts = Attempts::new(self.backoff(), deadline, true);
        loop {
            let known = self.routing().partition_count(topic);
            if let Some(count) = known {
                return Ok(count);
            }
            let asked = self.refresh_topic(topic, Instant::now(), deadline).await;
            let Err(error) = asked else { continue };
            match self.after_failure(&mut attempts, error) {
                Next::RetryAt(at) => sleep_until(at).await,
                Next::GiveUp(error) => return Err(error),
            }
        }
    }

    /// Learns about the topic from the first node that knows it, unless that has happened since
    /// `wanted_at`.
    ///
    /// A node may not have heard of a topic that another has just created, so that the topic is
    /// unknown only if every node that answers says so.
    ///
    /// # Errors
    /// Always definite: asking changes nothing.
    pub(crate) async fn refresh_topic(
        &self,
        topic: &str,
        wanted_at: Instant,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let _one_at_a_time = self.refreshing.lock().await;
        if self.routing().learned_at(topic).is_some_and(|at| at >= wanted_at) {
            return Ok(());
        }
        let nodes = self.routing().nodes_in_turn(Instant::now());
        let mut refusal: Option<CallError> = None;
        for address in nodes {
            match self.describe_topic_at(&address, topic, deadline).await {
                Ok(topic) => {
                    self.learn_topic(&topic);
                    return Ok(());
                }
                Err(error) => {
                    // What a node says tells more than that another could not be reached.
                    let said = error.detail.is_some();
                    if said || refusal.as_ref().is_none_or(|known| known.detail.is_none()) {
                        refusal = Some(error);
                    }
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let refusal = refusal.expect("there is at least the seed to ask");
        if refusal.is(ErrorCode::UnknownTopic) {
            self.routing().forget_topic(topic);
        }
        Err(not_sent(refusal))
    }

    /// Takes what a node says of a topic.
    pub(crate) fn learn_topic(&self, topic: &v1::TopicInfo) {
        let news: Vec<LeaderNews> = topic
            .partitions
            .iter()
            .map(|partition| LeaderNews {
                partition: partition.partition,
                epoch: partition.leader_epoch,
                address: (!partition.leader_address.is_empty())
                    .then(|| partition.leader_address.clone()),
            })
            .collect();
        self.routing().learn_topic(&topic.topic, &topic.topic_id, &news, Instant::now());
    }

    async fn describe_topic_at(
        &self,
        address: &str,
        topic: &str,
        deadline: Instant,
    ) -> Result<v1::TopicInfo, CallError> {
        let request = v1::DescribeTopicRequest { topic: topic.to_owned() };
        let answer = self
            .attempt_at(address, self.metadata_patience(deadline), &|channel| {
                let request = request.clone();
                async move { AdminClient::new(channel).describe_topic(request).await }
            })
            .await?;
        answer.topic.ok_or_else(|| CallError::bad_answer(address, "described no topic"))
    }

    /// Learns the nodes of the cluster from one of them.
    pub(crate) async fn learn_cluster(&self, address: &str) -> Result<(), CallError> {
        let answer = self
            .attempt_at(address, self.metadata_patience(self.deadline()), &|channel| async move {
                AdminClient::new(channel).describe_cluster(v1::DescribeClusterRequest {}).await
            })
            .await?;
        self.learn_nodes(&answer);
        Ok(())
    }

    /// Takes the cluster's list of nodes.
    pub(crate) fn learn_nodes(&self, cluster: &v1::DescribeClusterResponse) {
        let nodes = cluster.nodes.iter().filter(|node| !node.address.is_empty());
        self.routing().learn_nodes(nodes.map(|node| (node.node_id, node.address.clone())));
    }

    fn metadata_patience(&self, deadline: Instant) -> Patience {
        let request_timeout = self.config.metadata_timeout.min(self.config.request_timeout);
        Patience {
            repeatable: true,
            request_timeout,
            may_wait: Duration::ZERO,
            deadline,
            once: true,
        }
    }
}

/// A failure to learn where to send a call: the call itself has not been sent.
fn not_sent(error: CallError) -> CallError {
    CallError { outcome: Outcome::Definite, ..error }
}
