//! A cluster that does as it is told: three nodes, one state, no replication.

mod members;
mod network;
mod partition;
mod services;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quipu_client::{Client, ClientConfig, Clock};
use quipu_proto::v1;
use quipu_proto::v1::{ErrorCode, Outcome};
use tokio::sync::Notify;

pub(crate) use network::Network;
pub(crate) use partition::FakePartition;

/// The time that records without a timestamp get.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// Nodes 1 to 3 at "node-1:7000" to "node-3:7000".
#[derive(Clone)]
pub(crate) struct FakeCluster {
    pub(crate) network: Network,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// What all nodes share.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) formed: bool,
    pub(crate) topics: BTreeMap<String, FakeTopic>,
    pub(crate) producers_given: u64,
    /// What happens to the next appends that reach a leader, in this order.
    pub(crate) fates: VecDeque<Fate>,
    /// What happens to the next calls of other kinds.
    pub(crate) refusals: VecDeque<v1::Error>,
    /// Group to topic and partition to offset.
    pub(crate) groups: BTreeMap<String, BTreeMap<(String, u32), v1::GroupOffset>>,
    /// Generation and partitions of "t" that any member is told.
    pub(crate) assignment: (i64, Vec<u32>),
    /// Heartbeats that were heard, in this order.
    pub(crate) heartbeats: Vec<v1::GroupHeartbeatRequest>,
    /// What the next heartbeats are refused with.
    pub(crate) expiries: VecDeque<ErrorCode>,
    /// How long a group's offsets take to be committed or fetched.
    pub(crate) offsets_take: Duration,
    /// The node that leads all coordinator groups and the metadata group.
    pub(crate) coordinator: u64,
    /// Nodes that know of no topic.
    pub(crate) ignorant: BTreeSet<u64>,
    /// Nodes that belong to no cluster.
    pub(crate) strangers: BTreeSet<u64>,
    /// Calls by "node name", in the order they came.
    pub(crate) calls: Vec<String>,
}

#[derive(Default)]
pub(crate) struct FakeTopic {
    pub(crate) partitions: Vec<FakePartition>,
    pub(crate) configs: BTreeMap<String, String>,
}

/// What happens to an append at its leader.
#[derive(Clone)]
pub(crate) enum Fate {
    /// As it should.
    Fine,
    /// Refused, nothing is written.
    Refused(v1::Error),
    /// Written, but the answer is this error.
    WrittenThenError(v1::Error),
    /// Written, and then the connection breaks.
    WrittenThenBroken,
    /// The connection breaks before it is written.
    Broken,
    /// Written, and never answered.
    WrittenThenSilent,
    /// Neither written nor answered.
    Silent,
}

impl State {
    /// A page of groups; where nothing else is asked for, of two, as a node would of 10,000.
    fn list(&self, after: &str, limit: u32) -> v1::ListGroupsResponse {
        let mut names = self.groups.keys().filter(|name| name.as_str() > after).cloned();
        let limit = if limit == 0 { 2 } else { usize::try_from(limit).expect("small") };
        let groups = names.by_ref().take(limit).collect();
        v1::ListGroupsResponse { groups, more: names.next().is_some() }
    }

    /// As a node says it; nothing of the partition where there is none.
    fn lag(&self, committed: &v1::GroupOffset) -> v1::PartitionLag {
        let topic = self.topics.get(&committed.topic);
        let number = usize::try_from(committed.partition).expect("small");
        let partition = topic.and_then(|topic| topic.partitions.get(number));
        let lag = partition.map(|it| it.end().saturating_sub(committed.offset.max(it.log_start)));
        v1::PartitionLag {
            topic: committed.topic.clone(),
            partition: committed.partition,
            group_offset: Some(committed.offset),
            log_start_offset: partition.map(|it| it.log_start),
            high_watermark: partition.map(FakePartition::end),
            lag,
            lag_ms: lag.map(|lag| lag * 1_000),
            member_id: String::new(),
        }
    }
}

impl FakeCluster {
    /// A formed cluster with topic "t" of so many partitions, led by node 1.
    pub(crate) fn start(partitions: usize) -> FakeCluster {
        let cluster = FakeCluster {
            network: Network::default(),
            state: Arc::new(Mutex::new(State { formed: true, coordinator: 1, ..State::default() })),
            changed: Arc::new(Notify::new()),
        };
        cluster.create("t", partitions);
        for node in 1..=3 {
            cluster.serve(node);
        }
        cluster
    }

    pub(crate) fn create(&self, topic: &str, partitions: usize) {
        let partitions = (0..partitions).map(|_| FakePartition::led_by(1)).collect();
        let topic_state = FakeTopic { partitions, configs: BTreeMap::new() };
        self.state().topics.insert(topic.to_owned(), topic_state);
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig {
            connector: Some(self.network.connector()),
            seed: Some(7),
            clock: Some(Clock::new(|| NOW_MS)),
            ..ClientConfig::new([1, 2, 3].map(address))
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.config()).await.expect("the nodes are up")
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock")
    }

    pub(crate) fn partition<T>(
        &self,
        partition: usize,
        look: impl FnOnce(&mut FakePartition) -> T,
    ) -> T {
        let mut state = self.state();
        let topic = state.topics.get_mut("t").expect("created at the start");
        let seen = look(&mut topic.partitions[partition]);
        drop(state);
        self.changed.notify_waiters();
        seen
    }

    /// Makes `node` the leader of every partition, under a new epoch.
    pub(crate) fn elect(&self, node: Option<u64>) {
        let mut state = self.state();
        state.coordinator = node.unwrap_or(0);
        for partition in state.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.leader = node;
            partition.epoch += u64::from(node.is_some());
        }
    }

    pub(crate) fn decide(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state().fates.extend(fates);
    }

    /// All values of a partition, in order.
    pub(crate) fn values(&self, partition: usize) -> Vec<String> {
        self.partition(partition, |partition| partition.values())
    }

    /// How often `node` was called so.
    pub(crate) fn calls(&self, node: u64, name: &str) -> usize {
        let wanted = format!("{node} {name}");
        self.state().calls.iter().filter(|call| **call == wanted).count()
    }
}

pub(crate) fn address(node: u64) -> String {
    format!("node-{node}:7000")
}

/// A refusal: nothing happened, try again.
pub(crate) fn refusal(code: ErrorCode) -> v1::Error {
    v1::Error {
        code: code.into(),
        outcome: Outcome::Definite.into(),
        retriable: true,
        message: "as the test says".to_owned(),
        ..v1::Error::default()
    }
}

/// A refusal for good.
pub(crate) fn final_refusal(code: ErrorCode) -> v1::Error {
    v1::Error { retriable: false, ..refusal(code) }
}

/// It may have happened.
pub(crate) fn unknown(code: ErrorCode) -> v1::Error {
    v1::Error { outcome: Outcome::Unknown.into(), ..refusal(code) }
}

/// Long enough for everything that does not wait for a timer, and for short timers.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
