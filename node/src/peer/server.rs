//! What other nodes may call. Every call names the cluster, the group and the replica it is meant
//! for; a mismatch is refused, so that a node at a reused address is never taken for another.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use node_core::ids::{GroupId, NodeUuid};
use node_core::limits::GROUPS_MAX;
use node_core::metadata::MetadataCommand;
use quipu_proto::peer::v1 as pb;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::formation::{Formation, FormationFailure};
use crate::limits;
use crate::member::{Member, Replica, answer_of, asked_of};
use crate::raft::{RaftFailure, Refusal};
use tokio::time::Instant;

/// The code with which a node says that it does not lead the group asked for.
pub(crate) const NOT_LEADER: Code = Code::FailedPrecondition;

/// The code with which a node says that its own copy of an entry is damaged.
pub(crate) const UNREADABLE: Code = Code::DataLoss;

/// The code with which a node says that it let go of an entry with the log's beginning.
pub(crate) const PURGED: Code = Code::OutOfRange;

type Answer<T> = Result<Response<T>, Status>;
type AppendStream = Pin<Box<dyn Stream<Item = Result<pb::AppendEntriesResponse, Status>> + Send>>;

/// Calls about nodes.
pub(crate) struct PeerServer(pub(crate) Arc<Formation>);

/// Calls about groups.
#[derive(Clone)]
pub(crate) struct RaftServer(pub(crate) Arc<Formation>);

fn refused(failure: &FormationFailure) -> Status {
    Status::aborted(failure.to_string())
}

fn raft_refused(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::Malformed(_) => Status::invalid_argument(text),
        // Nothing was done: another moment, or another node, may do.
        Refusal::Raft(
            RaftFailure::NotLeader { .. } | RaftFailure::NoQuorum | RaftFailure::Busy,
        ) => Status::new(NOT_LEADER, text),
        Refusal::Raft(_) => Status::aborted(text),
        Refusal::NotCommitted(_) => Status::not_found(text),
        Refusal::Purged(_) => Status::new(PURGED, text),
        Refusal::Unreadable(..) => Status::new(UNREADABLE, text),
    }
}

fn member(formation: &Formation, cluster_id: &[u8]) -> Result<Arc<Member>, Status> {
    let member = formation.member();
    let member = member.ok_or_else(|| Status::aborted("this node belongs to no cluster yet"))?;
    if Uuid::from_slice(cluster_id).ok() == Some(member.cluster_id().0) {
        Ok(member)
    } else {
        Err(Status::aborted("this node belongs to another cluster"))
    }
}

fn no_replica() -> Status {
    Status::aborted("this node has no open replica of the group")
}

#[tonic::async_trait]
impl pb::peer_server::Peer for PeerServer {
    async fn hello(&self, _: Request<pb::HelloRequest>) -> Answer<pb::HelloResponse> {
        Ok(Response::new(self.0.hello().await))
    }

    async fn adopt(&self, request: Request<pb::AdoptRequest>) -> Answer<pb::AdoptResponse> {
        let adopted = self.0.adopt(request.get_ref()).await;
        adopted.map_err(|failure| refused(&failure))?;
        Ok(Response::new(pb::AdoptResponse {}))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Answer<pb::JoinResponse> {
        let response = self.0.take_in(request.get_ref()).await;
        Ok(Response::new(response.map_err(|failure| refused(&failure))?))
    }

    async fn beat(&self, request: Request<pb::BeatRequest>) -> Answer<pb::BeatResponse> {
        let request = request.get_ref();
        let member = member(&self.0, &request.cluster_id)?;
        let mut answer = member.liveness().answer(request);
        let from = Uuid::from_slice(&request.from_node).map(NodeUuid);
        answer.removed = from.is_ok_and(|node| member.metadata().removed_nodes().contains(&node));
        Ok(Response::new(answer))
    }

    async fn survey(&self, request: Request<pb::SurveyRequest>) -> Answer<pb::SurveyResponse> {
        let member = member(&self.0, &request.get_ref().cluster_id)?;
        Ok(Response::new(super::survey::write(&member.own_survey())))
    }

    async fn propose_metadata(
        &self,
        request: Request<pb::ProposeMetadataRequest>,
    ) -> Answer<pb::ProposeMetadataResponse> {
        let request = request.into_inner();
        let member = member(&self.0, &request.cluster_id)?;
        // Once it is in the log every replica must apply it, and none could.
        MetadataCommand::decode(request.command.clone())
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        let outcome = member.propose_here(request.command, deadline).await;
        let outcome = outcome.map_err(|failure| raft_refused(&Refusal::Raft(failure)))?;
        Ok(Response::new(pb::ProposeMetadataResponse { outcome: outcome.encode() }))
    }

    async fn measure_positions(
        &self,
        request: Request<pb::MeasurePositionsRequest>,
    ) -> Answer<pb::MeasurePositionsResponse> {
        let request = request.get_ref();
        let member = member(&self.0, &request.cluster_id)?;
        if request.positions.len() > GROUPS_MAX {
            return Err(Status::invalid_argument("more partitions than a cluster has"));
        }
        let deadline = Instant::now() + limits::POSITIONS_WITHIN;
        let measured = member.measure_here(&asked_of(request), deadline).await;
        Ok(Response::new(answer_of(measured)))
    }
}

impl RaftServer {
    fn replica(&self, target: Option<&pb::Target>) -> Result<Arc<Replica>, Status> {
        let target = target.ok_or_else(|| Status::invalid_argument("a call without a target"))?;
        let member = member(&self.0, &target.cluster_id)?;
        let replica = member.registry_ref().replica(GroupId(target.group));
        let replica = replica.ok_or_else(no_replica)?;
        if replica.raft().replica().0 == target.replica {
            Ok(replica)
        } else {
            Err(Status::aborted("this node has another replica of the group"))
        }
    }

    async fn heartbeat(
        &self,
        request: pb::AppendEntriesRequest,
    ) -> pb::heartbeats_response::Result {
        let answer = match self.replica(request.target.as_ref()) {
            Ok(replica) => {
                let answer = replica.raft().serve_append(request).await;
                answer.map_err(|refusal| refusal.to_string())
            }
            Err(status) => Err(status.message().to_owned()),
        };
        match answer {
            Ok(response) => {
                pb::heartbeats_response::Result { response: Some(response), error: String::new() }
            }
            Err(error) => pb::heartbeats_response::Result { response: None, error },
        }
    }
}

#[tonic::async_trait]
impl pb::raft_server::Raft for RaftServer {
    type AppendEntriesStream = AppendStream;

    async fn append_entries(
        &self,
        request: Request<Streaming<pb::AppendEntriesRequest>>,
    ) -> Answer<AppendStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let replica = self.replica(first.target.as_ref())?;
        let rest = futures::stream::unfold(requests, |mut requests| async move {
            let next: Option<pb::AppendEntriesRequest> = requests.message().await.ok().flatten();
            next.map(|next| (next, requests))
        });
        let target = first.target.clone();
        let all = futures::stream::iter([first]).chain(rest);
        // One stream is for one replica. Whoever changes the target midway is cut off.
        let all = all.take_while(move |it| futures::future::ready(it.target == target));
        let answers = replica.raft().serve_appends(all);
        let answers = answers.map(|answer| answer.map_err(|refusal| raft_refused(&refusal)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn heartbeats(
        &self,
        request: Request<pb::HeartbeatsRequest>,
    ) -> Answer<pb::HeartbeatsResponse> {
        let heartbeats = request.into_inner().heartbeats;
        if heartbeats.len() > limits::HEARTBEATS_QUEUED_MAX {
            return Err(Status::invalid_argument("too many heartbeats in one call"));
        }
        let results = heartbeats.into_iter().map(|heartbeat| self.heartbeat(heartbeat));
        let results = futures::future::join_all(results).await;
        Ok(Response::new(pb::HeartbeatsResponse { results }))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        let request = request.into_inner();
        let replica = self.replica(request.target.as_ref())?;
        let response = replica.raft().serve_vote(request).await;
        Ok(Response::new(response.map_err(|refusal| raft_refused(&refusal))?))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Answer<pb::TransferLeaderResponse> {
        let request = request.into_inner();
        let replica = self.replica(request.target.as_ref())?;
        let served = replica.raft().serve_transfer(request).await;
        served.map_err(|refusal| raft_refused(&refusal))?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<pb::InstallSnapshotRequest>,
    ) -> Answer<pb::InstallSnapshotResponse> {
        let request = request.into_inner();
        let replica = self.replica(request.target.as_ref())?;
        let response = replica.raft().serve_snapshot(request).await;
        Ok(Response::new(response.map_err(|refusal| raft_refused(&refusal))?))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Answer<pb::ReadIndexResponse> {
        let replica = self.replica(request.get_ref().target.as_ref())?;
        let response = replica.raft().serve_read_index().await;
        Ok(Response::new(response.map_err(|refusal| raft_refused(&refusal))?))
    }

    async fn read_entry(
        &self,
        request: Request<pb::ReadEntryRequest>,
    ) -> Answer<pb::ReadEntryResponse> {
        let request = request.get_ref();
        let target = request.target.as_ref();
        let target = target.ok_or_else(|| Status::invalid_argument("a call without a target"))?;
        let member = member(&self.0, &target.cluster_id)?;
        let response = member.registry_ref().serve_entry(GroupId(target.group), request.index);
        let response = response.ok_or_else(no_replica)?;
        Ok(Response::new(response.map_err(|refusal| raft_refused(&refusal))?))
    }
}

impl PeerServer {
    /// Both services, with their limits.
    pub(crate) fn services(
        formation: &Arc<Formation>,
    ) -> (pb::peer_server::PeerServer<Self>, pb::raft_server::RaftServer<RaftServer>) {
        let raft = pb::raft_server::RaftServer::new(RaftServer(formation.clone()))
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        let peer = pb::peer_server::PeerServer::new(Self(formation.clone()))
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        (peer, raft)
    }
}
