//! Nodes that come, stand aside and go, while appends go on.

use std::collections::BTreeSet;

use node_core::ids::{GroupId, NodeUuid};
use node_core::metadata::{PlaceGroup, Standing};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::wires::{Lines, on_wires};
use super::*;

/// Appends to every partition of `t` until it is stopped.
struct Load {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(nodes: &[Running], partitions: u32) -> Self {
        let stop = CancellationToken::new();
        let members: Vec<_> = nodes.iter().map(Running::member).collect();
        let append = |number| tokio::spawn(append_on(members.clone(), number, stop.clone()));
        let tasks = (0..partitions).map(append).collect();
        Self { stop, tasks }
    }

    /// What was acknowledged, by partition.
    async fn stop(self) -> Vec<Vec<String>> {
        self.stop.cancel();
        let ended = futures::future::join_all(self.tasks).await;
        ended.into_iter().map(|acked| acked.expect("every append was acknowledged")).collect()
    }
}

async fn append_on(members: Vec<Arc<Member>>, number: u32, stop: CancellationToken) -> Vec<String> {
    let mut acked = Vec::new();
    while !stop.is_cancelled() {
        let value = format!("{number}: {}", acked.len());
        let deadline = soon(30);
        while append_once(&members, number, &value).await.is_none() {
            assert!(Instant::now() < deadline, "waited too long for an append to {number}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acked.push(value);
    }
    acked
}

async fn append_once(members: &[Arc<Member>], number: u32, value: &str) -> Option<()> {
    let partitions = members.iter().filter_map(|it| it.partition(&topic("t"), number).ok());
    for partition in partitions {
        let new = NewAppend { batch: batch(value), expect_end_offset: None, deadline: soon(5) };
        let Ok(ticket) = partition.enqueue(new).await else { continue };
        if ticket.answer().await.is_ok() {
            return Some(());
        }
    }
    None
}

async fn stand(node: &Running, of: NodeUuid, standing: Standing) -> MetadataOutcome {
    let command = MetadataCommand::SetStanding { node: of, standing };
    node.member().propose(command, soon(30)).await.expect("an outcome")
}

/// Everything acknowledged is there, in order, and the replicas agree.
async fn check(nodes: &[Running], acked: &[Vec<String>]) {
    for (number, acked) in (0..).zip(acked) {
        let metadata = nodes[0].member().metadata();
        let group = metadata.partition_group(&topic("t"), number).expect("a partition");
        let holders: BTreeSet<NodeUuid> =
            metadata.groups()[&group].replicas.iter().map(|it| it.node).collect();
        let mut seen = BTreeSet::new();
        for node in nodes.iter().filter(|node| holders.contains(&node.member().me())) {
            let read = until("the replica to answer", async || {
                partition_of(node, "t", number)?;
                Some(read_all(node, "t", number, 0).await)
            });
            let mut read = read.await.into_iter();
            // An append whose outcome was not known is made again, and may be there twice.
            assert!(acked.iter().all(|value| read.any(|it| it == *value)), "t/{number}: lost");
            let partition = partition_of(node, "t", number).expect("hosted");
            let view = partition.view();
            seen.insert((view.high_watermark, view.chain_hash.0));
        }
        assert_eq!(seen.len(), 1, "t/{number}: the replicas differ");
        assert_eq!(holders.len(), 3);
    }
}

/// Appends go on for a while.
async fn progress(node: &Running, number: u32) {
    let end = |node: &Running| Some(partition_of(node, "t", number)?.view().high_watermark);
    let before = until("the partition", async || end(node)).await;
    until("appends", async || (end(node)? > before + 20).then_some(())).await;
}

async fn settled(node: &Running) {
    until("every group to settle", async || {
        let metadata = node.member().metadata();
        metadata.groups().values().all(|group| group.retiring.is_empty()).then_some(())
    })
    .await;
}

fn leads_anything(node: &Running) -> bool {
    let member = node.member();
    let replicas = member.registry_ref().all();
    replicas.iter().any(|replica| replica.raft().brief().role == Role::Leader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_and_another_goes_under_appends_and_nothing_is_lost() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 3, TopicConfig::default()).await;
    let join = nodes[0].address.clone();
    let fourth = start(4, free_port(), &root.path().join("4"), &[&join]).await;
    until("the fourth node", async || {
        fourth.node.formation().member()?.metadata().cluster_id().map(drop)
    })
    .await;
    nodes.push(fourth);
    let load = Load::start(&nodes, 3);
    progress(&nodes[1], 0).await;

    let goes = nodes.remove(0);
    let me = goes.member().me();
    assert_eq!(stand(&nodes[0], me, Standing::Removing).await, MetadataOutcome::StandingSet);
    until("the removal", async || {
        nodes[0].member().metadata().removed_nodes().contains(&me).then_some(())
    })
    .await;
    let ended = tokio::time::timeout(Duration::from_secs(30), goes.node.failed()).await;
    assert!(ended.expect("it ends by itself").contains("removed from the cluster"));
    progress(&nodes[0], 1).await;

    let acked = load.stop().await;
    settled(&nodes[0]).await;
    check(&nodes, &acked).await;
    assert!(!nodes[0].member().metadata().nodes().contains_key(&me));

    // Its disk is refused for good.
    let port: u16 = goes.address.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a port");
    goes.node.stop().await;
    drop(goes);
    let again = start(1, port, &root.path().join("1"), &[]).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), again.node.failed()).await;
    assert!(ended.expect("it ends by itself").contains("removed from the cluster"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_leads_nothing_and_no_append_fails() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 6, TopicConfig::default()).await;
    let load = Load::start(&nodes, 6);
    progress(&nodes[1], 0).await;
    let me = nodes[0].member().me();

    assert_eq!(stand(&nodes[1], me, Standing::Drained).await, MetadataOutcome::StandingSet);
    until("the drain", async || (!leads_anything(&nodes[0])).then_some(())).await;
    for number in 0..6 {
        progress(&nodes[1], number).await;
        assert!(partition_of(&nodes[0], "t", number).is_some(), "its replicas stay");
    }
    create_topic(&nodes[1], "later", 3, TopicConfig::default()).await;
    for number in 0..3 {
        assert_ne!(leader(&nodes, "later", number).await.address, nodes[0].address);
    }

    assert_eq!(stand(&nodes[1], me, Standing::Active).await, MetadataOutcome::StandingSet);
    let group = partition_of(&nodes[1], "t", 0).expect("hosted").group();
    until("the node to lead again", async || {
        let leading = leader(&nodes, "t", 0).await;
        leading.member().move_leader(group, me, soon(5)).await.ok()
    })
    .await;
    let acked = load.stop().await;
    check(&nodes, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_goes_on_when_the_leader_of_the_metadata_dies_in_the_middle() {
    let root = tempfile::tempdir().expect("a directory");
    let lines = watch::Sender::new(Lines::default());
    let nodes = on_wires(root.path(), &lines, 4).await;
    create_topic(&nodes[0], "t", 4, TopicConfig::default()).await;
    for number in 0..4 {
        append(&nodes, "t", number, "before").await;
    }
    let leads = until("the metadata's leader", async || {
        let (place, _) = nodes[0].member().leader_of(GroupId::METADATA)?;
        nodes.iter().position(|node| node.member().me() == place.node)
    })
    .await;
    let goes = (leads + 1) % 4;
    let (me, stays) = (nodes[goes].member().me(), &nodes[(leads + 2) % 4]);
    assert_eq!(stand(stays, me, Standing::Removing).await, MetadataOutcome::StandingSet);
    until("a move", async || {
        let metadata = stays.member().metadata();
        let begun = metadata.moves_under_way() > 0 || metadata.removed_nodes().contains(&me);
        begun.then_some(())
    })
    .await;
    let dead = nodes[leads].address.clone();
    lines.send_if_modified(|lines| lines.cut.insert(dead.clone()));
    until("another leader of the metadata", async || {
        let (place, _) = stays.member().leader_of(GroupId::METADATA)?;
        (place.node != nodes[leads].member().me()).then_some(())
    })
    .await;
    lines.send_if_modified(|lines| lines.cut.remove(&dead));

    until("the removal", async || {
        stays.member().metadata().removed_nodes().contains(&me).then_some(())
    })
    .await;
    let others: Vec<Running> = nodes.into_iter().filter(|node| node.member().me() != me).collect();
    settled(&others[0]).await;
    check(&others, &vec![vec!["before".to_owned()]; 4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_removal_puts_the_replicas_back_that_were_on_their_way() {
    let root = tempfile::tempdir().expect("a directory");
    let lines = watch::Sender::new(Lines::default());
    let nodes = on_wires(root.path(), &lines, 4).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "before").await;
    let metadata = nodes[0].member().metadata();
    let group = metadata.partition_group(&topic("t"), 0).expect("a partition");
    let before = metadata.groups()[&group].replicas.clone();
    let on = |node: &Running| before.iter().any(|replica| replica.node == node.member().me());
    let to = nodes.iter().position(|node| !on(node)).expect("one of four has none");
    // Where the replica shall go nobody is.
    lines.send_if_modified(|lines| lines.cut.insert(nodes[to].address.clone()));
    let goes = nodes.iter().position(|node| node.member().me() == before[0].node).expect("one");
    let asks = nodes.iter().find(|node| on(node)).expect("one of them");
    let me = before[0].node;
    let expected: Vec<NodeUuid> = before.iter().map(|replica| replica.node).collect();
    let mut wanted = expected.clone();
    wanted[0] = nodes[to].member().me();
    assert_eq!(stand(asks, me, Standing::Removing).await, MetadataOutcome::StandingSet);
    // The leader of the metadata may know already that nobody is there, and begins no move then.
    let place = MetadataCommand::PlaceGroup(PlaceGroup {
        group,
        expected,
        nodes: wanted,
        removal_of: None,
    });
    let placed = asks.member().propose(place, soon(30)).await;
    assert!(matches!(placed, Ok(MetadataOutcome::Placed | MetadataOutcome::NotPlaced { .. })));
    until("the move", async || (asks.member().metadata().moves_under_way() > 0).then_some(()))
        .await;
    append(&nodes, "t", 0, "meanwhile").await;

    assert_eq!(stand(asks, me, Standing::Active).await, MetadataOutcome::StandingSet);
    lines.send_if_modified(|lines| lines.cut.remove(&nodes[to].address));
    settled(asks).await;
    let after = asks.member().metadata().groups()[&group].replicas.clone();
    let ids = |replicas: &[node_core::metadata::Replica]| {
        replicas.iter().map(|replica| (replica.id, replica.node)).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&after), ids(&before));
    append(&nodes, "t", 0, "after").await;
    assert_eq!(read_all(&nodes[goes], "t", 0, 0).await, ["before", "meanwhile", "after"]);
}
