//! A group under a steady load, of which one member leaves, another comes, one dies, another comes,
//! and so on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_client::{
    Client, ConsumedRecord, Delivery, GroupConfig, GroupConsumer, ProduceRecord, ProducerConfig,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::watch::Watch;
use crate::args::GroupsBenchArgs;
use crate::bench::figure;
use crate::bench::pace::{Schedule, Timer};
use crate::bench::payload::{due_of, stamped};
use crate::bench::report::Run;
use crate::bench::stage::Stage;
use crate::bench::topic::BenchTopic;
use crate::latency::Latencies;
use crate::output::live::progress;

/// Of the records that are sent.
const RECORD_BYTES: usize = 100;

/// The group has what it began with by then, or the bench gives up.
const FORMED_WITHIN: Duration = Duration::from_secs(60);

/// Beside the session's time-out: partitions that did not move by then never will.
const MOVED_WITHIN: Duration = Duration::from_secs(30);

/// Records that come so long after a change still belong to it, and so long nothing else happens.
const QUIET: Duration = Duration::from_secs(2);

/// Deliveries between the sender and the one who waits for them.
const QUEUE_RECORDS: usize = 65_536;

/// What happens to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing, to compare with.
    Nothing,
    Leave,
    Crash,
    Join,
}

/// In turns, so that the group keeps its size.
const CHANGES: [Change; 4] = [Change::Leave, Change::Join, Change::Crash, Change::Join];

/// Measures all rounds.
pub(super) async fn measure(
    stage: &Stage,
    args: &GroupsBenchArgs,
    topic: &BenchTopic,
    run: &mut Run,
) -> anyhow::Result<()> {
    let origin = Instant::now();
    let watch = Arc::new(Watch::new(usize::try_from(args.partitions)?));
    let mut producing = JoinSet::new();
    let load = Load { topic: topic.name.clone(), partitions: args.partitions, rate: args.rate };
    producing.spawn(load.run(stage.client().await?, origin));
    let mut group = Group {
        topic: topic.name.clone(),
        session_timeout: Duration::from_millis(args.session_timeout_ms),
        origin,
        watch: Arc::clone(&watch),
        members: BTreeMap::new(),
        running: JoinSet::new(),
        last: 0,
    };
    for _ in 0..args.members {
        group.join(stage).await?;
    }
    let has_formed = |watch: &Watch| {
        watch.all_owned() && group.members.keys().all(|member| watch.owned_by(*member) > 0)
    };
    let formed = timeout(FORMED_WITHIN, watch.until(has_formed)).await;
    formed.context("not every member was given records; are there as many partitions?")?;

    let mut seen = Seen::default();
    let bar = progress(Some(u64::from(args.rounds) + 3));
    let changes = CHANGES.iter().cycle().take(args.rounds.into());
    for change in [Change::Nothing; 3].iter().chain(changes) {
        tokio::select! {
            seen = seen.round(*change, &mut group, stage) => seen?,
            Some(ended) = producing.join_next() => {
                ended.context("the producer panicked")??;
                bail!("the producer ended early");
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    seen.tell(run);
    Ok(())
}

/// How partitions came through the changes.
#[derive(Debug)]
struct Seen {
    steady: Latencies,
    unmoved: Latencies,
    left: Latencies,
    died: Latencies,
    came: Latencies,
    not_moved: u32,
}

impl Default for Seen {
    fn default() -> Seen {
        let none = Latencies::new();
        let (unmoved, left, died) = (none.clone(), none.clone(), none.clone());
        Seen { steady: none.clone(), unmoved, left, died, came: none, not_moved: 0 }
    }
}

impl Seen {
    async fn round(
        &mut self,
        change: Change,
        group: &mut Group,
        stage: &Stage,
    ) -> anyhow::Result<()> {
        let watch = Arc::clone(&group.watch);
        sleep(QUIET).await;
        let victim = group.members.keys().next().copied().context("a group has members")?;
        let patience = group.session_timeout + MOVED_WITHIN;
        let moved = match change {
            Change::Nothing => {
                watch.begin();
                Ok(())
            }
            Change::Join => {
                // Connected before, as a program that starts is before it joins.
                let client = stage.client().await?;
                watch.begin();
                let member = group.join_with(&client)?;
                timeout(patience, watch.until(|watch| watch.owned_by(member) > 0)).await
            }
            Change::Leave | Change::Crash => {
                watch.begin();
                group.end(victim, change == Change::Leave).await?;
                timeout(patience, watch.until(|watch| watch.owned_by(victim) == 0)).await
            }
        };
        self.not_moved += u32::from(moved.is_err());
        sleep(QUIET).await;
        let latencies = match change {
            Change::Nothing => &mut self.steady,
            Change::Leave => &mut self.left,
            Change::Crash => &mut self.died,
            Change::Join => &mut self.came,
        };
        for passage in watch.end() {
            let is_of_change = passage.moved || change == Change::Nothing;
            let latencies = if is_of_change { &mut *latencies } else { &mut self.unmoved };
            latencies.record(passage.waited);
        }
        Ok(())
    }

    fn tell(&self, run: &mut Run) {
        let some = |latencies: &Latencies, part| {
            (latencies.count() > 0).then(|| latencies.percentile_ms(part))
        };
        run.set(figure::UNMOVED_PAUSE_P99_MS, some(&self.unmoved, 0.99));
        run.set(figure::UNMOVED_PAUSE_MAX_MS, some(&self.unmoved, 1.0));
        run.set(figure::STEADY_PAUSE_P99_MS, some(&self.steady, 0.99));
        run.set(figure::LEAVE_PAUSE_P50_MS, some(&self.left, 0.5));
        run.set(figure::LEAVE_PAUSE_MAX_MS, some(&self.left, 1.0));
        run.set(figure::JOIN_PAUSE_P50_MS, some(&self.came, 0.5));
        run.set(figure::JOIN_PAUSE_MAX_MS, some(&self.came, 1.0));
        run.set(figure::CRASH_PAUSE_P50_MS, some(&self.died, 0.5));
        run.set(figure::CRASH_PAUSE_MAX_MS, some(&self.died, 1.0));
        run.set(figure::NOT_MOVED, f64::from(self.not_moved));
    }
}

/// The members of the group.
struct Group {
    topic: String,
    session_timeout: Duration,
    /// Of the stamps in the records.
    origin: Instant,
    watch: Arc<Watch>,
    /// By number; what is sent tells whether to leave.
    members: BTreeMap<u64, oneshot::Sender<bool>>,
    running: JoinSet<anyhow::Result<()>>,
    last: u64,
}

impl Group {
    /// A member with connections of its own.
    async fn join(&mut self, stage: &Stage) -> anyhow::Result<u64> {
        self.join_with(&stage.client().await?)
    }

    fn join_with(&mut self, client: &Client) -> anyhow::Result<u64> {
        let config = GroupConfig {
            session_timeout: self.session_timeout,
            ..GroupConfig::new(self.topic.as_str(), [self.topic.as_str()])
        };
        let consumer = client.group_consumer(config)?;
        self.last += 1;
        let (end, ends) = oneshot::channel();
        self.members.insert(self.last, end);
        let member = Member { number: self.last, origin: self.origin, watch: self.watch.clone() };
        self.running.spawn(member.run(consumer, ends));
        Ok(self.last)
    }

    /// The member leaves, or is gone without a word.
    async fn end(&mut self, member: u64, leaves: bool) -> anyhow::Result<()> {
        let end = self.members.remove(&member).context("it is one of them")?;
        // Nobody is there to hear it if it has ended by itself, which is told below.
        let _ = end.send(leaves);
        let ended = self.running.join_next().await.context("it was started")?;
        ended.context("a member panicked")?
    }
}

struct Member {
    number: u64,
    origin: Instant,
    watch: Arc<Watch>,
}

impl Member {
    async fn run(
        self,
        mut consumer: GroupConsumer,
        mut end: oneshot::Receiver<bool>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                leaves = &mut end => {
                    if leaves == Ok(true) {
                        consumer.close().await.context("a member could not leave")?;
                    }
                    return Ok(());
                }
                batch = consumer.next_batch() => match batch {
                    Ok(records) => records.iter().for_each(|record| self.given(record)),
                    Err(error) if error.retriable() => {}
                    Err(error) => return Err(error).context("a member has ended"),
                }
            }
        }
    }

    fn given(&self, record: &ConsumedRecord) {
        let due = record.value.as_ref().and_then(|value| due_of(value, self.origin));
        let waited = due.map_or(Duration::ZERO, |due| due.elapsed());
        let partition = usize::try_from(record.partition).unwrap_or(usize::MAX);
        self.watch.given(self.number, partition, record.offset, waited);
    }
}

/// Records by a schedule, to the partitions in turns.
struct Load {
    topic: String,
    partitions: u32,
    rate: u64,
}

impl Load {
    /// Until it is dropped.
    async fn run(self, client: Client, origin: Instant) -> anyhow::Result<()> {
        let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
        let producer = client.producer(config)?;
        let (queue, deliveries) = mpsc::channel(QUEUE_RECORDS);
        let mut collecting = JoinSet::new();
        collecting.spawn(collect(deliveries));
        let schedule =
            Schedule { start: Instant::now(), rate: self.rate, producers: 1, producer: 0 };
        let timer = Timer::new()?;
        let blank = Bytes::from_static(&[0; RECORD_BYTES]);
        let partitions = (0..self.partitions).cycle();
        for (number, partition) in (0..).zip(partitions) {
            let due = schedule.due(number);
            timer.wait_until(due).await?;
            let value = stamped(&blank, origin, due);
            let record = ProduceRecord {
                partition: Some(partition),
                ..ProduceRecord::new(self.topic.as_str(), value)
            };
            let delivery = producer.send(record).await;
            if queue.send(delivery).await.is_err() {
                let ended = collecting.join_next().await.context("it was there")?;
                return ended.context("the collector panicked")?;
            }
        }
        Ok(())
    }
}

/// Waits for every record. A record that is not appended would not be missed by any member.
async fn collect(mut sent: mpsc::Receiver<Delivery>) -> anyhow::Result<()> {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            delivery = sent.recv() => match delivery {
                Some(delivery) => waiting.push(delivery),
                None => return Ok(()),
            },
            Some(appended) = waiting.next(), if !waiting.is_empty() => {
                appended.context("a record was not appended")?;
            }
        }
    }
}
