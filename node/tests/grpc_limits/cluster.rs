//! A node before and after it belongs to a cluster, and what does not fit together.

use futures::StreamExt;
use node::StartError;
use node::metrics::Metrics;
use node::storage::StorageError;
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};

use crate::running::{
    Running, TOPIC, append, batch, config, eventually, fetch, free_port, refused, start,
};

const SERVICES: [&str; 4] =
    ["grpc.health.v1.Health", "quipu.v1.Admin", "quipu.v1.Groups", "quipu.v1.Log"];

fn status(response: &HealthCheckResponse) -> ServingStatus {
    response.status()
}

fn health_of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_fresh_node_says_that_it_belongs_to_no_cluster_and_how_that_changes() {
    let node = Running::fresh(4, |_| {}).await;
    let code = ErrorCode::NotInitialized;
    let says = "quipu cluster init";
    refused(node.log().append(append(TOPIC, 0, batch(&["a"]))).await, code, says);
    refused(node.log().fetch(fetch(TOPIC, 0, 0)).await, code, says);
    refused(node.log().new_producer(v1::NewProducerRequest {}).await, code, says);
    let stream = node.log().append_stream(futures::stream::empty()).await;
    refused(stream, code, says);
    let list = v1::ListGroupsRequest::default();
    refused(node.groups().list_groups(list).await, code, says);
    refused(node.admin().list_topics(v1::ListTopicsRequest {}).await, code, says);

    let cluster = node.admin().describe_cluster(v1::DescribeClusterRequest {}).await.unwrap();
    let cluster = cluster.into_inner();
    assert_eq!((cluster.cluster_id.as_str(), cluster.asked_node), ("", 4));
    assert!(cluster.nodes.is_empty());
    let health = node.admin().health(v1::HealthRequest::default()).await.unwrap().into_inner();
    assert!(!health.healthy && health.problems[0].contains(says), "{health:?}");
    node.stop().await;
}

#[tokio::test]
async fn the_health_service_follows_the_nodes_life() {
    let node = Running::fresh(1, |_| {}).await;
    let mut client = HealthClient::new(node.channel.clone());
    let mut watched = client.watch(health_of("")).await.unwrap().into_inner();
    let first = watched.next().await.unwrap().unwrap();
    assert_eq!(status(&first), ServingStatus::NotServing);
    let unknown = client.check(health_of("quipu.v2.Log")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    node.init().await;
    assert_eq!(status(&watched.next().await.unwrap().unwrap()), ServingStatus::Serving);
    let checked = client.check(health_of("quipu.v1.Log")).await.unwrap().into_inner();
    assert_eq!(status(&checked), ServingStatus::Serving);

    node.node.stop().await;
    // Its last word, where it is faster than the end of the connection.
    while let Some(Ok(last)) = watched.next().await {
        assert_eq!(status(&last), ServingStatus::NotServing);
    }
}

#[tokio::test]
async fn a_cluster_is_formed_once_and_becomes_healthy() {
    let node = Running::fresh(1, |_| {}).await;
    let id = node.init().await;
    assert_eq!(node.init().await, id, "a repeat is the same cluster");
    let health = eventually(async || {
        let health = node.admin().health(v1::HealthRequest::default()).await.unwrap().into_inner();
        health.healthy.then_some(health)
    });
    let health = health.await;
    assert_eq!((health.leaderless_groups, health.dead_nodes), (0, 0));
    assert_eq!(health.groups, 5, "metadata and four coordinators");
    node.create_topic(TOPIC, &[]).await;
    let cluster = node.admin().describe_cluster(v1::DescribeClusterRequest {}).await.unwrap();
    let cluster = cluster.into_inner();
    assert_eq!((cluster.cluster_id, cluster.metadata_leader), (id, 1));
    let [only] = cluster.nodes.as_slice() else { panic!("{:?}", cluster.nodes) };
    assert!(only.alive);
    assert_eq!((only.node_id, only.leaders, only.replicas), (1, 2, 2));
    assert_eq!(only.address, node.address);
    node.stop().await;
}

#[tokio::test]
async fn a_cluster_of_nodes_that_do_not_fit_together_is_refused() {
    let node = Running::fresh(1, |_| {}).await;
    let init = async |addresses: &[&String]| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        node.admin().init_cluster(v1::InitClusterRequest { addresses }).await
    };
    let invalid = ErrorCode::InvalidArgument;
    refused(init(&[]).await, invalid, "name every node");
    refused(init(&[&"a b:1".to_owned()]).await, invalid, "addresses: ");
    refused(init(&[&node.address, &node.address]).await, invalid, "are one node");
    let namesake = Running::fresh(1, |_| {}).await;
    let same_label = init(&[&node.address, &namesake.address]).await;
    refused(same_label, invalid, "same --node-id");
    refused(init(&[&namesake.address]).await, invalid, "not among the addresses");
    let other = Running::fresh(2, |_| {}).await;
    other.init().await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let unreachable = init(&[&node.address, &nobody]).await.unwrap_err();
    let error = crate::running::error_of(&unreachable);
    assert!(error.retriable && error.message.contains("start that node"), "{error:?}");

    node.init().await;
    let fresh = Running::fresh(3, |_| {}).await;
    let two_clusters = v1::InitClusterRequest {
        addresses: vec![fresh.address.clone(), node.address.clone(), other.address.clone()],
    };
    let two_clusters = fresh.admin().init_cluster(two_clusters).await;
    refused(two_clusters, ErrorCode::AlreadyInitialized, "belongs to cluster");
    node.stop().await;
    namesake.stop().await;
    other.stop().await;
    fresh.stop().await;
}

#[tokio::test]
async fn a_busy_port_and_another_nodes_directory_stop_the_start_with_the_reason() {
    let node = Running::fresh(1, |_| {}).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let port = node.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let busy = start(&config(2, port, elsewhere.path()), Metrics::new()).await.err().unwrap();
    assert!(matches!(busy, StartError::Listen { .. }), "{busy}");
    assert!(busy.to_string().contains("is another process using the port?"), "{busy}");

    let in_use = start(&config(1, free_port(), node.directory.path()), Metrics::new()).await;
    let in_use = in_use.err().unwrap();
    assert!(matches!(in_use, StartError::Storage(StorageError::InUse { .. })), "{in_use}");

    node.node.stop().await;
    let Running { node: stopped, channel, directory, .. } = node;
    drop((stopped, channel));
    // The store is let go of when the last task of the stopped node ends.
    let foreign = eventually(async || {
        let started = start(&config(2, free_port(), directory.path()), Metrics::new()).await;
        match started.err().unwrap() {
            StartError::Storage(StorageError::InUse { .. }) => None,
            other => Some(other),
        }
    });
    let foreign = foreign.await;
    assert!(matches!(foreign, StartError::Identity(_)), "{foreign}");
    assert!(foreign.to_string().contains("node-id"), "{foreign}");
}

#[tokio::test]
async fn reflection_lists_the_public_services_in_both_of_its_versions() {
    let node = Running::fresh(1, |_| {}).await;
    let mut new =
        reflection::server_reflection_client::ServerReflectionClient::new(node.channel.clone());
    let ask = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers =
        new.server_reflection_info(futures::stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    use reflection::server_reflection_response::MessageResponse;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, SERVICES);

    let mut old =
        old_reflection::server_reflection_client::ServerReflectionClient::new(node.channel.clone());
    let symbol = old_reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            old_reflection::server_reflection_request::MessageRequest::FileContainingSymbol(
                "quipu.v1.Log".to_owned(),
            ),
        ),
    };
    let mut answers =
        old.server_reflection_info(futures::stream::iter([symbol])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    use old_reflection::server_reflection_response::MessageResponse as OldResponse;
    assert!(matches!(answer, OldResponse::FileDescriptorResponse(_)), "{answer:?}");
    node.stop().await;
}
