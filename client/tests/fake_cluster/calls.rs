//! Connecting, finding the leader, one-shot appends and reads.

use std::time::Duration;

use quipu_client::{
    AppendError, AppendOptions, AppendRecord, Client, ClientConfig, Code, ConnectError, ErrorCode,
    FetchOptions, Outcome, Position, ReadError, ReadLevel,
};
use tokio::time::Instant;

use crate::fake::{FakeCluster, Fate, address, final_refusal, refusal, settle, unknown};

fn one(value: &str) -> Vec<AppendRecord> {
    vec![AppendRecord::new(value.to_owned())]
}

fn expecting(end_offset: u64) -> AppendOptions {
    AppendOptions { expect_end_offset: Some(end_offset), ..AppendOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_client_connects_while_any_of_its_nodes_answers() {
    let cluster = FakeCluster::start(1);
    cluster.network.kill(&address(1));
    cluster.network.silence(&address(2));
    let begun = Instant::now();
    let client = Client::connect(cluster.config()).await.expect("node 3 is up");
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(client.admin().describe_cluster().await.unwrap().nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_any_node_the_reason_is_told_for_each() {
    let cluster = FakeCluster::start(1);
    for node in 1..=3 {
        cluster.network.kill(&address(node));
    }
    let error = Client::connect(cluster.config()).await.unwrap_err();
    let ConnectError::Unreachable { tried } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 3);
    assert!(tried.iter().all(|(_, error)| error.code == Code::Unreachable), "{error}");
    assert_eq!(error.outcome(), Outcome::Definite);
}

#[tokio::test(start_paused = true)]
async fn an_append_finds_the_leader_and_tells_where_it_went() {
    let cluster = FakeCluster::start(3);
    cluster.elect(Some(2));
    let client = cluster.client().await;
    let first = client.append("t", 1, one("a"), AppendOptions::default()).await.unwrap();
    let second = client.append("t", 1, one("b"), AppendOptions::default()).await.unwrap();
    assert_eq!((first.base_offset, second.base_offset), (Some(0), Some(1)));
    assert_eq!((first.record_count, first.duplicate, first.leader_epoch), (1, false, 2));
    assert_eq!(cluster.values(1), ["a", "b"]);
    assert_eq!(cluster.calls(2, "append"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_moved_leader_is_followed_by_its_hint_without_a_pause() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.append("t", 0, one("a"), AppendOptions::default()).await.unwrap();
    cluster.elect(Some(3));
    let begun = Instant::now();
    client.append("t", 0, one("b"), AppendOptions::default()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(5), "{:?}", begun.elapsed());
    assert_eq!(cluster.calls(3, "append"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_append_waits_for_an_election() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.elect(None);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.append("t", 0, one("a"), AppendOptions::default()).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.elect(Some(2));
    let elected = Instant::now();
    waiting.await.unwrap().unwrap();
    assert!(elected.elapsed() < Duration::from_millis(400), "{:?}", elected.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_as_soon_as_another_is_elected() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.append("t", 0, one("a"), AppendOptions::default()).await.unwrap();
    cluster.network.kill(&address(1));
    cluster.elect(Some(2));
    let begun = Instant::now();
    let appended = client.append("t", 0, one("b"), AppendOptions::default()).await;
    // The request may have left on the dying connection.
    if let Err(error) = appended {
        assert_eq!(error.outcome(), Outcome::Unknown);
        client.append("t", 0, one("b"), AppendOptions::default()).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_because_its_node_is_dead_is_sent_to_the_next_leader() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.append("t", 0, one("a"), AppendOptions::default()).await.unwrap();
    cluster.network.kill(&address(1));
    settle().await;
    cluster.elect(Some(2));
    client.append("t", 0, one("b"), AppendOptions::default()).await.unwrap();
    let error = client.admin().at_node(1).health().await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Code::Unreachable, Outcome::Definite));
}

#[tokio::test]
async fn a_tcp_connection_that_is_refused_is_definite() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::connect(ClientConfig::new([address])).await.unwrap_err();
    let ConnectError::Unreachable { tried } = error else { panic!("{error}") };
    assert_eq!(tried[0].1.code, Code::Unreachable);
    assert_eq!(tried[0].1.outcome, Outcome::Definite);
}

#[tokio::test]
async fn nodes_are_reached_over_tcp() {
    let cluster = FakeCluster::start(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    cluster.serve_tcp(1, listener);
    let client = Client::connect(ClientConfig::new([address.clone()])).await.unwrap();
    let described = client.admin().at_address(address).describe_cluster().await.unwrap();
    assert_eq!(described.asked_node, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_left_by_what_may_be_repeated_when_another_is_elected() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.list_offsets("t", 0, Position::Latest).await.unwrap();
    cluster.network.silence(&address(1));
    let begun = Instant::now();
    let elect = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        cluster.elect(Some(2));
    };
    let (found, ()) = tokio::join!(client.list_offsets("t", 0, Position::Latest), elect);
    found.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(2000), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_append_is_not_sent_again_once_it_may_have_happened() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let fates = [
        Fate::WrittenThenError(unknown(ErrorCode::TimedOut)),
        Fate::WrittenThenBroken,
        Fate::WrittenThenSilent,
    ];
    for (written, fate) in (1..).zip(fates) {
        cluster.decide([fate]);
        let error = client.append("t", 0, one("x"), AppendOptions::default()).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(cluster.values(0).len(), written);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_with_an_identity_is_sent_again_and_written_once() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let identity = client.new_producer().await.unwrap();
    cluster.decide([
        Fate::Refused(refusal(ErrorCode::Overloaded)),
        Fate::WrittenThenError(unknown(ErrorCode::TimedOut)),
        Fate::Broken,
    ]);
    let options = AppendOptions { identity: Some(identity), ..AppendOptions::default() };
    let appended = client.append("t", 0, one("a"), options).await.unwrap();
    assert!(appended.duplicate);
    assert_eq!(appended.base_offset, Some(0));
    assert_eq!(cluster.values(0), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_conditional_append_that_does_not_hold_tells_the_actual_end() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.append("t", 0, one("a"), expecting(0)).await.unwrap();
    let error = client.append("t", 0, one("b"), expecting(0)).await.unwrap_err();
    assert_eq!(error, AppendError::EndOffsetConflict { expected: 0, end_offset: 1 });
    assert_eq!(error.outcome(), Outcome::Definite);
    assert!(!error.retriable());
    assert_eq!(cluster.values(0), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_node_is_given_the_time_it_asks_for() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let mut overloaded = refusal(ErrorCode::Overloaded);
    overloaded.retry_after_ms = 2000;
    cluster.decide([Fate::Refused(overloaded)]);
    let begun = Instant::now();
    client.append("t", 0, one("a"), AppendOptions::default()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_final_refusal_is_reported_at_once() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.decide([Fate::Refused(final_refusal(ErrorCode::DiskFull))]);
    let error = client.append("t", 0, one("a"), AppendOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Server(ErrorCode::DiskFull));
    assert_eq!(cluster.calls(1, "append"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_in_time_when_the_cluster_is_gone() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    for node in 1..=3 {
        cluster.network.silence(&address(node));
    }
    let begun = Instant::now();
    let error = client.fetch("t", 0, 0, FetchOptions::default()).await.unwrap_err();
    assert!(error.retriable(), "{error}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(20) && took <= Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_unknown_only_if_every_node_says_so() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.state().ignorant.extend([1, 2]);
    assert_eq!(client.partition_count("t").await, Ok(1));
    let error = client.partition_count("nowhere").await.unwrap_err();
    assert!(error.is(ErrorCode::UnknownTopic), "{error}");
    assert_eq!(error.outcome, Outcome::Definite);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_not_joined_is_passed_over_but_a_cluster_that_is_not_there_is_told() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.state().strangers.extend([1, 3]);
    for _ in 0..3 {
        client.new_producer().await.unwrap();
    }
    cluster.state().strangers.insert(2);
    let begun = Instant::now();
    let error = client.new_producer().await.unwrap_err();
    assert!(error.is(ErrorCode::NotInitialized), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_there_is_refused_without_sending() {
    let cluster = FakeCluster::start(2);
    let client = cluster.client().await;
    let error = client.append("t", 2, one("a"), AppendOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Server(ErrorCode::UnknownPartition));
    assert_eq!(error.outcome(), Outcome::Definite);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_that_lost_their_leader_ask_the_cluster_once() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let calls = (0..1000).map(|_| client.list_offsets("t", 0, Position::Latest));
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    let asked: usize = (1..=3).map(|node| cluster.calls(node, "describe_topic")).sum();
    assert_eq!(asked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_from_the_middle_of_a_batch_begins_at_the_offset_asked_for() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let records = ["a", "b", "c"].map(|value| AppendRecord::new(value.as_bytes())).to_vec();
    client.append("t", 0, records, AppendOptions::default()).await.unwrap();
    let fetched = client.fetch("t", 0, 1, FetchOptions::default()).await.unwrap();
    let offsets: Vec<u64> = fetched.records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [1, 2]);
    assert_eq!((fetched.next_offset, fetched.high_watermark, fetched.served_by), (3, 3, 1));
    let first = &fetched.records[0];
    assert_eq!((first.topic.as_str(), first.partition, first.leader_epoch), ("t", 0, 1));
    assert_eq!(first.value.as_deref(), Some(b"b".as_slice()));
    assert_eq!(first.timestamp_ms, crate::fake::NOW_MS);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_at_the_end_waits_for_a_record_if_asked_to() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    let options = FetchOptions {
        level: ReadLevel::Bounded(Duration::from_secs(1)),
        min_bytes: 1,
        max_wait: Duration::from_secs(60),
        ..FetchOptions::default()
    };
    let waiting = tokio::spawn(async move { client.fetch("t", 0, 0, options).await });
    tokio::time::sleep(Duration::from_secs(30)).await;
    cluster.partition(0, |partition| partition.add("late"));
    assert_eq!(waiting.await.unwrap().unwrap().records.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn damaged_bytes_are_never_given_out() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.partition(0, |partition| {
        partition.add("a");
        partition.damage(0);
    });
    let error = client.fetch("t", 0, 0, FetchOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { offset: 0, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn missing_records_are_reported_and_not_skipped() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.partition(0, |partition| {
        partition.fill(&["a", "b", "c"]);
        partition.lose(1);
    });
    let error = client.fetch("t", 0, 1, FetchOptions::default()).await.unwrap_err();
    assert_eq!(error, ReadError::Gap { expected: 1, found: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outside_the_partition_tells_its_bounds() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.partition(0, |partition| partition.add("a"));
    let error = client.fetch("t", 0, 5, FetchOptions::default()).await.unwrap_err();
    let expected =
        ReadError::OffsetOutOfRange { offset: 5, log_start_offset: 0, high_watermark: 1 };
    assert_eq!(error, expected);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_position_and_time() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    cluster.partition(0, |partition| {
        partition.fill(&["a", "b", "c"]);
        partition.log_start = 1;
    });
    for (position, expected) in [
        (Position::Earliest, 1),
        (Position::Latest, 3),
        (Position::EntryTime(2), 2),
        (Position::EventTime(9), 3),
    ] {
        let found = client.list_offsets("t", 0, position).await.unwrap();
        assert_eq!(found.offset, expected, "{position:?}");
        assert_eq!((found.log_start_offset, found.high_watermark), (1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_repeated_over_a_broken_connection() {
    let cluster = FakeCluster::start(1);
    let client = cluster.client().await;
    client.list_offsets("t", 0, Position::Latest).await.unwrap();
    let before = cluster.network.connections(&address(1));
    cluster.network.cut(&address(1));
    client.list_offsets("t", 0, Position::Latest).await.unwrap();
    assert_eq!(cluster.network.connections(&address(1)), before + 1);
}
