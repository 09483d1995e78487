//! Three nodes in this process, on simulated disks and loopback sockets, and clients of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node::Node;
use node::config::NodeConfig;
use node::env::{Disk, Env};
use node::http::Readiness;
use node::metrics::Metrics;
use node::storage::entry;
use node::storage::memory::MemoryEngine;
use node::storage::{Space, keys};
use node_core::ids::GroupId;
use quipu_batch::{BatchBuilder, Compression, Record};
use quipu_proto::v1;
use quipu_proto::v1::admin_client::AdminClient;
use quipu_proto::v1::log_client::LogClient;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub(crate) const TOPIC: &str = "orders";
const SOON: Duration = Duration::from_secs(40);
/// Longer than an election.
const ANSWER_MS: u32 = 3_000;

/// A node and how to reach it.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) metrics: Metrics,
    channel: Channel,
}

/// Nodes by their place; `None` where one is down.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Option<Running>>,
    pub(crate) disks: Vec<MemoryEngine>,
    ports: Vec<u16>,
    reserve_bytes: u64,
}

/// Not one that an outgoing connection could be given before the node listens.
fn free_port() -> u16 {
    portpicker::pick_unused_port().unwrap()
}

impl Cluster {
    /// A cluster of `count` nodes with a topic of one partition on each of them.
    pub(crate) async fn of(count: usize) -> Self {
        Self::with_reserve(count, 0).await
    }

    pub(crate) async fn with_reserve(count: usize, reserve_bytes: u64) -> Self {
        let disks = (0..count).map(|_| MemoryEngine::new()).collect();
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let mut cluster =
            Self { nodes: (0..count).map(|_| None).collect(), disks, ports, reserve_bytes };
        for place in 0..count {
            cluster.start(place).await;
        }
        let addresses = cluster.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let request = v1::InitClusterRequest { addresses };
        cluster.admin(0).init_cluster(request).await.unwrap();
        let request = v1::CreateTopicRequest {
            topic: TOPIC.to_owned(),
            partitions: 1,
            replication_factor: u32::try_from(count).unwrap(),
            configs: [].into(),
        };
        eventually("the topic", async || cluster.admin(0).create_topic(request.clone()).await.ok())
            .await;
        cluster
    }

    /// Starts a node on what its disk has.
    pub(crate) async fn start(&mut self, place: usize) {
        self.try_start(place).await.unwrap();
    }

    pub(crate) async fn try_start(&mut self, place: usize) -> Result<(), node::StartError> {
        let address = format!("127.0.0.1:{}", self.ports[place]);
        let config = NodeConfig {
            node_id: u64::try_from(place).unwrap() + 1,
            listen: address.parse().unwrap(),
            advertise: address.parse().unwrap(),
            disk_reserve_bytes: self.reserve_bytes,
            ..NodeConfig::default()
        };
        let engine = Arc::new(self.disks[place].clone());
        let disk = Disk::Simulated { engine, sync: Duration::from_millis(1) };
        let env = Env { disk, ..Env::real(PathBuf::new()) };
        let metrics = Metrics::new();
        let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
        let node = Node::start(config, env, metrics.clone(), readiness).await?;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        self.nodes[place] = Some(Running { node, metrics, channel: endpoint.connect_lazy() });
        Ok(())
    }

    /// Stops a node in good order.
    pub(crate) async fn stop(&mut self, place: usize) {
        if let Some(running) = self.nodes[place].take() {
            running.node.stop().await;
        }
    }

    /// Takes a node's power: nothing more is written, what was not synced is gone.
    pub(crate) async fn lose_power(&mut self, place: usize) {
        self.disks[place].die_at_step(0);
        self.stop(place).await;
        self.disks[place].power_cut(0);
    }

    pub(crate) async fn stop_all(mut self) {
        for place in 0..self.nodes.len() {
            self.stop(place).await;
        }
    }

    pub(crate) fn node(&self, place: usize) -> &Running {
        self.nodes[place].as_ref().unwrap()
    }

    fn admin(&self, place: usize) -> AdminClient<Channel> {
        AdminClient::new(self.node(place).channel.clone())
    }

    fn log(&self, place: usize) -> LogClient<Channel> {
        LogClient::new(self.node(place).channel.clone())
    }

    fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|place| self.nodes[*place].is_some())
    }

    /// Appends on whichever node leads; again and again until it is acknowledged.
    pub(crate) async fn append(&self, value: &str) -> u64 {
        eventually("an append", async || {
            for place in self.up() {
                if let Ok(offset) = self.append_at(place, value).await {
                    return Some(offset);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn append_at(&self, place: usize, value: &str) -> Result<u64, Status> {
        let request = v1::AppendRequest {
            topic: TOPIC.to_owned(),
            partition: 0,
            batch: batch(value),
            timeout_ms: ANSWER_MS,
            ..v1::AppendRequest::default()
        };
        let answer = self.log(place).append(request).await?.into_inner();
        Ok(answer.base_offset.unwrap())
    }

    /// The place of the node that leads the partition.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader", async || {
            for place in self.up() {
                let request = v1::DescribeTopicRequest { topic: TOPIC.to_owned() };
                let topic = self.admin(place).describe_topic(request).await.ok();
                let topic = topic.and_then(|topic| topic.into_inner().topic);
                let leader = topic.and_then(|topic| topic.partitions.first().map(|it| it.leader));
                let leader = leader.and_then(|label| usize::try_from(label).ok()?.checked_sub(1));
                if let Some(leader) = leader.filter(|leader| self.nodes[*leader].is_some()) {
                    return Some(leader);
                }
            }
            None
        })
        .await
    }

    /// All values that a node serves by itself, from the beginning.
    pub(crate) async fn read_at(&self, place: usize) -> Result<Vec<String>, Status> {
        let (mut values, mut offset) = (Vec::new(), 0);
        loop {
            let request = v1::FetchRequest {
                topic: TOPIC.to_owned(),
                partition: 0,
                offset,
                level: v1::ReadLevel::Committed.into(),
                ..v1::FetchRequest::default()
            };
            let fetched = self.log(place).fetch(request).await?.into_inner();
            for one in quipu_batch::split(fetched.record_set) {
                for record in quipu_batch::decode(one.unwrap()).unwrap() {
                    let value = record.record.value.unwrap();
                    values.push(String::from_utf8(value.to_vec()).unwrap());
                }
            }
            offset = fetched.next_offset;
            if offset >= fetched.high_watermark {
                return Ok(values);
            }
        }
    }

    /// Waits until a node serves exactly `values`.
    pub(crate) async fn serves(&self, place: usize, values: &[String]) {
        eventually(&format!("node {} to serve everything", place + 1), async || {
            let found = self.read_at(place).await.ok()?;
            let shown = found.len().min(values.len());
            assert_eq!(found[..shown], values[..shown], "node {} differs", place + 1);
            (found.len() == values.len()).then_some(())
        })
        .await;
    }

    /// Appends `count` values and waits until every node that is up serves them all.
    pub(crate) async fn fill(&self, values: &mut Vec<String>, count: usize) {
        for _ in 0..count {
            let value = format!("value {}", values.len());
            assert_eq!(usize::try_from(self.append(&value).await).unwrap(), values.len());
            values.push(value);
        }
        for place in self.up() {
            self.serves(place, values).await;
        }
    }
}

/// The entries of the partition on a disk that hold records: group and index.
pub(crate) fn entries_on(disk: &MemoryEngine) -> Vec<(GroupId, u64)> {
    let mut found = Vec::new();
    disk.for_each_row(|space, key, value| {
        if space != Space::Log {
            return;
        }
        let (group, index) = keys::parse_log_entry(key).unwrap();
        let holds_record = entry::decode(group, index, value.clone())
            .is_ok_and(|entry| entry.payload.windows(6).any(|window| window == b"value "));
        if holds_record {
            found.push((group, index));
        }
    });
    found
}

/// What `look` finds, sooner or later.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    builder.push(&Record { timestamp_ms: 1, value, ..Record::default() }).unwrap();
    builder.build(None).unwrap()
}
