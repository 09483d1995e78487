//! The finalized feature level in the metadata: who may raise it, what it admits, and that below a
//! level the bytes are those of the builds which don't know it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use node_core::features::{FeatureLevel, FeatureRange};
use node_core::ids::{ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName};
use node_core::metadata::{
    Bootstrap, BootstrapFault, MetadataCommand, MetadataOutcome, MetadataState, NodeSpec,
    PlaceGroup, RegisterNode, Standing,
};
use node_core::position::RaftPosition;
use uuid::Uuid;

fn node(number: u64, min: u16, max: u16) -> NodeSpec {
    let levels = FeatureRange { min: FeatureLevel(min), max: FeatureLevel(max) };
    NodeSpec {
        uuid: NodeUuid(Uuid::from_u64_pair(0xaaaa, number)),
        label: NodeLabel(number),
        address: NodeAddress::new(format!("127.0.0.1:{}", 9_000 + number)).unwrap(),
        version: NodeVersion::announced("0.9.0", levels).unwrap(),
    }
}

fn apply(state: &mut MetadataState, command: &MetadataCommand) -> MetadataOutcome {
    let index = state.applied().map_or(0, |applied| applied.index + 1);
    state.apply(RaftPosition { term: 1, index }, command)
}

fn bootstrap(state: &mut MetadataState, members: Vec<NodeSpec>) -> MetadataOutcome {
    let cluster_id = ClusterId(Uuid::from_u128(7));
    let bootstrap = Bootstrap { cluster_id, members, coordinators: 1 };
    apply(state, &MetadataCommand::Bootstrap(bootstrap))
}

fn register(state: &mut MetadataState, node: NodeSpec) -> MetadataOutcome {
    let register = RegisterNode { node, replaces_dead: false };
    apply(state, &MetadataCommand::RegisterNode(register))
}

fn finalize(state: &mut MetadataState, level: u16) -> MetadataOutcome {
    apply(state, &MetadataCommand::FinalizeLevel { level: FeatureLevel(level) })
}

fn finalized(level: u16) -> MetadataOutcome {
    MetadataOutcome::LevelFinalized { level: FeatureLevel(level) }
}

#[test]
fn a_level_is_finalized_only_when_the_last_member_speaks_it_and_never_goes_back() {
    let mut state = MetadataState::default();
    bootstrap(&mut state, vec![node(1, 1, 1), node(2, 1, 1)]);
    assert_eq!(state.level(), FeatureLevel::FIRST);
    assert_eq!(register(&mut state, node(1, 1, 2)), MetadataOutcome::NodeUpdated);
    let old = MetadataOutcome::LevelRefused { node: node(2, 1, 1).uuid };
    assert_eq!(finalize(&mut state, 2), old);
    assert_eq!(register(&mut state, node(2, 1, 3)), MetadataOutcome::NodeUpdated);
    assert_eq!(finalize(&mut state, 2), finalized(2));
    assert_eq!(finalize(&mut state, 1), finalized(2));
    let behind = MetadataOutcome::LevelRefused { node: node(1, 1, 2).uuid };
    assert_eq!(finalize(&mut state, 3), behind);
    assert_eq!(state.level(), FeatureLevel(2));
}

#[test]
fn a_node_that_does_not_speak_the_finalized_level_is_not_taken_in() {
    let mut state = MetadataState::default();
    bootstrap(&mut state, vec![node(1, 1, 2)]);
    let refused = MetadataOutcome::LevelNotSpoken { level: FeatureLevel(2) };
    for stranger in [node(2, 1, 1), node(2, 3, 4), node(1, 1, 1)] {
        assert_eq!(register(&mut state, stranger), refused);
    }
    assert_eq!(state.nodes().len(), 1);
    assert_eq!(register(&mut state, node(2, 2, 5)), MetadataOutcome::NodeAdded);
}

#[test]
fn a_new_cluster_begins_with_what_its_members_have_in_common() {
    for (members, level) in [
        (vec![node(1, 1, 2), node(2, 1, 2)], 2),
        (vec![node(1, 1, 2), node(2, 1, 1)], 1),
        (vec![node(1, 2, 4), node(2, 1, 3)], 3),
    ] {
        let mut state = MetadataState::default();
        assert_eq!(bootstrap(&mut state, members), MetadataOutcome::Bootstrapped);
        assert_eq!(state.level(), FeatureLevel(level));
    }
    let mut state = MetadataState::default();
    let refused = MetadataOutcome::InvalidBootstrap { fault: BootstrapFault::Levels };
    assert_eq!(bootstrap(&mut state, vec![node(1, 1, 1), node(2, 2, 2)]), refused);
    assert_eq!(state.cluster_id(), None);
}

#[test]
fn the_snapshot_has_the_first_releases_bytes_until_a_level_is_finalized() {
    let mut state = MetadataState::default();
    bootstrap(&mut state, vec![node(1, 1, 1)]);
    register(&mut state, node(1, 1, 2));
    let before = state.encode_snapshot();
    assert_eq!(before[0], 1, "the version that quipu 0.1 reads");
    assert_eq!(MetadataState::decode_snapshot(before), Ok(state.clone()));
    finalize(&mut state, 2);
    let after = state.encode_snapshot();
    assert_eq!(after[0], 2);
    assert_eq!(MetadataState::decode_snapshot(after), Ok(state));
}

/// The commands about a node's life in its cluster.
fn life(first: NodeUuid) -> [MetadataCommand; 4] {
    let place = PlaceGroup {
        group: GroupId::COORDINATOR_FIRST,
        expected: vec![first],
        nodes: vec![node(2, 1, 2).uuid],
        removal_of: None,
    };
    [
        MetadataCommand::SetStanding { node: first, standing: Standing::Removing },
        MetadataCommand::PlaceGroup(place),
        MetadataCommand::RemoveNode { node: first },
        MetadataCommand::SetRack { node: first, rack: Some(RackName::new("a").unwrap()) },
    ]
}

#[test]
fn nodes_are_drained_moved_and_removed_only_once_the_level_is_finalized() {
    let mut state = MetadataState::default();
    bootstrap(&mut state, vec![node(1, 1, 1), node(2, 1, 2)]);
    let too_low = MetadataOutcome::LevelTooLow { needed: FeatureLevel::MEMBERSHIP };
    for command in life(node(1, 1, 1).uuid) {
        assert_eq!(state.admits(&command), Err(too_low));
        let mut expected = state.clone();
        assert_eq!(apply(&mut state, &command), too_low);
        expected.apply_blank(state.applied().unwrap());
        assert_eq!(state, expected);
    }
    register(&mut state, node(1, 1, 2));
    assert_eq!(finalize(&mut state, 2), finalized(2));
    for command in life(node(1, 1, 2).uuid) {
        assert_eq!(state.admits(&command), Ok(()));
    }
}

#[test]
fn a_snapshot_of_level_two_has_the_standings_racks_and_removed_nodes() {
    let mut state = MetadataState::default();
    bootstrap(&mut state, (1..=4).map(|number| node(number, 1, 2)).collect());
    let leaves = state.nodes().keys().copied().find(|node| {
        let replicas = &state.groups()[&GroupId::COORDINATOR_FIRST].replicas;
        replicas.iter().all(|replica| replica.node != *node)
    });
    let leaves = leaves.expect("one node has no coordinator");
    let mut others = state.nodes().keys().copied().filter(|node| *node != leaves);
    let [drained, racked, _] = std::array::from_fn(|_| others.next().unwrap());
    drop(others);
    for (command, outcome) in [
        (
            MetadataCommand::SetStanding { node: drained, standing: Standing::Drained },
            MetadataOutcome::StandingSet,
        ),
        (
            MetadataCommand::SetRack { node: racked, rack: Some(RackName::new("a").unwrap()) },
            MetadataOutcome::NodeUpdated,
        ),
        (
            MetadataCommand::SetStanding { node: leaves, standing: Standing::Removing },
            MetadataOutcome::StandingSet,
        ),
        (MetadataCommand::RemoveNode { node: leaves }, MetadataOutcome::NodeRemoved),
    ] {
        assert_eq!(apply(&mut state, &command), outcome);
        assert_eq!(MetadataState::decode_snapshot(state.encode_snapshot()), Ok(state.clone()));
    }
    let standing = |node| state.nodes()[&node].standing;
    assert_eq!([drained, leaves].map(standing), [Standing::Drained, Standing::Removed]);
    assert_eq!(state.removed_nodes(), [leaves]);
}
