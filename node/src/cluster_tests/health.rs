//! What a cluster says of its own health, asked on any node; and evening out.

use std::collections::BTreeSet;

use node_core::ids::{GroupId, NodeLabel, NodeUuid};
use node_core::metadata::rebalance;
use node_core::survey::{Finding, Severity, Trouble, findings, node_status};

use super::wires::{Lines, on_wires};
use super::*;

async fn look(node: &Running) -> Vec<Finding> {
    let survey = node.member().survey().await;
    findings(&node.member().metadata(), &survey)
}

async fn is_well(node: &Running) -> Option<()> {
    let found = look(node).await;
    found.iter().all(|it| it.severity == Severity::Advice).then_some(())
}

fn tells(found: &[Finding], trouble: Trouble, node: u64) -> bool {
    found.iter().any(|it| it.trouble == trouble && it.node == Some(NodeLabel(node)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_broken_and_a_node_that_is_down_are_told_and_so_is_their_end() {
    let root = tempfile::tempdir().expect("a directory");
    let lines = watch::Sender::new(Lines::default());
    let nodes = on_wires(root.path(), &lines, 3).await;
    create_topic(&nodes[0], "t", 2, TopicConfig::default()).await;
    append(&nodes, "t", 0, "value").await;
    until("a healthy cluster", async || is_well(&nodes[0]).await).await;
    let survey = nodes[0].member().survey().await;
    for node in &nodes {
        let metadata = nodes[0].member().metadata();
        let status = node_status(&metadata, &survey, node.member().me());
        assert!(status.may_stop(), "{status:?}");
    }

    let (second, third) = (nodes[1].address.clone(), nodes[2].address.clone());
    lines.send_if_modified(|lines| lines.held.insert((second.clone(), third.clone())));
    until("word of the link", async || {
        tells(&look(&nodes[0]).await, Trouble::CutOff, 2).then_some(())
    })
    .await;
    lines.send_if_modified(|lines| lines.cut.insert(third.clone()));
    until("word of the node", async || {
        tells(&look(&nodes[0]).await, Trouble::NodeDown, 3).then_some(())
    })
    .await;
    let survey = nodes[0].member().survey().await;
    let metadata = nodes[0].member().metadata();
    assert!(!node_status(&metadata, &survey, nodes[1].member().me()).may_stop());

    lines.send_modify(|lines| *lines = Lines::default());
    until("a healthy cluster again", async || is_well(&nodes[0]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joined_gets_its_share_and_more_replicas_are_made_where_asked_for() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = vec![start(1, free_port(), &root.path().join("1"), &[]).await];
    form(&nodes).await;
    let create = CreateTopic {
        name: topic("t"),
        id: node_core::ids::TopicId(crate::env::random_uuid()),
        partitions: 2,
        replication_factor: 1,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    };
    let outcome = nodes[0].member().propose(MetadataCommand::CreateTopic(create), soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicCreated));
    append(&nodes, "t", 0, "before").await;
    let join = nodes[0].address.clone();
    for label in 2..=3 {
        let directory = root.path().join(label.to_string());
        nodes.push(start(label, free_port(), &directory, &[&join]).await);
    }
    let replicated = async || {
        let member = nodes[0].member();
        let survey = member.survey().await;
        let metadata = member.metadata();
        let serves = |node: NodeUuid| survey.nodes.contains_key(&node);
        let changes = rebalance(&metadata, 3, serves, |group| survey.bytes_of(group));
        for change in changes {
            drop(member.propose(MetadataCommand::PlaceGroup(change.place), soon(5)).await);
        }
        let groups = metadata.groups().iter().filter(|(id, _)| **id != GroupId::METADATA);
        let whole = groups.clone().all(|(id, group)| {
            let voters = survey
                .lead(*id)
                .map_or(0, |(_, lead)| lead.members.values().filter(|member| member.voter).count());
            voters == 3 && group.retiring.is_empty()
        });
        whole.then_some(())
    };
    until("three replicas of everything", replicated).await;

    append(&nodes, "t", 0, "after").await;
    for node in &nodes {
        assert_eq!(read_all(node, "t", 0, 0).await, ["before", "after"]);
    }
    let metadata = nodes[0].member().metadata();
    assert_eq!(metadata.topics()[&topic("t")].replication_factor, 3);
    let first = metadata.groups().iter().filter(|(id, _)| **id >= GroupId::COORDINATOR_FIRST);
    let preferred: BTreeSet<NodeUuid> =
        first.filter_map(|(_, group)| Some(group.preferred_leader()?.node)).collect();
    assert_eq!(preferred.len(), 3, "leaders are spread too");
}
