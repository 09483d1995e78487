//! `bench failover`: how long a partition takes no appends when its leader is killed or stands
//! still, as a producer sees it.
//!
//! Every partition is sent a record every few milliseconds, whatever becomes of the earlier ones.
//! The time is from just before the signal to the first acknowledgement of a record that was due
//! after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_client::{Client, Delivery, ProduceRecord, Producer, ProducerConfig};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::figure;
use super::report::{Report, Run};
use super::stage::Stage;
use super::topic::BenchTopic;
use crate::args::{FailoverBenchArgs, FaultArg, GlobalArgs};
use crate::latency::Latencies;
use crate::output::live::progress;

/// A partition that is not back by then counts as lost.
const BACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Every partition must have taken appends for so long before a fault.
const QUIET: Duration = Duration::from_secs(2);

/// Of the records that are sent.
const RECORD_BYTES: usize = 100;

/// Deliveries between the senders and the one who waits for them.
const QUEUE_RECORDS: usize = 4_096;

/// Runs all rounds.
pub(super) async fn run(global: &GlobalArgs, args: &FailoverBenchArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for _ in 0..args.stage.repeat {
        let mut stage = Stage::open(global, &args.stage).await?;
        stage.check_breakable()?;
        let client = stage.client().await?;
        let topic = BenchTopic::create(&client, args.partitions, 3).await?;
        topic.wait_led(&client).await?;
        let measured = measure(&mut stage, args, &client, &topic).await;
        let run = measured?;
        topic.end(&client, &stage).await?;
        runs.push(run);
    }
    let settings = json!({
        "partitions": args.partitions,
        "replicas": 3,
        "fault": match args.fault {
            FaultArg::Kill => "kill",
            FaultArg::Pause => "pause",
        },
        "rounds": args.rounds,
        "every_ms": args.every_ms,
    });
    Report { bench: "failover", settings, runs }.finish(global, args.stage.svg.as_deref())
}

async fn measure(
    stage: &mut Stage,
    args: &FailoverBenchArgs,
    client: &Client,
    topic: &BenchTopic,
) -> anyhow::Result<Run> {
    let watched = Arc::new(Watched::default());
    let mut probing = JoinSet::new();
    let (queue, deliveries) = mpsc::channel(QUEUE_RECORDS);
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = client.producer(config)?;
    probing.spawn(watch(deliveries, Arc::clone(&watched)));
    for partition in 0..args.partitions {
        let every = Duration::from_millis(args.every_ms);
        let probe = Probe { topic: topic.name.clone(), partition, every };
        probing.spawn(probe.run(producer.clone(), queue.clone()));
    }
    let mut latencies = Latencies::new();
    let (mut failovers, mut lost) = (0_u32, 0_u32);
    let bar = progress(Some(args.rounds.into()));
    for _ in 0..args.rounds {
        tokio::time::sleep(QUIET).await;
        let described = topic.wait_led(client).await?;
        let mut led: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for partition in &described.partitions {
            let leader = partition.leader.context("wait_led has seen leaders")?;
            led.entry(leader).or_default().push(partition.partition);
        }
        let busiest = led.into_iter().max_by_key(|(_, partitions)| partitions.len());
        let (victim, partitions) = busiest.context("a topic has partitions")?;
        let fault = watched.begin(&partitions);
        match args.fault {
            FaultArg::Kill => stage.kill(victim)?,
            FaultArg::Pause => stage.pause(victim)?,
        }
        // What is missing when the time is up is counted, not an error.
        let _ = timeout(BACK_TIMEOUT, watched.all_back()).await;
        for back in watched.end().into_values() {
            match back {
                Back::NotYet => lost += 1,
                Back::NotLed => {}
                Back::At(at) => {
                    failovers += 1;
                    latencies.record(at - fault);
                }
            }
        }
        match args.fault {
            FaultArg::Kill => stage.restart(victim).await?,
            FaultArg::Pause => stage.resume(victim)?,
        }
        stage.wait_healthy().await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(probing);
    if failovers + lost == 0 {
        bail!("no partition lost its leader: nothing was measured");
    }
    let mut run = Run::default();
    run.set_latencies(&latencies);
    run.set(figure::ROUNDS, f64::from(args.rounds));
    run.set(figure::FAILOVERS, f64::from(failovers + lost));
    run.set(figure::ELECTIONS_LOST, f64::from(lost));
    Ok(run)
}

/// Sends a record to one partition again and again.
struct Probe {
    topic: String,
    partition: u32,
    every: Duration,
}

/// A record on its way.
struct Sent {
    partition: u32,
    due: Instant,
    delivery: Delivery,
}

impl Probe {
    /// Until it is dropped.
    async fn run(self, producer: Producer, queue: mpsc::Sender<Sent>) {
        let mut ticks = interval(self.every);
        // A full buffer must not be followed by a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = ticks.tick().await;
            let value = Bytes::from_static(&[0; RECORD_BYTES]);
            let record = ProduceRecord {
                partition: Some(self.partition),
                ..ProduceRecord::new(self.topic.as_str(), value)
            };
            let delivery = producer.send(record).await;
            let sent = Sent { partition: self.partition, due, delivery };
            if queue.send(sent).await.is_err() {
                return;
            }
        }
    }
}

async fn watch(mut sent: mpsc::Receiver<Sent>, watched: Arc<Watched>) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            sent = sent.recv() => match sent {
                Some(Sent { partition, due, delivery }) => {
                    waiting.push(async move { (partition, due, delivery.await) });
                }
                None => return,
            },
            Some((partition, due, result)) = waiting.next(), if !waiting.is_empty() => {
                // A record that failed says nothing of when the partition was back.
                if let Ok(metadata) = result {
                    watched.acked(partition, due, metadata.leader_epoch);
                }
            }
        }
    }
}

/// How a partition came through a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    NotYet,
    /// The same leader went on, so the node that was hit did not lead it.
    NotLed,
    At(Instant),
}

/// What the acknowledgements tell.
#[derive(Debug, Default)]
struct Watched {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The last leader epoch under which a record of each partition was acknowledged.
    epochs: BTreeMap<u32, u64>,
    fault: Option<Instant>,
    /// The partitions whose leader was hit, with the epoch before.
    hit: BTreeMap<u32, (u64, Back)>,
}

impl Watched {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// A fault that comes now.
    fn begin(&self, partitions: &[u32]) -> Instant {
        let mut state = self.state();
        let epochs = state.epochs.clone();
        let hit = partitions.iter().map(|partition| {
            (*partition, (epochs.get(partition).copied().unwrap_or(0), Back::NotYet))
        });
        state.hit = hit.collect();
        let now = Instant::now();
        state.fault = Some(now);
        now
    }

    fn acked(&self, partition: u32, due: Instant, epoch: u64) {
        let at = Instant::now();
        let mut state = self.state();
        let last = state.epochs.entry(partition).or_default();
        *last = epoch.max(*last);
        if state.fault.is_some_and(|fault| due > fault)
            && let Some((before, back)) = state.hit.get_mut(&partition)
            && *back == Back::NotYet
        {
            *back = if epoch > *before { Back::At(at) } else { Back::NotLed };
            self.news.notify_one();
        }
    }

    async fn all_back(&self) {
        while self.state().hit.values().any(|(_, back)| *back == Back::NotYet) {
            self.news.notified().await;
        }
    }

    /// The fault is over.
    fn end(&self) -> BTreeMap<u32, Back> {
        let mut state = self.state();
        state.fault = None;
        std::mem::take(&mut state.hit)
            .into_iter()
            .map(|(partition, (_, back))| (partition, back))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_partition_is_back_with_the_first_record_due_after_the_fault_under_a_new_leader() {
        let watched = Watched::default();
        for partition in 0..3 {
            watched.acked(partition, Instant::now(), 4);
        }
        tokio::time::advance(MS).await;
        let fault = watched.begin(&[0, 1, 2]);
        // On its way before the fault.
        watched.acked(0, fault - MS, 4);
        tokio::time::advance(300 * MS).await;
        watched.acked(0, fault + MS, 5);
        watched.acked(1, fault + MS, 4);
        tokio::time::advance(MS).await;
        watched.acked(0, fault + 2 * MS, 5);
        assert!(timeout(MS, watched.all_back()).await.is_err());
        let ended = watched.end();
        assert_eq!(ended[&0], Back::At(fault + 300 * MS));
        assert_eq!((ended[&1], ended[&2]), (Back::NotLed, Back::NotYet));
    }
}
