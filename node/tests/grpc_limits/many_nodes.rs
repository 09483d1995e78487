//! Several nodes: who is asked for what does not matter, or the answer says whom to ask.

use std::collections::BTreeSet;

use quipu_proto::v1;
use quipu_proto::v1::{ErrorCode, ReadLevel};

use crate::running::{Running, TOPIC, append, batch, error_of, eventually, fetch, refused};

/// A cluster of nodes labelled from 1.
async fn cluster(count: u64) -> Vec<Running> {
    let mut nodes = Vec::new();
    for label in 1..=count {
        nodes.push(Running::fresh(label, |_| {}).await);
    }
    let addresses = nodes.iter().map(|node| node.address.clone()).collect();
    let request = v1::InitClusterRequest { addresses };
    nodes[0].admin().init_cluster(request).await.unwrap();
    for node in &nodes {
        eventually(async || {
            let health =
                node.admin().health(v1::HealthRequest::default()).await.unwrap().into_inner();
            health.healthy.then_some(())
        })
        .await;
    }
    nodes
}

async fn create_topic(node: &Running, partitions: u32) -> v1::TopicInfo {
    let request = v1::CreateTopicRequest {
        topic: TOPIC.to_owned(),
        partitions,
        ..v1::CreateTopicRequest::default()
    };
    node.admin().create_topic(request).await.unwrap().into_inner().topic.unwrap()
}

fn by_address<'a>(nodes: &'a [Running], address: &str) -> &'a Running {
    nodes.iter().find(|node| node.address == address).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_for_appends_and_serves_reads_itself() {
    let nodes = cluster(3).await;
    let topic = create_topic(&nodes[1], 3).await;
    assert_eq!((topic.replication_factor, topic.partitions.len()), (3, 3));
    for partition in &topic.partitions {
        let number = partition.partition;
        let leader = by_address(&nodes, &partition.leader_address);
        let appended = leader.log().append(append(TOPIC, number, batch(&["a"]))).await.unwrap();
        assert_eq!(appended.into_inner().base_offset, Some(0));
        for node in &nodes {
            // At once after the acknowledgement, on every node.
            let fetched = node.log().fetch(fetch(TOPIC, number, 0)).await.unwrap().into_inner();
            let label = node.admin().describe_cluster(v1::DescribeClusterRequest {}).await;
            assert_eq!(fetched.next_offset, 1);
            assert_eq!(fetched.served_by, label.unwrap().into_inner().asked_node);
            if node.address != leader.address {
                let refusal = node.log().append(append(TOPIC, number, batch(&["b"]))).await;
                let error = refused(refusal, ErrorCode::NotLeader, &leader.address);
                assert_eq!(error.leader_address, leader.address);
                assert!(error.retriable);
            }
        }
    }
    let five = v1::CreateTopicRequest {
        topic: "five".to_owned(),
        partitions: 1,
        replication_factor: 5,
        ..v1::CreateTopicRequest::default()
    };
    let five = nodes[2].admin().create_topic(five).await;
    refused(five, ErrorCode::InvalidReplication, "number of nodes, which is 3");
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_the_node_that_is_named() {
    let nodes = cluster(3).await;
    let topic = create_topic(&nodes[0], 1).await;
    let mut leader = topic.partitions[0].leader;
    for _ in 0..3 {
        let to_node = leader % 3 + 1;
        let request =
            v1::MoveLeaderRequest { topic: TOPIC.to_owned(), to_node, ..Default::default() };
        eventually(async || {
            let at = nodes.get(usize::try_from(leader - 1).unwrap())?;
            match at.admin().move_leader(request.clone()).await {
                Ok(_) => Some(()),
                Err(status) => {
                    assert!(error_of(&status).retriable, "{status:?}");
                    None
                }
            }
        })
        .await;
        leader = to_node;
        let at = &nodes[usize::try_from(leader - 1).unwrap()];
        eventually(async || at.log().append(append(TOPIC, 0, batch(&["a"]))).await.ok()).await;
    }
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_found_from_every_node_also_where_it_keeps_none_of_them() {
    // With four nodes no node has a replica of every coordinator.
    let nodes = cluster(4).await;
    create_topic(&nodes[0], 1).await;
    eventually(async || {
        for node in &nodes {
            let records = append(TOPIC, 0, batch(&["a", "b", "c", "d"]));
            if node.log().append(records).await.is_ok() {
                return Some(());
            }
        }
        None
    })
    .await;
    let names: BTreeSet<String> = (0..12).map(|number| format!("group-{number}")).collect();
    for name in &names {
        let offset =
            v1::GroupOffset { topic: TOPIC.to_owned(), offset: 3, ..v1::GroupOffset::default() };
        let request = v1::CommitOffsetsRequest {
            group: name.clone(),
            offsets: vec![offset],
            ..v1::CommitOffsetsRequest::default()
        };
        let mut at = &nodes[0];
        eventually(async || match at.groups().commit_offsets(request.clone()).await {
            Ok(_) => Some(()),
            Err(status) => {
                let error = error_of(&status);
                assert!(error.retriable, "{error:?}");
                if error.code() == ErrorCode::NotLeader {
                    at = by_address(&nodes, &error.leader_address);
                }
                None
            }
        })
        .await;
    }
    let mut asked_elsewhere = 0;
    for node in &nodes {
        let list = node.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap();
        assert_eq!(BTreeSet::from_iter(list.into_inner().groups), names);
        for name in &names {
            let request = v1::DescribeGroupRequest { group: name.clone(), with_lag: true };
            asked_elsewhere += eventually(async || {
                match node.groups().describe_group(request.clone()).await {
                    Ok(described) => {
                        let described = described.into_inner();
                        assert_eq!(described.offsets[0].offset, 3);
                        // Asked of another node where this one has no replica of the partition.
                        let lag = &described.lags[0];
                        lag.lag.map(|records| assert_eq!(records, 1, "{lag:?}")).map(|()| 0)
                    }
                    Err(status) => {
                        let error = error_of(&status);
                        assert!(error.retriable, "{error:?}");
                        let address = &error.leader_address;
                        (error.code() == ErrorCode::NotLeader && !address.is_empty()).then_some(1)
                    }
                }
            })
            .await;
        }
    }
    assert!(asked_elsewhere > 0);
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_a_problem_of_the_cluster_and_its_partitions_are_read_on() {
    let mut nodes = cluster(3).await;
    create_topic(&nodes[0], 3).await;
    let dead = nodes.pop().unwrap();
    dead.node.stop().await;
    drop(dead);
    let health = eventually(async || {
        let health =
            nodes[0].admin().health(v1::HealthRequest::default()).await.unwrap().into_inner();
        (health.dead_nodes == 1 && health.leaderless_groups == 0).then_some(health)
    });
    let health = health.await;
    assert!(!health.healthy);
    assert!(health.problems.iter().any(|it| it.contains("node 3")), "{health:?}");
    for partition in 0..3 {
        for level in [ReadLevel::Linearizable, ReadLevel::Committed] {
            let request = v1::FetchRequest { level: level.into(), ..fetch(TOPIC, partition, 0) };
            nodes[1].log().fetch(request).await.unwrap();
        }
    }
    futures::future::join_all(nodes.into_iter().map(Running::stop)).await;
}
