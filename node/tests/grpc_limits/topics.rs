//! Making, changing and deleting topics; replicas and leaders.

use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;

use crate::running::{Running, TOPIC, append, batch, refused};

fn create(topic: &str, partitions: u32, replication_factor: u32) -> v1::CreateTopicRequest {
    let topic = topic.to_owned();
    v1::CreateTopicRequest {
        topic,
        partitions,
        replication_factor,
        ..v1::CreateTopicRequest::default()
    }
}

fn settings(pairs: &[(&str, &str)]) -> v1::AlterTopicRequest {
    let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    v1::AlterTopicRequest { topic: TOPIC.to_owned(), configs: pairs.collect() }
}

#[tokio::test]
async fn a_topic_that_cannot_be_is_refused_with_what_can() {
    let node = Running::with_topic().await;
    let send = async |request| node.admin().create_topic(request).await;
    refused(send(create(TOPIC, 1, 1)).await, ErrorCode::TopicExists, "is there already");
    let replication = ErrorCode::InvalidReplication;
    refused(send(create("t", 1, 3)).await, replication, "number of nodes, which is 1");
    refused(send(create("t", 1, 2)).await, replication, "it is 1, 3 or 5");
    let invalid = ErrorCode::InvalidArgument;
    refused(send(create("t", 0, 1)).await, invalid, "1 to 4096");
    refused(send(create("t", 4_097, 1)).await, invalid, "1 to 4096");
    refused(send(create("..", 1, 1)).await, invalid, "topic: ");
    let config = |name: &str, value: &str| v1::CreateTopicRequest {
        configs: [(name.to_owned(), value.to_owned())].into(),
        ..create("t", 1, 1)
    };
    let unknown = send(config("retention", "1d")).await;
    refused(unknown, ErrorCode::InvalidConfig, "known are retention.ms");
    let value = send(config("retention.ms", "soon")).await;
    refused(value, ErrorCode::InvalidConfig, "a whole number");
    let long = send(config(&"x".repeat(100_000), "1")).await;
    refused(long, ErrorCode::InvalidConfig, "unknown setting");
    node.stop().await;
}

#[tokio::test]
async fn a_topic_is_described_changed_and_deleted() {
    let node = Running::with_topic().await;
    let changed = node.admin().alter_topic(settings(&[("retention.ms", "7d")])).await.unwrap();
    let topic = changed.into_inner().topic.unwrap();
    assert_eq!(topic.configs["retention.ms"], "604800000");
    let fixed = node.admin().alter_topic(settings(&[("checkpoint.ms", "1s")])).await;
    refused(fixed, ErrorCode::InvalidConfig, "fixed");
    let nothing = node.admin().alter_topic(settings(&[])).await;
    refused(nothing, ErrorCode::InvalidArgument, "configs: ");

    let list = node.admin().list_topics(v1::ListTopicsRequest {}).await.unwrap().into_inner();
    assert_eq!((list.topics.len(), list.topics[0].partitions), (1, 2));
    let describe = v1::DescribeTopicRequest { topic: TOPIC.to_owned() };
    let described = node.admin().describe_topic(describe.clone()).await.unwrap().into_inner();
    let described = described.topic.unwrap();
    assert_eq!(described, topic);
    let partition = &described.partitions[1];
    assert_eq!((partition.leader, &partition.leader_address), (1, &node.address));
    assert_eq!((partition.replicas.as_slice(), partition.partition), (&[1][..], 1));
    assert!(partition.leader_epoch > 0);

    let delete = v1::DeleteTopicRequest { topic: TOPIC.to_owned() };
    node.admin().delete_topic(delete.clone()).await.unwrap();
    let gone = ErrorCode::UnknownTopic;
    refused(node.admin().delete_topic(delete).await, gone, "quipu topic");
    refused(node.admin().describe_topic(describe).await, gone, "quipu topic");
    let change = node.admin().alter_topic(settings(&[("retention.ms", "7d")])).await;
    refused(change, gone, "quipu topic");
    refused(node.log().append(append(TOPIC, 0, batch(&["a"]))).await, gone, "quipu topic");
    node.stop().await;
}

#[tokio::test]
async fn a_replica_tells_its_state_and_the_hash_where_it_is_known() {
    let node = Running::with_topic().await;
    node.append(batch(&["a"])).await;
    node.append(batch(&["b"])).await;
    let request =
        |at_offset| v1::DescribeReplicaRequest { topic: TOPIC.to_owned(), partition: 0, at_offset };
    let ask = async |at| node.admin().describe_replica(request(at)).await.unwrap().into_inner();
    let now = ask(None).await;
    assert_eq!((now.node_id, now.role.as_str(), now.high_watermark), (1, "leader", 2));
    assert_eq!((now.chain_hash.len(), now.chain_hash_offset), (16, 2));
    assert_eq!(now.staleness_ms, Some(0));
    assert!(now.bytes > 0 && now.replica_id > 0 && now.term > 0);
    let earlier = ask(Some(1)).await;
    assert_eq!((earlier.chain_hash.len(), earlier.chain_hash_offset), (16, 1));
    assert_ne!(earlier.chain_hash, now.chain_hash);
    assert_eq!(ask(Some(2)).await.chain_hash, now.chain_hash);
    assert!(ask(Some(99)).await.chain_hash.is_empty());

    let beyond = v1::DescribeReplicaRequest { partition: 5, ..request(None) };
    let beyond = node.admin().describe_replica(beyond).await;
    refused(beyond, ErrorCode::UnknownPartition, "it has 2");
    node.stop().await;
}

#[tokio::test]
async fn leadership_moves_only_to_a_node_that_has_the_partition() {
    let node = Running::with_topic().await;
    let request =
        |to_node| v1::MoveLeaderRequest { topic: TOPIC.to_owned(), to_node, ..Default::default() };
    let nobody = node.admin().move_leader(request(9)).await;
    refused(nobody, ErrorCode::InvalidArgument, "it is on nodes 1");
    node.admin().move_leader(request(1)).await.unwrap();
    let unknown = v1::MoveLeaderRequest { topic: "none".to_owned(), ..request(1) };
    refused(node.admin().move_leader(unknown).await, ErrorCode::UnknownTopic, "quipu topic");
    node.stop().await;
}
