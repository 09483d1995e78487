//! Appends that are refused, and append streams that go on all the same.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use quipu_batch::{BATCH_BYTES_MAX, HEADER_BYTES};
use quipu_proto::v1;
use quipu_proto::v1::append_stream_response::Result as StreamResult;
use quipu_proto::v1::{ErrorCode, Outcome};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::running::{
    Running, TOPIC, append, batch, error_of, eventually, fetch, produced, refused,
};

/// A batch with other bytes at `at`.
fn changed(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = BytesMut::from(batch(&["value"]).as_ref());
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch.freeze()
}

#[tokio::test]
async fn where_there_is_no_such_topic_or_partition_the_error_says_what_there_is() {
    let node = Running::with_topic().await;
    let unknown = node.log().append(append("ordres", 0, batch(&["a"]))).await;
    refused(unknown, ErrorCode::UnknownTopic, "quipu topic");
    let beyond = node.log().append(append(TOPIC, 2, batch(&["a"]))).await;
    refused(beyond, ErrorCode::UnknownPartition, "it has 2, numbered from 0 to 1");
    let name = node.log().append(append("or ders", 0, batch(&["a"]))).await;
    refused(name, ErrorCode::InvalidArgument, "topic: ");
    assert_eq!(node.metrics.append.errors.at(ErrorCode::UnknownTopic).get(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_batch_over_the_limit_of_its_topic_or_of_the_format_is_too_large() {
    let node = Running::with_topic().await;
    let large = batch(&["x".repeat(1_048_589).as_str()]);
    let topic = node.log().append(append(TOPIC, 0, large)).await;
    refused(topic, ErrorCode::BatchTooLarge, "max.batch.bytes is 1048588");
    let beyond = Bytes::from(vec![0; BATCH_BYTES_MAX + 1]);
    let format = node.log().append(append(TOPIC, 0, beyond)).await;
    refused(format, ErrorCode::BatchTooLarge, "8388609 bytes");
    node.must_work().await;
    node.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let node = Running::with_topic().await;
    let huge = Bytes::from(vec![0; quipu_proto::MESSAGE_BYTES_MAX + 1]);
    let refused = node.log().append(append(TOPIC, 0, huge)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused:?}");
    node.must_work().await;
    node.stop().await;
}

#[tokio::test]
async fn a_damaged_batch_is_told_from_one_of_another_format() {
    let node = Running::with_topic().await;
    let whole = batch(&["value"]);
    let (magic, attributes) = (16, 21);
    let two = Bytes::from([whole.as_ref(), whole.as_ref()].concat());
    let corrupt = ErrorCode::BatchCorrupt;
    let unsupported = ErrorCode::BatchUnsupported;
    let cases = [
        (changed(HEADER_BYTES + 3, b"X"), corrupt, "checksum"),
        (whole.slice(..whole.len() - 1), corrupt, "cut short"),
        (Bytes::new(), corrupt, "one whole record batch"),
        (two, corrupt, "one whole record batch"),
        (changed(magic, &[1]), unsupported, "format 1"),
        (changed(attributes, &[0, 1]), unsupported, "gzip"),
        (changed(attributes, &[0, 16]), unsupported, "transactional"),
        (Bytes::from_static(b"{\"not\": \"a batch\"}"), unsupported, "only 2 is"),
    ];
    for (bytes, code, says) in cases {
        refused(node.log().append(append(TOPIC, 0, bytes)).await, code, says);
    }
    let end = node.append(batch(&["the first"])).await.base_offset;
    assert_eq!(end, Some(0), "nothing of what was refused is in the log");
    node.stop().await;
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_a_conflict_that_tells_the_end() {
    let node = Running::with_topic().await;
    node.append(batch(&["a", "b"])).await;
    let expecting = |offset| v1::AppendRequest {
        expect_end_offset: Some(offset),
        ..append(TOPIC, 0, batch(&["c"]))
    };
    let error = refused(
        node.log().append(expecting(1)).await,
        ErrorCode::EndOffsetConflict,
        "the end offset of orders/0 is 2",
    );
    assert_eq!(error.end_offset, Some(2));
    let appended = node.log().append(expecting(2)).await.unwrap().into_inner();
    assert_eq!(appended.base_offset, Some(2));
    node.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_producers_sequence_is_told_with_the_way_out() {
    let node = Running::with_topic().await;
    let send = async |epoch, sequence| {
        node.log().append(append(TOPIC, 0, produced(&["a"], epoch, sequence))).await
    };
    refused(send(0, 5).await, ErrorCode::UnknownProducer, "take a new producer id");
    assert!(!send(1, 0).await.unwrap().into_inner().duplicate);
    let again = send(1, 0).await.unwrap().into_inner();
    assert_eq!((again.duplicate, again.base_offset), (true, Some(0)));
    assert!(again.entry_time_ms > 0 && again.leader_epoch > 0, "{again:?}");
    let gap = refused(send(1, 2).await, ErrorCode::SequenceOutOfOrder, "from sequence 1");
    assert_eq!(gap.sequence_expected, Some(1));
    let fenced = refused(send(0, 1).await, ErrorCode::ProducerFenced, "must stop");
    assert_eq!(fenced.producer_epoch, Some(1));
    assert_eq!(node.metrics.append.duplicates.get(), 1);
    assert_eq!(node.metrics.append.batches.get(), 1);
    node.stop().await;
}

#[tokio::test]
async fn producer_ids_are_given_out_once() {
    let node = Running::with_topic().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let given = node.log().new_producer(v1::NewProducerRequest {}).await.unwrap().into_inner();
        assert_eq!(given.producer_epoch, 0);
        ids.push(given.producer_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn a_full_node_says_overloaded_and_waits_no_longer_than_it_was_given() {
    let node = Running::with_topic_and(|config| config.append_in_flight_bytes_max = 200).await;
    let large = "x".repeat(200);
    let request = v1::AppendRequest { timeout_ms: 50, ..append(TOPIC, 0, batch(&[&large])) };
    let error = refused(
        node.log().append(request).await,
        ErrorCode::Overloaded,
        "max-append-in-flight-bytes",
    );
    assert!(error.retriable && error.retry_after_ms > 0, "{error:?}");
    node.must_work().await;
    node.stop().await;
}

#[tokio::test]
async fn a_full_disk_takes_no_appends_and_is_read_all_the_same() {
    let node = Running::with_topic_and(|config| config.disk_reserve_bytes = u64::MAX).await;
    let error = eventually(async || {
        let answer = node.log().append(append(TOPIC, 0, batch(&["a"]))).await;
        let error = error_of(&answer.err()?);
        assert_eq!(error.outcome(), Outcome::Definite);
        Some(error)
    })
    .await;
    assert_eq!(error.code(), ErrorCode::DiskFull, "{error:?}");
    assert!(error.retriable && error.message.contains("free space"), "{error:?}");
    node.log().fetch(fetch(TOPIC, 0, 0)).await.unwrap();
    let health = node.admin().health(v1::HealthRequest::default()).await.unwrap().into_inner();
    assert!(!health.healthy && health.problems[0].contains("nearly full"), "{health:?}");
    node.stop().await;
}

fn numbered(request_id: u64, append: v1::AppendRequest) -> v1::AppendStreamRequest {
    v1::AppendStreamRequest { request_id, append: Some(append) }
}

#[tokio::test]
async fn an_append_stream_keeps_the_order_and_outlives_what_it_refuses() {
    let node = Running::with_topic().await;
    let (sender, requests) = mpsc::channel(1_000);
    let mut answers =
        node.log().append_stream(ReceiverStream::new(requests)).await.unwrap().into_inner();
    for number in 0..500_u64 {
        let append = match number % 100 {
            13 => append(TOPIC, 9, batch(&["no such partition"])),
            77 => append(TOPIC, 0, changed(HEADER_BYTES + 3, b"X")),
            _ => append(TOPIC, 0, batch(&["value"])),
        };
        sender.send(numbered(number, append)).await.unwrap();
    }
    // What is sent is answered, also after this side is closed.
    drop(sender);
    let mut offsets = std::collections::BTreeMap::new();
    let mut refused = std::collections::BTreeMap::new();
    while let Some(answer) = answers.next().await {
        let v1::AppendStreamResponse { request_id, result } = answer.unwrap();
        match result.unwrap() {
            StreamResult::Appended(it) => {
                offsets.insert(request_id, it.base_offset.unwrap());
            }
            StreamResult::Error(error) => {
                refused.insert(request_id, error.code());
            }
        }
    }
    assert_eq!((offsets.len(), refused.len()), (490, 10));
    assert!(refused.iter().all(|(id, code)| match id % 100 {
        13 => *code == ErrorCode::UnknownPartition,
        77 => *code == ErrorCode::BatchCorrupt,
        _ => false,
    }));
    let in_order: Vec<u64> = offsets.into_values().collect();
    assert_eq!(in_order, (0..490).collect::<Vec<u64>>());
    assert_eq!(node.metrics.append.records.get(), 490);
    assert_eq!(node.metrics.append.in_flight_bytes.get(), 0);
    node.stop().await;
}

#[tokio::test]
async fn streams_of_a_node_that_stops_end() {
    let node = Running::with_topic().await;
    let (sender, requests) = mpsc::channel(1);
    let mut answers =
        node.log().append_stream(ReceiverStream::new(requests)).await.unwrap().into_inner();
    sender.send(numbered(1, append(TOPIC, 0, batch(&["a"])))).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().request_id, 1);
    let follow = v1::FollowRequest { topic: TOPIC.to_owned(), ..v1::FollowRequest::default() };
    let mut messages = node.log().follow(follow).await.unwrap().into_inner();
    assert!(!messages.next().await.unwrap().unwrap().record_set.is_empty());

    node.node.stop().await;
    // The reason comes where it is faster than the end of the connection.
    for end in [answers.next().await.unwrap().err(), messages.next().await.unwrap().err()] {
        let reason = quipu_proto::error_of_status(&end.unwrap()).map(|error| error.code());
        assert!(matches!(reason, None | Some(ErrorCode::Stopping)), "{reason:?}");
    }
}
