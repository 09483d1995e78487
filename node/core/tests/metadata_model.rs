//! The cluster's metadata: what each command does, and what holds after any sequence of them.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use node_core::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, ReplicaId, TopicId,
    TopicName,
};
use node_core::metadata::{
    Bootstrap, BootstrapFault, CreateTopic, GroupKind, GroupRecord, MetadataCommand,
    MetadataOutcome, MetadataState, NodeSpec, RegisterNode, Replica,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use node_core::topic_config::{TopicConfig, parse_changes};
use proptest::prelude::*;
use uuid::Uuid;

fn uuid(number: u64) -> NodeUuid {
    NodeUuid(Uuid::from_u64_pair(0xaaaa, number))
}

fn topic_id(number: u64) -> TopicId {
    TopicId(Uuid::from_u64_pair(0xbbbb, number))
}

fn node(number: u64, label: u64) -> NodeSpec {
    NodeSpec {
        uuid: uuid(number),
        label: NodeLabel(label),
        address: NodeAddress::new(format!("127.0.0.1:{}", 9_000 + number)).unwrap(),
        version: NodeVersion::new("0.1.0").unwrap(),
    }
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn bootstrap_of(nodes: u64) -> MetadataCommand {
    MetadataCommand::Bootstrap(Bootstrap {
        cluster_id: ClusterId(Uuid::from_u128(7)),
        members: (1..=nodes).map(|number| node(number, number)).collect(),
        coordinators: 4,
    })
}

fn create(topic: &str, id: u64, partitions: u32, replication_factor: u32) -> MetadataCommand {
    MetadataCommand::CreateTopic(CreateTopic {
        name: name(topic),
        id: topic_id(id),
        partitions,
        replication_factor,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1_000),
    })
}

fn register(node: NodeSpec, replaces_dead: bool) -> MetadataCommand {
    MetadataCommand::RegisterNode(RegisterNode { node, replaces_dead })
}

/// Applies at the next position.
fn apply(state: &mut MetadataState, command: &MetadataCommand) -> MetadataOutcome {
    let index = state.applied().map_or(0, |applied| applied.index + 1);
    state.apply(RaftPosition { term: 1, index }, command)
}

fn cluster_of(nodes: u64) -> MetadataState {
    let mut state = MetadataState::default();
    assert_eq!(apply(&mut state, &bootstrap_of(nodes)), MetadataOutcome::Bootstrapped);
    state
}

fn ids(replicas: &[Replica]) -> Vec<u64> {
    replicas.iter().map(|replica| replica.id.0).collect()
}

#[test]
fn a_bootstrap_makes_the_metadata_group_of_all_nodes_with_five_voters() {
    let state = cluster_of(7);
    let metadata = &state.groups()[&GroupId::METADATA];
    assert_eq!(ids(&metadata.replicas), [1, 2, 3, 4, 5, 6, 7]);
    let voters: Vec<bool> = metadata.replicas.iter().map(|replica| replica.voter).collect();
    assert_eq!(voters, [true, true, true, true, true, false, false]);
    assert_eq!(metadata.founders, [1, 2, 3, 4, 5].map(ReplicaId));
    let at: Vec<NodeUuid> = metadata.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(at, [1, 2, 3, 4, 5, 6, 7].map(uuid));
}

#[test]
fn a_bootstrap_makes_coordinators_of_three_replicas_where_there_are_three_nodes() {
    for (nodes, replicas) in [(1, 1), (2, 1), (3, 3), (5, 3)] {
        let state = cluster_of(nodes);
        assert_eq!(state.coordinator_count(), 4);
        for id in [2, 3, 4, 5].map(GroupId) {
            let group = &state.groups()[&id];
            assert_eq!(group.kind, GroupKind::Coordinator);
            assert_eq!(group.replicas.len(), replicas);
            assert_eq!(group.founders.len(), replicas);
        }
    }
}

#[test]
fn a_bootstrap_happens_once() {
    let mut state = cluster_of(3);
    let before = state.clone();
    assert_eq!(apply(&mut state, &bootstrap_of(3)), MetadataOutcome::Bootstrapped);
    let other = MetadataCommand::Bootstrap(Bootstrap {
        cluster_id: ClusterId(Uuid::from_u128(8)),
        members: vec![node(9, 9)],
        coordinators: 1,
    });
    let cluster_id = ClusterId(Uuid::from_u128(7));
    let refused = MetadataOutcome::AlreadyBootstrapped { cluster_id };
    assert_eq!(apply(&mut state, &other), refused);
    assert_eq!((state.groups(), state.nodes()), (before.groups(), before.nodes()));
}

#[test]
fn a_bootstrap_of_nodes_that_do_not_fit_together_is_refused() {
    let outcome = |members: Vec<NodeSpec>, coordinators| {
        let cluster_id = ClusterId(Uuid::from_u128(7));
        let bootstrap = Bootstrap { cluster_id, members, coordinators };
        apply(&mut MetadataState::default(), &MetadataCommand::Bootstrap(bootstrap))
    };
    let refused = |fault| MetadataOutcome::InvalidBootstrap { fault };
    assert_eq!(outcome(vec![], 4), refused(BootstrapFault::NoMembers));
    let label = NodeLabel(1);
    let twice = outcome(vec![node(1, 1), node(2, 1)], 4);
    assert_eq!(twice, refused(BootstrapFault::LabelTwice { label }));
    let twice = outcome(vec![node(1, 1), node(1, 2)], 4);
    assert_eq!(twice, refused(BootstrapFault::NodeTwice { node: uuid(1) }));
    assert_eq!(outcome(vec![node(1, 1)], 0), refused(BootstrapFault::Coordinators));
    let many = (1..=257).map(|number| node(number, number)).collect();
    assert_eq!(outcome(many, 4), refused(BootstrapFault::TooManyMembers));
}

#[test]
fn without_a_cluster_every_command_is_refused() {
    let mut state = MetadataState::default();
    assert_eq!(apply(&mut state, &create("orders", 1, 1, 1)), MetadataOutcome::NotBootstrapped);
    let outcome = apply(&mut state, &register(node(1, 1), false));
    assert_eq!(outcome, MetadataOutcome::NotBootstrapped);
    assert!(state.groups().is_empty() && state.nodes().is_empty());
}

#[test]
fn a_node_that_comes_back_with_its_disk_keeps_its_replicas() {
    let mut state = cluster_of(3);
    let groups = state.groups().clone();
    let address = NodeAddress::new("127.0.0.1:7777").unwrap();
    let moved = NodeSpec { address: address.clone(), ..node(2, 2) };
    assert_eq!(apply(&mut state, &register(moved, false)), MetadataOutcome::NodeUpdated);
    assert_eq!(state.groups(), &groups);
    assert_eq!(state.nodes()[&uuid(2)].address, address);
}

#[test]
fn a_label_of_a_living_node_is_refused() {
    let mut state = cluster_of(3);
    let outcome = apply(&mut state, &register(node(9, 2), false));
    assert_eq!(outcome, MetadataOutcome::LabelTaken { by: uuid(2) });
    let renamed = apply(&mut state, &register(node(1, 2), true));
    assert_eq!(renamed, MetadataOutcome::LabelTaken { by: uuid(2) });
    let renamed = apply(&mut state, &register(node(1, 8), false));
    assert_eq!(renamed, MetadataOutcome::NodeUpdated);
    assert_eq!(state.node_by_label(NodeLabel(8)).map(|(node, _)| node), Some(uuid(1)));
}

#[test]
fn a_new_node_learns_or_votes_on_the_metadata_and_holds_nothing_else() {
    let mut state = cluster_of(4);
    assert_eq!(apply(&mut state, &register(node(5, 5), false)), MetadataOutcome::NodeAdded);
    assert_eq!(apply(&mut state, &register(node(6, 6), false)), MetadataOutcome::NodeAdded);
    let held = |number| {
        let held = state.replicas_on(uuid(number));
        held.map(|(id, _, replica)| (id, replica.voter)).collect::<Vec<_>>()
    };
    assert_eq!(held(5), [(GroupId::METADATA, true)]);
    assert_eq!(held(6), [(GroupId::METADATA, false)]);
    assert_eq!(state.groups()[&GroupId::METADATA].founders.len(), 4);
}

#[test]
fn a_node_with_a_new_disk_gets_new_replica_ids_in_the_old_places() {
    let mut state = cluster_of(3);
    apply(&mut state, &create("orders", 1, 3, 3));
    let before = state.groups().clone();
    let highest = before.values().flat_map(|group| ids(&group.replicas)).max().unwrap();

    let outcome = apply(&mut state, &register(node(9, 2), true));
    assert_eq!(outcome, MetadataOutcome::NodeReplaced { old: uuid(2), replicas: 8 });
    for (id, group) in state.groups() {
        let old = &before[id];
        assert_eq!(group.founders, old.founders);
        let place = old.replicas.iter().position(|replica| replica.node == uuid(2)).unwrap();
        assert_eq!(group.retiring, [old.replicas[place]]);
        assert_eq!(group.replicas[place].node, uuid(9));
        assert_eq!(group.replicas[place].voter, old.replicas[place].voter);
        assert!(group.replicas[place].id.0 > highest);
        assert!(!group.founders.contains(&group.replicas[place].id));
    }
    assert_eq!(state.nodes()[&uuid(2)].replaced_by, Some(uuid(9)));
    assert_eq!(state.node_by_label(NodeLabel(2)).map(|(node, _)| node), Some(uuid(9)));

    let back = apply(&mut state, &register(node(2, 2), true));
    assert_eq!(back, MetadataOutcome::NodeWasReplaced { by: uuid(9) });
}

#[test]
fn a_lost_replica_is_replaced_where_it_was_and_once() {
    let mut state = cluster_of(3);
    let group = GroupId(3);
    let old = state.groups()[&group].clone();
    let lost = old.replicas[1];
    let replace = |lost, node| MetadataCommand::ReplaceReplica { group, lost, node };
    let outcome = apply(&mut state, &replace(lost.id, lost.node));
    let MetadataOutcome::ReplicaReplaced { new } = outcome else { panic!("{outcome:?}") };
    let highest = state.groups().values().flat_map(|group| ids(&group.replicas)).max();
    assert_eq!(Some(new.0), highest);
    let now = state.groups()[&group].clone();
    assert_eq!(now.replicas[1], Replica { id: new, ..lost });
    assert_eq!((now.replicas[0], now.replicas[2]), (old.replicas[0], old.replicas[2]));
    assert_eq!((now.retiring.as_slice(), &now.founders), ([lost].as_slice(), &old.founders));

    assert_eq!(apply(&mut state, &replace(lost.id, lost.node)), outcome, "asked again");
    let not_there = replace(ReplicaId(new.0 + 1), lost.node);
    assert_eq!(apply(&mut state, &not_there), MetadataOutcome::ReplicaNotReplaced);
    let elsewhere = apply(&mut state, &replace(lost.id, uuid(99)));
    assert_eq!(elsewhere, MetadataOutcome::ReplicaNotReplaced);
    assert_eq!(state.groups()[&group], now);

    let settled = MetadataCommand::ReplicasSettled { group, gone: vec![lost.id] };
    assert_eq!(apply(&mut state, &settled), MetadataOutcome::Settled { retiring: 0 });
    assert!(state.nodes()[&lost.node].is_member(), "the node itself stays");
}

#[test]
fn replicas_of_a_group_that_does_not_settle_are_not_replaced_without_end() {
    let mut state = cluster_of(3);
    let group = GroupId(3);
    let outcome = (0..1_000)
        .map(|_| {
            let Replica { id: lost, node, .. } = state.groups()[&group].replicas[1];
            apply(&mut state, &MetadataCommand::ReplaceReplica { group, lost, node })
        })
        .last();
    assert_eq!(outcome, Some(MetadataOutcome::ReplicaNotReplaced));
    let snapshot = state.encode_snapshot();
    assert_eq!(MetadataState::decode_snapshot(snapshot), Ok(state));
}

#[test]
fn who_takes_the_place_of_a_learner_learns() {
    let mut state = cluster_of(7);
    apply(&mut state, &register(node(9, 6), true));
    let held = |number| state.replicas_on(uuid(number)).next().map(|(_, _, replica)| replica);
    let replica = held(9).expect("the metadata group is on every node");
    assert!(!replica.voter);
    assert_eq!(held(6), None);
}

#[test]
fn a_replaced_node_is_forgotten_when_its_last_replica_has_settled() {
    let mut state = cluster_of(3);
    apply(&mut state, &register(node(9, 2), true));
    let retiring: Vec<(GroupId, ReplicaId)> =
        state.groups().iter().map(|(id, group)| (*id, group.retiring[0].id)).collect();
    for (group, replica) in retiring {
        assert!(state.nodes().contains_key(&uuid(2)));
        let gone = vec![replica, ReplicaId(999)];
        let settled = apply(&mut state, &MetadataCommand::ReplicasSettled { group, gone });
        assert_eq!(settled, MetadataOutcome::Settled { retiring: 0 });
    }
    assert!(!state.nodes().contains_key(&uuid(2)));
    let unknown = MetadataCommand::ReplicasSettled { group: GroupId(77), gone: vec![] };
    let outcome = MetadataOutcome::UnknownGroup { group: GroupId(77) };
    assert_eq!(apply(&mut state, &unknown), outcome);
}

#[test]
fn the_cluster_takes_256_nodes() {
    let mut state = cluster_of(256);
    let outcome = apply(&mut state, &register(node(300, 300), false));
    assert_eq!(outcome, MetadataOutcome::TooManyNodes { limit: 256 });
    let outcome = apply(&mut state, &register(node(300, 1), true));
    assert!(matches!(outcome, MetadataOutcome::NodeReplaced { .. }));
}

#[test]
fn a_topic_gets_a_group_for_each_partition() {
    let mut state = cluster_of(3);
    assert_eq!(apply(&mut state, &create("orders", 1, 3, 0)), MetadataOutcome::TopicCreated);
    assert_eq!(apply(&mut state, &create("payments", 2, 1, 1)), MetadataOutcome::TopicCreated);
    let topic = &state.topics()["orders"];
    assert_eq!(topic.replication_factor, 3);
    assert_eq!(topic.partitions, [1_000, 1_001, 1_002].map(GroupId));
    assert_eq!(state.partition_group(&name("payments"), 0), Some(GroupId(1_003)));
    assert_eq!(state.partition_group(&name("payments"), 1), None);
    let kind = GroupKind::Partition { topic: topic_id(1), index: 2 };
    assert_eq!(state.groups()[&GroupId(1_002)].kind, kind);
}

#[test]
fn a_topic_made_again_with_its_id_is_the_same_and_with_another_is_refused() {
    let mut state = cluster_of(3);
    apply(&mut state, &create("orders", 1, 3, 3));
    let groups = state.groups().clone();
    assert_eq!(apply(&mut state, &create("orders", 1, 3, 3)), MetadataOutcome::TopicCreated);
    let taken = MetadataOutcome::TopicExists { id: topic_id(1) };
    assert_eq!(apply(&mut state, &create("orders", 2, 3, 3)), taken);
    assert_eq!(state.groups(), &groups);
}

#[test]
fn replication_is_1_3_or_5_and_never_more_than_there_are_nodes() {
    let mut state = cluster_of(3);
    for wanted in [2, 4, 5, 6] {
        let refused = MetadataOutcome::InvalidReplication { wanted, nodes: 3 };
        assert_eq!(apply(&mut state, &create("orders", 1, 1, wanted)), refused);
    }
    let refused = MetadataOutcome::InvalidPartitions { wanted: 0, limit: 4_096 };
    assert_eq!(apply(&mut state, &create("orders", 1, 0, 1)), refused);
    let refused = MetadataOutcome::InvalidPartitions { wanted: 4_097, limit: 4_096 };
    assert_eq!(apply(&mut state, &create("orders", 1, 4_097, 1)), refused);
    assert!(state.topics().is_empty());
    let mut two = cluster_of(2);
    apply(&mut two, &create("orders", 1, 1, 0));
    assert_eq!(two.topics()["orders"].replication_factor, 1);
}

#[test]
fn settings_change_all_or_none() {
    let mut state = cluster_of(1);
    apply(&mut state, &create("orders", 1, 1, 1));
    let alter = |pairs: &[(&'static str, &'static str)]| MetadataCommand::AlterTopic {
        name: name("orders"),
        changes: parse_changes(pairs.iter().copied()).unwrap(),
    };
    let outcome = apply(&mut state, &alter(&[("retention.ms", "1h"), ("checkpoint.ms", "1s")]));
    assert_eq!(outcome, MetadataOutcome::SettingFixed);
    assert_eq!(state.topics()["orders"].config, TopicConfig::default());
    let outcome = apply(&mut state, &alter(&[("retention.ms", "1h")]));
    assert_eq!(outcome, MetadataOutcome::TopicAltered);
    assert_eq!(state.topics()["orders"].config.retention.ms, Some(3_600_000));
}

#[test]
fn a_deleted_topic_goes_with_its_groups_once_their_replicas_have_settled() {
    let mut state = cluster_of(3);
    apply(&mut state, &create("orders", 1, 1, 3));
    let delete = |id| MetadataCommand::DeleteTopic { name: name("orders"), id: topic_id(id) };
    assert_eq!(apply(&mut state, &delete(2)), MetadataOutcome::UnknownTopic);
    assert_eq!(apply(&mut state, &delete(1)), MetadataOutcome::TopicDeleted);
    assert_eq!(apply(&mut state, &delete(1)), MetadataOutcome::UnknownTopic);
    let group = &state.groups()[&GroupId(1_000)];
    assert!(group.is_deleted() && group.preferred_leader().is_none());
    let gone: Vec<ReplicaId> = group.retiring.iter().map(|replica| replica.id).collect();
    assert_eq!(gone.len(), 3);

    apply(&mut state, &create("orders", 2, 1, 3));
    assert_eq!(state.topics()["orders"].partitions, [GroupId(1_001)], "never used again");
    let settle = |gone| MetadataCommand::ReplicasSettled { group: GroupId(1_000), gone };
    let outcome = apply(&mut state, &settle(gone[..2].to_vec()));
    assert_eq!(outcome, MetadataOutcome::Settled { retiring: 1 });
    let outcome = apply(&mut state, &settle(gone));
    assert_eq!(outcome, MetadataOutcome::Settled { retiring: 0 });
    assert!(!state.groups().contains_key(&GroupId(1_000)));
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut state = cluster_of(1);
    let mut allocate = |count| apply(&mut state, &MetadataCommand::AllocateProducerIds { count });
    assert_eq!(allocate(1_000), MetadataOutcome::ProducerIds { first: 1, count: 1_000 });
    assert_eq!(allocate(0), MetadataOutcome::ProducerIds { first: 1_001, count: 1 });
    let most = MetadataOutcome::ProducerIds { first: 1_002, count: 100_000 };
    assert_eq!(allocate(u32::MAX), most);
}

fn any_command() -> impl Strategy<Value = MetadataCommand> {
    let topic = prop_oneof![Just("orders"), Just("payments"), Just("a")];
    let delete_topic = topic.clone();
    let alter_topic = topic.clone();
    prop_oneof![
        1 => (1_u64..6).prop_map(bootstrap_of),
        6 => (1_u64..12, 1_u64..7, any::<bool>())
            .prop_map(|(number, label, dead)| register(node(number, label), dead)),
        6 => (topic, 1_u64..5, 0_u32..6, 0_u32..7)
            .prop_map(|(topic, id, partitions, factor)| create(topic, id, partitions, factor)),
        2 => (delete_topic, 1_u64..5).prop_map(|(topic, id)| {
            MetadataCommand::DeleteTopic { name: name(topic), id: topic_id(id) }
        }),
        1 => (alter_topic, 0_i64..1_000).prop_map(|(topic, ms)| MetadataCommand::AlterTopic {
            name: name(topic),
            changes: parse_changes([("retention.ms", ms.to_string().as_str())]).unwrap(),
        }),
        1 => any::<u32>().prop_map(|count| MetadataCommand::AllocateProducerIds { count }),
        6 => (prop_oneof![1_u32..6, 1_000_u32..1_010], proptest::collection::vec(1_u64..80, 0..40))
            .prop_map(|(group, gone)| MetadataCommand::ReplicasSettled {
                group: GroupId(group),
                gone: gone.into_iter().map(ReplicaId).collect(),
            }),
        3 => (prop_oneof![1_u32..6, 1_000_u32..1_010], 1_u64..40, 1_u64..12).prop_map(
            |(group, lost, node)| MetadataCommand::ReplaceReplica {
                group: GroupId(group),
                lost: ReplicaId(lost),
                node: uuid(node),
            }
        ),
    ]
}

/// What holds after any commands.
fn check(state: &MetadataState, seen: &mut BTreeMap<ReplicaId, (GroupId, NodeUuid)>) {
    let labels: BTreeSet<NodeLabel> = state.members().map(|(_, node)| node.label).collect();
    assert_eq!(labels.len(), state.members().count(), "one label, one node");
    for (id, group) in state.groups() {
        check_group(state, *id, group);
        for replica in group.replicas.iter().chain(&group.retiring) {
            let place = (*id, replica.node);
            assert_eq!(*seen.entry(replica.id).or_insert(place), place, "{}", replica.id);
        }
    }
    for (uuid, node) in state.nodes() {
        let retires = state
            .groups()
            .values()
            .any(|group| group.retiring.iter().any(|replica| replica.node == *uuid));
        assert!(node.is_member() || retires, "{uuid} is known for nothing");
    }
    for topic in state.topics().values() {
        for (index, group) in (0..).zip(&topic.partitions) {
            let group = &state.groups()[group];
            assert_eq!(group.kind, GroupKind::Partition { topic: topic.id, index });
            assert_eq!(group.replicas.len(), topic.replication_factor as usize);
        }
    }
}

fn check_group(state: &MetadataState, id: GroupId, group: &GroupRecord) {
    assert!(!group.replicas.is_empty() || !group.retiring.is_empty(), "{id}");
    let nodes: BTreeSet<NodeUuid> = group.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(nodes.len(), group.replicas.len(), "{id}: one replica on one node");
    assert!(nodes.iter().all(|node| state.nodes()[node].is_member()), "{id}");
    let known = |replica: &Replica| state.nodes().contains_key(&replica.node);
    assert!(group.retiring.iter().all(known), "{id}");
}

proptest! {
    #[test]
    fn places_and_names_stay_consistent(
        nodes in 1_u64..6,
        commands in proptest::collection::vec(any_command(), 1..40),
    ) {
        let (mut state, mut other) = (MetadataState::default(), MetadataState::default());
        let mut seen = BTreeMap::new();
        for command in std::iter::once(bootstrap_of(nodes)).chain(commands) {
            let decoded = MetadataCommand::decode(command.encode()).unwrap();
            prop_assert_eq!(&decoded, &command);
            let outcome = apply(&mut state, &command);
            prop_assert_eq!(MetadataOutcome::decode(outcome.encode()), Ok(outcome));
            prop_assert_eq!(apply(&mut other, &decoded), outcome);
            check(&state, &mut seen);
            let snapshot = state.encode_snapshot();
            prop_assert_eq!(MetadataState::decode_snapshot(snapshot.clone()), Ok(state.clone()));
            prop_assert_eq!(other.encode_snapshot(), snapshot);
        }
    }

    #[test]
    fn a_changed_command_is_refused_or_can_be_applied(
        command in any_command(),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = command.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(command) = MetadataCommand::decode(bytes.into()) {
            let mut state = cluster_of(3);
            apply(&mut state, &command);
            check(&state, &mut BTreeMap::new());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let versioned = [&[1], &bytes[..]].concat();
        let _ = MetadataCommand::decode(bytes.into());
        let _ = MetadataCommand::decode(versioned.clone().into());
        let _ = MetadataOutcome::decode(versioned.clone().into());
        let _ = MetadataState::decode_snapshot(versioned.into());
    }
}
