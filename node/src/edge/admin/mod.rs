//! Administration: topics, the cluster and its health, single replicas.
//!
//! - `topics`: making, describing, changing and deleting them;
//! - `cluster`: forming it, its nodes, what is wrong with it;
//! - `nodes`: how they are, draining and removing them; `rebalance`: evening out;
//! - `features`: the finalized feature level;
//! - `inspect`: what a node knows at first hand;
//! - `replica`: one replica, and moving leaders.

mod cluster;
mod features;
mod inspect;
mod nodes;
mod rebalance;
mod replica;
mod topics;

use std::sync::Arc;

use quipu_proto::v1;
use quipu_proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::Door;
use super::status::answer;

/// quipu.v1.Admin.
pub(super) struct AdminService(pub(super) Arc<Door>);

#[tonic::async_trait]
impl Admin for AdminService {
    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        answer(cluster::init(&self.0, request.into_inner()).await)
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        answer(cluster::describe(&self.0))
    }

    async fn health(
        &self,
        request: Request<v1::HealthRequest>,
    ) -> Result<Response<v1::HealthResponse>, Status> {
        answer(self.0.unless_stopped(cluster::health(&self.0, request.get_ref())).await)
    }

    async fn inspect_node(
        &self,
        _: Request<v1::InspectNodeRequest>,
    ) -> Result<Response<v1::InspectNodeResponse>, Status> {
        answer(inspect::inspect(&self.0))
    }

    async fn describe_features(
        &self,
        _: Request<v1::DescribeFeaturesRequest>,
    ) -> Result<Response<v1::DescribeFeaturesResponse>, Status> {
        answer(self.0.unless_stopped(features::describe(&self.0)).await)
    }

    async fn finalize_level(
        &self,
        request: Request<v1::FinalizeLevelRequest>,
    ) -> Result<Response<v1::FinalizeLevelResponse>, Status> {
        answer(features::finalize(&self.0, request.get_ref()).await)
    }

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        answer(topics::create(&self.0, request.into_inner()).await)
    }

    async fn list_topics(
        &self,
        _: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        answer(self.0.unless_stopped(topics::list(&self.0)).await)
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        answer(self.0.unless_stopped(topics::describe(&self.0, request.get_ref())).await)
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        answer(topics::alter(&self.0, request.into_inner()).await)
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        answer(topics::delete(&self.0, request.get_ref()).await)
    }

    async fn describe_nodes(
        &self,
        request: Request<v1::DescribeNodesRequest>,
    ) -> Result<Response<v1::DescribeNodesResponse>, Status> {
        answer(self.0.unless_stopped(nodes::describe(&self.0, request.get_ref())).await)
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        answer(self.0.unless_stopped(nodes::drain(&self.0, request.get_ref())).await)
    }

    async fn resume_node(
        &self,
        request: Request<v1::ResumeNodeRequest>,
    ) -> Result<Response<v1::ResumeNodeResponse>, Status> {
        answer(self.0.unless_stopped(nodes::resume(&self.0, request.get_ref())).await)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        answer(self.0.unless_stopped(nodes::remove(&self.0, request.get_ref())).await)
    }

    async fn cancel_removal(
        &self,
        request: Request<v1::CancelRemovalRequest>,
    ) -> Result<Response<v1::CancelRemovalResponse>, Status> {
        answer(self.0.unless_stopped(nodes::cancel(&self.0, request.get_ref())).await)
    }

    async fn plan_rebalance(
        &self,
        request: Request<v1::PlanRebalanceRequest>,
    ) -> Result<Response<v1::PlanRebalanceResponse>, Status> {
        answer(self.0.unless_stopped(rebalance::plan(&self.0, request.get_ref())).await)
    }

    async fn place_replicas(
        &self,
        request: Request<v1::PlaceReplicasRequest>,
    ) -> Result<Response<v1::PlaceReplicasResponse>, Status> {
        answer(self.0.unless_stopped(rebalance::place(&self.0, request.get_ref())).await)
    }

    async fn describe_replica(
        &self,
        request: Request<v1::DescribeReplicaRequest>,
    ) -> Result<Response<v1::DescribeReplicaResponse>, Status> {
        answer(self.0.unless_stopped(replica::describe(&self.0, request.get_ref())).await)
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Result<Response<v1::MoveLeaderResponse>, Status> {
        answer(replica::move_leader(&self.0, request.get_ref()).await)
    }
}
