//! How a replica that lacks gigabytes catches up: one checkpoint, then the log, without holding up
//! the leader, and from where it was when it is killed in the middle.
//!
//! Two replicas lack it for two reasons: one was down while the log start moved past its end, one
//! lost its disk. Appends go on all the time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use quipu_client::{Client, NewTopic, Position, Replica};
use tokio::time::{Instant, sleep};

use crate::live::agreement;
use crate::live::cluster::LiveCluster;
use crate::live::pump::{Done, Plan, Pump};
use crate::live::saturate::producers_clients;
use crate::live::stage::{Report, Stage};
use crate::live::survey::read_all;
use crate::live::usage;

const TOPIC: &str = "bulk";
const PARTITION: u32 = 0;
const CHECKPOINT_BYTES: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// Appended before the first replica goes down.
const HEAD_BYTES: u64 = 256 * MIB;

/// A snapshot of a log is no larger.
const SNAPSHOT_BYTES_MAX: f64 = 1_048_576.0;

/// In the middle of catching up, in percent of what is lacking.
const KILL_AT_PERCENT: u64 = 40;

/// The leader's rate is measured over this time before a replica comes back.
const BEFORE: Duration = Duration::from_secs(10);

/// Behind by less than so many records counts as caught up, since appends go on.
const CAUGHT_UP_LAG: u64 = 5_000;

/// Filling up, and catching up, are given up after so long a time for each GiB.
const WITHIN_PER_GIB: Duration = Duration::from_secs(240);

const POLL: Duration = Duration::from_millis(50);

/// Fills a topic, takes replicas away and gives them back.
#[derive(Debug, Args)]
pub(super) struct CatchUp {
    /// What is retained at least, GiB
    #[arg(long, default_value_t = 2.0)]
    gib: f64,
    /// Records per second while replicas catch up; 0: as fast as they are acknowledged
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1_024)]
    value_bytes: usize,
    /// Memory of a replica that catches up, at most, MB
    #[arg(long, default_value_t = 300)]
    memory_mb_max: u64,
    /// The leader's append rate meanwhile, in percent of before, at least
    #[arg(long, default_value_t = 80)]
    rate_percent_min: u64,
}

/// A cluster with a topic that is appended to.
struct Scene<'a> {
    args: &'a CatchUp,
    stage: &'a Stage,
    cluster: LiveCluster,
    client: Client,
    clients: Vec<Client>,
    done: Done,
    numbers: Arc<AtomicU64>,
    report: Report,
}

/// What a process that catches up counts until its end.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    snapshots: f64,
    snapshot_bytes: f64,
    /// Written to the log: what was fetched in this life, and not before.
    log_bytes: f64,
    memory_max: u64,
}

/// How a node caught up: ends by offset, and what its two processes counted.
#[derive(Debug)]
struct Course {
    start: u64,
    killed_end: u64,
    /// Applied when it answered first; what is stored beyond is applied again.
    resumed_end: u64,
    caught_up_end: u64,
    first: Life,
    second: Life,
}

impl Course {
    fn memory_mb(&self) -> u64 {
        self.first.memory_max.max(self.second.memory_max) / 1_000_000
    }
}

impl CatchUp {
    fn retained_bytes(&self) -> u64 {
        // Whole MiB; a fraction of one is of no interest.
        let mib = (self.gib * 1_024.0).clamp(1.0, 1_048_576.0);
        format!("{mib:.0}").parse::<u64>().map_or(u64::MAX, |mib| mib * MIB)
    }

    fn within(&self) -> Duration {
        Duration::from_secs(60) + WITHIN_PER_GIB.mul_f64(self.gib.clamp(0.1, 1_024.0))
    }

    /// Filled once, caught up twice, read twice.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(300) + 5 * self.within()
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let cluster = stage.cluster().await?;
        let client = cluster.client(stage.client_config(1)).await?;
        let configs = [
            ("retention.bytes".to_owned(), self.retained_bytes().to_string()),
            ("checkpoint.bytes".to_owned(), CHECKPOINT_BYTES.to_string()),
        ];
        let topic =
            NewTopic { replication_factor: 3, configs: configs.into(), ..NewTopic::new(TOPIC, 1) };
        client.admin().create_topic(topic).await?;
        let mut scene = Scene {
            args: self,
            stage,
            clients: producers_clients(stage, &cluster).await?,
            cluster,
            client,
            done: Done::default(),
            numbers: Arc::new(AtomicU64::new(0)),
            report: Report::default(),
        };
        scene.run().await?;
        Ok(scene.report)
    }
}

impl Scene<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let others: Vec<u64> = self.cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let [away, broken] = others[..] else { bail!("three nodes are expected") };
        self.stage.say(format_args!(
            "node {leader} leads; node {away} will be away, node {broken} will lose its disk"
        ));
        let pump = self.pump(0)?;
        self.fill(HEAD_BYTES, None).await?;
        let end = self.replica(away).await?.high_watermark;
        self.cluster.kill(&[away])?;
        self.stage.say(format_args!("node {away} is killed; its end is {end}"));
        self.fill(self.args.retained_bytes() + CHECKPOINT_BYTES, Some(end)).await?;
        pump.stop().await?;

        let pump = self.pump(self.args.rate)?;
        let mut told = Vec::new();
        told.push(self.come_back(away, "was away").await?);
        self.cluster.wait_healthy().await?;
        self.cluster.kill(&[broken])?;
        self.cluster.node(broken).lose_disk()?;
        told.push(self.come_back(broken, "lost its disk").await?);
        pump.stop().await?;

        let (ends, differences) =
            agreement::compare(&self.client, &self.cluster.ids(), (TOPIC, 1)).await?;
        let acked = self.done.acked();
        let (failed, reason) = self.done.failed();
        for node in [away, broken] {
            let (start, values) = read_all(&self.client, node, (TOPIC, PARTITION)).await?;
            self.stage.say(format_args!(
                "node {node} was read whole: {} records from offset {start} on",
                values.len()
            ));
            let count = u64::try_from(values.len())?;
            self.report.demand(start + count == ends, || {
                format!("node {node} ends at {}, not at {ends}", start + count)
            });
        }
        let report = &mut self.report;
        report.demand(failed == 0, || format!("{failed} records failed, the first: {reason:?}"));
        report.demand(ends == acked, || format!("acked {acked}, and the end is {ends}"));
        let agree = if differences.is_empty() { "agree" } else { "disagree" };
        report.misses.extend(differences);
        report.line = format!("verdict: acked {acked}, {}, replicas {agree}", told.join(", "));
        report.violations = self.cluster.violations();
        report.errors_logged = self.cluster.errors_logged();
        Ok(())
    }

    fn pump(&self, rate: u32) -> anyhow::Result<Pump> {
        let plan = Plan {
            topic: TOPIC,
            partitions: 1,
            producers: 2,
            value_bytes: self.args.value_bytes,
            rate,
        };
        Pump::start(&self.clients, &plan, &self.done, &self.numbers)
    }

    async fn leader(&self) -> anyhow::Result<u64> {
        let topic = self.client.admin().describe_topic(TOPIC).await?;
        topic.partitions.first().and_then(|it| it.leader).context("the partition has no leader")
    }

    async fn replica(&self, node: u64) -> anyhow::Result<Replica> {
        Ok(self.client.admin().describe_replica(node, TOPIC, PARTITION, None).await?)
    }

    /// Waits until so many bytes are appended and the log start has passed `end`.
    async fn fill(&self, bytes: u64, end: Option<u64>) -> anyhow::Result<()> {
        let value_bytes = u64::try_from(self.args.value_bytes)?;
        let deadline = Instant::now() + self.args.within();
        let (started, acked) = (Instant::now(), self.done.acked());
        loop {
            let offsets = self.client.list_offsets(TOPIC, PARTITION, Position::Latest).await?;
            let retained = (offsets.high_watermark - offsets.log_start_offset) * value_bytes;
            if retained >= bytes.min(self.args.retained_bytes())
                && end.is_none_or(|end| offsets.log_start_offset > end)
            {
                let millis = u64::try_from(started.elapsed().as_millis())?.max(1);
                let rate = (self.done.acked() - acked) * value_bytes / 1_000 / millis;
                let start = offsets.log_start_offset;
                self.stage.say(format_args!(
                    "{} MiB retained, the log starts at {start}; filled at {rate} MB/s",
                    retained / MIB
                ));
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "not filled in time: {offsets:?}, {retained} bytes, {:?}",
                    self.done.failed()
                );
            }
            sleep(POLL).await;
        }
    }

    /// A node that is down comes back, is killed in the middle, and catches up.
    async fn come_back(&mut self, node: u64, why: &str) -> anyhow::Result<String> {
        let before = self.rate_over(BEFORE).await;
        let (p50_before, p99_before) = self.done.latencies();
        let (started, acked) = (Instant::now(), self.done.acked());
        self.cluster.start_node(node)?;
        let offsets = self.client.list_offsets(TOPIC, PARTITION, Position::Latest).await?;
        let (start, end) = (offsets.log_start_offset, offsets.high_watermark);
        let middle = start + (end - start) * KILL_AT_PERCENT / 100;
        let (killed_end, first) = self.wait_end(node, middle).await?;
        self.cluster.kill(&[node])?;
        self.stage.say(format_args!(
            "node {node}, which {why}: the log is {start}..{end}; killed at {killed_end} after \
             {} ms",
            started.elapsed().as_millis()
        ));
        self.cluster.start_node(node)?;
        let resumed_end = self.first_end(node).await?;
        let (caught_up_end, second) = self.wait_caught_up(node).await?;
        let took = started.elapsed();
        let during = rate(self.done.acked() - acked, took);
        let (p50, p99) = self.done.latencies();
        let percent = during * 100 / before.max(1);
        self.stage.say(format_args!(
            "node {node} caught up with {} records in {} ms; appends {during}/s, {percent} % of \
             {before}/s before; p50/p99 {}/{} ms, before {}/{} ms",
            caught_up_end - start,
            took.as_millis(),
            p50.as_millis(),
            p99.as_millis(),
            p50_before.as_millis(),
            p99_before.as_millis(),
        ));
        let course = Course { start, killed_end, resumed_end, caught_up_end, first, second };
        self.judge(node, &course, percent);
        Ok(format!(
            "node that {why}: {} snapshots, {} MB, leader at {percent} %",
            first.snapshots + second.snapshots,
            course.memory_mb()
        ))
    }

    fn judge(&mut self, node: u64, course: &Course, percent: u64) {
        let Course { start, killed_end, resumed_end, caught_up_end, first, second } = course;
        let value_bytes = u64::try_from(self.args.value_bytes).unwrap_or(u64::MAX);
        let lacked = (caught_up_end - killed_end) * value_bytes;
        let had = (killed_end - start) * value_bytes;
        self.stage.say(format_args!(
            "node {node} resumed at {resumed_end} and wrote {} MiB of log; it lacked {} MiB and \
             had {} MiB",
            mebibytes(second.log_bytes),
            lacked / MIB,
            had / MIB,
        ));
        self.stage.say(format_args!(
            "node {node}: snapshots {} ({} bytes), after the kill {} ({} bytes); memory at most \
             {} and {} MB",
            first.snapshots,
            first.snapshot_bytes,
            second.snapshots,
            second.snapshot_bytes,
            first.memory_max / 1_000_000,
            second.memory_max / 1_000_000,
        ));
        let Scene { report, args, .. } = self;
        let snapshots = first.snapshots + second.snapshots;
        let bytes = first.snapshot_bytes + second.snapshot_bytes;
        report.demand(snapshots == 1.0, || format!("node {node} installed {snapshots} snapshots"));
        report.demand(bytes < SNAPSHOT_BYTES_MAX, || format!("snapshots of {bytes} bytes"));
        report.demand(second.snapshots == 0.0, || {
            format!("node {node} installed {} snapshots after it was killed", second.snapshots)
        });
        // Batches have headers, and what was under way at the kill comes again; but not all of it.
        let expected = (lacked + lacked / 10 + had / 4) / MIB;
        let wrote = mebibytes(second.log_bytes);
        report.demand(resumed_end > start && wrote <= expected, || {
            format!(
                "node {node} resumed at {resumed_end} and wrote {wrote} MiB, more than {expected}"
            )
        });
        let memory = course.memory_mb();
        report.demand(memory < args.memory_mb_max, || format!("node {node} used {memory} MB"));
        report.demand(percent >= args.rate_percent_min, || {
            format!("the leader kept {percent} % of its append rate while node {node} caught up")
        });
    }

    async fn rate_over(&self, time: Duration) -> u64 {
        let (from, acked) = (Instant::now(), self.done.acked());
        sleep(time).await;
        rate(self.done.acked() - acked, from.elapsed())
    }

    /// Waits until the node's own end has come to `offset`. Returns that end and what it counted.
    async fn wait_end(&self, node: u64, offset: u64) -> anyhow::Result<(u64, Life)> {
        let deadline = Instant::now() + self.args.within();
        loop {
            if let Ok(replica) = self.replica(node).await
                && replica.high_watermark >= offset
            {
                return Ok((replica.high_watermark, self.life(node).await?));
            }
            anyhow::ensure!(Instant::now() < deadline, "node {node} did not come to {offset}");
            sleep(POLL).await;
        }
    }

    /// The end that a node tells when it answers first.
    async fn first_end(&self, node: u64) -> anyhow::Result<u64> {
        let deadline = Instant::now() + self.args.within();
        loop {
            match self.replica(node).await {
                Ok(replica) => return Ok(replica.high_watermark),
                Err(error) => anyhow::ensure!(Instant::now() < deadline, "node {node}: {error:#}"),
            }
            sleep(POLL).await;
        }
    }

    async fn wait_caught_up(&self, node: u64) -> anyhow::Result<(u64, Life)> {
        let deadline = Instant::now() + self.args.within();
        loop {
            let offsets = self.client.list_offsets(TOPIC, PARTITION, Position::Latest).await?;
            let end = self.replica(node).await.map_or(0, |replica| replica.high_watermark);
            let lag = offsets.high_watermark.saturating_sub(end);
            if lag < CAUGHT_UP_LAG {
                return Ok((end, self.life(node).await?));
            }
            anyhow::ensure!(Instant::now() < deadline, "node {node} still lacks {lag} records");
            sleep(POLL).await;
        }
    }

    async fn life(&self, node: u64) -> anyhow::Result<Life> {
        let metrics = self.cluster.metrics(node).await?;
        let pid = self.cluster.node(node).pid().context("the node is down")?;
        Ok(Life {
            snapshots: metrics.get("quipu_snapshots_installed_total")?,
            snapshot_bytes: metrics.get("quipu_snapshots_installed_bytes_total")?,
            log_bytes: metrics.get("quipu_log_writer_bytes_total")?,
            memory_max: usage::memory(pid)?.resident_max,
        })
    }
}

/// Whole MiB of a counter of bytes.
fn mebibytes(bytes: f64) -> u64 {
    let mib = bytes / 1_048_576.0;
    format!("{mib:.0}").parse().unwrap_or(u64::MAX)
}

fn rate(count: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    count * 1_000 / millis
}
