//! Random trouble, by seed: whatever happens, what the producer says is true.

use std::collections::BTreeMap;
use std::time::Duration;

use quipu_client::{ConsumerConfig, ErrorCode, Outcome, ProduceRecord, ProducerConfig, StartAt};
use tokio::time::{sleep, timeout};

use crate::fake::{FakeCluster, Fate, address, final_refusal, refusal, unknown};

const PARTITIONS: usize = 2;
const RECORDS: usize = 150;

fn fate(rng: &mut fastrand::Rng) -> Fate {
    match rng.u8(..16) {
        0 => Fate::Refused(refusal(ErrorCode::Overloaded)),
        1 => Fate::Refused(final_refusal(ErrorCode::BatchUnsupported)),
        2 => Fate::WrittenThenError(unknown(ErrorCode::TimedOut)),
        3 => Fate::Refused(unknown(ErrorCode::LeadershipLost)),
        4 => Fate::Broken,
        5 => Fate::WrittenThenBroken,
        6 => Fate::Silent,
        7 => Fate::WrittenThenSilent,
        _ => Fate::Fine,
    }
}

/// One moment of trouble; `None`: all is well.
fn trouble(cluster: &FakeCluster, rng: &mut fastrand::Rng) {
    let node = rng.u64(1..=3);
    match rng.u8(..20) {
        0 => cluster.elect(Some(node)),
        1 => cluster.elect(None),
        2 => cluster.network.kill(&address(node)),
        3 => cluster.network.silence(&address(node)),
        4 => cluster.network.cut(&address(node)),
        5..=8 => cluster.network.revive(&address(node)),
        9..=12 => cluster.decide([fate(rng)]),
        _ => {}
    }
}

fn heal(cluster: &FakeCluster) {
    for node in 1..=3 {
        cluster.network.revive(&address(node));
    }
    cluster.state().fates.clear();
    cluster.elect(Some(2));
}

async fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let cluster = FakeCluster::start(PARTITIONS);
    let client = cluster.client().await;
    let config = ProducerConfig {
        linger: Duration::from_millis(rng.u64(..3)),
        batch_bytes: 80 + rng.usize(..200),
        in_flight: rng.u32(1..=8),
        delivery_timeout: Duration::from_millis(rng.u64(300..4000)),
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).unwrap();
    let mut sent = Vec::new();
    for number in 0..RECORDS {
        trouble(&cluster, &mut rng);
        let value = format!("value-{number:04}");
        let partition = u32::try_from(number % PARTITIONS).unwrap();
        let record =
            ProduceRecord { partition: Some(partition), ..ProduceRecord::new("t", value.clone()) };
        sent.push((value, partition, producer.send(record).await));
        sleep(Duration::from_millis(rng.u64(..40))).await;
    }
    heal(&cluster);
    let mut ends = Vec::new();
    for (value, partition, delivery) in sent {
        ends.push((value, partition, delivery.await));
    }
    // What lingers on old connections has arrived by now.
    sleep(Duration::from_secs(60)).await;

    let logs: Vec<Vec<String>> = (0..PARTITIONS).map(|one| cluster.values(one)).collect();
    let mut acknowledged: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (value, partition, end) in &ends {
        let log = &logs[usize::try_from(*partition).unwrap()];
        let found = log.iter().filter(|one| *one == value).count();
        assert!(found <= 1, "seed {seed}: {value} was written {found} times");
        match end {
            Ok(metadata) => {
                let offset = metadata.offset.unwrap();
                assert_eq!(&log[usize::try_from(offset).unwrap()], value, "seed {seed}");
                acknowledged.entry(*partition).or_default().push(offset);
            }
            Err(error) if error.outcome() == Outcome::Definite => {
                assert_eq!(found, 0, "seed {seed}: {value} is there after all: {error}");
            }
            Err(_) => {}
        }
    }
    for offsets in acknowledged.values() {
        assert!(offsets.is_sorted(), "seed {seed}: order is lost: {offsets:?}");
    }
    read_back(&cluster, seed, &logs).await;
}

/// A consumer sees the log, all of it, in trouble too.
async fn read_back(cluster: &FakeCluster, seed: u64, logs: &[Vec<String>]) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let client = cluster.client().await;
    let config = ConsumerConfig { prefetch_bytes: 500, ..ConsumerConfig::default() };
    let mut consumer = client.consumer(config).unwrap();
    let all =
        (0_u32..).zip(logs).map(|(partition, _)| ("t".to_owned(), partition, StartAt::Earliest));
    consumer.assign(all.collect()).await.unwrap();
    let mut seen: Vec<Vec<String>> = vec![Vec::new(); logs.len()];
    for step in 0..logs.iter().map(Vec::len).sum() {
        if step % 10 == 0 {
            trouble(cluster, &mut rng);
        }
        let next = timeout(Duration::from_secs(3), consumer.next()).await;
        let record = match next {
            Ok(record) => record.unwrap().unwrap(),
            Err(_) => {
                heal(cluster);
                consumer.next().await.unwrap().unwrap()
            }
        };
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        seen[usize::try_from(record.partition).unwrap()].push(value);
    }
    assert_eq!(seen, logs, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_is_true_in_trouble_of_many_kinds() {
    for seed in 0..40 {
        run(seed).await;
    }
}
