//! The three services of one node of the fake cluster; `admin` has the last.

mod admin;

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use quipu_proto::v1::admin_server::{Admin, AdminServer};
use quipu_proto::v1::append_stream_response::Result as StreamResult;
use quipu_proto::v1::groups_server::{Groups, GroupsServer};
use quipu_proto::v1::list_offsets_request::Position;
use quipu_proto::v1::log_server::{Log, LogServer};
use quipu_proto::v1::{self, ErrorCode};
use quipu_proto::{MESSAGE_BYTES_MAX, status_of_error};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::{FakeCluster, FakePartition, FakeTopic, Fate, State, address, final_refusal, refusal};

type Answer<T> = Result<Response<T>, Status>;

/// One node.
#[derive(Clone)]
pub(super) struct Node {
    id: u64,
    pub(super) cluster: FakeCluster,
}

impl FakeCluster {
    pub(crate) fn serve(&self, id: u64) {
        let incoming = UnboundedReceiverStream::new(self.network.listen(&address(id)));
        tokio::spawn(self.router(id).serve_with_incoming(incoming));
    }

    pub(crate) fn serve_tcp(&self, id: u64, listener: TcpListener) {
        tokio::spawn(self.router(id).serve_with_incoming(TcpListenerStream::new(listener)));
    }

    fn router(&self, id: u64) -> Router {
        let node = Node { id, cluster: self.clone() };
        let log = LogServer::new(node.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        tonic::transport::Server::builder()
            .add_service(log)
            .add_service(GroupsServer::new(node.clone()))
            .add_service(AdminServer::new(node))
    }
}

impl Node {
    fn note(&self, name: &str) {
        self.cluster.state().calls.push(format!("{} {name}", self.id));
    }

    fn refuse_strangers(&self) -> Result<(), v1::Error> {
        match self.cluster.state().strangers.contains(&self.id) {
            true => Err(final_refusal(ErrorCode::NotInitialized)),
            false => Ok(()),
        }
    }

    fn refuse_if_told(&self) -> Result<(), v1::Error> {
        self.cluster.state().refusals.pop_front().map_or(Ok(()), Err)
    }

    fn led<'a>(
        &self,
        state: &'a mut State,
        topic: &str,
        partition: u32,
    ) -> Result<&'a mut FakePartition, v1::Error> {
        let topic = state.topics.get_mut(topic).ok_or(final_refusal(ErrorCode::UnknownTopic))?;
        let partition = topic
            .partitions
            .get_mut(usize::try_from(partition).unwrap())
            .ok_or(final_refusal(ErrorCode::UnknownPartition))?;
        self.lead(partition.leader)?;
        Ok(partition)
    }

    pub(super) fn lead(&self, leader: Option<u64>) -> Result<(), v1::Error> {
        match leader {
            Some(leader) if leader == self.id => Ok(()),
            None | Some(0) => Err(refusal(ErrorCode::LeaderUnknown)),
            Some(leader) => {
                Err(v1::Error { leader_address: address(leader), ..refusal(ErrorCode::NotLeader) })
            }
        }
    }

    /// `None`: no answer. The fate is drawn by appends that reach their leader only.
    async fn append_as_fated(
        &self,
        request: &v1::AppendRequest,
    ) -> Option<Result<v1::AppendResponse, v1::Error>> {
        let (fate, result) = {
            let mut state = self.cluster.state();
            if let Err(error) = self.led(&mut state, &request.topic, request.partition) {
                return Some(Err(error));
            }
            let fate = state.fates.pop_front().unwrap_or(Fate::Fine);
            let writes = !matches!(fate, Fate::Refused(_) | Fate::Broken | Fate::Silent);
            let partition = self.led(&mut state, &request.topic, request.partition);
            (fate, writes.then(|| partition.expect("looked up above").append(request)))
        };
        self.cluster.changed.notify_waiters();
        match (fate, result) {
            (Fate::Refused(error) | Fate::WrittenThenError(error), _) => Some(Err(error)),
            (Fate::Broken | Fate::WrittenThenBroken, _) => {
                self.cluster.network.cut(&address(self.id));
                std::future::pending().await
            }
            (Fate::Silent | Fate::WrittenThenSilent, _) => None,
            (Fate::Fine, result) => result,
        }
    }

    fn describe(&self, name: &str, topic: &FakeTopic) -> v1::TopicInfo {
        let partitions = (0..).zip(&topic.partitions).map(|(partition, state)| v1::PartitionInfo {
            partition,
            group: partition + 10,
            leader: state.leader.unwrap_or(0),
            leader_address: state.leader.map(address).unwrap_or_default(),
            leader_epoch: state.epoch,
            replicas: vec![1, 2, 3],
        });
        v1::TopicInfo {
            topic: name.to_owned(),
            topic_id: format!("id-{name}"),
            replication_factor: 3,
            configs: topic.configs.clone().into_iter().collect(),
            partitions: partitions.collect(),
        }
    }

    fn describe_by_name(&self, name: &str) -> Result<v1::TopicInfo, v1::Error> {
        self.refuse_strangers()?;
        let state = self.cluster.state();
        let topic = state.topics.get(name).filter(|_| !state.ignorant.contains(&self.id));
        let topic = topic.ok_or(final_refusal(ErrorCode::UnknownTopic))?;
        Ok(self.describe(name, topic))
    }
}

fn answer<T>(result: Result<T, v1::Error>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status_of_error(&error))
}

#[tonic::async_trait]
impl Log for Node {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Answer<v1::AppendResponse> {
        self.note("append");
        match self.append_as_fated(request.get_ref()).await {
            Some(result) => answer(result),
            None => std::future::pending().await,
        }
    }

    type AppendStreamStream =
        Pin<Box<dyn Stream<Item = Result<v1::AppendStreamResponse, Status>> + Send>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendStreamRequest>>,
    ) -> Answer<Self::AppendStreamStream> {
        self.note("append_stream");
        let node = self.clone();
        let mut requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let append = request.append.expect("every request carries an append");
                let result = match node.append_as_fated(&append).await {
                    Some(Ok(appended)) => StreamResult::Appended(appended),
                    Some(Err(error)) => StreamResult::Error(error),
                    None => continue,
                };
                let response = v1::AppendStreamResponse {
                    request_id: request.request_id,
                    result: Some(result),
                };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Answer<v1::FetchResponse> {
        self.note("fetch");
        let request = request.into_inner();
        let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms.into());
        loop {
            let changed = self.cluster.changed.notified();
            let read = {
                let mut state = self.cluster.state();
                if let Some(error) = state.refusals.pop_front() {
                    return answer(Err(error));
                }
                let partition = self.led(&mut state, &request.topic, request.partition);
                partition.and_then(|partition| partition.read(request.offset))
            };
            let is_empty = read.as_ref().is_ok_and(|read| read.record_set.is_empty());
            if !is_empty || timeout_at(deadline, changed).await.is_err() {
                return answer(read);
            }
        }
    }

    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

    async fn follow(&self, _: Request<v1::FollowRequest>) -> Answer<Self::FollowStream> {
        answer(Err(final_refusal(ErrorCode::NotSupported)))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Answer<v1::ListOffsetsResponse> {
        self.note("list_offsets");
        let request = request.into_inner();
        let mut state = self.cluster.state();
        let found = self.led(&mut state, &request.topic, request.partition).map(|partition| {
            let offset = match request.position {
                Some(Position::Earliest(_)) => partition.log_start,
                // Each record of the fake is one millisecond younger than the one before.
                Some(Position::EntryTimeMs(ms)) => ms.min(partition.end()),
                Some(Position::EventTimeMs(ms)) => {
                    u64::try_from(ms).unwrap_or(0).min(partition.end())
                }
                Some(Position::Latest(_)) | None => partition.end(),
            };
            v1::ListOffsetsResponse {
                offset,
                log_start_offset: partition.log_start,
                high_watermark: partition.end(),
            }
        });
        answer(found)
    }

    async fn new_producer(
        &self,
        _: Request<v1::NewProducerRequest>,
    ) -> Answer<v1::NewProducerResponse> {
        self.note("new_producer");
        answer(self.refuse_strangers().and_then(|()| self.refuse_if_told()).map(|()| {
            let mut state = self.cluster.state();
            state.producers_given += 1;
            v1::NewProducerResponse { producer_id: state.producers_given, producer_epoch: 0 }
        }))
    }
}

impl Node {
    async fn take_time_for_offsets(&self) {
        let takes = self.cluster.state().offsets_take;
        tokio::time::sleep(takes).await;
    }
}

#[tonic::async_trait]
impl Groups for Node {
    async fn group_heartbeat(
        &self,
        request: Request<v1::GroupHeartbeatRequest>,
    ) -> Answer<v1::GroupHeartbeatResponse> {
        self.note("group_heartbeat");
        answer(self.heartbeat(request.into_inner()).await)
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Answer<v1::CommitOffsetsResponse> {
        self.note("commit_offsets");
        self.take_time_for_offsets().await;
        answer(self.commit(request.into_inner()))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Answer<v1::FetchOffsetsResponse> {
        self.take_time_for_offsets().await;
        let request = request.into_inner();
        let state = self.cluster.state();
        let wanted = |offset: &&v1::GroupOffset| {
            request.partitions.is_empty()
                || request
                    .partitions
                    .iter()
                    .any(|one| one.topic == offset.topic && one.partition == offset.partition)
        };
        answer(self.lead(Some(state.coordinator)).map(|()| {
            let offsets = state.groups.get(&request.group).into_iter().flat_map(|one| one.values());
            v1::FetchOffsetsResponse { offsets: offsets.filter(wanted).cloned().collect() }
        }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Answer<v1::ListGroupsResponse> {
        self.note("list_groups");
        let v1::ListGroupsRequest { after, limit, .. } = request.into_inner();
        answer(Ok(self.cluster.state().list(&after, limit)))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Answer<v1::DescribeGroupResponse> {
        let group = request.into_inner().group;
        let state = self.cluster.state();
        let found = self.lead(Some(state.coordinator)).and_then(|()| {
            let offsets = state.groups.get(&group).ok_or(final_refusal(ErrorCode::UnknownGroup))?;
            Ok(offsets.values().rev().cloned().collect::<Vec<_>>())
        });
        answer(found.map(|offsets| v1::DescribeGroupResponse {
            group,
            coordinator: 2,
            leader_node: self.id,
            lags: offsets.iter().map(|offset| state.lag(offset)).collect(),
            offsets,
            ..v1::DescribeGroupResponse::default()
        }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Answer<v1::DeleteGroupResponse> {
        let mut state = self.cluster.state();
        let deleted = self.lead(Some(state.coordinator)).and_then(|()| {
            let gone = state.groups.remove(&request.get_ref().group);
            gone.map(|_| ()).ok_or(final_refusal(ErrorCode::UnknownGroup))
        });
        answer(deleted.map(|()| v1::DeleteGroupResponse {}))
    }
}
