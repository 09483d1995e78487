//! Groups: what is kept, what is told, and what is refused.

use futures::StreamExt as _;
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;

use crate::running::{Running, TOPIC, append, batch, error_of, eventually, refused};

fn offset(partition: u32, offset: u64) -> v1::GroupOffset {
    let topic = TOPIC.to_owned();
    v1::GroupOffset { topic, partition, offset, ..v1::GroupOffset::default() }
}

fn commit(group: &str, offsets: Vec<v1::GroupOffset>) -> v1::CommitOffsetsRequest {
    let group = group.to_owned();
    v1::CommitOffsetsRequest {
        group,
        offsets,
        timeout_ms: 5_000,
        ..v1::CommitOffsetsRequest::default()
    }
}

async fn committed(node: &Running, request: v1::CommitOffsetsRequest) {
    // Just after the formation a coordinator may have no leader yet.
    eventually(async || match node.groups().commit_offsets(request.clone()).await {
        Ok(_) => Some(()),
        Err(status) if error_of(&status).retriable => None,
        Err(status) => panic!("{status}"),
    })
    .await;
}

async fn fetched(node: &Running, group: &str, partitions: &[u32]) -> Vec<(u32, u64)> {
    let partitions = partitions.iter();
    let partitions = partitions
        .map(|partition| v1::TopicPartition { topic: TOPIC.to_owned(), partition: *partition });
    let request =
        v1::FetchOffsetsRequest { group: group.to_owned(), partitions: partitions.collect() };
    let answer = node.groups().fetch_offsets(request).await.unwrap().into_inner();
    answer.offsets.iter().map(|offset| (offset.partition, offset.offset)).collect()
}

/// A node with so many records in each of the topic's two partitions.
async fn with_records(count: usize) -> Running {
    let node = Running::with_topic().await;
    for partition in 0..2 {
        let records = append(TOPIC, partition, batch(&vec!["a"; count]));
        node.log().append(records).await.unwrap();
    }
    node
}

#[tokio::test]
async fn what_was_committed_is_found_listed_and_deleted() {
    let node = with_records(10).await;
    committed(&node, commit("shipping", vec![offset(0, 5), offset(1, 7)])).await;
    committed(&node, commit("billing", vec![offset(1, 2)])).await;
    assert_eq!(fetched(&node, "shipping", &[]).await, [(0, 5), (1, 7)]);
    assert_eq!(fetched(&node, "shipping", &[1, 9]).await, [(1, 7)]);
    assert_eq!(fetched(&node, "nobody", &[]).await, []);
    let all = node.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().groups, ["billing", "shipping"]);

    let describe =
        |group: &str| v1::DescribeGroupRequest { group: group.to_owned(), with_lag: false };
    let described = node.groups().describe_group(describe("billing")).await.unwrap().into_inner();
    assert_eq!((described.leader_node, described.offsets.len()), (1, 1));
    assert!(described.offsets[0].committed_at_ms > 0);
    let one = v1::ListGroupsRequest {
        coordinators: vec![described.coordinator],
        ..v1::ListGroupsRequest::default()
    };
    let one = node.groups().list_groups(one).await.unwrap().into_inner();
    assert!(one.groups.contains(&"billing".to_owned()), "{one:?}");

    let delete = |group: &str| v1::DeleteGroupRequest { group: group.to_owned() };
    node.groups().delete_group(delete("billing")).await.unwrap();
    let gone = ErrorCode::UnknownGroup;
    refused(node.groups().delete_group(delete("billing")).await, gone, "quipu group ls");
    refused(node.groups().describe_group(describe("billing")).await, gone, "quipu group ls");
    assert_eq!(node.metrics.group_offset_commits.get(), 2);
    node.stop().await;
}

#[tokio::test]
async fn an_offset_goes_back_only_on_purpose() {
    let node = with_records(10).await;
    committed(&node, commit("g", vec![offset(0, 5)])).await;
    let back = node.groups().commit_offsets(commit("g", vec![offset(1, 1), offset(0, 4)])).await;
    let error = refused(back, ErrorCode::OffsetRegression, "orders/0");
    assert_eq!(error.committed_offset, Some(5));
    assert_eq!(fetched(&node, "g", &[]).await, [(0, 5)], "all of a commit or nothing");
    let reset = v1::CommitOffsetsRequest { reset: true, ..commit("g", vec![offset(0, 4)]) };
    committed(&node, reset).await;
    assert_eq!(fetched(&node, "g", &[]).await, [(0, 4)]);
    node.stop().await;
}

#[tokio::test]
async fn a_commit_for_what_is_not_there_is_refused_as_a_whole() {
    let node = with_records(10).await;
    let none = v1::GroupOffset { topic: "none".to_owned(), ..offset(0, 1) };
    let unknown = node.groups().commit_offsets(commit("g", vec![offset(0, 1), none])).await;
    refused(unknown, ErrorCode::UnknownTopic, "quipu topic");
    let beyond = node.groups().commit_offsets(commit("g", vec![offset(0, 1), offset(2, 1)])).await;
    refused(beyond, ErrorCode::UnknownPartition, "it has 2");
    committed(&node, commit("g", vec![offset(1, 9)])).await;
    assert_eq!(fetched(&node, "g", &[]).await, [(1, 9)]);
    node.stop().await;
}

#[tokio::test]
async fn names_and_sizes_are_checked() {
    let node = Running::with_topic().await;
    let invalid = ErrorCode::InvalidArgument;
    let send = async |request| node.groups().commit_offsets(request).await;
    refused(send(commit("", vec![offset(0, 1)])).await, invalid, "group: ");
    refused(send(commit("a\nb", vec![offset(0, 1)])).await, invalid, "group: ");
    refused(send(commit("g", vec![offset(0, 1); 1_001])).await, invalid, "at most 1000");
    let wrong = v1::GroupOffset { topic: "a b".to_owned(), ..offset(0, 1) };
    refused(send(commit("g", vec![wrong])).await, invalid, "topic: ");
    let long = v1::GroupOffset { metadata: Some("x".repeat(4_097)), ..offset(0, 1) };
    refused(send(commit("g", vec![long])).await, invalid, "metadata: ");
    let partition = v1::TopicPartition { topic: TOPIC.to_owned(), partition: 0 };
    let many =
        v1::FetchOffsetsRequest { group: "g".to_owned(), partitions: vec![partition; 10_001] };
    refused(node.groups().fetch_offsets(many).await, invalid, "partitions: ");
    node.stop().await;
}

fn joins(group: &str, member_id: &str) -> v1::GroupHeartbeatRequest {
    v1::GroupHeartbeatRequest {
        group: group.to_owned(),
        member_id: member_id.to_owned(),
        topics: vec![TOPIC.to_owned()],
        ..v1::GroupHeartbeatRequest::default()
    }
}

async fn heard(node: &Running, request: v1::GroupHeartbeatRequest) -> v1::GroupHeartbeatResponse {
    eventually(async || match node.groups().group_heartbeat(request.clone()).await {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) if error_of(&status).retriable => None,
        Err(status) => panic!("{status}"),
    })
    .await
}

#[tokio::test]
async fn what_is_wrong_with_a_heartbeat_is_told() {
    let node = Running::with_topic().await;
    let invalid = ErrorCode::InvalidArgument;
    let send = async |request| node.groups().group_heartbeat(request).await;
    let fine = || joins("g", "m");
    refused(send(joins("", "m")).await, invalid, "group: ");
    refused(send(joins("g", "")).await, invalid, "member_id: ");
    refused(send(joins("g", "a b")).await, invalid, "member_id: ");
    let none = v1::GroupHeartbeatRequest { topics: Vec::new(), ..fine() };
    refused(send(none).await, invalid, "the subscription is empty");
    let wrong = v1::GroupHeartbeatRequest { topics: vec!["a b".to_owned()], ..fine() };
    refused(send(wrong).await, invalid, "topic: ");
    let many = (0..1_001).map(|number| format!("t{number}")).collect();
    let many = v1::GroupHeartbeatRequest { topics: many, ..fine() };
    refused(send(many).await, invalid, "at most 1000 topics");
    let short = v1::GroupHeartbeatRequest { session_timeout_ms: 10, ..fine() };
    refused(send(short).await, invalid, "session time-out");
    let long = v1::GroupHeartbeatRequest { rebalance_timeout_ms: u32::MAX, ..fine() };
    refused(send(long).await, invalid, "rebalance time-out");
    let strange = v1::GroupHeartbeatRequest { generation: -3, ..fine() };
    refused(send(strange).await, invalid, "generation: -3");
    let leaves = v1::GroupHeartbeatRequest { generation: -2, ..fine() };
    refused(send(leaves).await, invalid, "instance_id");
    let long = v1::GroupHeartbeatRequest { client: "x".repeat(256), ..fine() };
    refused(send(long).await, invalid, "client's name");
    node.stop().await;
}

#[tokio::test]
async fn a_member_is_described_and_who_is_not_one_is_told_so() {
    let node = with_records(10).await;
    let request = v1::GroupHeartbeatRequest {
        client: "a test".to_owned(),
        instance_id: "pod-1".to_owned(),
        ..joins("g", "m")
    };
    let answer = heard(&node, request.clone()).await;
    assert!(answer.generation > 0 && answer.heartbeat_interval_ms == 3_000);
    let [assigned] = &answer.assignment.expect("its first").partitions[..] else {
        panic!("one topic")
    };
    assert_eq!((assigned.topic.as_str(), &assigned.partitions[..]), (TOPIC, &[0, 1][..]));

    let describe = v1::DescribeGroupRequest { group: "g".to_owned(), with_lag: false };
    let described = node.groups().describe_group(describe).await.unwrap().into_inner();
    assert!(described.settled);
    let [member] = &described.members[..] else { panic!("one member") };
    assert_eq!((member.client.as_str(), member.instance_id.as_str()), ("a test", "pod-1"));
    assert_eq!(member.generation, answer.generation);
    assert!(member.joined_at_ms > 0 && member.session_timeout_ms == 10_000);

    let send = async |request| node.groups().group_heartbeat(request).await;
    let unknown = v1::GroupHeartbeatRequest { generation: 1, ..joins("g", "other") };
    refused(send(unknown).await, ErrorCode::UnknownMember, "new member id");
    let unknown = v1::GroupHeartbeatRequest { generation: -1, ..joins("none", "m") };
    refused(send(unknown).await, ErrorCode::UnknownGroup, "quipu group ls");
    let future = v1::GroupHeartbeatRequest { generation: 99, ..request };
    let error = refused(send(future).await, ErrorCode::GroupMemberFenced, "new member id");
    assert_eq!(error.generation, Some(answer.generation));
    let delete = v1::DeleteGroupRequest { group: "g".to_owned() };
    let busy = ErrorCode::GroupNotEmpty;
    refused(node.groups().delete_group(delete).await, busy, "1 members");
    refused(node.groups().commit_offsets(commit("g", vec![offset(0, 1)])).await, busy, "members");
    let by_member = v1::CommitOffsetsRequest {
        member_id: "m".to_owned(),
        generation: answer.generation,
        ..commit("g", vec![offset(0, 1)])
    };
    committed(&node, by_member).await;
    assert_eq!(fetched(&node, "g", &[]).await, [(0, 1)]);
    node.stop().await;
}

#[tokio::test]
async fn a_commit_beyond_the_end_is_refused_and_the_end_is_told() {
    let node = with_records(3).await;
    committed(&node, commit("g", vec![offset(0, 3)])).await;
    let both = commit("g", vec![offset(0, 3), offset(1, 4)]);
    let error = refused(
        node.groups().commit_offsets(both.clone()).await,
        ErrorCode::OffsetBeyondEnd,
        "offset 4 of orders/1",
    );
    assert_eq!(error.high_watermark, Some(3));
    let reset = v1::CommitOffsetsRequest { reset: true, ..both };
    refused(node.groups().commit_offsets(reset).await, ErrorCode::OffsetBeyondEnd, "its end, 3");
    assert_eq!(fetched(&node, "g", &[]).await, [(0, 3)], "all of a commit or nothing");
    node.stop().await;
}

#[tokio::test]
async fn the_lag_is_told_by_the_partitions_ends_with_members_and_without() {
    let node = with_records(5).await;
    let describe = async |group: &str| {
        let request = v1::DescribeGroupRequest { group: group.to_owned(), with_lag: true };
        // On a busy machine the end may not be known in time.
        eventually(async || {
            let described = node.groups().describe_group(request.clone()).await.unwrap();
            let lags = described.into_inner().lags;
            lags.iter().all(|lag| lag.lag.is_some()).then_some(lags)
        })
        .await
    };
    committed(&node, commit("dead", vec![offset(1, 2)])).await;
    let lags = describe("dead").await;
    let [lag] = &lags[..] else { panic!("{lags:?}") };
    assert_eq!((lag.partition, lag.group_offset, lag.high_watermark), (1, Some(2), Some(5)));
    assert_eq!((lag.lag, lag.log_start_offset, lag.member_id.as_str()), (Some(3), Some(0), ""));
    eventually(async || (describe("dead").await[0].lag_ms? > 20).then_some(())).await;
    committed(&node, commit("dead", vec![offset(1, 5)])).await;
    let lags = describe("dead").await;
    assert_eq!((lags[0].lag, lags[0].lag_ms), (Some(0), Some(0)));

    // A member's partitions count before it has committed anything.
    heard(&node, joins("alive", "m")).await;
    let lags = describe("alive").await;
    let rows: Vec<_> =
        lags.iter().map(|it| (it.partition, it.group_offset, it.lag, &it.member_id)).collect();
    let member = "m".to_owned();
    assert_eq!(rows, [(0, None, Some(5), &member), (1, None, Some(5), &member)]);
    node.stop().await;
}

#[tokio::test]
async fn groups_are_listed_in_pages() {
    let node = with_records(1).await;
    let names: Vec<String> = (0..7).map(|number| format!("group-{number}")).collect();
    for name in &names {
        committed(&node, commit(name, vec![offset(0, 1)])).await;
    }
    let list = async |after: &str, limit| {
        let request =
            v1::ListGroupsRequest { after: after.to_owned(), limit, coordinators: vec![] };
        let page = node.groups().list_groups(request).await.unwrap().into_inner();
        (page.groups, page.more)
    };
    assert_eq!(list("", 0).await, (names.clone(), false));
    assert_eq!(list("", 3).await, (names[..3].to_vec(), true));
    assert_eq!(list("group-2", 3).await, (names[3..6].to_vec(), true));
    assert_eq!(list("group-5", 3).await, (names[6..].to_vec(), false));
    assert_eq!(list("group-3", 3).await, (names[4..].to_vec(), false));
    assert_eq!(list("zzz", 3).await, (Vec::new(), false));
    let wrong = v1::ListGroupsRequest { after: "a\nb".to_owned(), ..Default::default() };
    refused(node.groups().list_groups(wrong).await, ErrorCode::InvalidArgument, "group: ");
    node.stop().await;
}

#[tokio::test]
async fn who_is_no_owner_any_more_is_told_by_what_it_lost() {
    let node = with_records(3).await;
    let named = |id: &str| v1::GroupHeartbeatRequest {
        instance_id: "pod-1".to_owned(),
        ..joins("named", id)
    };
    let first = heard(&node, named("a")).await;
    let second = heard(&node, named("b")).await;
    let send = async |request| node.groups().group_heartbeat(request).await;
    let older = v1::GroupHeartbeatRequest { generation: first.generation, ..named("a") };
    refused(send(older).await, ErrorCode::GroupInstanceFenced, "another process");
    let by = |id: &str, generation| v1::CommitOffsetsRequest {
        member_id: id.to_owned(),
        generation,
        ..commit("named", vec![offset(0, 1)])
    };
    let commit_by = async |request| node.groups().commit_offsets(request).await;
    let fenced = commit_by(by("a", first.generation)).await;
    refused(fenced, ErrorCode::UnknownMember, "new member id");
    commit_by(by("b", second.generation)).await.unwrap();

    // The second member of a group of two has one of the two partitions, or none yet.
    let one = heard(&node, joins("shared", "one")).await;
    let two = heard(&node, joins("shared", "two")).await;
    let not_its_own = v1::CommitOffsetsRequest {
        member_id: "two".to_owned(),
        generation: two.generation,
        ..commit("shared", vec![offset(0, 1), offset(1, 1)])
    };
    refused(commit_by(not_its_own).await, ErrorCode::PartitionNotOwned, "does not own");
    assert!(two.generation > one.generation);
    let stranger = v1::CommitOffsetsRequest {
        member_id: "nobody".to_owned(),
        generation: 1,
        ..commit("shared", vec![offset(0, 1)])
    };
    refused(commit_by(stranger).await, ErrorCode::UnknownMember, "no such member");
    assert_eq!(fetched(&node, "shared", &[]).await, []);
    node.stop().await;
}

#[tokio::test]
async fn a_group_of_ten_thousand_members_is_refused_and_goes_on() {
    const WANTED: usize = 1_020;
    let node = Running::with_topic().await;
    let first =
        v1::GroupHeartbeatRequest { session_timeout_ms: 600_000, ..joins("crowd", "member-0") };
    heard(&node, first).await;
    let join = |number: usize| {
        let mut groups = node.groups();
        // Nobody is expired before all have come.
        let request = v1::GroupHeartbeatRequest {
            session_timeout_ms: 600_000,
            ..joins("crowd", &format!("member-{number}"))
        };
        async move { groups.group_heartbeat(request).await }
    };
    // As many as 10,000 would be refused like these twenty; they would only take longer.
    let joined: Vec<_> =
        futures::stream::iter((1..WANTED).map(join)).buffer_unordered(64).collect().await;
    let (in_it, refusals): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
    assert_eq!((in_it.len(), refusals.len()), (999, 20));
    for refusal in refusals {
        refused(refusal, ErrorCode::GroupFull, "has 1000 members, and no group has more");
    }
    let describe = v1::DescribeGroupRequest { group: "crowd".to_owned(), with_lag: false };
    let described = node.groups().describe_group(describe).await.unwrap().into_inner();
    assert_eq!(described.members.len(), 1_000);
    node.stop().await;
}
