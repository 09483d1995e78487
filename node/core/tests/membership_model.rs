//! A node's life in the metadata: drained, removed, taken back; and what holds all the while.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use node_core::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName, ReplicaId,
    TopicId, TopicName,
};
use node_core::metadata::{
    Bootstrap, CreateTopic, MetadataCommand, MetadataOutcome, MetadataState, NodeSpec, PlaceFault,
    PlaceGroup, RegisterNode, Standing,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use node_core::topic_config::TopicConfig;
use proptest::prelude::*;
use uuid::Uuid;

fn uuid(number: u64) -> NodeUuid {
    NodeUuid(Uuid::from_u64_pair(0xaaaa, number))
}

fn node(number: u64) -> NodeSpec {
    NodeSpec {
        uuid: uuid(number),
        label: NodeLabel(number),
        address: NodeAddress::new(format!("127.0.0.1:{}", 9_000 + number)).unwrap(),
        version: NodeVersion::new("0.2.0+levels.1-2").unwrap(),
    }
}

fn apply(state: &mut MetadataState, command: &MetadataCommand) -> MetadataOutcome {
    let index = state.applied().map_or(0, |applied| applied.index + 1);
    let command = MetadataCommand::decode(command.encode()).unwrap();
    let outcome = state.apply(RaftPosition { term: 1, index }, &command);
    assert_eq!(MetadataOutcome::decode(outcome.encode()), Ok(outcome));
    let snapshot = state.encode_snapshot();
    assert_eq!(MetadataState::decode_snapshot(snapshot).as_ref(), Ok(&*state));
    outcome
}

/// A cluster with a topic of `partitions` partitions and `factor` replicas each.
fn cluster(nodes: u64, partitions: u32, factor: u32) -> MetadataState {
    let mut state = MetadataState::default();
    let bootstrap = Bootstrap {
        cluster_id: ClusterId(Uuid::from_u128(7)),
        members: (1..=nodes.min(5)).map(node).collect(),
        coordinators: 4,
    };
    apply(&mut state, &MetadataCommand::Bootstrap(bootstrap));
    for number in 6..=nodes {
        let register = RegisterNode { node: node(number), replaces_dead: false };
        apply(&mut state, &MetadataCommand::RegisterNode(register));
    }
    if partitions > 0 {
        assert_eq!(create(&mut state, "t", partitions, factor), MetadataOutcome::TopicCreated);
    }
    state
}

fn create(state: &mut MetadataState, name: &str, partitions: u32, factor: u32) -> MetadataOutcome {
    let create = CreateTopic {
        name: TopicName::new(name).unwrap(),
        id: TopicId(Uuid::from_u128(u128::from(partitions) + 1)),
        partitions,
        replication_factor: factor,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    };
    apply(state, &MetadataCommand::CreateTopic(create))
}

fn stand(state: &mut MetadataState, number: u64, standing: Standing) -> MetadataOutcome {
    apply(state, &MetadataCommand::SetStanding { node: uuid(number), standing })
}

fn place(state: &mut MetadataState, group: GroupId, nodes: &[u64]) -> MetadataOutcome {
    let expected = nodes_of(state, group);
    let nodes = nodes.iter().copied().map(uuid).collect();
    apply(
        state,
        &MetadataCommand::PlaceGroup(PlaceGroup { group, expected, nodes, removal_of: None }),
    )
}

fn nodes_of(state: &MetadataState, group: GroupId) -> Vec<NodeUuid> {
    state.groups()[&group].replicas.iter().map(|replica| replica.node).collect()
}

/// The group's leader has dropped who leaves.
fn settle(state: &mut MetadataState, group: GroupId) {
    let gone: Vec<ReplicaId> = state.groups()[&group].retiring.iter().map(|it| it.id).collect();
    if !gone.is_empty() {
        apply(state, &MetadataCommand::ReplicasSettled { group, gone });
    }
}

/// All that the metadata's leader and the groups' leaders do until a removal is over.
fn remove_to_the_end(state: &mut MetadataState, number: u64) {
    for _ in 0..1_000 {
        for next in state.next_moves(3, |_| true) {
            assert_eq!(
                apply(state, &MetadataCommand::PlaceGroup(next.place.clone())),
                MetadataOutcome::Placed
            );
            settle(state, next.place.group);
        }
        let left = apply(state, &MetadataCommand::RemoveNode { node: uuid(number) });
        if left == MetadataOutcome::NodeRemoved {
            settle(state, GroupId::METADATA);
            return;
        }
    }
    panic!("the removal does not end");
}

const GROUP: GroupId = GroupId(1_000);

#[test]
fn a_drained_node_keeps_its_replicas_and_leads_no_new_topic() {
    let mut state = cluster(3, 0, 0);
    assert_eq!(stand(&mut state, 2, Standing::Drained), MetadataOutcome::StandingSet);
    create(&mut state, "t", 6, 3);
    let groups = state.groups();
    for number in 0..6 {
        let group = &groups[&GroupId(1_000 + number)];
        assert_ne!(group.preferred_leader().unwrap().node, uuid(2));
        assert_eq!(group.replicas.len(), 3);
    }
    let address = NodeAddress::new("127.0.0.1:7").unwrap();
    let register = RegisterNode { node: NodeSpec { address, ..node(2) }, replaces_dead: false };
    apply(&mut state, &MetadataCommand::RegisterNode(register));
    assert_eq!(state.nodes()[&uuid(2)].standing, Standing::Drained, "also after a restart");
    assert_eq!(stand(&mut state, 2, Standing::Active), MetadataOutcome::StandingSet);
    assert_eq!(state.nodes()[&uuid(2)].standing, Standing::Active);
    assert_eq!(stand(&mut state, 9, Standing::Drained), MetadataOutcome::UnknownNode);
}

#[test]
fn a_removal_that_would_cost_replicas_is_refused_and_names_a_group() {
    let mut state = cluster(3, 1, 3);
    let refused = stand(&mut state, 3, Standing::Removing);
    assert!(matches!(refused, MetadataOutcome::ReplicationNotKept { .. }), "{refused:?}");
    assert_eq!(state.nodes()[&uuid(3)].standing, Standing::Active);
    let mut one = cluster(1, 0, 0);
    let refused = stand(&mut one, 1, Standing::Removing);
    assert_eq!(refused, MetadataOutcome::ReplicationNotKept { group: GroupId::METADATA });

    // A second removal counts the first one's node as gone.
    let mut state = cluster(4, 3, 3);
    assert_eq!(stand(&mut state, 4, Standing::Removing), MetadataOutcome::StandingSet);
    let refused = stand(&mut state, 3, Standing::Removing);
    assert!(matches!(refused, MetadataOutcome::ReplicationNotKept { .. }), "{refused:?}");
}

#[test]
fn a_removed_node_has_nothing_left_and_never_comes_back() {
    let mut state = cluster(4, 5, 3);
    assert_eq!(
        apply(&mut state, &MetadataCommand::RemoveNode { node: uuid(2) }),
        MetadataOutcome::NodeHoldsReplicas { groups: 0 },
        "nobody asked for it"
    );
    stand(&mut state, 2, Standing::Removing);
    let early = apply(&mut state, &MetadataCommand::RemoveNode { node: uuid(2) });
    assert!(matches!(early, MetadataOutcome::NodeHoldsReplicas { groups: 1.. }), "{early:?}");
    remove_to_the_end(&mut state, 2);

    assert!(!state.nodes().contains_key(&uuid(2)));
    assert_eq!(state.removed_nodes(), [uuid(2)]);
    for (id, group) in state.groups() {
        let count = if *id == GroupId::METADATA { 3 } else { 3.min(group.replicas.len()) };
        assert_eq!(group.replicas.len(), count, "{id}");
        assert!(group.replicas.iter().all(|replica| replica.node != uuid(2)));
    }
    let register = RegisterNode { node: node(2), replaces_dead: true };
    let back = apply(&mut state, &MetadataCommand::RegisterNode(register));
    assert_eq!(back, MetadataOutcome::NodeWasRemoved);
    let again = apply(&mut state, &MetadataCommand::RemoveNode { node: uuid(2) });
    assert_eq!(again, MetadataOutcome::NodeRemoved, "asked again");
    // The label is free for a fresh disk.
    let fresh = RegisterNode { node: NodeSpec { uuid: uuid(20), ..node(2) }, replaces_dead: false };
    let joined = apply(&mut state, &MetadataCommand::RegisterNode(fresh));
    assert_eq!(joined, MetadataOutcome::NodeAdded);
}

#[test]
fn a_learner_of_the_metadata_votes_in_the_place_of_a_removed_voter() {
    let mut state = cluster(7, 0, 0);
    stand(&mut state, 1, Standing::Removing);
    stand(&mut state, 6, Standing::Removing);
    remove_to_the_end(&mut state, 1);
    let metadata = &state.groups()[&GroupId::METADATA];
    let voters: Vec<NodeUuid> =
        metadata.replicas.iter().filter(|it| it.voter).map(|it| it.node).collect();
    assert_eq!(voters, [2, 3, 4, 5, 7].map(uuid), "6 is on its way out");
}

#[test]
fn a_cancelled_removal_puts_back_what_was_on_its_way() {
    let mut state = cluster(4, 8, 3);
    let before = state.groups().clone();
    stand(&mut state, 1, Standing::Removing);
    let moves = state.next_moves(5, |_| true);
    assert_eq!(moves.len(), 5);
    for next in &moves {
        apply(&mut state, &MetadataCommand::PlaceGroup(next.place.clone()));
    }
    assert_eq!(state.moves_under_way(), 5);
    let settled = moves[0].place.group;
    settle(&mut state, settled);
    assert_eq!(stand(&mut state, 1, Standing::Active), MetadataOutcome::StandingSet);
    for next in &moves[1..] {
        let group = &state.groups()[&next.place.group];
        let ids = |replicas: &[node_core::metadata::Replica]| {
            replicas.iter().map(|replica| replica.id).collect::<BTreeSet<_>>()
        };
        assert_eq!(ids(&group.replicas), ids(&before[&next.place.group].replicas));
        assert_eq!(group.retiring.len(), 1);
        assert_eq!(group.retiring[0].node, next.to);
    }
    assert!(!nodes_of(&state, settled).contains(&uuid(1)), "what is over stays");
    assert!(state.next_moves(99, |_| true).is_empty());
}

#[test]
fn a_move_goes_by_the_newest_placement_and_keeps_the_number_of_replicas() {
    let mut state = cluster(5, 1, 3);
    let now: Vec<u64> = (1..=5).filter(|it| nodes_of(&state, GROUP).contains(&uuid(*it))).collect();
    let free: Vec<u64> = (1..=5).filter(|it| !now.contains(it)).collect();
    let refused = |fault| MetadataOutcome::NotPlaced { fault };
    let stale = PlaceGroup {
        group: GROUP,
        expected: vec![uuid(9)],
        nodes: vec![uuid(1)],
        removal_of: None,
    };
    let outcome = apply(&mut state, &MetadataCommand::PlaceGroup(stale));
    assert_eq!(outcome, refused(PlaceFault::Changed));
    assert_eq!(place(&mut state, GROUP, &now[..1]), refused(PlaceFault::Count));
    let four = [&now[..], &free[..1]].concat();
    assert_eq!(place(&mut state, GROUP, &four), refused(PlaceFault::Count));
    assert_eq!(place(&mut state, GROUP, &[now[0], now[0], now[1]]), refused(PlaceFault::Node));
    assert_eq!(place(&mut state, GROUP, &[now[0], now[1], 77]), refused(PlaceFault::Node));
    assert_eq!(place(&mut state, GroupId::METADATA, &now), refused(PlaceFault::Metadata));

    let to = [now[0], free[0], now[2]];
    assert_eq!(place(&mut state, GROUP, &to), MetadataOutcome::Placed);
    assert_eq!(nodes_of(&state, GROUP), to.map(uuid));
    assert_eq!(state.groups()[&GROUP].retiring[0].node, uuid(now[1]));
    let next = [now[0], free[1], now[2]];
    assert_eq!(place(&mut state, GROUP, &next), refused(PlaceFault::Busy));
    settle(&mut state, GROUP);
    let all = [now[0], now[1], now[2], free[0], free[1]];
    assert_eq!(place(&mut state, GROUP, &all), MetadataOutcome::Placed, "more replicas");
    assert_eq!(place(&mut state, GROUP, &all), MetadataOutcome::Placed, "asked again");
}

#[test]
fn a_move_that_arrives_after_its_removal_was_cancelled_is_refused() {
    let mut state = cluster(5, 1, 3);
    let leaves = state.groups()[&GROUP].replicas[0].node;
    let standing = |node, standing| MetadataCommand::SetStanding { node, standing };
    apply(&mut state, &standing(leaves, Standing::Removing));
    let moves = state.next_moves(99, |_| true);
    let late = moves.iter().find(|it| it.place.group == GROUP).expect("it has a replica there");
    let before = nodes_of(&state, GROUP);
    apply(&mut state, &standing(leaves, Standing::Active));
    let outcome = apply(&mut state, &MetadataCommand::PlaceGroup(late.place.clone()));
    assert_eq!(outcome, MetadataOutcome::NotPlaced { fault: PlaceFault::Changed });
    assert_eq!(nodes_of(&state, GROUP), before);
}

#[test]
fn a_replica_goes_to_a_rack_that_its_group_is_not_in() {
    let mut state = cluster(5, 0, 0);
    for (number, rack) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "c")] {
        let rack = Some(RackName::new(rack).unwrap());
        let set = apply(&mut state, &MetadataCommand::SetRack { node: uuid(number), rack });
        assert_eq!(set, MetadataOutcome::NodeUpdated);
    }
    create(&mut state, "t", 1, 3);
    place(&mut state, GROUP, &[1, 2, 3]);
    settle(&mut state, GROUP);
    stand(&mut state, 3, Standing::Removing);
    let moves = state.next_moves(99, |_| true);
    let next = moves.iter().find(|next| next.place.group == GROUP).unwrap();
    assert_eq!((next.from, next.to), (uuid(3), uuid(5)), "racks a and b are taken");
    let moves = state.next_moves(99, |node| node != uuid(5));
    let next = moves.iter().find(|next| next.place.group == GROUP).unwrap();
    assert_eq!(next.to, uuid(4), "better in a taken rack than nowhere");
}

#[test]
fn a_cluster_without_any_of_this_is_stored_as_before() {
    let mut state = cluster(3, 1, 3);
    let first = state.encode_snapshot()[0];
    stand(&mut state, 1, Standing::Drained);
    stand(&mut state, 1, Standing::Active);
    assert_eq!(state.encode_snapshot()[0], first);
}

proptest! {
    #[test]
    fn removals_and_cancels_never_cost_a_replica(
        nodes in 4_u64..8,
        partitions in 1_u32..6,
        steps in proptest::collection::vec((0_u8..6, 1_u64..8, 0_usize..8), 1..40),
    ) {
        let mut state = cluster(nodes, partitions, 3);
        let wanted: Vec<(GroupId, usize)> =
            state.groups().iter().map(|(id, group)| (*id, group.replicas.len())).collect();
        for (step, number, pick) in steps {
            match step {
                0 => drop(stand(&mut state, number, Standing::Removing)),
                1 => drop(stand(&mut state, number, Standing::Active)),
                2 => drop(stand(&mut state, number, Standing::Drained)),
                3 => {
                    let moves = state.next_moves(2, |_| true);
                    for next in moves {
                        let outcome = apply(&mut state, &MetadataCommand::PlaceGroup(next.place));
                        prop_assert_eq!(outcome, MetadataOutcome::Placed);
                    }
                }
                4 => {
                    let ids: Vec<GroupId> = state.groups().keys().copied().collect();
                    settle(&mut state, ids[pick % ids.len()]);
                }
                _ => drop(apply(&mut state, &MetadataCommand::RemoveNode { node: uuid(number) })),
            }
            for (id, count) in &wanted {
                let group = &state.groups()[id];
                let on: BTreeSet<NodeUuid> = group.replicas.iter().map(|it| it.node).collect();
                prop_assert_eq!(on.len(), group.replicas.len());
                let expected =
                    if *id == GroupId::METADATA { state.members().count() } else { *count };
                prop_assert_eq!(on.len(), expected, "group {}", id);
                prop_assert!(on.iter().all(|node| state.nodes()[node].is_member()));
            }
        }
    }
}
