//! A linearizable read on each node right after an acknowledged append must see it, while leaders
//! move from node to node.
//!
//! Two of the three nodes asked are followers, so that most reads go the long way: read index from
//! the leader, wait until applied, read the own replica. That the bytes came from the node that was
//! asked is held against that node's metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::join_all;
use quipu_client::{
    AppendOptions, AppendRecord, Client, ClientConfig, FetchOptions, Fetched, NewTopic, Outcome,
    ProducerIdentity, ReadError, ReadLevel,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::history::{Answer, Call, FaultResult, History};
use crate::live::cluster::LiveCluster;
use crate::live::judge::{Counts, judge};
use crate::live::recorder::{Recorder, failure, read_failure};
use crate::live::stage::{Report, Stage};
use crate::live::survey::survey;
use crate::live::{pause, payload};
use crate::violation::Violation;

pub(super) const TOPIC: &str = "linearizable";
const PARTITIONS: u32 = 4;
const WORKERS: u32 = 4;
const VALUE_BYTES: usize = 100;

const FETCH_BYTES: u32 = 64 << 10;

/// The series that counts what linearizable reads served.
const BYTES_SERVED: &str = "quipu_fetch_bytes_total{level=\"linearizable\"}";

/// Rounds without a move in which nothing else is waited for.
const MOVER_POLL: Duration = Duration::from_millis(2);

/// Appends, reads on every node, moves of leaders.
#[derive(Debug, Args)]
pub(super) struct Linearizable {
    /// Appends acknowledged and then read on every node
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Moves of a partition's leadership meanwhile
    #[arg(long, default_value_t = 200)]
    moves: u64,
    /// Instead: stop an old leader with SIGSTOP across an election, and read on it at once when it
    /// goes on; so many times
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "20")]
    pause: Option<u32>,
}

/// What all tasks of a run share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) nodes: Vec<u64>,
    /// The next record.
    pub(super) numbers: Arc<AtomicU64>,
}

/// One task that appends and reads.
struct Worker {
    process: String,
    shared: Shared,
    rng: fastrand::Rng,
    /// Rounds that are begun.
    begun: Arc<AtomicU64>,
    /// Rounds that are over.
    done: Arc<AtomicU64>,
    rounds: u64,
    identity: ProducerIdentity,
    /// Next sequence in each partition.
    sequences: BTreeMap<u32, u32>,
}

impl Linearizable {
    /// A round takes some milliseconds and a move at most seconds.
    pub(super) fn bound(&self) -> Duration {
        let work = Duration::from_millis(50 * self.rounds) + Duration::from_secs(2 * self.moves);
        let pauses = Duration::from_secs(30) * self.pause.unwrap_or(0);
        Duration::from_secs(180) + work + pauses
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let cluster = stage.cluster().await?;
        let client = cluster.client(config(stage)).await?;
        let topic = NewTopic { replication_factor: 3, ..NewTopic::new(TOPIC, PARTITIONS) };
        client.admin().create_topic(topic).await?;
        let recorder = stage.recorder()?;
        let numbers = Arc::new(AtomicU64::new(1));
        let shared = Shared { client, recorder, nodes: cluster.ids(), numbers };
        match self.pause {
            Some(times) => pause::run(stage, cluster, shared, times).await,
            None => self.run_moves(stage, cluster, shared).await,
        }
    }

    async fn run_moves(
        &self,
        stage: &Stage,
        mut cluster: LiveCluster,
        shared: Shared,
    ) -> anyhow::Result<Report> {
        let before = bytes_served(&cluster).await?;
        let started = Instant::now();
        let (begun, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        for index in 0..WORKERS {
            let worker = Worker {
                process: format!("worker-{index}"),
                shared: shared.clone(),
                rng: stage.rng(100 + u64::from(index)),
                begun: Arc::clone(&begun),
                done: Arc::clone(&done),
                rounds: self.rounds,
                identity: shared.client.new_producer().await?,
                sequences: BTreeMap::new(),
            };
            workers.spawn(worker.run());
        }
        let moved = self.move_leaders(stage, &shared, &done);
        let workers = async {
            while let Some(ended) = workers.join_next().await {
                ended.context("a worker panicked")??;
            }
            anyhow::Ok(())
        };
        let (moves, ()) = tokio::try_join!(moved, workers)?;
        let rounds = done.load(Ordering::Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        stage.say(format_args!("{rounds} rounds with {moves} moves in {seconds:.1} s"));
        let after = bytes_served(&cluster).await?;
        let served = Served::between(&before, &after);
        let mut violations =
            survey(&cluster, &shared.client, (TOPIC, PARTITIONS), &shared.recorder).await;
        violations.extend(cluster.violations());
        let errors_logged = cluster.errors_logged();
        let history = shared.recorder.finish()?;
        let mut report = conclude(stage, history, violations);
        report.errors_logged = errors_logged;
        served.hold_against(stage, &mut report);
        report.demand(rounds >= self.rounds, || format!("{rounds} rounds were done"));
        report.demand(moves >= self.moves, || format!("leadership moved {moves} times"));
        Ok(report)
    }

    /// Moves leaderships, spread over the rounds. Returns how many arrived.
    async fn move_leaders(
        &self,
        stage: &Stage,
        shared: &Shared,
        done: &AtomicU64,
    ) -> anyhow::Result<u64> {
        let mut rng = stage.rng(3);
        let (mut arrived, mut refused) = (0_u64, 0_u64);
        let mut reasons = BTreeSet::new();
        // Some are refused or overtaken by an election; not without end.
        for attempt in 1..=self.moves * 3 {
            if arrived == self.moves {
                break;
            }
            let due = arrived * self.rounds / self.moves.max(1);
            while done.load(Ordering::Relaxed) < due {
                sleep(MOVER_POLL).await;
            }
            match move_one(shared, &mut rng).await {
                Ok(()) => arrived += 1,
                Err(error) => {
                    refused += 1;
                    reasons.insert(format!("{error:#}"));
                }
            }
            if attempt % 50 == 0 {
                let done = done.load(Ordering::Relaxed);
                stage.say(format_args!("{done} rounds, {arrived} moves, {refused} refused"));
            }
        }
        for reason in reasons.iter().take(5) {
            stage.say(format_args!("a move was refused: {reason}"));
        }
        Ok(arrived)
    }
}

/// Reads are answered by the node that is asked or not at all, so that waiting long is no use.
fn config(stage: &Stage) -> ClientConfig {
    ClientConfig { request_timeout: Duration::from_secs(5), ..stage.client_config(1) }
}

async fn bytes_served(cluster: &LiveCluster) -> anyhow::Result<Vec<(u64, f64)>> {
    let metrics = cluster.metrics_of_all().await?;
    let bytes = metrics.into_iter().map(|(node, it)| Ok((node, it.get(BYTES_SERVED)?)));
    bytes.collect()
}

/// One move to another node; an error if the leader is not there afterwards.
async fn move_one(shared: &Shared, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    let admin = shared.client.admin();
    let partition = rng.u32(..PARTITIONS);
    let topic = admin.describe_topic(TOPIC).await?;
    let found = topic.partitions.iter().find(|it| it.partition == partition);
    let found = found.context("the topic lacks a partition")?;
    let others: Vec<u64> =
        shared.nodes.iter().filter(|node| found.leader != Some(**node)).copied().collect();
    let to_node = others[rng.usize(..others.len())];
    let detail = format!("partition {partition} to node {to_node}");
    let moved = admin.move_leader(TOPIC, partition, to_node).await;
    let result = if moved.is_ok() { FaultResult::Installed } else { FaultResult::Skipped };
    shared.recorder.fault("move-leader", result, detail);
    moved?;
    let described = admin.at_node(to_node).describe_topic(TOPIC).await?;
    let found = described.partitions.iter().find(|it| it.partition == partition);
    match found.and_then(|it| it.leader) {
        Some(leader) if leader == to_node => Ok(()),
        leader => bail!("moved, and then the leader is {leader:?}"),
    }
}

impl Worker {
    async fn run(mut self) -> anyhow::Result<()> {
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.rounds {
            // A round that an append of unknown outcome spoils is made again.
            while !self.round().await? {}
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Appends, then reads on every node at once. Says whether the append was acknowledged and
    /// every node answered.
    async fn round(&mut self) -> anyhow::Result<bool> {
        let partition = self.rng.u32(..PARTITIONS);
        let Some(offset) = self.append(partition).await? else { return Ok(false) };
        let nodes = self.shared.nodes.clone();
        let reads = nodes.iter().map(|node| {
            let process = format!("{}-node-{node}", self.process);
            let shared = self.shared.clone();
            async move { shared.read_at(&process, partition, *node, offset).await }
        });
        Ok(join_all(reads).await.into_iter().all(|answered| answered))
    }

    /// Appends one record. Returns its offset if it was acknowledged with one.
    async fn append(&mut self, partition: u32) -> anyhow::Result<Option<u64>> {
        let sequence = self.sequences.entry(partition).or_insert(0);
        let identity = ProducerIdentity { sequence_first: *sequence, ..self.identity };
        let shared = &self.shared;
        match shared.append(&self.process, partition, Some(identity)).await {
            Ok(offset) => {
                *sequence += 1;
                Ok(offset)
            }
            Err(Outcome::Definite) => Ok(None),
            // Its sequence may be taken: only a new producer can go on.
            Err(Outcome::Unknown) => {
                self.identity = shared.client.new_producer().await?;
                self.sequences.clear();
                Ok(None)
            }
        }
    }
}

impl Shared {
    /// Appends one record to a partition. Returns its offset, or how it failed.
    pub(super) async fn append(
        &self,
        process: &str,
        partition: u32,
        identity: Option<ProducerIdentity>,
    ) -> Result<Option<u64>, Outcome> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let call = Call::Append { partition, values: vec![number] };
        let op = self.recorder.invoke(process, call);
        let records = vec![AppendRecord::new(payload::value(number, VALUE_BYTES))];
        let options = AppendOptions { identity, ..AppendOptions::default() };
        match self.client.append(TOPIC, partition, records, options).await {
            Ok(appended) => {
                let base_offset = appended.base_offset;
                self.recorder.ok(process, op, Answer::Appended { base_offset });
                Ok(base_offset)
            }
            Err(error) => {
                let failure = failure(error.code(), &error);
                self.recorder.failed(process, op, error.outcome(), failure);
                Err(error.outcome())
            }
        }
    }

    /// Reads at one node from `offset` on. Says whether it answered.
    pub(super) async fn read_at(
        &self,
        process: &str,
        partition: u32,
        node: u64,
        offset: u64,
    ) -> bool {
        let op = self.recorder.invoke(process, Call::Read { partition, node, from: offset });
        let options = FetchOptions {
            level: ReadLevel::Linearizable,
            max_bytes: FETCH_BYTES,
            node: Some(node),
            ..FetchOptions::default()
        };
        match self.client.fetch(TOPIC, partition, offset, options).await.and_then(|fetched| {
            if fetched.served_by == node { records(offset, fetched) } else { Err(astray(fetched)) }
        }) {
            Ok(answer) => {
                self.recorder.ok(process, op, answer);
                true
            }
            // The node says that its log ends below what was acknowledged: an answer, and stale.
            Err(ReadError::OffsetOutOfRange { high_watermark, .. }) if high_watermark < offset => {
                let answer = Answer::Records { values: Vec::new(), end: high_watermark };
                self.recorder.ok(process, op, answer);
                true
            }
            Err(error) => {
                let failure = read_failure(&error);
                self.recorder.failed(process, op, error.outcome(), failure);
                false
            }
        }
    }
}

fn records(offset: u64, fetched: Fetched) -> Result<Answer, ReadError> {
    let mut values = Vec::with_capacity(fetched.records.len());
    for record in &fetched.records {
        let number = payload::number(record.value.as_deref());
        let reason = || "the value is not what was sent".to_owned();
        let corrupt = || ReadError::Corrupt { offset: record.offset, reason: reason() };
        values.push(number.ok_or_else(corrupt)?);
    }
    if values.is_empty() && fetched.high_watermark > offset {
        let reason = format!("nothing came, and the end is {}", fetched.high_watermark);
        return Err(ReadError::Corrupt { offset, reason });
    }
    Ok(Answer::Records { values, end: fetched.high_watermark })
}

fn astray(fetched: Fetched) -> ReadError {
    let reason = format!("node {} answered, which was not asked", fetched.served_by);
    ReadError::Corrupt { offset: fetched.next_offset, reason }
}

/// Judges a history of appends and reads, and tells what was read where.
pub(super) fn conclude(stage: &Stage, history: History, mut violations: Vec<Violation>) -> Report {
    let judgement = judge(&history);
    violations.extend(judgement.violations);
    let counts: &Counts = &judgement.counts;
    for (what, count) in history.counts() {
        stage.say(format_args!("{what}: {count}"));
    }
    let stale = violations.iter().filter(|it| matches!(it, Violation::StaleRead { .. })).count();
    let reads = history.counts().get("read ok").copied().unwrap_or(0);
    let line = format!(
        "verdict: {counts}, {reads} linearizable reads, stale {stale}, replicas {}",
        if counts.replicas_agree { "agree" } else { "disagree" }
    );
    let agree = counts.replicas_agree;
    let mut report = Report { line, violations, history, ..Report::default() };
    report.demand(agree, || "not every replica told the same chain hash".to_owned());
    report
}

/// Bytes that each node served to linearizable reads, by its own count.
struct Served(Vec<(u64, f64)>);

impl Served {
    fn between(before: &[(u64, f64)], after: &[(u64, f64)]) -> Self {
        let pairs = before.iter().zip(after);
        Self(pairs.map(|((node, before), (_, after))| (*node, after - before)).collect())
    }

    /// Each node must have served at least the values that the history says came from it.
    fn hold_against(&self, stage: &Stage, report: &mut Report) {
        let values = values_read(&report.history);
        for (node, served) in &self.0 {
            let read = values.get(node).copied().unwrap_or(0);
            let expected = read * VALUE_BYTES;
            stage.say(format_args!(
                "node {node} served {served} bytes to linearizable reads by its metrics; {read} \
                 records of {VALUE_BYTES} bytes were read from it"
            ));
            let expected = u32::try_from(expected).map_or(f64::MAX, f64::from);
            report.demand(*served >= expected, || {
                format!("node {node} counts {served} bytes served, and {expected} were read")
            });
        }
    }
}

/// How many records were read from each node.
fn values_read(history: &History) -> BTreeMap<u64, usize> {
    let mut asked = BTreeMap::new();
    let mut read: BTreeMap<u64, usize> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            crate::history::What::Invoke { op, call: Call::Read { node, .. } } => {
                asked.insert(*op, *node);
            }
            crate::history::What::Ok { op, answer: Answer::Records { values, .. } } => {
                if let Some(node) = asked.get(op) {
                    *read.entry(*node).or_default() += values.len();
                }
            }
            _ => {}
        }
    }
    read
}
