//! The connections to one other node. Every call has a deadline, because a hung peer, and a
//! simulated network that lost a segment, never answer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use quipu_proto::peer::v1 as pb;
use quipu_proto::peer::v1::peer_client::PeerClient;
use quipu_proto::peer::v1::raft_client::RaftClient;
use quipu_proto::v1;
use quipu_proto::v1::groups_client::GroupsClient;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

use super::error::PeerError;
use crate::env::Network;
use crate::limits;

type Answer<T> = Result<T, PeerError>;

/// The connections to one node.
pub(crate) struct PeerLink {
    address: String,
    network: Arc<dyn Network>,
    lanes: [Lane; 3],
    refusal: Arc<Refusal>,
    heartbeats: Mutex<Option<mpsc::Sender<Heartbeat>>>,
}

type Lane = Mutex<Option<Channel>>;

/// When and why connecting to a node failed last, on any lane. All groups call a node that is gone
/// again and again, and each call would be a connection attempt of its own.
#[derive(Default)]
struct Refusal(Mutex<Option<(Instant, io::ErrorKind, String)>>);

/// Which connection a call takes.
#[derive(Debug, Clone, Copy)]
enum On {
    Appends,
    Control,
    Bulk,
}

struct Heartbeat {
    request: pb::AppendEntriesRequest,
    answer: oneshot::Sender<Answer<pb::AppendEntriesResponse>>,
}

impl PeerLink {
    pub(super) fn new(network: Arc<dyn Network>, address: String) -> Arc<Self> {
        Arc::new(Self {
            address,
            network,
            lanes: Default::default(),
            refusal: Arc::default(),
            heartbeats: Mutex::default(),
        })
    }

    /// "host:port".
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Lets go of the connections, so that the next call makes new ones. Called when the node is
    /// found dead: a half-open connection would delay its return by its time-out.
    pub(crate) fn reset(&self) {
        for lane in &self.lanes {
            lane.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// The connection for a call; refused at once while the node was just found not to be there.
    fn channel(&self, on: On) -> Answer<Channel> {
        match self.refusal.within(limits::CONNECT_AGAIN) {
            Some(error) => Err(PeerError::Unreachable {
                address: self.address.clone(),
                reason: error.to_string(),
            }),
            None => self.channel_for_beats(on),
        }
    }

    /// Beats find out whether the node is there (again), so nothing is held against them.
    fn channel_for_beats(&self, on: On) -> Answer<Channel> {
        let lane = match on {
            On::Appends => &self.lanes[0],
            On::Control => &self.lanes[1],
            On::Bulk => &self.lanes[2],
        };
        let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = lane.as_ref() {
            return Ok(channel.clone());
        }
        let channel = connect(&self.network, &self.address, &self.refusal)?;
        *lane = Some(channel.clone());
        Ok(channel)
    }

    fn raft(&self, on: On) -> Answer<RaftClient<Channel>> {
        Ok(RaftClient::new(self.channel(on)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX))
    }

    fn peer(&self) -> Answer<PeerClient<Channel>> {
        Ok(PeerClient::new(self.channel(On::Control)?))
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Answer<T> {
        match timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(PeerError::of_status(&self.address, &status)),
            Err(_) => Err(PeerError::TimedOut { address: self.address.clone(), after: deadline }),
        }
    }

    /// Opens a pipelined stream of appends. Answers come in order; a peer that leaves a request
    /// unanswered for [`limits::APPEND_ANSWER_MAX`] ends the stream with an error.
    pub(crate) async fn append_entries(
        self: &Arc<Self>,
        requests: impl Stream<Item = pb::AppendEntriesRequest> + Send + 'static,
    ) -> Answer<BoxStream<'static, Answer<pb::AppendEntriesResponse>>> {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let requests = requests.inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut client = self.raft(On::Appends)?;
        let answers =
            self.within(limits::APPEND_ANSWER_MAX, client.append_entries(requests)).await?;
        let state = Some((answers, 0_u64));
        let link = self.clone();
        let answers = futures::stream::unfold(state, move |state| {
            let (link, sent) = (link.clone(), sent.clone());
            async move {
                let (mut answers, received) = state?;
                loop {
                    return match timeout(limits::APPEND_ANSWER_MAX, answers.message()).await {
                        Ok(Ok(Some(answer))) => Some((Ok(answer), Some((answers, received + 1)))),
                        Ok(Ok(None)) => None,
                        Ok(Err(status)) => {
                            Some((Err(PeerError::of_status(&link.address, &status)), None))
                        }
                        Err(_) if sent.load(Ordering::Relaxed) > received => {
                            let address = link.address.clone();
                            let after = limits::APPEND_ANSWER_MAX;
                            Some((Err(PeerError::TimedOut { address, after }), None))
                        }
                        Err(_) => continue,
                    };
                }
            }
        });
        Ok(answers.boxed())
    }

    /// Sends a heartbeat, together with those of other groups that are due at the same time.
    pub(crate) async fn heartbeat(
        self: &Arc<Self>,
        request: pb::AppendEntriesRequest,
        deadline: Duration,
    ) -> Answer<pb::AppendEntriesResponse> {
        let (answer, answered) = oneshot::channel();
        let queue = self.heartbeat_queue();
        let sent = async {
            drop(queue.send(Heartbeat { request, answer }).await);
            answered.await
        };
        match timeout(deadline, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                Err(PeerError::TimedOut { address: self.address.clone(), after: deadline })
            }
        }
    }

    fn heartbeat_queue(self: &Arc<Self>) -> mpsc::Sender<Heartbeat> {
        let mut heartbeats = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = heartbeats.as_ref()
            && !queue.is_closed()
        {
            return queue.clone();
        }
        let (sender, receiver) = mpsc::channel(limits::HEARTBEATS_QUEUED_MAX);
        crate::env::spawn(send_heartbeats(Arc::downgrade(self), receiver));
        *heartbeats = Some(sender.clone());
        sender
    }

    async fn heartbeats(&self, heartbeats: Vec<Heartbeat>) {
        let (requests, answers): (Vec<_>, Vec<_>) =
            heartbeats.into_iter().map(|beat| (beat.request, beat.answer)).unzip();
        let request = pb::HeartbeatsRequest { heartbeats: requests };
        let result = match self.raft(On::Control) {
            Ok(mut client) => {
                self.within(limits::HEARTBEATS_ANSWER_MAX, client.heartbeats(request)).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(response) => {
                for (answer, result) in answers.into_iter().zip(response.results) {
                    drop(answer.send(self.heartbeat_result(result)));
                }
            }
            Err(error) => {
                for answer in answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    fn heartbeat_result(
        &self,
        result: pb::heartbeats_response::Result,
    ) -> Answer<pb::AppendEntriesResponse> {
        match result.response {
            Some(response) => Ok(response),
            None => Err(PeerError::Refused {
                address: self.address.clone(),
                reason: result.error,
                code: tonic::Code::FailedPrecondition,
            }),
        }
    }

    pub(crate) async fn vote(
        &self,
        request: pb::VoteRequest,
        deadline: Duration,
    ) -> Answer<pb::VoteResponse> {
        let mut client = self.raft(On::Control)?;
        self.within(deadline, client.vote(request)).await
    }

    pub(crate) async fn transfer_leader(
        &self,
        request: pb::TransferLeaderRequest,
        deadline: Duration,
    ) -> Answer<pb::TransferLeaderResponse> {
        let mut client = self.raft(On::Control)?;
        self.within(deadline, client.transfer_leader(request)).await
    }

    pub(crate) async fn install_snapshot(
        &self,
        request: pb::InstallSnapshotRequest,
        deadline: Duration,
    ) -> Answer<pb::InstallSnapshotResponse> {
        let mut client = self.raft(On::Bulk)?;
        self.within(deadline, client.install_snapshot(request)).await
    }

    pub(crate) async fn read_index(
        &self,
        request: pb::ReadIndexRequest,
        deadline: Duration,
    ) -> Answer<pb::ReadIndexResponse> {
        let mut client = self.raft(On::Control)?;
        self.within(deadline, client.read_index(request)).await
    }

    pub(crate) async fn read_entry(
        &self,
        request: pb::ReadEntryRequest,
        deadline: Duration,
    ) -> Answer<pb::ReadEntryResponse> {
        let mut client = self.raft(On::Bulk)?;
        self.within(deadline, client.read_entry(request)).await
    }

    pub(crate) async fn hello(&self, deadline: Duration) -> Answer<pb::HelloResponse> {
        let mut client = self.peer()?;
        self.within(deadline, client.hello(pb::HelloRequest {})).await
    }

    pub(crate) async fn adopt(
        &self,
        request: pb::AdoptRequest,
        deadline: Duration,
    ) -> Answer<pb::AdoptResponse> {
        let mut client = self.peer()?;
        self.within(deadline, client.adopt(request)).await
    }

    pub(crate) async fn join(
        &self,
        request: pb::JoinRequest,
        deadline: Duration,
    ) -> Answer<pb::JoinResponse> {
        let mut client = self.peer()?;
        self.within(deadline, client.join(request)).await
    }

    pub(crate) async fn beat(
        &self,
        request: pb::BeatRequest,
        deadline: Duration,
    ) -> Answer<pb::BeatResponse> {
        let mut client = PeerClient::new(self.channel_for_beats(On::Control)?);
        self.within(deadline, client.beat(request)).await
    }

    pub(crate) async fn survey(
        &self,
        request: pb::SurveyRequest,
        deadline: Duration,
    ) -> Answer<pb::SurveyResponse> {
        let client = PeerClient::new(self.channel(On::Bulk)?);
        let mut client = client.max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        self.within(deadline, client.survey(request)).await
    }

    /// Asks what the node's own replicas of coordinators say of groups, as a client could.
    pub(crate) async fn list_groups(
        &self,
        request: v1::ListGroupsRequest,
        deadline: Duration,
    ) -> Answer<v1::ListGroupsResponse> {
        let mut client = GroupsClient::new(self.channel(On::Bulk)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
        self.within(deadline, client.list_groups(request)).await
    }

    pub(crate) async fn measure_positions(
        &self,
        request: pb::MeasurePositionsRequest,
        deadline: Duration,
    ) -> Answer<pb::MeasurePositionsResponse> {
        let mut client = PeerClient::new(self.channel(On::Bulk)?);
        self.within(deadline, client.measure_positions(request)).await
    }

    pub(crate) async fn propose_metadata(
        &self,
        request: pb::ProposeMetadataRequest,
        deadline: Duration,
    ) -> Answer<pb::ProposeMetadataResponse> {
        let mut client = self.peer()?;
        self.within(deadline, client.propose_metadata(request)).await
    }
}

/// Sends what is queued, all at once, one call at a time.
async fn send_heartbeats(link: std::sync::Weak<PeerLink>, mut queue: mpsc::Receiver<Heartbeat>) {
    while let Some(first) = queue.recv().await {
        let mut heartbeats = vec![first];
        while heartbeats.len() < limits::HEARTBEATS_QUEUED_MAX
            && let Ok(next) = queue.try_recv()
        {
            heartbeats.push(next);
        }
        let Some(link) = link.upgrade() else { return };
        link.heartbeats(heartbeats).await;
    }
}

fn connect(network: &Arc<dyn Network>, address: &str, refusal: &Arc<Refusal>) -> Answer<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        PeerError::Unreachable { address: address.to_owned(), reason: error.to_string() }
    })?;
    let endpoint = endpoint
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(limits::KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEP_ALIVE_ANSWER_MAX)
        .keep_alive_while_idle(true);
    let (network, address, refusal) = (network.clone(), address.to_owned(), refusal.clone());
    let connector = tower::service_fn(move |_: http::Uri| {
        let (network, address, refusal) = (network.clone(), address.clone(), refusal.clone());
        async move {
            // Calls that came before the refusal was known wait in line, and try one by one.
            if let Some(error) = refusal.within(limits::CONNECT_AGAIN_IN_LINE) {
                return Err(error);
            }
            let connected = match timeout(limits::CONNECT_MAX, network.connect(address)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            refusal.note(connected.as_ref().err());
            connected.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

impl Refusal {
    fn note(&self, error: Option<&io::Error>) {
        let refused = error.map(|error| (Instant::now(), error.kind(), error.to_string()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// The refusal, if it is no older than this.
    fn within(&self, age: Duration) -> Option<io::Error> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, kind, text) = refused.as_ref()?;
        (at.elapsed() < age).then(|| io::Error::new(*kind, text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt as _;
    use futures::future::{BoxFuture, join_all};

    use super::*;
    use crate::env::{Listener, Socket};

    /// Nobody listens anywhere.
    #[derive(Default)]
    struct Deserted(AtomicUsize);

    impl Network for Deserted {
        fn listen(&self, _: String) -> BoxFuture<'static, io::Result<Listener>> {
            std::future::ready(Err(io::ErrorKind::Unsupported.into())).boxed()
        }

        fn connect(&self, _: String) -> BoxFuture<'static, io::Result<Socket>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
        }
    }

    #[tokio::test]
    async fn calls_of_many_groups_to_a_node_that_is_gone_cost_few_connection_attempts() {
        let network = Arc::new(Deserted::default());
        let link = PeerLink::new(network.clone(), "gone:1".to_owned());
        let (rounds, groups) = (20, 50);
        for _ in 0..rounds {
            let asks = (0..groups)
                .map(|_| link.read_index(pb::ReadIndexRequest::default(), limits::READ_INDEX_MAX));
            for answer in join_all(asks).await {
                assert!(matches!(answer, Err(PeerError::Unreachable { .. })), "{answer:?}");
            }
            tokio::time::sleep(limits::QUORUM_POLL).await;
        }
        let attempts = network.0.load(Ordering::Relaxed);
        // A few, but on a machine that was held up in between.
        assert!((1..rounds * groups / 4).contains(&attempts), "{attempts} attempts");
    }

    #[tokio::test]
    async fn every_beat_to_a_node_that_is_gone_is_an_attempt_of_its_own() {
        let network = Arc::new(Deserted::default());
        let link = PeerLink::new(network.clone(), "gone:1".to_owned());
        for beat in 1..=5 {
            let answer = link.beat(pb::BeatRequest::default(), limits::BEAT_ANSWER_MAX).await;
            assert!(matches!(answer, Err(PeerError::Unreachable { .. })), "{answer:?}");
            assert_eq!(network.0.load(Ordering::Relaxed), beat);
            tokio::time::sleep(limits::BEAT_RETRY).await;
        }
    }
}
