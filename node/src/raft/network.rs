//! How one group's replica reaches another: openraft's network trait over the shared connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use node_core::zoo::{self, Bug};
use openraft::OptionalSend;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quipu_proto::peer::v1 as pb;
use uuid::Uuid;

use super::fallen::Fallen;
use super::log_store::GroupLog;
use super::types::{ReplicaNode, Snapshot, Types, Vote};
use super::unanswered::Unanswered;
use super::wire::{self, Malformed};
use crate::limits;
use crate::metrics::Metrics;
use crate::peer::{PeerError, PeerLink, Peers};

type RpcError = RPCError<Types>;
type AppendAnswers<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>;

/// Makes the connections of one group.
pub(super) struct Network {
    pub(super) cluster_id: Uuid,
    pub(super) group: GroupId,
    pub(super) peers: Arc<Peers>,
    pub(super) log: Arc<GroupLog>,
    pub(super) metrics: Arc<Metrics>,
}

/// One group's way to one other replica.
pub(super) struct Route {
    target: pb::Target,
    peers: Arc<Peers>,
    node: NodeUuid,
    /// Where the node was when it became a member.
    address: String,
    purpose: Purpose,
    log: Arc<GroupLog>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Entries,
    Heartbeats,
}

impl Network {
    fn route(&self, replica: u64, node: &ReplicaNode, purpose: Purpose) -> Route {
        Route {
            target: wire::target(self.cluster_id, self.group, ReplicaId(replica)),
            peers: self.peers.clone(),
            node: NodeUuid(node.uuid),
            address: node.address.clone(),
            purpose,
            log: self.log.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Route;

    async fn new_client(&mut self, target: u64, node: &ReplicaNode) -> Route {
        self.route(target, node, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &ReplicaNode) -> Route {
        self.route(target, node, Purpose::Heartbeats)
    }
}

/// What a replica lacks is purged here.
#[derive(Debug, thiserror::Error)]
#[error("the entries that it lacks are purged here: it needs a snapshot")]
struct Behind;

fn unreachable(error: impl std::error::Error + 'static) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl From<Malformed> for RpcError {
    fn from(malformed: Malformed) -> Self {
        unreachable(malformed)
    }
}

impl From<PeerError> for RpcError {
    fn from(error: PeerError) -> Self {
        unreachable(error)
    }
}

impl Route {
    /// Asked for each call anew: openraft keeps a route for as long as its leader leads, and the
    /// node may have moved to another address meanwhile.
    fn link(&self) -> Arc<PeerLink> {
        self.peers.link(self.node, &self.address)
    }

    /// Sends one heartbeat, in one call with those of other groups.
    async fn heartbeat(
        &self,
        request: &AppendEntriesRequest<Types>,
        deadline: Duration,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        let request = wire::append_to_pb(self.target.clone(), request);
        let answer = self.link().heartbeat(request, deadline).await?;
        Ok(wire::append_result_from_pb(answer)?)
    }
}

impl RaftNetworkV2<Types> for Route {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let mut answers =
            self.stream_append(futures::stream::iter([request]), option.clone()).await?;
        match tokio::time::timeout(option.hard_ttl(), answers.next()).await {
            Ok(Some(answer)) => Ok(match answer? {
                Ok(_) => AppendEntriesResponse::Success,
                Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
                Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
            }),
            Ok(None) => Err(unreachable(io::Error::from(io::ErrorKind::UnexpectedEof))),
            Err(_) => Err(unreachable(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendAnswers<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        async move {
            // BEFORE connecting: openraft's back-off waits inside `input`, so a connection opened
            // first would never be backed off.
            let unanswered = Unanswered::default();
            let mut input = unanswered.requests(input);
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            if self.purpose == Purpose::Heartbeats {
                let answer = self.heartbeat(&first, option.hard_ttl()).await;
                return Ok(futures::stream::iter([answer]).boxed());
            }
            let (target, log, fallen) = (self.target.clone(), self.log.clone(), Fallen::default());
            let requests = futures::stream::iter([first]).chain(input);
            let requests = fallen.clone().watch(requests, move |index| log.is_purged(index));
            #[cfg(quipu_zoo)]
            let sent = super::planted::Sent::default();
            #[cfg(quipu_zoo)]
            let requests = requests.inspect({
                let sent = sent.clone();
                move |request| sent.note(request)
            });
            let requests = requests.map(move |it| wire::append_to_pb(target.clone(), &it));
            let answers = self.link().append_entries(requests).await?;
            let answers = answers.map(|answer| Ok(wire::append_result_from_pb(answer?)?));
            #[cfg(quipu_zoo)]
            let answers = answers.map(move |answer| answer.map(|answer| sent.count(answer)));
            let answers = unanswered.answers(answers.boxed());
            let behind = move || fallen.is_so().then(|| Err(unreachable(Behind)));
            Ok(answers.chain(futures::stream::iter(std::iter::once_with(behind).flatten())).boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = wire::vote_request_to_pb(self.target.clone(), &request, false);
        let response = self.link().vote(request, option.hard_ttl()).await?;
        Ok(wire::vote_response_from_pb(response)?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = wire::vote_request_to_pb(self.target.clone(), &request, true);
        let response = self.link().vote(request, option.hard_ttl()).await?;
        Ok(wire::vote_response_from_pb(response)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if zoo::is(Bug::LaggardForsaken) {
            let forsaken = Unreachable::new(&io::Error::from(io::ErrorKind::TimedOut));
            return Err(StreamingError::Unreachable(forsaken));
        }
        let membership = &snapshot.meta.last_membership;
        let request = pb::InstallSnapshotRequest {
            target: Some(self.target.clone()),
            vote: Some(wire::vote_to_pb(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(wire::log_id_to_pb),
            membership_log_id: membership.log_id().as_ref().map(wire::log_id_to_pb),
            membership: wire::membership_to_bytes(membership.membership()),
            data: snapshot.snapshot.clone(),
        };
        let bytes = request.data.len();
        let link = self.link();
        let sending = link.install_snapshot(request, limits::SNAPSHOT_ANSWER_MAX);
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            response = sending => response,
        };
        let failed = |error: RpcError| match error {
            RPCError::Unreachable(error) => StreamingError::Unreachable(error),
            other => StreamingError::Unreachable(Unreachable::new(&other)),
        };
        let response = response.map_err(|error| failed(error.into()))?;
        self.metrics.raft.snapshots_sent.inc();
        self.metrics.raft.snapshots_sent_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        let vote = wire::vote_from_pb(response.vote).map_err(|error| failed(error.into()))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let request = pb::TransferLeaderRequest {
            target: Some(self.target.clone()),
            from: Some(wire::vote_to_pb(request.from_leader())),
            to_replica: *request.to_node_id(),
            last: request.last_log_id().map(wire::log_id_to_pb),
        };
        self.link().transfer_leader(request, option.hard_ttl()).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(limits::REPLICATION_BACKOFF)))
    }
}
