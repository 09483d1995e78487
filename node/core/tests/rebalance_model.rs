//! Plans that even a cluster out: even afterwards, no more moved than needed, racks respected,
//! never fewer replicas.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use node_core::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName, ReplicaId,
    TopicId, TopicName,
};
use node_core::metadata::{
    Bootstrap, Change, CreateTopic, MetadataCommand, MetadataOutcome, MetadataState, NodeSpec,
    PlaceGroup, RegisterNode, Standing, rebalance,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use node_core::topic_config::TopicConfig;
use proptest::prelude::*;
use uuid::Uuid;

fn uuid(number: u64) -> NodeUuid {
    NodeUuid(Uuid::from_u64_pair(0xaaaa, number))
}

fn apply(state: &mut MetadataState, command: &MetadataCommand) -> MetadataOutcome {
    let index = state.applied().map_or(0, |applied| applied.index + 1);
    state.apply(RaftPosition { term: 1, index }, command)
}

fn node(number: u64) -> NodeSpec {
    NodeSpec {
        uuid: uuid(number),
        label: NodeLabel(number),
        address: NodeAddress::new(format!("127.0.0.1:{}", 9_000 + number)).unwrap(),
        version: NodeVersion::new("0.2.0+levels.1-2").unwrap(),
    }
}

/// Three nodes with a topic, and more that joined when it was there already.
fn grown(joined: u64, partitions: u32, factor: u32) -> MetadataState {
    let mut state = MetadataState::default();
    let bootstrap = Bootstrap {
        cluster_id: ClusterId(Uuid::from_u128(7)),
        members: (1..=3).map(node).collect(),
        coordinators: 4,
    };
    apply(&mut state, &MetadataCommand::Bootstrap(bootstrap));
    let create = CreateTopic {
        name: TopicName::new("t").unwrap(),
        id: TopicId(Uuid::from_u128(1)),
        partitions,
        replication_factor: factor,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    };
    apply(&mut state, &MetadataCommand::CreateTopic(create));
    for number in 4..4 + joined {
        let register = RegisterNode { node: node(number), replaces_dead: false };
        apply(&mut state, &MetadataCommand::RegisterNode(register));
    }
    state
}

fn set_racks(state: &mut MetadataState, racks: u64) {
    let nodes: Vec<NodeUuid> = state.members().map(|(node, _)| node).collect();
    for (place, node) in (0..).zip(nodes) {
        let rack = Some(RackName::new(format!("rack-{}", place % racks)).unwrap());
        apply(state, &MetadataCommand::SetRack { node, rack });
    }
}

fn size(group: GroupId) -> u64 {
    u64::from(group.0) * 7_919 % 1_000
}

fn plan(state: &MetadataState, replication: usize) -> Vec<Change> {
    rebalance(state, replication, |_| true, size)
}

fn carry_out(state: &mut MetadataState, changes: &[Change]) {
    for change in changes {
        let place = MetadataCommand::PlaceGroup(change.place.clone());
        assert_eq!(apply(state, &place), MetadataOutcome::Placed);
        let group = change.place.group;
        let gone: Vec<ReplicaId> = state.groups()[&group].retiring.iter().map(|it| it.id).collect();
        apply(state, &MetadataCommand::ReplicasSettled { group, gone });
    }
}

/// Replicas and preferred leaders of each node, but for the metadata.
fn held(state: &MetadataState) -> BTreeMap<NodeUuid, (u32, u32)> {
    let mut held: BTreeMap<NodeUuid, (u32, u32)> =
        state.members().map(|(node, _)| (node, (0, 0))).collect();
    for (_, group) in state.groups().iter().filter(|(id, _)| **id != GroupId::METADATA) {
        for (place, replica) in group.replicas.iter().enumerate() {
            let counts = held.get_mut(&replica.node).unwrap();
            counts.0 += 1;
            counts.1 += u32::from(place == 0);
        }
    }
    held
}

fn span(counts: impl Iterator<Item = u32> + Clone) -> u32 {
    counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
}

fn spread(state: &MetadataState, nodes: &[NodeUuid]) -> usize {
    let racks: BTreeSet<_> = nodes.iter().map(|node| state.nodes()[node].rack.clone()).collect();
    racks.len()
}

#[test]
fn an_even_cluster_is_left_alone() {
    let state = grown(0, 6, 3);
    let moved: usize = plan(&state, 0).iter().map(Change::replicas_made).sum();
    assert_eq!(moved, 0);
}

#[test]
fn a_node_that_joined_empty_gets_its_share_and_nobody_else_moves() {
    let mut state = grown(1, 12, 3);
    let changes = plan(&state, 0);
    let made: Vec<NodeUuid> = changes
        .iter()
        .flat_map(|change| {
            let PlaceGroup { expected, nodes, .. } = &change.place;
            nodes.iter().copied().filter(|node| !expected.contains(node)).collect::<Vec<_>>()
        })
        .collect();
    assert!(made.iter().all(|node| *node == uuid(4)));
    assert_eq!(made.len(), 12, "a quarter of 48 replicas");
    carry_out(&mut state, &changes);
    let counts: Vec<u32> = held(&state).into_values().map(|(replicas, _)| replicas).collect();
    assert_eq!(counts, [12; 4]);
}

#[test]
fn more_replicas_are_placed_where_they_are_asked_for_and_possible() {
    let mut state = grown(0, 4, 1);
    let changes = plan(&state, 3);
    assert_eq!(changes.iter().map(Change::replicas_made).sum::<usize>(), 8);
    carry_out(&mut state, &changes);
    assert!(state.groups().values().all(|group| group.replicas.len() == 3));
    assert!(plan(&state, 5).is_empty(), "three nodes hold no five replicas");
}

#[test]
fn a_drained_node_keeps_replicas_and_is_preferred_by_no_group() {
    let mut state = grown(0, 9, 3);
    apply(&mut state, &MetadataCommand::SetStanding { node: uuid(1), standing: Standing::Drained });
    let changes = plan(&state, 0);
    assert_eq!(changes.iter().map(Change::replicas_made).sum::<usize>(), 0);
    carry_out(&mut state, &changes);
    let held = held(&state);
    assert_eq!(held[&uuid(1)].1, 0);
    assert!(span(held.values().skip(1).map(|counts| counts.1)) <= 1);
}

#[test]
fn a_group_that_is_being_moved_is_left_alone() {
    let mut state = grown(1, 3, 3);
    let change = plan(&state, 0).remove(0);
    apply(&mut state, &MetadataCommand::PlaceGroup(change.place.clone()));
    assert!(plan(&state, 0).iter().all(|it| it.place.group != change.place.group));
}

proptest! {
    #[test]
    fn a_plan_evens_out_with_as_few_moves_as_can_be_and_then_plans_nothing(
        joined in 0_u64..5,
        partitions in 1_u32..30,
        factor in prop_oneof![Just(1_u32), Just(3)],
    ) {
        let mut state = grown(joined, partitions, factor);
        let before = held(&state);
        let total: u32 = before.values().map(|(replicas, _)| replicas).sum();
        let nodes = u32::try_from(before.len()).unwrap();
        let (share, rest) = (total / nodes, total % nodes);
        // What lies above an even share must move, and nothing else.
        let mut counts: Vec<u32> = before.values().map(|(replicas, _)| *replicas).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let needed: u32 = (0..)
            .zip(counts)
            .map(|(place, count)| count.saturating_sub(share + u32::from(place < rest)))
            .sum();

        let changes = plan(&state, 0);
        let made: usize = changes.iter().map(Change::replicas_made).sum();
        prop_assert_eq!(u32::try_from(made).unwrap(), needed);
        for change in &changes {
            let nodes: BTreeSet<&NodeUuid> = change.place.nodes.iter().collect();
            prop_assert_eq!(nodes.len(), change.place.expected.len());
        }
        carry_out(&mut state, &changes);
        let after = held(&state);
        prop_assert!(span(after.values().map(|(replicas, _)| *replicas)) <= 1);
        if factor == 3 {
            prop_assert!(span(after.values().map(|(_, leaders)| *leaders)) <= 1);
        }
        prop_assert_eq!(plan(&state, 0), vec![]);
    }

    #[test]
    fn racks_are_never_shared_more_than_before_and_as_little_as_can_be(
        joined in 0_u64..6,
        partitions in 1_u32..20,
        racks in 1_u64..5,
    ) {
        let mut state = grown(joined, partitions, 3);
        set_racks(&mut state, racks);
        let changes = plan(&state, 0);
        for change in &changes {
            let PlaceGroup { expected, nodes, .. } = &change.place;
            prop_assert!(spread(&state, nodes) >= spread(&state, expected));
        }
        carry_out(&mut state, &changes);
        let count = state.members().count().min(usize::try_from(racks).unwrap());
        for (_, group) in state.groups().iter().filter(|(id, _)| **id != GroupId::METADATA) {
            let nodes: Vec<NodeUuid> = group.replicas.iter().map(|it| it.node).collect();
            prop_assert_eq!(spread(&state, &nodes), count.min(nodes.len()));
        }
        prop_assert_eq!(plan(&state, 0), vec![]);
    }
}
