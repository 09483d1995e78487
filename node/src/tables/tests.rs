//! What a table's replica can't read stops it, and nothing of its state or store is changed.

use node_core::ids::{ClusterId, NodeUuid};
use node_core::metadata::{Bootstrap, NodeSpec};
use uuid::Uuid;

use super::*;
use crate::storage::memory::MemoryEngine;
use crate::storage::{Durability, Space};

const GROUP: GroupId = GroupId::METADATA;

fn at(index: u64) -> RaftPosition {
    RaftPosition { term: 1, index }
}

fn bootstrap(version: &str) -> Bytes {
    let node = NodeSpec {
        uuid: NodeUuid(Uuid::from_u128(1)),
        label: node_core::ids::NodeLabel(1),
        address: "127.0.0.1:9400".parse().expect("an address"),
        version: version.parse().expect("a version"),
    };
    let cluster_id = ClusterId(Uuid::from_u128(2));
    let bootstrap = Bootstrap { cluster_id, members: vec![node], coordinators: 1 };
    MetadataCommand::Bootstrap(bootstrap).encode()
}

fn open(engine: &Arc<dyn Engine>, spoken: FeatureRange) -> TableMachine<MetadataState> {
    let opened = TableMachine::open_speaking(
        spoken,
        GROUP,
        engine.clone(),
        Box::new(|_: &MetadataState| {}),
    );
    opened.expect("it opens").0
}

#[test]
fn an_unknown_command_stops_the_replica_with_its_reason_and_changes_nothing() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let mut machine = open(&engine, SUPPORTED);
    machine.apply_command(at(0), bootstrap("0.1.0")).expect("known");
    let before = machine.shared.read().clone();
    let refused = machine.apply_command(at(1), Bytes::from_static(&[1, 250, 7, 7, 7]));
    let reason = refused.expect_err("unknown").to_string();
    assert!(reason.contains("250"), "{reason}");
    assert_eq!(*machine.shared.read(), before);
    assert_eq!(machine.applied(), Some(at(0)), "a newer build goes on from here");
}

#[test]
fn a_command_of_a_level_that_the_build_does_not_speak_stops_the_replica() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let mut machine = open(&engine, FeatureRange::FIRST);
    machine.apply_command(at(0), bootstrap("0.2.0+levels.1-2")).expect("known");
    let finalize = MetadataCommand::FinalizeLevel { level: FeatureLevel(2) }.encode();
    let reason = machine.apply_command(at(1), finalize).expect_err("too new").to_string();
    assert!(reason.contains("needs feature level 2, and this build speaks 1"), "{reason}");
    assert_eq!(machine.applied(), Some(at(0)));
}

#[test]
fn a_snapshot_of_a_newer_level_is_not_installed_and_not_opened() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let mut newer = open(&engine, SUPPORTED);
    newer.apply_command(at(0), bootstrap("0.2.0+levels.1-2")).expect("known");
    let (kept, snapshot) = newer.snapshot();

    let mut old = open(&engine, FeatureRange::FIRST);
    assert!(old.install(snapshot).is_err());
    assert_eq!(old.applied(), None);
    let stored = engine.get(Space::State, &keys::snapshot(GROUP)).expect("memory");
    assert_eq!(stored, None);

    engine.write(kept, Durability::Synced).expect("memory");
    let published = Box::new(|_: &MetadataState| {});
    let first = FeatureRange::FIRST;
    let refused = TableMachine::open_speaking(first, GROUP, engine.clone(), published);
    let reason = refused.err().expect("too new").to_string();
    assert!(reason.contains("needs feature level 2"), "{reason}");
}
