//! The producer: order, once, back-pressure, failover.

use std::time::Duration;

use futures::future::join_all;
use quipu_client::{
    Client, Code, Delivery, ErrorCode, Outcome, ProduceError, ProduceRecord, Producer,
    ProducerConfig,
};
use tokio::time::Instant;

use crate::fake::{FakeCluster, Fate, address, final_refusal, refusal, settle, unknown};

/// Batches of one record each, so that many are on their way.
fn small_batches() -> ProducerConfig {
    ProducerConfig { linger: Duration::ZERO, batch_bytes: 80, ..ProducerConfig::default() }
}

fn record(value: &str) -> ProduceRecord {
    ProduceRecord { partition: Some(0), ..ProduceRecord::new("t", value.to_owned()) }
}

async fn send_all(producer: &Producer, values: &[String]) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(producer.send(record(value)).await);
    }
    deliveries
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("value-{number:04}")).collect()
}

async fn producer(cluster: &FakeCluster, config: ProducerConfig) -> (Client, Producer) {
    let client = cluster.client().await;
    let producer = client.producer(config).expect("a valid configuration");
    (client, producer)
}

#[tokio::test(start_paused = true)]
async fn records_arrive_in_order_and_each_is_told_its_offset() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, ProducerConfig::default()).await;
    let values = numbered(1000);
    let deliveries = send_all(&producer, &values).await;
    for (expected, delivery) in (0..).zip(deliveries) {
        let metadata = delivery.await.unwrap();
        assert_eq!((metadata.offset, metadata.partition), (Some(expected), 0));
        assert!(!metadata.duplicate);
    }
    assert_eq!(cluster.values(0), values);
    let batches = cluster.partition(0, |partition| partition.batch_sizes());
    assert!(batches.len() < 20, "records share batches: {batches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_record_is_sent_when_it_has_lingered() {
    let cluster = FakeCluster::start(1);
    let linger = Duration::from_millis(50);
    let config = ProducerConfig { linger, ..ProducerConfig::default() };
    let (_client, producer) = producer(&cluster, config).await;
    let begun = Instant::now();
    producer.send(record("a")).await.await.unwrap();
    assert!(begun.elapsed() >= linger);
    assert!(begun.elapsed() < linger * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_flush_does_not_wait_for_the_linger_and_ends_when_all_is_acknowledged() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { linger: Duration::from_secs(60), ..ProducerConfig::default() };
    let (_client, producer) = producer(&cluster, config).await;
    let begun = Instant::now();
    let delivery = producer.send(record("a")).await;
    producer.flush().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(cluster.values(0), ["a"]);
    delivery.await.unwrap();
    producer.flush().await;
}

#[tokio::test(start_paused = true)]
async fn keys_choose_the_partition_as_kafka_does() {
    let cluster = FakeCluster::start(3);
    let (_client, producer) = producer(&cluster, ProducerConfig::default()).await;
    let mut seen = std::collections::BTreeSet::new();
    for key in ["21", "foobar", "abc", "a", "b", "c"] {
        let delivery = producer.send(ProduceRecord::keyed("t", key, "v")).await;
        let metadata = delivery.await.unwrap();
        assert_eq!(metadata.partition, quipu_batch::partition_of_key(key.as_bytes(), 3));
        seen.insert(metadata.partition);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_use_all_partitions() {
    let cluster = FakeCluster::start(4);
    let (_client, producer) = producer(&cluster, ProducerConfig::default()).await;
    for _ in 0..8 {
        producer.send(ProduceRecord::new("t", "v")).await.await.unwrap();
    }
    for partition in 0..4 {
        assert_eq!(cluster.values(partition).len(), 2, "partition {partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn order_and_once_survive_every_kind_of_trouble() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { in_flight: 8, ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    let trouble = [
        Fate::Refused(refusal(ErrorCode::Overloaded)),
        Fate::WrittenThenError(unknown(ErrorCode::TimedOut)),
        Fate::Broken,
        Fate::WrittenThenBroken,
        Fate::WrittenThenSilent,
        Fate::Silent,
        Fate::Refused(refusal(ErrorCode::LeaderUnknown)),
        Fate::Refused(unknown(ErrorCode::LeadershipLost)),
    ];
    for fate in trouble {
        cluster.decide([Fate::Fine, Fate::Fine, fate, Fate::Fine]);
    }
    let values = numbered(100);
    let deliveries = send_all(&producer, &values).await;
    for (expected, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await.unwrap().offset, Some(expected));
    }
    assert_eq!(cluster.values(0), values);
    let producers = cluster.partition(0, |partition| partition.producers());
    assert_eq!(producers, 1, "nothing failed for good, so the producer id stays");
}

#[tokio::test(start_paused = true)]
async fn order_and_once_survive_failovers_under_load() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { in_flight: 32, ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    let values = numbered(600);
    let mut deliveries = Vec::new();
    for (number, value) in values.iter().enumerate() {
        match number {
            100 => cluster.elect(Some(2)),
            200 => {
                cluster.network.kill(&address(2));
                cluster.elect(None);
            }
            250 => cluster.elect(Some(3)),
            300 => cluster.network.revive(&address(2)),
            400 => {
                cluster.network.silence(&address(3));
                cluster.elect(Some(1));
            }
            500 => cluster.network.cut(&address(1)),
            _ => {}
        }
        deliveries.push(producer.send(record(value)).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for (expected, delivery) in (0..).zip(deliveries) {
        assert_eq!(delivery.await.unwrap().offset, Some(expected));
    }
    assert_eq!(cluster.values(0), values);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_left_when_another_is_elected() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    producer.send(record("a")).await.await.unwrap();
    cluster.network.silence(&address(1));
    cluster.elect(Some(2));
    let begun = Instant::now();
    producer.send(record("b")).await.await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_lost_while_others_are_answered_is_sent_again() {
    let cluster = FakeCluster::start(2);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    producer.send(record("a")).await.await.unwrap();
    cluster.decide([Fate::Silent]);
    let begun = Instant::now();
    let lost = producer.send(record("b")).await;
    let others = async {
        loop {
            let other = ProduceRecord { partition: Some(1), ..ProduceRecord::new("t", "c") };
            producer.send(other).await.await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        biased;
        delivered = lost => assert_eq!(delivered.unwrap().offset, Some(1)),
        () = others => {}
    }
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_final_refusal_the_records_behind_it_are_appended_in_order() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    cluster.decide([Fate::Fine, Fate::Refused(final_refusal(ErrorCode::BatchUnsupported))]);
    let values = numbered(20);
    let results = join_all(send_all(&producer, &values).await).await;
    let failed: Vec<usize> = (0..20).filter(|number| results[*number].is_err()).collect();
    assert_eq!(failed, [1]);
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Definite);
    assert_eq!(error.code(), Code::Server(ErrorCode::BatchUnsupported));
    let mut expected = values;
    expected.remove(1);
    assert_eq!(cluster.values(0), expected);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_producer_goes_on_under_another_id() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    producer.send(record("a")).await.await.unwrap();
    cluster.partition(0, |partition| partition.forget_producers());
    producer.send(record("b")).await.await.unwrap();
    assert_eq!(cluster.values(0), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_sent_expires_definitely_and_others_go_on() {
    let cluster = FakeCluster::start(2);
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    cluster.partition(0, |partition| partition.leader = None);
    let begun = Instant::now();
    let stuck = producer.send(record("a")).await;
    let other = ProduceRecord { partition: Some(1), ..ProduceRecord::new("t", "b") };
    producer.send(other).await.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "one partition does not hold up another");
    let error = stuck.await.unwrap_err();
    assert!(matches!(error, ProduceError::Expired { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Definite);
    assert!(begun.elapsed() >= Duration::from_secs(10));
    assert!(begun.elapsed() < Duration::from_secs(11));
    cluster.partition(0, |partition| partition.leader = Some(1));
    producer.send(record("c")).await.await.unwrap();
    assert_eq!(cluster.values(0), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_sent_expires_with_an_unknown_outcome() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(3), ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    cluster.decide([Fate::WrittenThenSilent, Fate::Silent]);
    let first = producer.send(record("first value")).await;
    let second = producer.send(record("second value")).await;
    let error = first.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let error = second.await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    settle().await;
    producer.send(record("third value")).await.await.unwrap();
    assert_eq!(cluster.values(0), ["first value", "third value"]);
}

#[tokio::test(start_paused = true)]
async fn without_numbers_nothing_of_unknown_outcome_is_sent_again() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { idempotent: false, ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    cluster.decide([
        Fate::Refused(refusal(ErrorCode::Overloaded)),
        Fate::Fine,
        Fate::WrittenThenError(unknown(ErrorCode::TimedOut)),
        Fate::Fine,
    ]);
    let results = join_all(send_all(&producer, &numbered(3)).await).await;
    let outcomes: Vec<Option<Outcome>> =
        results.iter().map(|result| result.as_ref().err().map(ProduceError::outcome)).collect();
    assert_eq!(outcomes, [None, Some(Outcome::Unknown), None]);
    assert_eq!(cluster.values(0), numbered(3));
    assert_eq!(cluster.calls(1, "new_producer"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_holds_the_sender_up_until_there_is_room() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { buffer_bytes: 300, batch_bytes: 300, ..small_batches() };
    let (_client, producer) = producer(&cluster, config).await;
    cluster.elect(None);
    let mut deliveries = vec![
        producer.send(record(&"x".repeat(80))).await,
        producer.send(record(&"y".repeat(80))).await,
    ];
    let begun = Instant::now();
    let ((), third) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cluster.elect(Some(1));
        },
        producer.send(record(&"z".repeat(80))),
    );
    assert!(begun.elapsed() >= Duration::from_secs(5), "the buffer is full");
    deliveries.push(third);
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    assert_eq!(cluster.values(0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_sent_is_refused_at_once() {
    let cluster = FakeCluster::start(2);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    let large = producer.send(record(&"x".repeat(1000))).await.await.unwrap_err();
    assert!(matches!(large, ProduceError::InvalidRecord(_)), "{large}");
    let nowhere = ProduceRecord { partition: Some(2), ..ProduceRecord::new("t", "v") };
    let nowhere = producer.send(nowhere).await.await.unwrap_err();
    assert!(matches!(nowhere, ProduceError::UnknownPartition { partition_count: 2, .. }));
    let unknown = producer.send(ProduceRecord::new("nowhere", "v")).await.await.unwrap_err();
    assert_eq!(unknown.code(), Code::Server(ErrorCode::UnknownTopic));
    for error in [large, unknown] {
        assert_eq!(error.outcome(), Outcome::Definite);
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_a_topic_that_is_deleted_fail() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    producer.send(record("a")).await.await.unwrap();
    cluster.state().topics.clear();
    let begun = Instant::now();
    let error = producer.send(record("b")).await.await.unwrap_err();
    assert_eq!(error.code(), Code::Server(ErrorCode::UnknownTopic));
    assert_eq!(error.outcome(), Outcome::Definite);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_producer_is_made_before_any_node_gives_an_id() {
    let cluster = FakeCluster::start(1);
    let (_client, producer) = producer(&cluster, small_batches()).await;
    for _ in 0..3 {
        cluster.state().refusals.push_back(refusal(ErrorCode::LeaderUnknown));
    }
    producer.send(record("a")).await.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_what_was_handed_over_and_refuses_what_comes_later() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { linger: Duration::from_secs(60), ..ProducerConfig::default() };
    let (_client, producer) = producer(&cluster, config).await;
    let delivery = producer.send(record("a")).await;
    producer.close().await;
    assert_eq!(cluster.values(0), ["a"]);
    delivery.await.unwrap();
    let error = producer.send(record("b")).await.await.unwrap_err();
    assert_eq!(error, ProduceError::Closed { outcome: Outcome::Definite });
    producer.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_producer_still_sends_what_it_took() {
    let cluster = FakeCluster::start(1);
    let config = ProducerConfig { linger: Duration::from_secs(60), ..ProducerConfig::default() };
    let (_client, producer) = producer(&cluster, config).await;
    let delivery = producer.send(record("a")).await;
    drop(producer);
    delivery.await.unwrap();
    assert_eq!(cluster.values(0), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn compressed_batches_are_what_was_sent() {
    let cluster = FakeCluster::start(1);
    for compression in [quipu_client::Compression::Lz4, quipu_client::Compression::Zstd] {
        let config = ProducerConfig { compression, ..ProducerConfig::default() };
        let (_client, producer) = producer(&cluster, config).await;
        for delivery in send_all(&producer, &numbered(100)).await {
            delivery.await.unwrap();
        }
    }
    assert_eq!(cluster.values(0), [numbered(100), numbered(100)].concat());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_calls() {
    async fn run() -> (Vec<String>, Duration) {
        let cluster = FakeCluster::start(3);
        let begun = Instant::now();
        let (_client, producer) = producer(&cluster, small_batches()).await;
        let mut deliveries = Vec::new();
        for number in 0..60 {
            if number == 20 {
                cluster.network.kill(&address(1));
                cluster.elect(Some(2));
            }
            deliveries.push(producer.send(ProduceRecord::new("t", "v")).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let calls = cluster.state().calls.clone();
        (calls, begun.elapsed())
    }
    let first = run().await;
    assert_eq!(first, run().await);
}
