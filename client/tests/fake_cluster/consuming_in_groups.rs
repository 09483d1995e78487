//! Consuming in a group: partitions that come and go between two records, and nothing repeated but
//! what could not be committed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quipu_client::{
    Code, CommitMode, ErrorCode, GroupConfig, GroupConsumer, Listener, PartitionEvent,
};
use tokio::time::timeout;

use crate::fake::{FakeCluster, settle};

/// "assigned 0 1", "revoked 1", "lost 0".
pub(crate) type Events = Arc<Mutex<Vec<String>>>;

pub(crate) async fn consumer(
    cluster: &FakeCluster,
    config: GroupConfig,
) -> (GroupConsumer, Events) {
    let events = Events::default();
    let noted = events.clone();
    let listener = Listener::new(move |event| {
        let (what, places) = match event {
            PartitionEvent::Assigned(places) => ("assigned", places),
            PartitionEvent::Revoked(places) => ("revoked", places),
            PartitionEvent::Lost(places) => ("lost", places),
        };
        let numbers: Vec<String> = places.iter().map(|it| it.partition.to_string()).collect();
        noted.lock().unwrap().push(format!("{what} {}", numbers.join(" ")));
    });
    let config = GroupConfig { listener: Some(listener), ..config };
    (cluster.client().await.group_consumer(config).unwrap(), events)
}

pub(crate) fn config() -> GroupConfig {
    let commit = CommitMode::AfterProcessing(Duration::from_secs(1));
    GroupConfig { commit, ..GroupConfig::new("g", ["t"]) }
}

/// Partition n gets the values "n-0" to "n-9".
pub(crate) fn filled(partitions: usize) -> FakeCluster {
    let cluster = FakeCluster::start(partitions);
    for number in 0..partitions {
        cluster.partition(number, |partition| {
            for offset in 0..10 {
                partition.add(&format!("{number}-{offset}"));
            }
        });
    }
    cluster
}

pub(crate) fn assign(cluster: &FakeCluster, generation: i64, partitions: &[u32]) {
    cluster.state().assignment = (generation, partitions.to_vec());
}

pub(crate) async fn take(consumer: &mut GroupConsumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    for _ in 0..count {
        let record = consumer.next().await.unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    values
}

pub(crate) async fn nothing_more(consumer: &mut GroupConsumer, within: Duration) {
    assert!(timeout(within, consumer.next()).await.is_err());
}

pub(crate) fn owned(cluster: &FakeCluster) -> Vec<u32> {
    let state = cluster.state();
    let last = state.heartbeats.last().expect("it beats");
    last.owned.iter().flat_map(|part| part.partitions.clone()).collect()
}

pub(crate) fn committed(cluster: &FakeCluster) -> Vec<(u32, u64)> {
    let state = cluster.state();
    let group = state.groups.get("g").into_iter().flatten();
    group.map(|((_, partition), offset)| (*partition, offset.offset)).collect()
}

pub(crate) fn values(partition: u32, offsets: std::ops::Range<u64>) -> Vec<String> {
    offsets.map(|offset| format!("{partition}-{offset}")).collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_application_is_done_with_is_committed_and_the_rest_is_not() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    assert_eq!(take(&mut consumer, 4).await, values(0, 0..4));
    // It is at work on the fourth for longer than the interval, and then asks for the next.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(committed(&cluster), []);
    assert_eq!(take(&mut consumer, 1).await, values(0, 4..5));
    settle().await;
    assert_eq!(committed(&cluster), [(0, 4)]);
    consumer.close().await.unwrap();
    assert_eq!(committed(&cluster), [(0, 5)]);
    assert_eq!(cluster.state().heartbeats.last().unwrap().generation, -1);
    assert_eq!(*events.lock().unwrap(), ["assigned 0"]);
}

#[tokio::test(start_paused = true)]
async fn it_begins_at_the_group_offset() {
    let cluster = filled(1);
    let groups = cluster.client().await.groups();
    groups.commit("g", vec![quipu_client::GroupOffset::new("t", 0, 7)]).await.unwrap();
    assign(&cluster, 3, &[0]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    assert_eq!(take(&mut consumer, 3).await, values(0, 7..10));
    nothing_more(&mut consumer, Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_goes_only_when_the_application_is_done_with_its_records() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0, 1]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    let mut seen = take(&mut consumer, 12).await;
    assign(&cluster, 4, &[0]);
    settle().await;
    settle().await;
    // It knows, and is at work: both are still reported.
    assert_eq!(cluster.state().heartbeats.last().unwrap().generation, 4);
    assert_eq!(owned(&cluster), [0, 1]);
    let before = committed(&cluster);
    let of_one = u64::try_from(seen.iter().filter(|value| value.starts_with('1')).count()).unwrap();

    // The rest of partition 0 comes, each record once, and nothing more of partition 1.
    let rest = seen.iter().filter(|value| value.starts_with('0')).count();
    if rest < 10 {
        seen.extend(take(&mut consumer, 10 - rest).await);
    }
    nothing_more(&mut consumer, Duration::from_secs(3)).await;
    let of = |partition: char| {
        seen.iter().filter(|value| value.starts_with(partition)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of('0'), values(0, 0..10));
    assert_eq!(of('1'), values(1, 0..of_one));
    assert_ne!(committed(&cluster), before);
    assert!(committed(&cluster).contains(&(1, of_one)), "committed before it was given up");
    assert_eq!(owned(&cluster), [0]);
    assert_eq!(*events.lock().unwrap(), ["assigned 0 1", "revoked 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_does_not_disturb_the_others() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    let mut seen = take(&mut consumer, 3).await;
    assign(&cluster, 4, &[0, 1]);
    settle().await;
    seen.extend(take(&mut consumer, 17).await);
    seen.sort();
    assert_eq!(seen, [values(0, 0..10), values(1, 0..10)].concat());
    nothing_more(&mut consumer, Duration::from_secs(3)).await;
    assert_eq!(*events.lock().unwrap(), ["assigned 0", "assigned 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_takes_long_holds_up_no_partition_that_stays() {
    let cluster = filled(3);
    assign(&cluster, 3, &[0, 1]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    take(&mut consumer, 20).await;
    nothing_more(&mut consumer, Duration::from_secs(3)).await;
    cluster.state().offsets_take = Duration::from_millis(1_500);
    // One goes, which is committed before, another comes, and the commit of the rest is due.
    assign(&cluster, 4, &[0, 2]);
    for number in 10..40 {
        cluster.partition(0, |partition| {
            partition.add(&format!("0-{number}"));
        });
        let asked = tokio::time::Instant::now();
        let given = take(&mut consumer, 1).await;
        if given[0].starts_with('0') {
            assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    take(&mut consumer, 10).await;
    assert_eq!(*events.lock().unwrap(), ["assigned 0 1", "revoked 1", "assigned 2"]);
    settle().await;
    assert_eq!(owned(&cluster), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_handed_over_while_the_application_is_at_work_on_another() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0, 1]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    take(&mut consumer, 20).await;
    nothing_more(&mut consumer, Duration::from_secs(3)).await;
    cluster.state().offsets_take = Duration::from_millis(500);
    assign(&cluster, 4, &[0]);
    settle().await;
    cluster.partition(0, |partition| {
        partition.add("0-10");
    });
    take(&mut consumer, 1).await;
    // It does not ask again for long.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(owned(&cluster), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_taken_away_before_it_was_begun_is_given_back() {
    let cluster = filled(2);
    assign(&cluster, 3, &[0]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    take(&mut consumer, 1).await;
    // It learns both while the application is at work on its first record.
    assign(&cluster, 4, &[0, 1]);
    settle().await;
    assign(&cluster, 5, &[0]);
    settle().await;
    assert_eq!(owned(&cluster), [0, 1]);
    take(&mut consumer, 1).await;
    settle().await;
    assert_eq!(owned(&cluster), [0]);
}

#[tokio::test(start_paused = true)]
async fn who_was_expired_loses_all_and_joins_again_as_somebody_new() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    take(&mut consumer, 4).await;
    let before = cluster.state().heartbeats[0].member_id.clone();
    cluster.state().expiries.push_back(ErrorCode::UnknownMember);
    assign(&cluster, 9, &[0]);
    settle().await;
    settle().await;
    let late = consumer.commit().await.unwrap_err();
    assert_eq!(late.code(), Code::Server(ErrorCode::UnknownMember), "it has joined anew since");
    // Nothing had been committed, so all of it comes again.
    assert_eq!(take(&mut consumer, 10).await, values(0, 0..10));
    assert_eq!(*events.lock().unwrap(), ["assigned 0", "lost 0", "assigned 0"]);
    let joins: Vec<String> = cluster
        .state()
        .heartbeats
        .iter()
        .filter(|beat| beat.generation == 0)
        .map(|beat| beat.member_id.clone())
        .collect();
    assert_eq!((joins.len(), &joins[0]), (2, &before));
    assert_ne!(joins[1], before);
}

#[tokio::test(start_paused = true)]
async fn who_was_replaced_stops_for_good() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let named = GroupConfig { instance_id: Some("pod-a".to_owned()), ..config() };
    let (mut consumer, events) = consumer(&cluster, named).await;
    take(&mut consumer, 1).await;
    cluster.state().expiries.push_back(ErrorCode::GroupInstanceFenced);
    settle().await;
    for _ in 0..2 {
        let error = consumer.next().await.unwrap_err();
        assert_eq!(error.code(), Code::Server(ErrorCode::GroupInstanceFenced));
        assert!(!error.retriable());
    }
    assert_eq!(*events.lock().unwrap(), ["assigned 0", "lost 0"]);
    let beats = cluster.state().heartbeats.len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.state().heartbeats.len(), beats);
}

#[tokio::test(start_paused = true)]
async fn a_slow_application_keeps_its_session() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let (mut consumer, _) = consumer(&cluster, config()).await;
    take(&mut consumer, 1).await;
    let before = cluster.state().heartbeats.len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // A third of the session time-out each.
    let beats = cluster.state().heartbeats.len() - before;
    assert!((15..=20).contains(&beats), "{beats} in a minute");
    assert_eq!(take(&mut consumer, 9).await, values(0, 1..10));
}

#[tokio::test(start_paused = true)]
async fn the_coordinator_is_followed_when_it_moves() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let (mut consumer, events) = consumer(&cluster, config()).await;
    take(&mut consumer, 2).await;
    cluster.elect(Some(2));
    assert_eq!(take(&mut consumer, 8).await, values(0, 2..10));
    nothing_more(&mut consumer, Duration::from_secs(12)).await;
    assert!(cluster.calls(2, "group_heartbeat") > 0);
    assert_eq!(committed(&cluster), [(0, 10)]);
    assert_eq!(*events.lock().unwrap(), ["assigned 0"]);
}

#[tokio::test(start_paused = true)]
async fn manual_commits_are_the_applications_own() {
    let cluster = filled(1);
    assign(&cluster, 3, &[0]);
    let manual = GroupConfig { commit: CommitMode::Manual, ..config() };
    let (mut consumer, _) = consumer(&cluster, manual).await;
    take(&mut consumer, 3).await;
    consumer.commit().await.unwrap();
    assert_eq!(committed(&cluster), [(0, 3)]);
    take(&mut consumer, 3).await;
    nothing_more(&mut consumer, Duration::from_secs(0)).await;
    consumer.close().await.unwrap();
    assert_eq!(committed(&cluster), [(0, 3)]);
}
