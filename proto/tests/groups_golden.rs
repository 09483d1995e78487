//! The wire bytes of group membership: field numbers and types are for ever.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use prost::Message;
use quipu_proto::v1;

fn check<T: Message + Default + PartialEq + std::fmt::Debug>(message: &T, hex: &str) {
    let bytes = message.encode_to_vec();
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text.join(" "), hex.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(T::decode(bytes.as_slice()).unwrap(), *message);
}

fn some_partitions(topic_id: &'static [u8]) -> v1::TopicPartitions {
    let topic_id = Bytes::from_static(topic_id);
    v1::TopicPartitions { topic: "t".to_owned(), partitions: vec![0, 300], topic_id }
}

#[test]
fn a_heartbeat() {
    let request = v1::GroupHeartbeatRequest {
        group: "g".to_owned(),
        member_id: "m".to_owned(),
        generation: 3,
        instance_id: "i".to_owned(),
        client: "c".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 300_000,
        topics: vec!["t".to_owned(), "u".to_owned()],
        owned: vec![some_partitions(b"")],
        max_wait_ms: 3_000,
    };
    let hex = "0a 01 67  12 01 6d  18 06  22 01 69  2a 01 63  30 90 4e  38 e0 a7 12
               42 01 74  42 01 75  4a 08 0a 01 74 12 03 00 ac 02  50 b8 17";
    check(&request, hex);
    let join = v1::GroupHeartbeatRequest { generation: 0, ..Default::default() };
    check(&join, "");
    let leave = v1::GroupHeartbeatRequest { generation: -1, ..Default::default() };
    check(&leave, "18 01");
    let for_a_moment = v1::GroupHeartbeatRequest { generation: -2, ..Default::default() };
    check(&for_a_moment, "18 03");
}

#[test]
fn its_answer() {
    let nothing_new = v1::GroupHeartbeatResponse {
        generation: 4,
        heartbeat_interval_ms: 3_000,
        assignment: None,
    };
    check(&nothing_new, "08 08  10 b8 17");
    let assignment = v1::GroupAssignment { partitions: vec![some_partitions(b"\x77\x78")] };
    let assigned = v1::GroupHeartbeatResponse {
        generation: 4,
        heartbeat_interval_ms: 0,
        assignment: Some(assignment),
    };
    check(&assigned, "08 08  1a 0e 0a 0c 0a 01 74 12 03 00 ac 02 1a 02 77 78");
    // Nothing assigned is not the same as nothing new.
    let none = v1::GroupHeartbeatResponse {
        generation: 4,
        heartbeat_interval_ms: 0,
        assignment: Some(v1::GroupAssignment::default()),
    };
    check(&none, "08 08  1a 00");
}

#[test]
fn a_commit_by_a_member() {
    let commit = v1::CommitOffsetsRequest {
        group: "g".to_owned(),
        offsets: vec![v1::GroupOffset {
            topic: "t".to_owned(),
            partition: 2,
            offset: 300,
            metadata: None,
            committed_at_ms: 0,
        }],
        reset: false,
        timeout_ms: 5_000,
        member_id: "m".to_owned(),
        generation: 3,
    };
    check(&commit, "0a 01 67  12 08 0a 01 74 10 02 18 ac 02  20 88 27  2a 01 6d  30 06");
}

#[test]
fn a_described_member() {
    let member = v1::GroupMember {
        member_id: "m".to_owned(),
        instance_id: "i".to_owned(),
        client: "c".to_owned(),
        generation: 4,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 300_000,
        joined_at_ms: 5,
        away: true,
        topics: vec!["t".to_owned()],
        assigned: vec![some_partitions(b"")],
        giving_up: Vec::new(),
        waiting_for: Vec::new(),
    };
    let description = v1::DescribeGroupResponse {
        group: "g".to_owned(),
        coordinator: 2,
        leader_node: 1,
        offsets: Vec::new(),
        generation: 4,
        members: vec![member],
        settled: true,
        ..v1::DescribeGroupResponse::default()
    };
    let hex = "0a 01 67  10 02  18 01  28 08
               32 23  0a 01 6d  12 01 69  1a 01 63  20 08  28 90 4e  30 e0 a7 12  38 05  40 01
               4a 01 74  52 08 0a 01 74 12 03 00 ac 02
               38 01";
    check(&description, hex);
}
