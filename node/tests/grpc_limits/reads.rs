//! Reads: what they serve, and what they refuse.

use futures::StreamExt;
use node::metrics::Level;
use quipu_proto::v1;
use quipu_proto::v1::list_offsets_request::Position;
use quipu_proto::v1::{ErrorCode, ReadLevel};

use crate::running::{Running, TOPIC, batch, error_of, fetch, refused};

fn follow(offset: u64) -> v1::FollowRequest {
    v1::FollowRequest { topic: TOPIC.to_owned(), offset, ..v1::FollowRequest::default() }
}

fn list(position: Option<Position>, level: i32) -> v1::ListOffsetsRequest {
    v1::ListOffsetsRequest { topic: TOPIC.to_owned(), partition: 0, level, position }
}

#[tokio::test]
async fn a_fetch_says_who_served_it_and_is_counted_there() {
    let node = Running::with_topic().await;
    node.append(batch(&["a", "b"])).await;
    let fetched = node.log().fetch(fetch(TOPIC, 0, 1)).await.unwrap().into_inner();
    // The batch that holds the offset comes whole.
    assert_eq!((fetched.next_offset, fetched.high_watermark), (2, 2));
    assert_eq!((fetched.served_by, fetched.staleness_ms), (1, Some(0)));
    let bytes = u64::try_from(fetched.record_set.len()).unwrap();
    assert!(bytes > 0);
    assert_eq!(node.metrics.fetch.bytes.at(Level::Linearizable).get(), bytes);
    let committed = v1::FetchRequest { level: ReadLevel::Committed.into(), ..fetch(TOPIC, 0, 2) };
    let fetched = node.log().fetch(committed).await.unwrap().into_inner();
    assert!(fetched.record_set.is_empty());
    assert_eq!(fetched.next_offset, 2);
    assert_eq!(node.metrics.fetch.requests.at(Level::Committed).get(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_what_is_appended_meanwhile() {
    let node = Running::with_topic().await;
    let waiting = v1::FetchRequest { min_bytes: 1, max_wait_ms: 20_000, ..fetch(TOPIC, 0, 0) };
    let mut log = node.log();
    let (fetched, _) = tokio::join!(log.fetch(waiting), node.append(batch(&["a"])));
    assert_eq!(fetched.unwrap().into_inner().next_offset, 1);
    node.stop().await;
}

#[tokio::test]
async fn an_offset_out_of_range_is_told_with_the_range() {
    let node = Running::with_topic().await;
    node.append(batch(&["a"])).await;
    let error = refused(
        node.log().fetch(fetch(TOPIC, 0, 5)).await,
        ErrorCode::OffsetOutOfRange,
        "has offsets 0 to 1",
    );
    assert_eq!((error.log_start_offset, error.high_watermark), (Some(0), Some(1)));
    let mut messages = node.log().follow(follow(5)).await.unwrap().into_inner();
    let status = messages.next().await.unwrap().unwrap_err();
    assert_eq!(error_of(&status).code(), ErrorCode::OffsetOutOfRange);
    assert!(messages.next().await.is_none(), "an error is the end");
    assert_eq!(node.metrics.fetch.errors.at(ErrorCode::OffsetOutOfRange).get(), 2);
    node.stop().await;
}

#[tokio::test]
async fn a_read_of_what_is_not_there_says_so() {
    let node = Running::with_topic().await;
    refused(node.log().fetch(fetch("none", 0, 0)).await, ErrorCode::UnknownTopic, "quipu topic");
    let partition = node.log().fetch(fetch(TOPIC, 7, 0)).await;
    refused(partition, ErrorCode::UnknownPartition, "it has 2");
    let request = v1::FollowRequest { topic: "none".to_owned(), ..follow(0) };
    refused(node.log().follow(request).await, ErrorCode::UnknownTopic, "quipu topic");
    let request = v1::FollowRequest { partition: 2, ..follow(0) };
    refused(node.log().follow(request).await, ErrorCode::UnknownPartition, "it has 2");
    let level = v1::FetchRequest { level: 9, ..fetch(TOPIC, 0, 0) };
    refused(node.log().fetch(level).await, ErrorCode::InvalidArgument, "level: ");
    let nowhere = node.log().list_offsets(list(None, 0)).await;
    refused(nowhere, ErrorCode::InvalidArgument, "position: ");
    let bounded = list(Some(Position::Latest(true)), ReadLevel::Bounded.into());
    refused(node.log().list_offsets(bounded).await, ErrorCode::InvalidArgument, "level: ");
    node.stop().await;
}

#[tokio::test]
async fn a_follow_begins_at_once_and_goes_on_with_what_comes() {
    let node = Running::with_topic().await;
    for level in [ReadLevel::Linearizable, ReadLevel::Committed, ReadLevel::Bounded] {
        let start = node.append(batch(&["before"])).await.base_offset.unwrap() + 1;
        let request = v1::FollowRequest { level: level.into(), max_lag_ms: 1_000, ..follow(start) };
        let mut messages = node.log().follow(request).await.unwrap().into_inner();
        let first = messages.next().await.unwrap().unwrap();
        assert!(first.record_set.is_empty());
        assert_eq!((first.next_offset, first.high_watermark), (start, start));
        for offset in start..start + 3 {
            node.append(batch(&["more"])).await;
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message.next_offset, offset + 1);
            assert_eq!(message.served_by, 1);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_position_and_by_time() {
    let node = Running::with_topic().await;
    let first = node.append(batch(&["a", "b"])).await;
    let find = async |position| {
        let found = node.log().list_offsets(list(Some(position), 0)).await.unwrap().into_inner();
        assert_eq!((found.log_start_offset, found.high_watermark), (0, 2));
        found.offset
    };
    assert_eq!(find(Position::Earliest(true)).await, 0);
    assert_eq!(find(Position::Latest(true)).await, 2);
    assert_eq!(find(Position::EntryTimeMs(first.entry_time_ms)).await, 0);
    assert_eq!(find(Position::EntryTimeMs(u64::MAX)).await, 2);
    assert_eq!(find(Position::EventTimeMs(1)).await, 0);
    assert_eq!(find(Position::EventTimeMs(2)).await, 2);
    node.stop().await;
}
