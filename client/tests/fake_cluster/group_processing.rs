//! Consuming in a group in other ways than record by record: partitions side by side, as a stream,
//! with other commit modes and starts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use quipu_client::{
    Code, CommitMode, GroupConfig, GroupConsumeError, OutOfRange, ProcessError, ResetPolicy,
};
use tokio::time::sleep;

use crate::consuming_in_groups::{
    assign, committed, config, consumer, filled, nothing_more, owned, take, values,
};
use crate::fake::settle;

/// How long a handler takes.
const WORK: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn partitions_are_handled_side_by_side_and_each_in_its_order() {
    let cluster = filled(3);
    assign(&cluster, 3, &[0, 1, 2]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    let seen = Mutex::new(Vec::new());
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = tokio::time::Instant::now();
    let stop = async {
        while seen.lock().unwrap().len() < 30 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let handle = |record: quipu_client::ConsumedRecord| {
        let (seen, now, most) = (&seen, &now, &most);
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(WORK).await;
            now.fetch_sub(1, Ordering::SeqCst);
            seen.lock().unwrap().push((record.partition, record.offset));
            Ok::<(), String>(())
        }
    };
    consumer.process(8, stop, handle).await.unwrap();
    assert_eq!(most.into_inner(), 3);
    assert!(begun.elapsed() < WORK * 20, "not one after the other: {:?}", begun.elapsed());
    let seen = seen.into_inner().unwrap();
    for partition in 0..3 {
        let of: Vec<u64> = seen.iter().filter(|it| it.0 == partition).map(|it| it.1).collect();
        assert_eq!(of, (0..10).collect::<Vec<u64>>());
    }
    assert_eq!(committed(&cluster), [(0, 10), (1, 10), (2, 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_while_it_is_at_work_ends_behind_the_record_at_work() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0, 1]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let moving = cluster.clone();
    let stop = async move {
        sleep(WORK * 5 / 2).await;
        assign(&moving, 4, &[0]);
        settle().await;
        assert_eq!(owned(&moving), [0, 1], "a record of it is at work");
        sleep(WORK * 20).await;
        assert_eq!(owned(&moving), [0]);
    };
    let handle = |record: quipu_client::ConsumedRecord| {
        let seen = noted.clone();
        async move {
            sleep(WORK).await;
            seen.lock().unwrap().push((record.partition, record.offset));
            Ok::<(), String>(())
        }
    };
    consumer.process(8, stop, handle).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    let of = |partition| seen.iter().filter(|it| it.0 == partition).count();
    let done_of_1 = u64::try_from(of(1)).unwrap();
    assert_eq!(of(0), 10);
    assert!((2..5).contains(&done_of_1), "{done_of_1}");
    assert_eq!(committed(&cluster), [(0, 10), (1, done_of_1)]);
    assert_eq!(*events.lock().unwrap(), ["assigned 0 1", "revoked 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_a_handler_fails_at_is_not_committed_and_comes_again() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    let handle = |record: quipu_client::ConsumedRecord| async move {
        if record.offset == 4 { Err("no") } else { Ok(()) }
    };
    let failed = consumer.process(8, std::future::pending(), handle).await.unwrap_err();
    let expected =
        ProcessError::Handler { topic: "t".to_owned(), partition: 0, offset: 4, error: "no" };
    assert_eq!(failed, expected);
    assert_eq!(committed(&cluster), [(0, 4)]);
    assert_eq!(take(&mut consumer, 6).await, values(0, 4..10));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_of_a_partition_that_stays_is_kept() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    assert_eq!(take(&mut consumer, 1).await, values(0, 0..1));
    settle().await;
    // From here on nobody could read the first partition anew.
    cluster.partition(0, |partition| partition.log_start = 10);
    assign(&cluster, 4, &[0, 1]);
    settle().await;
    let mut seen = take(&mut consumer, 19).await;
    assign(&cluster, 5, &[1]);
    nothing_more(&mut consumer, Duration::from_secs(3)).await;
    seen.sort();
    assert_eq!(seen, [values(0, 1..10), values(1, 0..10)].concat());
    assert!(committed(&cluster).contains(&(0, 10)));
}

#[tokio::test(start_paused = true)]
async fn without_an_offset_and_without_a_place_to_begin_it_says_so() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let strict = GroupConfig { start: ResetPolicy::None, ..config() };
    let (mut consumer, events) = consumer(&cluster, strict).await;
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(&error, GroupConsumeError::NoOffset { partition: 0, .. }), "{error:?}");
    assert!(error.to_string().contains("group g has no offset for t/0"), "{error}");
    assert_eq!((error.code(), error.retriable()), (Code::InvalidInput, false));
    assert!(events.lock().unwrap().is_empty());
    let groups = cluster.client().await.groups();
    groups.commit("g", vec![quipu_client::GroupOffset::new("t", 0, 8)]).await.unwrap();
    assert_eq!(take(&mut consumer, 2).await, values(0, 8..10));
}

#[tokio::test(start_paused = true)]
async fn a_group_without_offsets_begins_where_it_is_told() {
    for (start, first) in [
        (ResetPolicy::Earliest, 0),
        (ResetPolicy::EntryTime(6), 6),
        (ResetPolicy::EventTime(7), 7),
        (ResetPolicy::Latest, 10),
    ] {
        let cluster = filled(1);
        assign(&cluster, 3, &[0]);
        let config = GroupConfig { start, ..config() };
        let (mut consumer, _) = consumer(&cluster, config).await;
        let count = usize::try_from(10 - first).unwrap();
        assert_eq!(take(&mut consumer, count).await, values(0, first..10), "{start:?}");
        nothing_more(&mut consumer, Duration::from_secs(2)).await;
        assert_eq!(committed(&cluster), [(0, 10)], "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn automatic_commits_do_not_wait_for_the_application() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let auto = GroupConfig { commit: CommitMode::Auto(Duration::from_secs(1)), ..config() };
    let (mut consumer, _) = consumer(&cluster, auto).await;
    take(&mut consumer, 4).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(committed(&cluster), [(0, 4)], "the fourth is still at work");
    take(&mut consumer, 1).await;
    consumer.close().await.unwrap();
    assert_eq!(committed(&cluster), [(0, 5)]);
}

#[tokio::test(start_paused = true)]
async fn records_come_as_a_stream_and_a_paused_partition_waits() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0, 1]);
    let skips = quipu_client::ConsumerConfig {
        out_of_range: OutOfRange::Earliest,
        ..quipu_client::ConsumerConfig::default()
    };
    let (mut consumer, _) = consumer(&cluster, GroupConfig { consumer: skips, ..config() }).await;
    take(&mut consumer, 1).await;
    let paused = if consumer.position("t", 0) == Some(0) { 0 } else { 1 };
    consumer.pause("t", paused).unwrap();
    let others: Vec<u32> =
        consumer.records().take(9).map(|record| record.unwrap().partition).collect().await;
    assert_eq!(others.len(), 9);
    nothing_more(&mut consumer, Duration::from_secs(2)).await;
    consumer.resume("t", paused).unwrap();
    let rest: Vec<u32> =
        consumer.records().take(10).map(|record| record.unwrap().partition).collect().await;
    assert_eq!(rest, vec![paused; 10]);
}
