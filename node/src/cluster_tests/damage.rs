//! What a node may not do when it finds its own disk damaged.

use super::*;
use crate::storage::Engine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_open_keeps_its_vote_and_its_entries() {
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
    append(&nodes, "t", 0, "value").await;
    let third = partition_of(&nodes[2], "t", 0).expect("hosted");
    until("the third node", async || (third.view().high_watermark == 1).then_some(())).await;
    let group = third.group();
    drop(third);

    // Restarted, it can't tell how far it had applied.
    let stopped = nodes.pop().expect("three nodes");
    let port = stopped.address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
    stopped.node.stop().await;
    drop(stopped);
    let stored = |key: &[u8]| engines[2].get(Space::State, key).expect("it is read");
    let vote = stored(&keys::vote(group));
    assert!(vote.is_some());
    let log = || {
        let limit = crate::storage::ScanLimit::items(100);
        engines[2].scan(Space::Log, &keys::log(group), limit).expect("it is read").len()
    };
    let entries = log();
    assert!(engines[2].damage(Space::State, &keys::head(group), Damage::FlipBit { bit: 77 }));
    let again = start_on(3, port, disk(&engines[2]), &[]).await;

    // It has looked at everything that was placed on it when it has the second topic.
    create_topic(&nodes[0], "u", 1, TopicConfig::default()).await;
    until("the second topic", async || partition_of(&again, "u", 0)).await;

    assert!(partition_of(&again, "t", 0).is_none(), "it is closed");
    assert_eq!(stored(&keys::vote(group)), vote);
    assert_eq!(log(), entries);
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
    assert!(engine.damage(Space::State, &keys::head(group), Damage::FlipBit { bit: 77 }));
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
