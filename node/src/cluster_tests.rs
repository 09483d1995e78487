//! Whole nodes in one process, on real disks and loopback sockets: what must hold from the first
//! day on. Clients and faults are the business of `jepsen-style-tests`.

mod damage;
mod elections;
mod groups;
mod health;
mod levels;
mod membership;
mod moves;
mod slow_disk;
mod snapshots;
mod topics;
mod wires;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node_core::groups::{CommitOffsets, GroupOutcome, OffsetCommit};
use node_core::ids::{GroupName, TopicName};
use node_core::metadata::{CreateTopic, MetadataCommand, MetadataOutcome};
use node_core::time::EntryTime;
use node_core::topic_config::TopicConfig;
use quipu_batch::{BatchBuilder, Compression, Record};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::NodeConfig;
use crate::env::{Disk, Env};
use crate::http::Readiness;
use crate::member::Member;
use crate::metrics::Metrics;
use crate::partition::{FetchQuery, Level, NewAppend, Partition};
use crate::raft::Role;
use crate::storage::memory::{Damage, MemoryEngine};
use crate::storage::{Space, StorageError, keys};
use crate::version::Release;
use crate::{Node, StartError};

struct Running {
    node: Node,
    metrics: Metrics,
    address: String,
}

impl Running {
    fn member(&self) -> Arc<Member> {
        self.node.formation().member().expect("it belongs to a cluster")
    }
}

fn soon(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Not one that an outgoing connection could be given before the node listens.
fn free_port() -> u16 {
    portpicker::pick_unused_port().expect("a free port")
}

/// `QUIPU_TEST_LOG=info` shows what the nodes say.
fn log() {
    if let Ok(filter) = std::env::var("QUIPU_TEST_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
    }
}

async fn start(label: u64, port: u16, directory: &Path, join: &[&str]) -> Running {
    start_on(label, port, Disk::Directory(directory.to_owned()), join).await
}

async fn start_on(label: u64, port: u16, disk: Disk, join: &[&str]) -> Running {
    let env = Env { disk, ..Env::real(PathBuf::new()) };
    start_in(label, port, env, join).await
}

async fn start_in(label: u64, port: u16, env: Env, join: &[&str]) -> Running {
    start_as(Release::default(), label, port, env, join).await.expect("it starts")
}

async fn start_as(
    release: Release,
    label: u64,
    port: u16,
    env: Env,
    join: &[&str],
) -> Result<Running, StartError> {
    log();
    let address = format!("127.0.0.1:{port}");
    let config = NodeConfig {
        node_id: label,
        listen: address.parse().expect("an address"),
        advertise: address.parse().expect("an address"),
        join: join.iter().map(|it| it.parse().expect("an address")).collect(),
        release,
        ..NodeConfig::default()
    };
    let metrics = Metrics::new();
    let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
    // A node that was stopped in this process lets go of its store when its last task ends.
    let node = until("the store", async || {
        match Node::start(config.clone(), env.clone(), metrics.clone(), readiness.clone()).await {
            Err(StartError::Storage(StorageError::InUse { .. })) => None,
            other => Some(other),
        }
    });
    Ok(Running { node: node.await?, metrics, address })
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = soon(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn form(nodes: &[Running]) {
    let addresses = nodes.iter().map(|node| node.address.clone()).collect();
    nodes[0].node.formation().init_cluster(addresses).await.expect("a cluster is formed");
    for node in nodes {
        until("the metadata", async || {
            node.member().metadata().cluster_id().is_some().then_some(())
        })
        .await;
    }
}

async fn create_topic(node: &Running, name: &str, partitions: u32, config: TopicConfig) {
    let create = CreateTopic {
        name: topic(name),
        id: node_core::ids::TopicId(crate::env::random_uuid()),
        partitions,
        replication_factor: 3,
        config,
        time: EntryTime::from_ms(1),
    };
    let outcome = node.member().propose(MetadataCommand::CreateTopic(create), soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicCreated));
}

fn topic(name: &str) -> TopicName {
    name.parse().expect("a topic name")
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let record = Record {
        timestamp_ms: 1,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Record::default()
    };
    builder.push(&record).expect("it fits");
    builder.build(None).expect("a batch")
}

fn partition_of(node: &Running, name: &str, number: u32) -> Option<Arc<Partition>> {
    node.member().partition(&topic(name), number).ok()
}

async fn leader<'a>(nodes: &'a [Running], name: &str, number: u32) -> &'a Running {
    until("a leader", async || {
        nodes.iter().find(|node| {
            partition_of(node, name, number)
                .is_some_and(|partition| partition.raft().brief().role == Role::Leader)
        })
    })
    .await
}

async fn append(nodes: &[Running], name: &str, number: u32, value: &str) -> u64 {
    until("an append", async || {
        let leading = leader(nodes, name, number).await;
        let partition = partition_of(leading, name, number)?;
        let new = NewAppend { batch: batch(value), expect_end_offset: None, deadline: soon(5) };
        partition.enqueue(new).await.ok()?.answer().await.ok()?.base_offset
    })
    .await
}

async fn read_all(node: &Running, name: &str, number: u32, from: u64) -> Vec<String> {
    read_all_at(Level::Linearizable, node, name, number, from).await
}

async fn read_all_at(
    level: Level,
    node: &Running,
    name: &str,
    number: u32,
    from: u64,
) -> Vec<String> {
    let partition = partition_of(node, name, number).expect("hosted here");
    let mut values = Vec::new();
    let mut offset = from;
    loop {
        let query = FetchQuery {
            offset,
            bytes_max: 1 << 20,
            bytes_min: 0,
            wait_until: Instant::now(),
            level,
            deadline: soon(10),
        };
        let fetched = partition.fetch(query).await.expect("it is read");
        for one in quipu_batch::split(fetched.record_set) {
            for record in quipu_batch::decode(one.expect("whole")).expect("well-formed") {
                let value = record.record.value.expect("a value");
                values.push(String::from_utf8(value.to_vec()).expect("text"));
            }
        }
        offset = fetched.next_offset;
        if offset >= fetched.high_watermark {
            return values;
        }
    }
}

async fn three(root: &Path) -> Vec<Running> {
    let mut nodes = Vec::new();
    for label in 1..=3 {
        let directory = root.join(label.to_string());
        nodes.push(start(label, free_port(), &directory, &[]).await);
    }
    form(&nodes).await;
    nodes
}

async fn commit(nodes: &[Running], group: &GroupName, offset: u64) {
    until("a commit", async || {
        for node in nodes {
            let offsets =
                vec![OffsetCommit { topic: topic("t"), partition: 0, offset, metadata: None }];
            let time = EntryTime::from_ms(1);
            let commit = CommitOffsets {
                group: group.clone(),
                offsets,
                committer: None,
                reset: false,
                time,
            };
            let outcome = node.member().commit_offsets(commit, soon(5)).await;
            if matches!(outcome, Ok(GroupOutcome::Committed)) {
                return Some(());
            }
        }
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_on_the_leader_is_read_on_every_node() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[1], "t", 2, TopicConfig::default()).await;
    for number in 0..20 {
        append(&nodes, "t", 1, &format!("value {number}")).await;
    }
    let expected: Vec<_> = (0..20).map(|number| format!("value {number}")).collect();
    for node in &nodes {
        assert_eq!(read_all(node, "t", 1, 0).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_gets_one_checkpoint_and_then_the_log() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    let mut config = TopicConfig::default();
    config.ladder.bytes = 2_000;
    config.retention.bytes = Some(6_000);
    create_topic(&nodes[0], "t", 1, config).await;
    for number in 0..200 {
        append(&nodes, "t", 0, &format!("value {number:04} {}", "x".repeat(50))).await;
    }
    let start_offset = until("retention", async || {
        let leading = leader(&nodes, "t", 0).await;
        let view = partition_of(leading, "t", 0)?.view();
        (view.log_start > 50).then_some(view.log_start)
    })
    .await;

    // The third node's disk is lost: it comes back under its label with an empty directory.
    let lost = nodes.pop().expect("three nodes");
    lost.node.stop().await;
    drop(lost);
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let join: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let fresh = root.path().join("3-new");
    let port = free_port();
    let again = start(3, port, &fresh, &join).await;
    let caught_up = |node: &Running, end: u64| {
        node.node.formation().member().is_some_and(|member| {
            let partition = member.partition(&topic("t"), 0);
            partition.is_ok_and(|partition| partition.view().high_watermark >= end)
        })
    };
    until("the new replica to catch up", async || caught_up(&again, 200).then_some(())).await;
    assert_eq!(again.metrics.raft.snapshots_installed.get(), 1);

    // It goes on as a replica like the others, also after a restart.
    let value = append(&nodes, "t", 0, "after").await;
    until("the new append", async || caught_up(&again, value + 1).then_some(())).await;
    again.node.stop().await;
    drop(again);
    let again = start(3, port, &fresh, &[]).await;
    let value = append(&nodes, "t", 0, "after the restart").await;
    until("the append", async || caught_up(&again, value + 1).then_some(())).await;
    assert_eq!(again.metrics.raft.snapshots_installed.get(), 0);
    let view = partition_of(&again, "t", 0).expect("hosted").view();
    assert!(view.log_start >= start_offset);
    let own = read_all(&again, "t", 0, view.log_start).await;
    nodes.push(again);
    let leading = leader(&nodes, "t", 0).await;
    assert_eq!(own, read_all(leading, "t", 0, view.log_start).await);
    let hash = |node: &Running| partition_of(node, "t", 0).expect("hosted").chain_hash_at(200);
    assert_eq!(hash(leading), hash(&nodes[2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_hands_its_leaderships_over_and_all_is_there_after_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 3, TopicConfig::default()).await;
    let mut expected = vec![Vec::new(); 3];
    for round in 0..3_usize {
        for number in 0..3_u32 {
            let value = format!("round {round}");
            append(&nodes, "t", number, &value).await;
            expected[usize::try_from(number).expect("small")].push(value);
        }
        let stopped = nodes.remove(0);
        let port: u16 =
            stopped.address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
        let label = stopped.member().label().0;
        stopped.node.stop().await;
        drop(stopped);
        for number in 0..3_u32 {
            append(&nodes, "t", number, "while one is away").await;
            expected[usize::try_from(number).expect("small")].push("while one is away".to_owned());
        }
        let directory = root.path().join(label.to_string());
        nodes.push(start(label, port, &directory, &[]).await);
    }
    for node in &nodes {
        for number in 0..3_u32 {
            let values = read_all(node, "t", number, 0).await;
            assert_eq!(values, expected[usize::try_from(number).expect("small")]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_in_which_nothing_happens_is_parked_and_wakes_for_an_append() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "before").await;
    let group = partition_of(&nodes[0], "t", 0).expect("hosted").group();
    let parked = |node: &Running| {
        let replica = node.member().registry_ref().replica(group).expect("hosted");
        replica.pulse().is_parked()
    };
    until("parking", async || nodes.iter().any(parked).then_some(())).await;
    let leading = leader(&nodes, "t", 0).await;
    let epoch = partition_of(leading, "t", 0).expect("hosted").raft().brief().term;

    assert_eq!(append(&nodes, "t", 0, "after").await, 1);

    assert!(!nodes.iter().any(parked));
    for node in &nodes {
        assert_eq!(read_all(node, "t", 0, 0).await, ["before", "after"]);
        let term = partition_of(node, "t", 0).expect("hosted").raft().brief().term;
        assert_eq!(term, epoch, "waking needs no election");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_entry_is_repaired_from_another_replica_before_it_is_read() {
    let engines: Vec<_> = (0..3).map(|_| Arc::new(MemoryEngine::new())).collect();
    let disk = |engine: &Arc<MemoryEngine>| Disk::Simulated {
        engine: engine.clone(),
        sync: Duration::from_millis(1),
    };
    let mut nodes = Vec::new();
    for (engine, label) in engines.iter().zip(1..) {
        nodes.push(start_on(label, free_port(), disk(engine), &[]).await);
    }
    form(&nodes).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    let expected: Vec<_> = (0..10).map(|number| format!("value {number}")).collect();
    for value in &expected {
        append(&nodes, "t", 0, value).await;
    }
    let third = partition_of(&nodes[2], "t", 0).expect("hosted");
    until("the third node", async || (third.view().high_watermark == 10).then_some(())).await;
    let group = third.group();
    drop(third);

    // Restarted, it has nothing in memory, and two of its entries are not what was written.
    let stopped = nodes.pop().expect("three nodes");
    let port = stopped.address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
    stopped.node.stop().await;
    drop(stopped);
    for index in [4, 7] {
        let key = keys::log_entry(group, index);
        assert!(engines[2].damage(Space::Log, &key, Damage::FlipBit { bit: 77 }));
    }
    let again = start_on(3, port, disk(&engines[2]), &[]).await;

    assert_eq!(read_all_at(Level::Committed, &again, "t", 0, 0).await, expected);
    assert_eq!(again.metrics.repair.repaired.get(), 2);
    assert_eq!(read_all_at(Level::Committed, &again, "t", 0, 0).await, expected);
    assert_eq!(again.metrics.repair.repaired.get(), 2, "repaired for good");
}
