//! The bytes on the pages of `docs/formats/` are what this build writes, and what it reads.
//!
//! A page shows each example as a block that begins with `hex` and a name; behind the bytes of a
//! line, after `|`, stands what they mean. A change of a format without its page fails here.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use bytes::Bytes;
use node_core::features::FeatureLevel;
use node_core::groups::{
    CommitOffsets, Committer, ExpireMembers, GroupCommand, GroupTable, Heartbeat, LeaveGroup,
    MemberProfile, OffsetCommit, TopicFact, TopicNews,
};
use node_core::ids::{
    ClusterId, Generation, GroupId, GroupName, InstanceId, MemberId, NodeAddress, NodeLabel,
    NodeUuid, NodeVersion, RackName, ReplicaId, TopicId, TopicName,
};
use node_core::metadata::{
    Bootstrap, BootstrapFault, CreateTopic, MetadataCommand, MetadataOutcome, MetadataState,
    NodeSpec, PlaceFault, PlaceGroup, RegisterNode, Standing,
};
use node_core::partition::{
    AdvanceStart, Append, AppendBatch, Applied, IndexRecord, LadderLimits, LogCommand,
    PartitionState,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use node_core::topic_config::{TopicConfig, parse_changes};
use quipu_batch::{BATCH_BYTES_MAX, BatchBuilder, Compression, ProducerIdentity, Record};
use uuid::Uuid;

/// The bytes of a page's example.
fn example(page: &str, name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let begin = format!("```hex {name}");
    let mut lines = text.lines().skip_while(|line| *line != begin).skip(1).peekable();
    assert!(lines.peek().is_some(), "{page} has no example {name}");
    let mut bytes = Vec::new();
    for line in lines.take_while(|line| *line != "```") {
        let hex = line.split('|').next().unwrap();
        bytes.extend(hex.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()));
    }
    bytes.into()
}

fn command(name: &str) -> Bytes {
    example("commands.md", name)
}

fn checkpoint(name: &str) -> Bytes {
    example("checkpoints.md", name)
}

/// 2023-11-14T22:13:20Z, the third entry stamped in that millisecond.
const TIME: EntryTime = EntryTime(1_700_000_000_000 << 16 | 2);

fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

fn topic_id() -> TopicId {
    TopicId(Uuid::from_u128(0x7777_7777_7777_4777_8777_7777_7777_7777))
}

fn node() -> NodeSpec {
    NodeSpec {
        uuid: NodeUuid(Uuid::from_u128(0x1111_1111_1111_4111_8111_1111_1111_1111)),
        label: NodeLabel(1),
        address: NodeAddress::new("127.0.0.1:7001").unwrap(),
        version: NodeVersion::new("0.1.0").unwrap(),
    }
}

fn cluster_id() -> ClusterId {
    ClusterId(Uuid::from_u128(0xcccc_cccc_cccc_4ccc_8ccc_cccc_cccc_cccc))
}

/// The smallest batch there is: one empty record.
fn batch(sequence_first: u32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
    builder.push(&Record::default()).unwrap();
    builder.build(Some(ProducerIdentity { id: 7, epoch: 1, sequence_first })).unwrap()
}

fn append() -> Append {
    let batch = AppendBatch { expect_end_offset: Some(0), bytes: batch(0) };
    Append { time: TIME, batches: vec![batch] }
}

fn commit() -> CommitOffsets {
    let offset =
        OffsetCommit { topic: topic(), partition: 2, offset: 300, metadata: Some("eu".to_owned()) };
    let group = GroupName::new("billing").unwrap();
    CommitOffsets { group, offsets: vec![offset], committer: None, reset: false, time: TIME }
}

fn member() -> MemberId {
    MemberId::new("m-1").unwrap()
}

/// News of the topic; `None`: it is gone.
fn news(fact: Option<TopicFact>) -> TopicNews {
    TopicNews { metadata_index: 7, topics: [(topic(), fact)].into() }
}

fn heartbeat(generation: u64) -> Heartbeat {
    let profile = MemberProfile {
        instance: Some(InstanceId::new("pod-a").unwrap()),
        client: "demo".to_owned(),
        session_ms: 10_000,
        rebalance_ms: 300_000,
        topics: [topic()].into(),
    };
    Heartbeat {
        group: GroupName::new("billing").unwrap(),
        member: member(),
        generation: Generation(generation),
        profile,
        owned: [(topic(), [0, 2].into())].into(),
        topics: news(Some(TopicFact { id: topic_id(), partitions: 3 })),
        time: TIME,
    }
}

fn bootstrap() -> MetadataCommand {
    let (cluster_id, members) = (cluster_id(), vec![node()]);
    MetadataCommand::Bootstrap(Bootstrap { cluster_id, members, coordinators: 1 })
}

fn create_topic() -> MetadataCommand {
    MetadataCommand::CreateTopic(CreateTopic {
        name: topic(),
        id: topic_id(),
        partitions: 1,
        replication_factor: 0,
        config: TopicConfig::default(),
        time: TIME,
    })
}

fn at(index: u64) -> RaftPosition {
    RaftPosition { term: 5, index }
}

/// A partition after one membership, one append of one record, and with a rung there.
fn partition() -> (PartitionState, Applied) {
    let mut state = PartitionState::new(LadderLimits { bytes: 64, ms: 600_000 });
    state.apply_membership(at(0), Bytes::from_static(b"mmmm"));
    let applied = state.apply_append(at(1), &append());
    (state, applied)
}

fn check_log_command(name: &str, value: &LogCommand) {
    assert_eq!(command(name), value.encode(), "{name}");
    assert_eq!(LogCommand::decode(command(name)).as_ref(), Ok(value), "{name}");
}

fn check_group_command(name: &str, value: &GroupCommand) {
    assert_eq!(command(name), value.encode(), "{name}");
    assert_eq!(GroupCommand::decode(command(name)).as_ref(), Ok(value), "{name}");
}

fn check_metadata_command(name: &str, value: &MetadataCommand) {
    assert_eq!(command(name), value.encode(), "{name}");
    assert_eq!(MetadataCommand::decode(command(name)).as_ref(), Ok(value), "{name}");
}

fn check_outcome(name: &str, value: MetadataOutcome) {
    assert_eq!(command(name), value.encode(), "{name}");
    assert_eq!(MetadataOutcome::decode(command(name)), Ok(value), "{name}");
}

#[test]
fn log_commands_are_as_on_their_page() {
    check_log_command("append", &LogCommand::Append(append()));
    let advance = AdvanceStart { time: TIME, rung_index: 9 };
    check_log_command("advance-start", &LogCommand::AdvanceStart(advance));
}

#[test]
fn group_commands_are_as_on_their_page() {
    check_group_command("commit-offsets", &GroupCommand::Commit(commit()));
    let group = GroupName::new("billing").unwrap();
    check_group_command("delete-group", &GroupCommand::Delete { group });
    check_group_command("forget-topic", &GroupCommand::ForgetTopic { topic: topic() });
}

#[test]
fn commands_of_group_members_are_as_on_their_page() {
    let committer = Some(Committer { member: member(), generation: Generation(3) });
    let by_member = CommitOffsets { committer, ..commit() };
    check_group_command("commit-by-member", &GroupCommand::Commit(by_member));
    check_group_command("group-heartbeat", &GroupCommand::Heartbeat(heartbeat(3)));
    let group = GroupName::new("billing").unwrap();
    let leave = LeaveGroup { group: group.clone(), member: member(), stays: true, time: TIME };
    check_group_command("leave-group", &GroupCommand::Leave(leave));
    let members = vec![(member(), Generation(3))];
    let expire = ExpireMembers { group, members, time: TIME };
    check_group_command("expire-members", &GroupCommand::Expire(expire));
    let changed = GroupCommand::TopicsChanged { news: news(None), time: TIME };
    check_group_command("topics-changed", &changed);
}

#[test]
fn metadata_commands_are_as_on_their_page() {
    check_metadata_command("bootstrap", &bootstrap());
    let register = RegisterNode { node: node(), replaces_dead: true };
    check_metadata_command("register-node", &MetadataCommand::RegisterNode(register));
    check_metadata_command("create-topic", &create_topic());
    let changes = parse_changes([("retention.ms", "7d")]).unwrap();
    let alter = MetadataCommand::AlterTopic { name: topic(), changes };
    check_metadata_command("alter-topic", &alter);
    let delete = MetadataCommand::DeleteTopic { name: topic(), id: topic_id() };
    check_metadata_command("delete-topic", &delete);
    let allocate = MetadataCommand::AllocateProducerIds { count: 1_000 };
    check_metadata_command("allocate-producer-ids", &allocate);
    let (group, gone) = (GroupId(1_000), vec![ReplicaId(12)]);
    let settled = MetadataCommand::ReplicasSettled { group, gone };
    check_metadata_command("replicas-settled", &settled);
    let (lost, node) = (ReplicaId(12), node().uuid);
    let replace = MetadataCommand::ReplaceReplica { group, lost, node };
    check_metadata_command("replace-replica", &replace);
}

#[test]
fn commands_of_a_nodes_life_are_as_on_their_page() {
    let (node, other) = (node().uuid, Uuid::from_u128(0x2222_2222_2222_4222_8222_2222_2222_2222));
    let standing = Standing::Removing;
    check_metadata_command("set-standing", &MetadataCommand::SetStanding { node, standing });
    let (expected, nodes) = (vec![node], vec![NodeUuid(other)]);
    let place = PlaceGroup { group: GroupId(1_000), expected, nodes, removal_of: Some(node) };
    check_metadata_command("place-group", &MetadataCommand::PlaceGroup(place));
    check_metadata_command("remove-node", &MetadataCommand::RemoveNode { node });
    let rack = Some(RackName::new("a").unwrap());
    check_metadata_command("set-rack", &MetadataCommand::SetRack { node, rack });
    let fault = PlaceFault::Busy;
    check_outcome("outcome-not-placed", MetadataOutcome::NotPlaced { fault });
    let finalize = MetadataCommand::FinalizeLevel { level: FeatureLevel(2) };
    check_metadata_command("finalize-level", &finalize);
}

#[test]
fn metadata_outcomes_are_as_on_their_page() {
    let producer_ids = MetadataOutcome::ProducerIds { first: 1, count: 1_000 };
    check_outcome("outcome-producer-ids", producer_ids);
    let fault = BootstrapFault::LabelTwice { label: NodeLabel(1) };
    check_outcome("outcome-invalid-bootstrap", MetadataOutcome::InvalidBootstrap { fault });
    let new = ReplicaId(13);
    check_outcome("outcome-replica-replaced", MetadataOutcome::ReplicaReplaced { new });
}

#[test]
fn rows_of_a_partition_are_as_on_their_page() {
    let (state, applied) = partition();
    let index = applied.index.unwrap();
    assert_eq!(checkpoint("index-record"), index.encode());
    assert_eq!(IndexRecord::decode(checkpoint("index-record")), Ok(index));

    let [producer] = applied.producers_changed[..] else { panic!("one producer") };
    assert_eq!(checkpoint("head"), state.encode_head());
    assert_eq!(checkpoint("ladder"), state.encode_ladder());
    assert_eq!(checkpoint("producer"), state.encode_producer(producer).unwrap());
    let (head, ladder) = (checkpoint("head"), checkpoint("ladder"));
    assert_eq!(PartitionState::restore(head, ladder, [checkpoint("producer")]), Ok(state));
}

#[test]
fn a_rungs_checkpoint_is_as_on_its_page() {
    let (_, applied) = partition();
    assert_eq!(checkpoint("checkpoint"), applied.rung.unwrap().checkpoint);
    let state = PartitionState::from_checkpoint(checkpoint("checkpoint")).unwrap();
    assert_eq!((state.log_start(), state.next_offset()), (1, 1));
    assert_eq!(state.applied(), Some(at(1)));
}

#[test]
fn snapshots_of_tables_are_as_on_their_page() {
    let mut table = GroupTable::default();
    table.apply(at(0), &GroupCommand::Commit(commit()));
    assert_eq!(checkpoint("group-snapshot"), table.encode_snapshot());
    assert_eq!(GroupTable::decode_snapshot(checkpoint("group-snapshot")), Ok(table.clone()));

    table.apply(at(1), &GroupCommand::Heartbeat(heartbeat(0)));
    assert_eq!(checkpoint("group-snapshot-members"), table.encode_snapshot());
    let snapshot = checkpoint("group-snapshot-members");
    assert_eq!(GroupTable::decode_snapshot(snapshot), Ok(table));

    let mut state = MetadataState::default();
    state.apply(at(0), &bootstrap());
    state.apply(at(1), &create_topic());
    assert_eq!(checkpoint("metadata-snapshot"), state.encode_snapshot());
    assert_eq!(MetadataState::decode_snapshot(checkpoint("metadata-snapshot")), Ok(state));
}
