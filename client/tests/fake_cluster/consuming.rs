//! The consumer: nothing left out, nothing twice, whatever happens to the nodes.

use std::time::Duration;

use quipu_client::{
    Code, ConsumeError, ConsumedRecord, Consumer, ConsumerConfig, ErrorCode, OutOfRange, ReadError,
    StartAt,
};
use tokio::time::{Instant, timeout};

use crate::fake::{FakeCluster, address, refusal, settle};

async fn consumer(cluster: &FakeCluster, config: ConsumerConfig) -> Consumer {
    cluster.client().await.consumer(config).expect("a valid configuration")
}

async fn assigned(cluster: &FakeCluster, config: ConsumerConfig, start: StartAt) -> Consumer {
    let mut consumer = consumer(cluster, config).await;
    consumer.assign(vec![("t".to_owned(), 0, start)]).await.unwrap();
    consumer
}

fn fill(cluster: &FakeCluster, partition: usize, offsets: std::ops::Range<u64>) {
    cluster.partition(partition, |partition| {
        for offset in offsets {
            partition.add(&offset.to_string());
        }
    });
}

async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(next(consumer).await.offset);
    }
    offsets
}

async fn next(consumer: &mut Consumer) -> ConsumedRecord {
    consumer.next().await.expect("assigned").expect("readable")
}

async fn next_error(consumer: &mut Consumer) -> (ReadError, bool) {
    match consumer.next().await {
        Some(Err(ConsumeError::Read { source, stopped, .. })) => (source, stopped),
        other => panic!("expected an error, not {other:?}"),
    }
}

fn idle() -> Duration {
    Duration::from_secs(2)
}

#[tokio::test(start_paused = true)]
async fn every_start_is_found() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..10);
    cluster.partition(0, |partition| partition.log_start = 2);
    for (start, first) in [
        (StartAt::Earliest, 2),
        (StartAt::Offset(5), 5),
        (StartAt::Tail(3), 7),
        (StartAt::Tail(100), 2),
        (StartAt::EntryTime(4), 4),
        (StartAt::EventTime(6), 6),
    ] {
        let mut consumer = assigned(&cluster, ConsumerConfig::default(), start).await;
        assert_eq!(consumer.position("t", 0), Some(first), "{start:?}");
        assert_eq!(next(&mut consumer).await.offset, first, "{start:?}");
        assert_eq!(consumer.position("t", 0), Some(first + 1), "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_start_is_fixed_when_it_is_assigned() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..3);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Latest).await;
    fill(&cluster, 0, 3..5);
    assert_eq!(offsets(&mut consumer, 2).await, [3, 4]);
    assert_eq!(consumer.high_watermark("t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn partitions_take_turns_and_each_keeps_its_order() {
    let cluster = FakeCluster::start(3);
    for partition in 0..3 {
        fill(&cluster, partition, 0..20);
    }
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    let all = (0..3).map(|partition| ("t".to_owned(), partition, StartAt::Earliest));
    consumer.assign(all.collect()).await.unwrap();
    let mut seen = [0, 0, 0];
    for _ in 0..60 {
        let record = next(&mut consumer).await;
        let seen = &mut seen[usize::try_from(record.partition).unwrap()];
        assert_eq!(record.offset, *seen);
        *seen += 1;
    }
    assert_eq!(seen, [20, 20, 20]);
    assert!(timeout(idle(), consumer.next()).await.is_err(), "nothing more comes");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_what_one_fetch_brought() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..2);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    let batch = consumer.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.len(), 1, "the fake answers a fetch with one batch");
    assert_eq!(consumer.position("t", 0), Some(1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_skipped_or_repeated_through_failovers() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..50);
    // Little is read ahead, so that much is fetched after each failover.
    let config = ConsumerConfig { prefetch_bytes: 200, ..ConsumerConfig::default() };
    let mut consumer = assigned(&cluster, config, StartAt::Earliest).await;
    for expected in 0..50 {
        match expected {
            10 => cluster.elect(Some(2)),
            20 => {
                cluster.network.kill(&address(2));
                cluster.elect(Some(3));
            }
            30 => cluster.network.cut(&address(3)),
            40 => {
                cluster.network.silence(&address(3));
                cluster.elect(Some(1));
            }
            _ => {}
        }
        assert_eq!(next(&mut consumer).await.offset, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_next_loses_no_record() {
    let cluster = FakeCluster::start(1);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    for expected in 0..5 {
        assert!(timeout(idle(), consumer.next()).await.is_err());
        fill(&cluster, 0, expected..expected + 1);
        assert_eq!(next(&mut consumer).await.offset, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_goes_on_elsewhere_at_once() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..10);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Latest).await;
    assert!(timeout(idle(), consumer.next()).await.is_err());
    let begun = Instant::now();
    consumer.seek("t", 0, StartAt::Offset(4)).await.unwrap();
    assert_eq!(offsets(&mut consumer, 2).await, [4, 5]);
    consumer.seek("t", 0, StartAt::Earliest).await.unwrap();
    assert_eq!(consumer.position("t", 0), Some(0));
    assert_eq!(offsets(&mut consumer, 10).await, (0..10).collect::<Vec<u64>>());
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_gives_nothing_and_loses_nothing() {
    let cluster = FakeCluster::start(2);
    fill(&cluster, 0, 0..4);
    fill(&cluster, 1, 0..4);
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    let both = [0, 1].map(|partition| ("t".to_owned(), partition, StartAt::Earliest));
    consumer.assign(both.to_vec()).await.unwrap();
    let first = next(&mut consumer).await;
    consumer.pause("t", first.partition).unwrap();
    let other = 1 - first.partition;
    for expected in 0..4 {
        let record = next(&mut consumer).await;
        assert_eq!((record.partition, record.offset), (other, expected));
    }
    consumer.resume("t", first.partition).unwrap();
    assert_eq!(consumer.position("t", first.partition), Some(1));
    assert_eq!(offsets(&mut consumer, 3).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn without_anything_to_wait_for_next_ends() {
    let cluster = FakeCluster::start(1);
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    assert!(consumer.next().await.is_none());
    consumer.assign(vec![("t".to_owned(), 0, StartAt::Earliest)]).await.unwrap();
    consumer.pause("t", 0).unwrap();
    assert!(consumer.next().await.is_none());
    consumer.unassign();
    assert!(consumer.next().await.is_none());
    let error = consumer.pause("t", 0).unwrap_err();
    assert!(matches!(error, ConsumeError::NotAssigned { .. }));
}

#[tokio::test(start_paused = true)]
async fn purged_records_stop_the_partition_unless_the_policy_says_otherwise() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..10);
    cluster.partition(0, |partition| partition.log_start = 6);

    let mut strict = assigned(&cluster, ConsumerConfig::default(), StartAt::Offset(2)).await;
    let (error, stopped) = next_error(&mut strict).await;
    let expected =
        ReadError::OffsetOutOfRange { offset: 2, log_start_offset: 6, high_watermark: 10 };
    assert_eq!((error, stopped), (expected, true));
    assert!(strict.next().await.is_none());
    strict.seek("t", 0, StartAt::Earliest).await.unwrap();
    assert_eq!(next(&mut strict).await.offset, 6);

    for (out_of_range, first) in [(OutOfRange::Earliest, 6), (OutOfRange::Latest, 10)] {
        let config = ConsumerConfig { out_of_range, ..ConsumerConfig::default() };
        let mut lenient = assigned(&cluster, config, StartAt::Offset(2)).await;
        settle().await;
        if out_of_range == OutOfRange::Latest {
            fill(&cluster, 0, 10..11);
        }
        assert_eq!(next(&mut lenient).await.offset, first, "{out_of_range:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lags_is_waited_for_and_not_believed() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..10);
    cluster.partition(0, |partition| partition.high_watermark_shown = Some(3));
    let config = ConsumerConfig { out_of_range: OutOfRange::Earliest, ..ConsumerConfig::default() };
    let mut consumer = assigned(&cluster, config, StartAt::Offset(8)).await;
    assert!(timeout(idle(), consumer.next()).await.is_err());
    cluster.partition(0, |partition| partition.high_watermark_shown = None);
    assert_eq!(offsets(&mut consumer, 2).await, [8, 9]);
}

#[tokio::test(start_paused = true)]
async fn damage_stops_its_partition_after_all_that_is_sound() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..3);
    cluster.partition(0, |partition| partition.damage(2));
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    assert_eq!(offsets(&mut consumer, 2).await, [0, 1]);
    let (error, stopped) = next_error(&mut consumer).await;
    assert!(matches!(error, ReadError::Corrupt { offset: 2, .. }), "{error}");
    assert!(stopped);
    assert!(consumer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_partition_is_reported_and_tried_again() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..2);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    assert_eq!(offsets(&mut consumer, 2).await, [0, 1]);
    cluster.elect(None);
    let begun = Instant::now();
    let (error, stopped) = next_error(&mut consumer).await;
    assert_eq!(error.code(), Code::Server(ErrorCode::LeaderUnknown));
    assert!(!stopped);
    assert!(begun.elapsed() >= Duration::from_secs(25), "{:?}", begun.elapsed());
    cluster.elect(Some(2));
    fill(&cluster, 0, 2..3);
    assert_eq!(next(&mut consumer).await.offset, 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_ahead_than_configured() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..1000);
    let config = ConsumerConfig { prefetch_bytes: 1000, ..ConsumerConfig::default() };
    let mut consumer = assigned(&cluster, config, StartAt::Earliest).await;
    next(&mut consumer).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let fetches = cluster.calls(1, "fetch");
    assert!(fetches < 20, "{fetches} batches of about 70 bytes were read ahead");
    assert_eq!(offsets(&mut consumer, 999).await, (1..1000).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn an_idle_partition_costs_fewer_and_fewer_calls_until_a_record_comes() {
    let cluster = FakeCluster::start(1);
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    assert!(timeout(Duration::from_secs(60), consumer.next()).await.is_err());
    // Waits of 0.5, 1, 2 and 4 s, and then of 5 s each.
    let idle = cluster.calls(1, "fetch");
    assert!((13..=16).contains(&idle), "{idle}");
    fill(&cluster, 0, 0..1);
    assert_eq!(offsets(&mut consumer, 1).await, [0]);
    assert!(timeout(Duration::from_secs(4), consumer.next()).await.is_err());
    let after = cluster.calls(1, "fetch") - idle;
    assert!((3..=4).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_looked_up_leaves_nothing_assigned() {
    let cluster = FakeCluster::start(1);
    let mut consumer = consumer(&cluster, ConsumerConfig::default()).await;
    let wanted = ["t", "nowhere"].map(|topic| (topic.to_owned(), 0, StartAt::Earliest));
    let error = consumer.assign(wanted.to_vec()).await.unwrap_err();
    assert_eq!(error.code(), Code::Server(ErrorCode::UnknownTopic));
    assert!(consumer.assignment().is_empty());
    assert!(consumer.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn passing_trouble_is_not_reported() {
    let cluster = FakeCluster::start(1);
    fill(&cluster, 0, 0..3);
    for code in [ErrorCode::Overloaded, ErrorCode::StaleReplica, ErrorCode::Stopping] {
        cluster.state().refusals.push_back(refusal(code));
    }
    let mut consumer = assigned(&cluster, ConsumerConfig::default(), StartAt::Earliest).await;
    assert_eq!(offsets(&mut consumer, 3).await, [0, 1, 2]);
}
