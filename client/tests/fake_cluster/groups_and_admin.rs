//! Group offsets and administration: routing, refusals, and what is not sent twice.

use std::time::Duration;

use quipu_client::{
    AdminError, Code, ErrorCode, GroupError, GroupOffset, NewTopic, Outcome, ReplicaRole,
    TopicPartition,
};
use tokio::time::Instant;

use crate::fake::{FakeCluster, Fate, address, final_refusal, refusal, unknown};

fn at(partition: u32, offset: u64) -> GroupOffset {
    GroupOffset::new("t", partition, offset)
}

fn pairs(offsets: &[GroupOffset]) -> Vec<(u32, u64)> {
    offsets.iter().map(|offset| (offset.partition, offset.offset)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_commit_finds_the_coordinator_and_is_read_back() {
    let cluster = FakeCluster::start(2);
    cluster.elect(Some(3));
    let groups = cluster.client().await.groups();
    groups.commit("g", vec![at(1, 7), at(0, 5)]).await.unwrap();
    let committed = groups.fetch("g", &[]).await.unwrap();
    assert_eq!(pairs(&committed), [(0, 5), (1, 7)]);
    assert_eq!(committed[0].committed_at_ms, Some(5));
    let one = groups.fetch("g", &[TopicPartition::new("t", 1)]).await.unwrap();
    assert_eq!(pairs(&one), [(1, 7)]);
    assert!(cluster.calls(3, "commit_offsets") == 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_does_not_go_back_but_a_reset_does() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    groups.commit("g", vec![at(0, 5)]).await.unwrap();
    let error = groups.commit("g", vec![at(0, 4)]).await.unwrap_err();
    assert_eq!(error, GroupError::OffsetRegression { committed_offset: 5 });
    assert_eq!(error.outcome(), Outcome::Definite);
    groups.reset("g", vec![at(0, 4)]).await.unwrap();
    assert_eq!(pairs(&groups.fetch("g", &[]).await.unwrap()), [(0, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_repeated_and_a_reset_is_not() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    cluster.decide([Fate::WrittenThenError(unknown(ErrorCode::TimedOut))]);
    groups.commit("g", vec![at(0, 5)]).await.unwrap();
    cluster.decide([Fate::WrittenThenError(unknown(ErrorCode::TimedOut))]);
    let error = groups.reset("g", vec![at(0, 1)]).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_is_followed() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    groups.commit("g", vec![at(0, 1)]).await.unwrap();
    cluster.network.kill(&address(1));
    cluster.elect(Some(2));
    let begun = Instant::now();
    groups.commit("g", vec![at(0, 2)]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_lag_counts_what_is_still_there() {
    let cluster = FakeCluster::start(2);
    for partition in 0..2 {
        cluster.partition(partition, |partition| {
            partition.fill(&["a", "b", "c", "d"]);
        });
    }
    cluster.partition(1, |partition| partition.log_start = 3);
    let groups = cluster.client().await.groups();
    let gone = GroupOffset::new("gone", 0, 9);
    groups.commit("g", vec![at(0, 1), at(1, 1), gone]).await.unwrap();
    let lags = groups.lag("g").await.unwrap();
    assert_eq!(lags[0].topic, "gone");
    let lags: Vec<_> =
        lags.iter().map(|lag| (lag.partition, lag.high_watermark, lag.lag, lag.lag_time)).collect();
    let seconds = |count| Some(Duration::from_secs(count));
    let (of_0, of_1) = ((0, Some(4), Some(3), seconds(3)), (1, Some(4), Some(1), seconds(1)));
    assert_eq!(lags, [(0, None, None, None), of_0, of_1]);
}

#[tokio::test(start_paused = true)]
async fn many_groups_are_listed_page_by_page() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    for group in ["e", "c", "a", "d", "b"] {
        groups.commit(group, vec![at(0, 1)]).await.unwrap();
    }
    assert_eq!(groups.list().await.unwrap(), ["a", "b", "c", "d", "e"]);
    let page = groups.list_page("b", 1).await.unwrap();
    assert_eq!((page.groups, page.more), (vec!["c".to_owned()], true));
}

#[tokio::test(start_paused = true)]
async fn a_commit_beyond_the_end_tells_the_end() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    let beyond = final_refusal(ErrorCode::OffsetBeyondEnd);
    let beyond = quipu_proto::v1::Error { high_watermark: Some(3), ..beyond };
    cluster.decide([Fate::Refused(beyond)]);
    let error = groups.commit("g", vec![at(0, 4)]).await.unwrap_err();
    assert!(matches!(error, GroupError::OffsetBeyondEnd { end_offset: 3, .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Definite);
    assert!(!error.retriable());
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_described_and_deleted() {
    let cluster = FakeCluster::start(1);
    let groups = cluster.client().await.groups();
    for group in ["b", "a"] {
        groups.commit(group, vec![at(0, 1)]).await.unwrap();
    }
    assert_eq!(groups.list().await.unwrap(), ["a", "b"]);
    let described = groups.describe("a").await.unwrap();
    assert_eq!((described.coordinator, described.leader_node), (2, Some(1)));
    groups.delete("a").await.unwrap();
    let error = groups.delete("a").await.unwrap_err();
    assert_eq!(error.code(), Code::Server(ErrorCode::UnknownGroup));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_formed_through_a_client_of_fresh_nodes() {
    let cluster = FakeCluster::start(1);
    cluster.state().formed = false;
    let admin = cluster.client().await.admin();
    assert_eq!(admin.describe_cluster().await.unwrap().cluster_id, None);
    let id = admin.init_cluster(&[1, 2, 3].map(address)).await.unwrap();
    let described = admin.describe_cluster().await.unwrap();
    assert_eq!(described.cluster_id, Some(id));
    let labels: Vec<u64> = described.nodes.iter().map(|node| node.node_id).collect();
    assert_eq!(labels, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn one_node_is_asked_once_dead_or_alive() {
    let cluster = FakeCluster::start(1);
    let admin = cluster.client().await.admin();
    for node in 1..=3 {
        let described = admin.at_node(node).describe_cluster().await.unwrap();
        assert_eq!(described.asked_node, node);
    }
    let described = admin.at_address(address(2)).describe_cluster().await.unwrap();
    assert_eq!(described.asked_node, 2);
    cluster.network.kill(&address(2));
    let begun = Instant::now();
    let error = admin.at_node(2).health().await.unwrap_err();
    assert!(error.retriable(), "{error}");
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_there_is_named() {
    let cluster = FakeCluster::start(1);
    let admin = cluster.client().await.admin();
    let error = admin.at_node(9).health().await.unwrap_err();
    assert_eq!(error, AdminError::UnknownNode { node: 9 });
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_created_changed_and_deleted() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let admin = client.admin();
    let topic = admin.create_topic(NewTopic::new("new", 3)).await.unwrap();
    assert_eq!(topic.partitions.len(), 3);
    assert_eq!(topic.partitions[2].leader_address, Some(address(1)));
    let error = admin.create_topic(NewTopic::new("new", 3)).await.unwrap_err();
    assert_eq!(error, AdminError::TopicExists { topic: "new".to_owned() });

    let configs = [("retention.ms".to_owned(), "7".to_owned())];
    let topic = admin.alter_topic("new", configs).await.unwrap();
    assert_eq!(topic.configs["retention.ms"], "7");
    let names: Vec<String> =
        admin.list_topics().await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["new", "t"]);

    admin.delete_topic("new").await.unwrap();
    let error = admin.describe_topic("new").await.unwrap_err();
    assert_eq!(error, AdminError::UnknownTopic { topic: "new".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_may_have_been_created_is_not_created_again() {
    let cluster = FakeCluster::start(1);
    let admin = cluster.client().await.admin();
    cluster.state().refusals.push_back(refusal(ErrorCode::Overloaded));
    cluster.state().refusals.push_back(unknown(ErrorCode::TimedOut));
    let error = admin.create_topic(NewTopic::new("new", 1)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(cluster.calls(1, "create_topic"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_described_by_its_own_node_and_a_leader_is_moved() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let replica = client.admin().describe_replica(3, "t", 0, Some(4)).await.unwrap();
    assert_eq!((replica.node_id, replica.role), (3, ReplicaRole::Follower));
    assert_eq!((replica.chain_hash, replica.chain_hash_offset), (None, 4));
    client.admin().move_leader("t", 0, 2).await.unwrap();
    let topic = client.admin().describe_topic("t").await.unwrap();
    assert_eq!(topic.partitions[0].leader, Some(2));
}
