//! What a node may not do when it finds its own disk damaged.

use node_core::ids::{GroupId, GroupName};

use super::*;
use crate::storage::{Durability, Engine, WriteBatch};

fn disk_of(engine: &Arc<MemoryEngine>) -> Disk {
    Disk::Simulated { engine: engine.clone(), sync: Duration::from_millis(1) }
}

/// Three nodes on simulated disks, in the order of their labels, and a topic of one partition with
/// `values` on each of them.
async fn three_with(engines: &[Arc<MemoryEngine>], values: &[&str]) -> (Vec<Running>, GroupId) {
    let mut nodes = Vec::new();
    for (engine, label) in engines.iter().zip(1..) {
        nodes.push(start_on(label, free_port(), disk_of(engine), &[]).await);
    }
    form(&nodes).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    for value in values {
        append(&nodes, "t", 0, value).await;
    }
    let end = u64::try_from(values.len()).expect("few");
    for node in &nodes {
        until("every replica", async || {
            (partition_of(node, "t", 0)?.view().high_watermark == end).then_some(())
        })
        .await;
    }
    let group = partition_of(&nodes[0], "t", 0).expect("hosted").group();
    (nodes, group)
}

/// Damages what the disk durably has.
fn damage(engine: &MemoryEngine, space: Space, key: &[u8]) {
    engine.write(WriteBatch::new(), Durability::Synced).expect("memory");
    assert!(engine.damage(space, key, Damage::FlipBit { bit: 77 }));
}

fn port_of(node: &Running) -> u16 {
    node.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

async fn stop(node: Running) {
    node.node.stop().await;
}

fn engines() -> Vec<Arc<MemoryEngine>> {
    (0..3).map(|_| Arc::new(MemoryEngine::new())).collect()
}

fn entries_of(engine: &MemoryEngine, group: GroupId) -> usize {
    let limit = crate::storage::ScanLimit::items(100);
    engine.scan(Space::Log, &keys::log(group), limit).expect("it is read").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_be_trusted_stays_closed_alone_and_is_replaced_with_a_majority() {
    let engines = engines();
    let (mut nodes, group) = three_with(&engines, &["value"]).await;
    let ports: Vec<u16> = nodes.iter().map(port_of).collect();
    let replica = partition_of(&nodes[2], "t", 0).expect("hosted").replica();
    for node in nodes.drain(..) {
        stop(node).await;
    }
    // It can't tell any more how far it had applied, and for whom it voted.
    let stored = |key: &[u8]| engines[2].get(Space::State, key).expect("it is read");
    for key in [keys::head(group), keys::vote(group)] {
        damage(&engines[2], Space::State, &key);
    }
    let (vote, entries) = (stored(&keys::vote(group)), entries_of(&engines[2], group));
    let third = start_on(3, ports[2], disk_of(&engines[2]), &[]).await;

    // As long as nobody proves that the group does without it, nothing of it is touched.
    until("a few attempts", async || (third.metrics.opening.failures.get() >= 4).then_some(()))
        .await;
    let why = third.member().registry_ref().why_closed(group).expect("it is closed");
    assert!(why.contains("attempt"), "{why}");
    assert_eq!(third.metrics.opening.closed.get(), 1);
    assert_eq!((stored(&keys::vote(group)), entries_of(&engines[2], group)), (vote, entries));
    assert_eq!(third.metrics.opening.replaced.get(), 0);

    for place in [0, 1] {
        let label = u64::try_from(place).expect("small") + 1;
        nodes.push(start_on(label, ports[place], disk_of(&engines[place]), &[]).await);
    }
    nodes.push(third);
    let new = until("a new replica", async || partition_of(&nodes[2], "t", 0)).await;
    assert!(new.replica() > replica);
    append(&nodes, "t", 0, "after").await;
    assert_eq!(read_all(&nodes[2], "t", 0, 0).await, ["value", "after"]);
    until("the old one to be forgotten", async || {
        let metadata = nodes[2].member().metadata();
        let voters = new.raft().status().voters;
        (metadata.groups()[&group].retiring.is_empty() && voters.contains(&new.replica()))
            .then_some(())
    })
    .await;
    assert_eq!(nodes[2].metrics.opening.replaced.get(), 1);
    assert_eq!(nodes[2].metrics.opening.closed.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_metadata_of_one_node_is_had_again_from_the_others() {
    let engines = engines();
    let (mut nodes, _) = three_with(&engines, &["value"]).await;
    let (third, metadata) = (nodes.pop().expect("three nodes"), GroupId::METADATA);
    let port = port_of(&third);
    stop(third).await;
    damage(&engines[2], Space::State, &keys::vote(metadata));
    let third = start_on(3, port, disk_of(&engines[2]), &[]).await;

    create_topic(&nodes[0], "u", 1, TopicConfig::default()).await;
    nodes.push(third);

    until("the second topic", async || partition_of(&nodes[2], "u", 0)).await;
    let replica = nodes[2].member().registry_ref().replica(metadata).expect("it is open");
    let record = nodes[2].member().metadata().groups()[&metadata].clone();
    assert!(record.replica(replica.raft().replica()).is_some());
    assert_eq!(nodes[2].metrics.opening.replaced.get(), 1);
    assert_eq!(read_all(&nodes[2], "t", 0, 0).await, ["value"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_waits_for_one_that_does_not_open() {
    let engines = engines();
    let (mut nodes, group) = three_with(&engines, &["value"]).await;
    create_topic(&nodes[0], "u", 8, TopicConfig::default()).await;
    for number in 0..8 {
        append(&nodes, "u", number, "value").await;
        until("every replica", async || {
            (partition_of(&nodes[2], "u", number)?.view().high_watermark == 1).then_some(())
        })
        .await;
    }
    let others: Vec<GroupId> = (0..8)
        .map(|number| partition_of(&nodes[2], "u", number).expect("hosted").group())
        .collect();
    let ports: Vec<u16> = nodes.iter().map(port_of).collect();
    for node in nodes.drain(..) {
        stop(node).await;
    }
    // More damaged ones than are repaired at once, and nobody there to repair them: each attempt
    // takes seconds.
    for group in &others {
        let last = u64::try_from(entries_of(&engines[2], *group)).expect("few") - 1;
        let key = keys::log_entry(*group, last);
        damage(&engines[2], Space::Log, &key);
    }
    let third = start_on(3, ports[2], disk_of(&engines[2]), &[]).await;

    // Open in the first place, long before any of the others is given up.
    assert!(third.member().registry_ref().replica(group).is_some());
    assert!(third.member().registry_ref().replica(GroupId::METADATA).is_some());
    until("a second attempt", async || (third.metrics.opening.failures.get() >= 9).then_some(()))
        .await;
    for group in others {
        assert!(third.member().registry_ref().why_closed(group).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_can_only_be_repaired_by_each_other_both_open() {
    let engines = engines();
    let (mut nodes, _) = three_with(&engines, &["value"]).await;
    let ports: Vec<u16> = nodes.iter().map(port_of).collect();
    // A table replays its whole log when it is opened.
    let coordinator = GroupId::COORDINATOR_FIRST;
    let group = (0..).map(|number| format!("g{number}").parse().expect("a name"));
    let member = nodes[0].member();
    let group: GroupName = group
        .into_iter()
        .find(|group| member.coordinator_of(group) == Some(coordinator))
        .expect("some name");
    for offset in 0..6 {
        commit(&nodes, &group, offset).await;
    }
    until("every table", async || {
        let holds = |node: &Running| {
            let replica = node.member().registry_ref().replica(coordinator)?;
            let committed = replica.groups()?.read().offset(&group, &topic("t"), 0)?.offset;
            (committed == 5).then_some(())
        };
        nodes.iter().all(|node| holds(node).is_some()).then_some(())
    })
    .await;
    for node in nodes.drain(..) {
        stop(node).await;
    }
    for (engine, index) in [(&engines[1], 3), (&engines[2], 5)] {
        let key = keys::log_entry(coordinator, index);
        damage(engine, Space::Log, &key);
    }

    // The first node stays away.
    let starting = [1, 2].map(|place: usize| {
        let label = u64::try_from(place).expect("small") + 1;
        start_on(label, ports[place], disk_of(&engines[place]), &[])
    });
    let nodes = futures::future::join_all(starting).await;

    for node in &nodes {
        until("it to open", async || node.member().registry_ref().replica(coordinator)).await;
        assert_eq!(node.metrics.opening.replaced.get(), 0);
        assert!(node.metrics.repair.repaired.get() >= 1);
    }
    commit(&nodes, &group, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_leaves_nothing_of_a_replica_that_did_not_open() {
    let engine = Arc::new(MemoryEngine::new());
    let disk = || Disk::Simulated { engine: engine.clone(), sync: Duration::from_millis(1) };
    let port = free_port();
    let mut node = start_on(1, port, disk(), &[]).await;
    form(std::slice::from_ref(&node)).await;
    let create = MetadataCommand::CreateTopic(CreateTopic {
        name: topic("t"),
        id: node_core::ids::TopicId(crate::env::random_uuid()),
        partitions: 1,
        replication_factor: 1,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    });
    let outcome = node.member().propose(create, soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicCreated));
    append(std::slice::from_ref(&node), "t", 0, "value").await;
    let group = partition_of(&node, "t", 0).expect("hosted").group();
    node.node.stop().await;
    drop(node);
    damage(&engine, Space::State, &keys::head(group));
    node = start_on(1, port, disk(), &[]).await;
    until("the metadata", async || node.member().metadata().topics().get(&topic("t")).cloned())
        .await;
    assert!(partition_of(&node, "t", 0).is_none(), "it is closed");

    let id = node.member().metadata().topics()[&topic("t")].id;
    let delete = MetadataCommand::DeleteTopic { name: topic("t"), id };
    let outcome = node.member().propose(delete, soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicDeleted));

    until("its end", async || {
        (!node.member().metadata().groups().contains_key(&group)).then_some(())
    })
    .await;
    for (space, range) in keys::ranges_of_group(group) {
        let limit = crate::storage::ScanLimit::items(1);
        assert!(engine.scan(space, &range, limit).expect("it is read").is_empty());
    }
}
