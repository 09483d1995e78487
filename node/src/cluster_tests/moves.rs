//! Nodes that move, majorities that are gone, and what other nodes may send.

use quipu_proto::peer::v1 as pb;

use super::*;
use crate::peer::{PeerError, Peers};
use crate::raft::{RaftFailure, ReplicaNode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_at_another_address_is_caught_up_by_the_same_leader() {
    // A leader that a busy machine held up was followed by another, which proves nothing.
    for _ in 0..5 {
        if the_leader_catches_up_a_node_that_moved().await {
            return;
        }
    }
    panic!("it took an election each time");
}

/// Whether the leader was the same all the time.
async fn the_leader_catches_up_a_node_that_moved() -> bool {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "before").await;
    let leading = leader(&nodes, "t", 0).await.member().me();
    let place = nodes.iter().position(|node| node.member().me() != leading).expect("a follower");
    let moved = nodes.remove(place);
    let label = moved.member().label().0;
    moved.node.stop().await;
    drop(moved);
    let term = partition_of(leader(&nodes, "t", 0).await, "t", 0).expect("hosted");
    let term = term.raft().brief().term;

    let again = start(label, free_port(), &root.path().join(label.to_string()), &[]).await;
    append(&nodes, "t", 0, "after").await;

    until("the node that moved", async || {
        let partition = partition_of(&again, "t", 0)?;
        (partition.view().high_watermark == 2).then_some(())
    })
    .await;
    partition_of(&again, "t", 0).expect("hosted").raft().brief().term == term
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_without_a_majority_is_given_up() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "value").await;
    let leading = leader(&nodes, "t", 0).await.member().me();
    let place = nodes.iter().position(|node| node.member().me() == leading).expect("the leader");
    let leading = nodes.remove(place);
    let raft = partition_of(&leading, "t", 0).expect("hosted").raft().clone();
    tokio::join!(nodes[0].node.stop(), nodes[1].node.stop());

    let node = ReplicaNode { uuid: crate::env::random_uuid(), address: leading.address.clone() };
    let change = raft.add_learner(node_core::ids::ReplicaId(1_000_000), node);
    let change = tokio::time::timeout(Duration::from_secs(20), change).await;

    assert!(matches!(change, Ok(Err(RaftFailure::OutcomeUnknown | RaftFailure::Stopped(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_command_for_the_metadata_never_gets_into_its_log() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    let leading = until("the metadata's leader", async || {
        let (place, _) = nodes[0].member().leader_of(node_core::ids::GroupId::METADATA)?;
        nodes.iter().find(|node| node.member().me() == place.node)
    })
    .await;
    let link = Peers::new(Env::real(PathBuf::new()).network).link_to(&leading.address);
    let request = pb::ProposeMetadataRequest {
        cluster_id: Bytes::copy_from_slice(leading.member().cluster_id().0.as_bytes()),
        command: Bytes::from_static(b"a later version's command"),
    };

    let answer = link.propose_metadata(request, Duration::from_secs(5)).await;

    let refused = |error| matches!(error, PeerError::Refused { .. });
    assert!(answer.is_err_and(refused));
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
}
