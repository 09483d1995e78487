//! What the fake cluster answers an operator.

use super::*;

fn not_faked() -> Status {
    Status::unimplemented("the fake cluster has nodes of one kind only")
}

#[tonic::async_trait]
impl Admin for Node {
    async fn init_cluster(
        &self,
        _: Request<v1::InitClusterRequest>,
    ) -> Answer<v1::InitClusterResponse> {
        self.cluster.state().formed = true;
        answer(Ok(v1::InitClusterResponse { cluster_id: "c".to_owned() }))
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Answer<v1::DescribeClusterResponse> {
        self.note("describe_cluster");
        let formed = self.cluster.state().formed;
        let nodes = [3, 1, 2].into_iter().filter(|_| formed).map(|node_id| v1::NodeInfo {
            node_id,
            address: address(node_id),
            alive: true,
            ..v1::NodeInfo::default()
        });
        answer(Ok(v1::DescribeClusterResponse {
            cluster_id: if formed { "c".to_owned() } else { String::new() },
            asked_node: self.id,
            nodes: nodes.collect(),
            metadata_leader: self.cluster.state().coordinator,
        }))
    }

    async fn health(&self, _: Request<v1::HealthRequest>) -> Answer<v1::HealthResponse> {
        answer(Ok(v1::HealthResponse { healthy: true, groups: 7, ..Default::default() }))
    }

    async fn inspect_node(
        &self,
        _: Request<v1::InspectNodeRequest>,
    ) -> Answer<v1::InspectNodeResponse> {
        Err(not_faked())
    }

    async fn describe_features(
        &self,
        _: Request<v1::DescribeFeaturesRequest>,
    ) -> Answer<v1::DescribeFeaturesResponse> {
        Err(not_faked())
    }

    async fn finalize_level(
        &self,
        _: Request<v1::FinalizeLevelRequest>,
    ) -> Answer<v1::FinalizeLevelResponse> {
        Err(not_faked())
    }

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Answer<v1::CreateTopicResponse> {
        self.note("create_topic");
        let request = request.into_inner();
        let coordinator = self.cluster.state().coordinator;
        let created = self.lead(Some(coordinator)).and_then(|()| {
            self.refuse_if_told()?;
            if self.cluster.state().topics.contains_key(&request.topic) {
                return Err(final_refusal(ErrorCode::TopicExists));
            }
            self.cluster.create(&request.topic, usize::try_from(request.partitions).unwrap());
            self.describe_by_name(&request.topic)
        });
        answer(created.map(|topic| v1::CreateTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(
        &self,
        _: Request<v1::ListTopicsRequest>,
    ) -> Answer<v1::ListTopicsResponse> {
        let state = self.cluster.state();
        let topics = state.topics.iter().rev().map(|(topic, known)| v1::TopicSummary {
            topic: topic.clone(),
            partitions: u32::try_from(known.partitions.len()).unwrap(),
            replication_factor: 3,
        });
        answer(Ok(v1::ListTopicsResponse { topics: topics.collect() }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Answer<v1::DescribeTopicResponse> {
        self.note("describe_topic");
        let found = self.describe_by_name(&request.get_ref().topic);
        answer(found.map(|topic| v1::DescribeTopicResponse { topic: Some(topic) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Answer<v1::AlterTopicResponse> {
        let request = request.into_inner();
        let altered = {
            let mut state = self.cluster.state();
            let lead = self.lead(Some(state.coordinator));
            let topic = state.topics.get_mut(&request.topic);
            lead.and_then(|()| topic.ok_or(final_refusal(ErrorCode::UnknownTopic)))
                .map(|topic| topic.configs.extend(request.configs))
        };
        let altered = altered.and_then(|()| self.describe_by_name(&request.topic));
        answer(altered.map(|topic| v1::AlterTopicResponse { topic: Some(topic) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Answer<v1::DeleteTopicResponse> {
        let gone = self.cluster.state().topics.remove(&request.get_ref().topic);
        let gone = gone.map(|_| v1::DeleteTopicResponse {});
        answer(gone.ok_or(final_refusal(ErrorCode::UnknownTopic)))
    }

    async fn describe_replica(
        &self,
        request: Request<v1::DescribeReplicaRequest>,
    ) -> Answer<v1::DescribeReplicaResponse> {
        let at_offset = request.get_ref().at_offset;
        answer(Ok(v1::DescribeReplicaResponse {
            node_id: self.id,
            role: "follower".to_owned(),
            chain_hash_offset: at_offset.unwrap_or(9),
            ..v1::DescribeReplicaResponse::default()
        }))
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Answer<v1::MoveLeaderResponse> {
        let request = request.into_inner();
        let mut state = self.cluster.state();
        let moved = self.led(&mut state, &request.topic, request.partition).map(|partition| {
            partition.leader = Some(request.to_node);
            partition.epoch += 1;
            v1::MoveLeaderResponse {}
        });
        answer(moved)
    }

    async fn describe_nodes(
        &self,
        _: Request<v1::DescribeNodesRequest>,
    ) -> Answer<v1::DescribeNodesResponse> {
        Err(not_faked())
    }

    async fn drain_node(&self, _: Request<v1::DrainNodeRequest>) -> Answer<v1::DrainNodeResponse> {
        Err(not_faked())
    }

    async fn resume_node(
        &self,
        _: Request<v1::ResumeNodeRequest>,
    ) -> Answer<v1::ResumeNodeResponse> {
        Err(not_faked())
    }

    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Answer<v1::RemoveNodeResponse> {
        Err(not_faked())
    }

    async fn cancel_removal(
        &self,
        _: Request<v1::CancelRemovalRequest>,
    ) -> Answer<v1::CancelRemovalResponse> {
        Err(not_faked())
    }

    async fn plan_rebalance(
        &self,
        _: Request<v1::PlanRebalanceRequest>,
    ) -> Answer<v1::PlanRebalanceResponse> {
        Err(not_faked())
    }

    async fn place_replicas(
        &self,
        _: Request<v1::PlaceReplicasRequest>,
    ) -> Answer<v1::PlaceReplicasResponse> {
        Err(not_faked())
    }
}
