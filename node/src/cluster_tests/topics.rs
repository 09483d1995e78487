//! Topics that come and go.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_at_once_does_not_begin_with_the_offsets_of_the_first() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    let group: GroupName = "billing".parse().expect("a name");
    let coordinator = nodes[0].member().coordinator_of(&group).expect("a coordinator");
    let committed = |node: &Running| {
        let replica = node.member().registry_ref().replica(coordinator)?;
        let offset = replica.groups()?.read().offset(&group, &topic("t"), 0).map(|it| it.offset);
        Some(offset)
    };
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    for round in 0..5 {
        until("the offset everywhere", async || {
            // A coordinator that changed hands may forget the last topic's offsets once more.
            commit(&nodes, &group, 5).await;
            nodes.iter().all(|node| committed(node) == Some(Some(5))).then_some(())
        })
        .await;
        let id = nodes[0].member().metadata().topics()[&topic("t")].id;
        let delete = MetadataCommand::DeleteTopic { name: topic("t"), id };
        let outcome = nodes[0].member().propose(delete, soon(10)).await;
        assert_eq!(outcome, Ok(MetadataOutcome::TopicDeleted), "round {round}");
        create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
        until("the offset to be forgotten", async || {
            nodes.iter().all(|node| committed(node) == Some(None)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_deleted_is_not_made_again_by_what_a_node_knew_before() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    let member = nodes[2].member();
    let before = until("its replica", async || {
        partition_of(&nodes[2], "t", 0)?;
        Some(member.metadata())
    })
    .await;
    let group = before.partition_group(&topic("t"), 0).expect("a partition");
    let delete =
        MetadataCommand::DeleteTopic { name: topic("t"), id: before.topics()[&topic("t")].id };
    let outcome = nodes[0].member().propose(delete, soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicDeleted));
    until("its end", async || member.registry_ref().hosted(group).is_none().then_some(())).await;

    assert!(member.host_what_is_placed(&before, &mut None).await, "the newest can be had");
    assert_eq!(member.registry_ref().hosted(group), None);
}
