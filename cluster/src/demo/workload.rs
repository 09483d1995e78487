//! Appends and consumes the events while a node is killed and comes back; writes the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_client::{
    Client, Compression, ConsumeError, Consumer, ConsumerConfig, Delivery, Position, ProduceRecord,
    Producer, ProducerConfig, StartAt,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::demo::events::Event;
use crate::demo::group::DemoGroup;
use crate::demo::history::{Found, History, Kill, Outcome, Sent};
use crate::demo::nodes::DemoNodes;
use crate::demo::progress::Progress;
use crate::demo::schedule::Schedule;
use crate::demo::{PARTITIONS, TOPIC, content};

/// Small batches, so that many are on their way when the leader dies.
const BATCH_BYTES: usize = 8 << 10;

/// An append that isn't acknowledged by then counts as not acknowledged.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The kill waits so long at most for the burst to show.
const TRIGGER_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer has seen everything by then, or never will.
const CONSUME_TIMEOUT: Duration = Duration::from_secs(30);

/// The live line is drawn so often, and every tenth time it may be a line of its own.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Deliveries on their way from the sender to the one who waits for them.
const QUEUE_RECORDS: usize = 1_024;

/// What is appended, how fast, and through which client.
pub(super) struct Workload {
    pub(super) client: Client,
    /// `None` once it runs.
    pub(super) group: Option<DemoGroup>,
    pub(super) events: Vec<Event>,
    pub(super) duration: Duration,
    pub(super) progress: Progress,
}

/// The node to kill, chosen just before the burst.
struct Victim {
    node: u64,
    /// The partitions it leads, with their leader epochs.
    led: Vec<(u32, u64)>,
}

/// What tells the killer that the burst has reached the victim's partitions.
#[derive(Default)]
struct Trigger {
    led: OnceLock<BTreeSet<u32>>,
    reached: Notify,
}

/// A record on its way.
struct Waiting {
    index: usize,
    sent_at: Instant,
    delivery: Delivery,
}

impl Workload {
    /// Runs it all. The history lacks only what is asked at the end.
    pub(super) async fn run(mut self, nodes: &mut DemoNodes) -> anyhow::Result<History> {
        let started = Instant::now();
        let mut group = self.group.take().context("a workload runs once")?;
        let schedule = Schedule::new(self.events.len(), self.duration);
        let consumed = Arc::new(Mutex::new(Vec::new()));
        let (ends_known, ends) = watch::channel(None);
        let consuming = self.start_consumer(Arc::clone(&consumed), ends).await?;
        let trigger = Arc::new(Trigger::default());
        let (queue, waiting) = mpsc::channel(QUEUE_RECORDS);
        let collecting = tokio::spawn(collect(
            waiting,
            Collector {
                started,
                count: self.events.len(),
                burst_first: schedule.burst().start,
                trigger: Arc::clone(&trigger),
                progress: self.progress.clone(),
            },
        ));
        let showing = AbortOnDrop(tokio::spawn(show(self.client.clone(), self.progress.clone())));

        let (chosen, victim) = oneshot::channel();
        let send = self.send_all(&schedule, started, queue, (chosen, &trigger));
        let breaking = break_a_node(nodes, &schedule, started, (victim, &trigger), &self.progress);
        let thinning = group.kill_one((started, self.duration), &self.progress);
        let ((), kill, ()) = tokio::try_join!(send, breaking, thinning)?;
        let outcomes = collecting.await.context("collecting panicked")?;

        let ends = ends_of(&self.client).await?;
        ends_known.send_replace(Some(ends.clone()));
        // A consumer that stays behind is not waited for; the verdict says what it lacks.
        if let Ok(ended) = timeout(CONSUME_TIMEOUT, consuming).await {
            ended.context("the consumer panicked")??;
        }
        let group = group.finish(&ends).await;
        drop(showing);
        let sent = self
            .events
            .iter()
            .zip(outcomes)
            .map(|(event, outcome)| Sent { content: content::of_event(event), outcome });
        let consumed = std::mem::take(&mut *consumed.lock().expect("no panic with the lock"));
        let sent = sent.collect();
        Ok(History { sent, consumed, group, kill: Some(kill), ..History::default() })
    }

    async fn start_consumer(
        &self,
        consumed: Arc<Mutex<Vec<Found>>>,
        ends: watch::Receiver<Option<BTreeMap<u32, u64>>>,
    ) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
        let mut consumer = self.client.consumer(ConsumerConfig::default())?;
        let partitions =
            (0..PARTITIONS).map(|partition| (TOPIC.to_owned(), partition, StartAt::Earliest));
        consumer.assign(partitions.collect()).await?;
        Ok(tokio::spawn(consume(consumer, consumed, ends, self.progress.clone())))
    }

    /// Sends every event at its time, all in one order, and chooses the victim on the way.
    async fn send_all(
        &self,
        schedule: &Schedule,
        started: Instant,
        queue: mpsc::Sender<Waiting>,
        (chosen, trigger): (oneshot::Sender<Victim>, &Trigger),
    ) -> anyhow::Result<()> {
        let producer: Producer = self.client.producer(ProducerConfig {
            batch_bytes: BATCH_BYTES,
            compression: Compression::Lz4,
            delivery_timeout: DELIVERY_TIMEOUT,
            ..Default::default()
        })?;
        let mut chosen = Some(chosen);
        for (index, event) in self.events.iter().enumerate() {
            if index >= schedule.burst().start
                && let Some(chosen) = chosen.take()
            {
                let victim = self.choose_victim().await?;
                let led = victim.led.iter().map(|(partition, _)| *partition).collect();
                trigger.led.set(led).expect("it is chosen once");
                // Whoever waits for it has failed, and so will this.
                let _ = chosen.send(victim);
            }
            sleep_until(started + schedule.due(index)).await;
            let record = ProduceRecord {
                topic: TOPIC.to_owned(),
                partition: None,
                key: Some(event.key.clone()),
                value: event.record.value.clone(),
                headers: event.record.headers.clone(),
                timestamp_ms: Some(event.timestamp_ms),
            };
            let sent_at = Instant::now();
            let delivery = producer.send(record).await;
            queue.send(Waiting { index, sent_at, delivery }).await.context("nobody collects")?;
        }
        producer.flush().await;
        Ok(())
    }

    /// The leader of the partition that holds most records.
    async fn choose_victim(&self) -> anyhow::Result<Victim> {
        let ends = ends_of(&self.client).await?;
        let busiest = ends.iter().max_by_key(|(_, end)| **end).map(|(partition, _)| *partition);
        let topic = self.client.admin().describe_topic(TOPIC).await?;
        let of_busiest = topic.partitions.iter().find(|one| Some(one.partition) == busiest);
        let node = of_busiest.and_then(|one| one.leader).context("the topic has no leader")?;
        let led = topic.partitions.iter().filter(|one| one.leader == Some(node));
        Ok(Victim { node, led: led.map(|one| (one.partition, one.leader_epoch)).collect() })
    }
}

/// Kills the victim in the middle of the burst, and starts it again after a while.
async fn break_a_node(
    nodes: &mut DemoNodes,
    schedule: &Schedule,
    started: Instant,
    (victim, trigger): (oneshot::Receiver<Victim>, &Trigger),
    progress: &Progress,
) -> anyhow::Result<Kill> {
    let Victim { node, led } = victim.await.context("no node was chosen")?;
    // A burst that doesn't show in time doesn't spare the victim.
    let _ = timeout(TRIGGER_TIMEOUT, trigger.reached.notified()).await;
    let killed_at = Instant::now();
    nodes.kill(node)?;
    nodes.wait_killed(node).await?;
    let partitions: Vec<String> = led.iter().map(|(partition, _)| partition.to_string()).collect();
    progress.say(&format!(
        "killed node {node} (SIGKILL), which led partition {}",
        partitions.join(", ")
    ));
    sleep_until(killed_at + schedule.down()).await;
    nodes.restart(node).await?;
    progress.say(&format!("node {node} is up again"));
    Ok(Kill { node, at: killed_at - started, led })
}

/// What the collector needs to know.
struct Collector {
    started: Instant,
    count: usize,
    burst_first: usize,
    trigger: Arc<Trigger>,
    progress: Progress,
}

/// Waits for every delivery and notes how and when it ended. In the order of sending.
async fn collect(mut queue: mpsc::Receiver<Waiting>, collector: Collector) -> Vec<Outcome> {
    let never = || Outcome::Unknown("the demo never heard of it again".to_owned());
    let mut outcomes: Vec<Outcome> = (0..collector.count).map(|_| never()).collect();
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        tokio::select! {
            sent = queue.recv(), if is_open => match sent {
                Some(Waiting { index, sent_at, delivery }) => {
                    waiting.push(async move { (index, sent_at, delivery.await) });
                }
                None => is_open = false,
            },
            Some((index, sent_at, result)) = waiting.next(), if !waiting.is_empty() => {
                outcomes[index] = match result {
                    Ok(acked) => {
                        collector.on_acked(index, acked.partition, sent_at);
                        Outcome::Acked {
                            partition: acked.partition,
                            offset: acked.offset,
                            leader_epoch: acked.leader_epoch,
                            at: collector.started.elapsed(),
                        }
                    }
                    Err(error) if error.outcome() == quipu_client::Outcome::Definite => {
                        Outcome::Refused(error.to_string())
                    }
                    Err(error) => Outcome::Unknown(error.to_string()),
                };
            }
        }
    }
    outcomes
}

impl Collector {
    fn on_acked(&self, index: usize, partition: u32, sent_at: Instant) {
        self.progress.acked(sent_at.elapsed());
        let is_led = self.trigger.led.get().is_some_and(|led| led.contains(&partition));
        if index >= self.burst_first && is_led {
            self.trigger.reached.notify_one();
        }
    }
}

/// Consumes until every partition is at its end, once the ends are known.
async fn consume(
    mut consumer: Consumer,
    consumed: Arc<Mutex<Vec<Found>>>,
    mut ends: watch::Receiver<Option<BTreeMap<u32, u64>>>,
    progress: Progress,
) -> anyhow::Result<()> {
    loop {
        let is_done = ends.borrow_and_update().as_ref().is_some_and(|ends| {
            ends.iter().all(|(partition, end)| {
                consumer.position(TOPIC, *partition).is_some_and(|position| position >= *end)
            })
        });
        if is_done {
            return Ok(());
        }
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch,
            // When the sender is gone the demo has failed, and this task with it.
            changed = ends.changed() => {
                changed.context("the demo has ended")?;
                continue;
            }
        };
        match batch.context("the consumer has nothing to wait for")? {
            Ok(records) => {
                progress.read(records.len());
                let found = records.iter().map(content::of_record);
                consumed.lock().expect("no panic with the lock").extend(found);
            }
            // It keeps trying; the verdict shows if that was in vain.
            Err(ConsumeError::Read { stopped: false, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn ends_of(client: &Client) -> anyhow::Result<BTreeMap<u32, u64>> {
    let mut ends = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let found = client.list_offsets(TOPIC, partition, Position::Latest).await?;
        ends.insert(partition, found.high_watermark);
    }
    Ok(ends)
}

/// Keeps the live line alive.
async fn show(client: Client, progress: Progress) {
    let mut every = tokio::time::interval(SHOW_EVERY);
    let mut turn = 0_u32;
    loop {
        every.tick().await;
        turn = turn.wrapping_add(1);
        progress.show(turn.is_multiple_of(10));
        if turn % 5 == 1
            && let Ok(Ok(topic)) = timeout(SHOW_EVERY, client.admin().describe_topic(TOPIC)).await
        {
            let leaders: Vec<String> = topic
                .partitions
                .iter()
                .map(|one| one.leader.map_or("-".to_owned(), |leader| leader.to_string()))
                .collect();
            progress.leader(format!("leaders {}", leaders.join(" ")));
        }
    }
}

/// A task that ends with whoever started it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
