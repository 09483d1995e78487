//! Who leads after a leader dies, whatever the survivors have of its log.

use super::wires::{Lines, on_wires};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivor_with_the_shorter_log_does_not_keep_the_other_one_from_leading() {
    const PARTITIONS: u32 = 8;
    let root = tempfile::tempdir().expect("a directory");
    let lines = watch::Sender::new(Lines::default());
    let nodes = on_wires(root.path(), &lines, 3).await;
    create_topic(&nodes[0], "t", PARTITIONS, TopicConfig::default()).await;
    let me = nodes[0].member().me();
    for number in 0..PARTITIONS {
        append(&nodes, "t", number, "first").await;
        until("the first node to lead", async || {
            let leading = leader(&nodes, "t", number).await;
            let group = partition_of(leading, "t", number)?.group();
            leading.member().move_leader(group, me, soon(5)).await.ok()
        })
        .await;
    }

    // The second node misses the last entry of every partition, and then the leader dies. Of two
    // survivors each is the first to call the election in half of the groups.
    let (dead, behind) = (nodes[0].address.clone(), nodes[1].address.clone());
    lines.send_if_modified(|lines| lines.held.insert((dead.clone(), behind)));
    let appends = (0..PARTITIONS).map(|number| append(&nodes, "t", number, "last"));
    futures::future::join_all(appends).await;
    for number in 0..PARTITIONS {
        assert_eq!(partition_of(&nodes[1], "t", number).expect("hosted").view().high_watermark, 1);
    }
    lines.send_if_modified(|lines| lines.cut.insert(dead));

    for number in 0..PARTITIONS {
        let leading = leader(&nodes[1..], "t", number).await;
        assert_eq!(leading.address, nodes[2].address, "only it has what was acknowledged");
    }
    for number in 0..PARTITIONS {
        assert_eq!(read_all(&nodes[2], "t", number, 0).await, ["first", "last"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_records_at_a_leader_that_is_deposed_is_answered_to_ask_another() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "first").await;
    let leading = leader(&nodes, "t", 0).await;
    let other = nodes.iter().find(|node| node.address != leading.address).expect("three");
    let partition = partition_of(leading, "t", 0).expect("hosted here");
    let group = partition.group();
    let query = FetchQuery {
        offset: 1,
        bytes_max: 1 << 20,
        bytes_min: 1,
        wait_until: soon(300),
        level: Level::Committed,
        deadline: soon(10),
    };
    let waiting = tokio::spawn(async move { partition.fetch(query).await });
    let to = other.member().me();
    until("another leader", async || {
        leader(&nodes, "t", 0).await.member().move_leader(group, to, soon(5)).await.ok()
    })
    .await;
    let fetched = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    let fetched = fetched.expect("long before its wait is over").expect("no panic");
    assert!(fetched.expect("an answer").record_set.is_empty());
}
