//! Many partitions saturated for long: whoever leads goes on leading.
//!
//! The nodes share this machine's processors with each other and with the producers, which is the
//! point: signs of life must get through when everything else is late.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use clap::Args;
use quipu_client::{Client, NewTopic};
use tokio::time::{Instant, sleep};

use crate::live::agreement;
use crate::live::cluster::LiveCluster;
use crate::live::pump::{Done, Plan, Pump};
use crate::live::stage::{Report, Stage};

const TOPIC: &str = "saturate";
const PRODUCERS: u32 = 4;

/// Kept of each partition, so that a long run doesn't fill the disk.
const RETAINED_BYTES: u64 = 64 << 20;

/// How often a line tells how it goes.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Leaders have settled when nothing moved for so long; looked at so often.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
const SETTLING_LOOKS_MAX: u32 = 20;

/// What must not move.
const COUNTERS: [&str; 2] = ["quipu_raft_leader_changes_total", "quipu_raft_elections_total"];

/// Appends as fast as it goes.
#[derive(Debug, Args)]
pub(super) struct Saturate {
    /// Partitions, each with three replicas
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How long
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 512)]
    value_bytes: usize,
}

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Reign {
    /// Leader and term of each partition.
    leaders: Vec<(Option<u64>, u64)>,
    /// By node, in the order of [`COUNTERS`].
    counters: Vec<(u64, Vec<f64>)>,
}

impl Saturate {
    /// As long as it is told to, and time to begin and to end.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(400 + self.seconds)
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let mut cluster = stage.cluster().await?;
        let client = cluster.client(stage.client_config(1)).await?;
        let configs = [("retention.bytes".to_owned(), RETAINED_BYTES.to_string())];
        let topic = NewTopic {
            replication_factor: 3,
            configs: configs.into(),
            ..NewTopic::new(TOPIC, self.partitions)
        };
        client.admin().create_topic(topic).await?;
        cluster.wait_healthy().await?;
        let before = Reign::settled(&cluster, &client).await?;

        let clients = producers_clients(stage, &cluster).await?;
        let plan = Plan {
            topic: TOPIC,
            partitions: self.partitions,
            producers: PRODUCERS,
            value_bytes: self.value_bytes,
            rate: 0,
        };
        let done = Done::default();
        let pump = Pump::start(&clients, &plan, &done, &Arc::new(AtomicU64::new(0)))?;
        let started = Instant::now();
        self.watch(stage, &cluster, &pump.done, started).await?;
        let seconds = started.elapsed().as_secs_f64();
        let after = Reign::of(&cluster, &client).await?;
        pump.stop().await?;

        let (ends, differences) =
            agreement::compare(&client, &cluster.ids(), (TOPIC, self.partitions)).await?;
        let acked = done.acked();
        let (failed, reason) = done.failed();
        let (changes, elections) = after.changes_since(&before);
        let terms = after.leaders.iter().zip(&before.leaders).filter(|(a, b)| a != b).count();
        let megabytes_per_s = acked.saturating_mul(u64::try_from(self.value_bytes)?)
            / 1_000_000
            / (started.elapsed().as_secs().max(1));
        let line = format!(
            "verdict: {} partitions saturated for {seconds:.0} s, acked {acked}, failed {failed}, \
             leader changes {changes}, elections {elections}, terms changed {terms}, \
             {megabytes_per_s} MB/s",
            self.partitions
        );
        let violations = cluster.violations();
        let errors_logged = cluster.errors_logged();
        let mut report = Report { line, violations, errors_logged, ..Report::default() };
        report.demand(changes == 0.0, || format!("leaders changed {changes} times"));
        report.demand(elections == 0.0, || format!("{elections} elections were called"));
        report.demand(terms == 0, || format!("{terms} partitions have another leader or term"));
        report.demand(failed == 0, || format!("{failed} records failed, the first: {reason:?}"));
        report.demand(ends == acked, || format!("acked {acked}, and the ends add up to {ends}"));
        report.misses.extend(differences);
        Ok(report)
    }

    /// Tells how it goes until the time is over.
    async fn watch(
        &self,
        stage: &Stage,
        cluster: &LiveCluster,
        done: &Done,
        started: Instant,
    ) -> anyhow::Result<()> {
        let until = started + Duration::from_secs(self.seconds);
        let mut acked = 0;
        while Instant::now() < until {
            let from = Instant::now();
            sleep(TELL_EVERY.min(until - from)).await;
            let now = done.acked();
            let millis = u64::try_from(from.elapsed().as_millis())?.max(1);
            let (p50, p99) = done.latencies();
            let counters = Reign::counters(cluster).await?;
            let sums: Vec<f64> = (0..COUNTERS.len())
                .map(|index| counters.iter().map(|(_, values)| values[index]).sum())
                .collect();
            stage.say(format_args!(
                "{} records/s, p50 {} ms, p99 {} ms; leader changes and elections so far {sums:?}",
                (now - acked) * 1_000 / millis,
                p50.as_millis(),
                p99.as_millis(),
            ));
            acked = now;
        }
        Ok(())
    }
}

/// Connections for the producers, one each.
pub(super) async fn producers_clients(
    stage: &Stage,
    cluster: &LiveCluster,
) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for producer in 0..PRODUCERS {
        clients.push(cluster.client(stage.client_config(10 + u64::from(producer))).await?);
    }
    Ok(clients)
}

impl Reign {
    /// The reign once nothing has moved for a while: leaders of new partitions are told late.
    async fn settled(cluster: &LiveCluster, client: &Client) -> anyhow::Result<Self> {
        let mut reign = Self::of(cluster, client).await?;
        for _ in 0..SETTLING_LOOKS_MAX {
            sleep(SETTLED_AFTER).await;
            let now = Self::of(cluster, client).await?;
            if now == reign {
                return Ok(reign);
            }
            reign = now;
        }
        anyhow::bail!("leaders keep changing in an idle cluster: {reign:?}")
    }

    async fn of(cluster: &LiveCluster, client: &Client) -> anyhow::Result<Self> {
        let topic = client.admin().describe_topic(TOPIC).await?;
        let leaders = topic.partitions.iter().map(|it| (it.leader, it.leader_epoch)).collect();
        Ok(Self { leaders, counters: Self::counters(cluster).await? })
    }

    async fn counters(cluster: &LiveCluster) -> anyhow::Result<Vec<(u64, Vec<f64>)>> {
        let mut counters = Vec::new();
        for (node, metrics) in cluster.metrics_of_all().await? {
            let values = COUNTERS.iter().map(|name| metrics.get(name));
            counters.push((node, values.collect::<anyhow::Result<_>>()?));
        }
        Ok(counters)
    }

    /// Leader changes and elections, of all nodes together.
    fn changes_since(&self, before: &Self) -> (f64, f64) {
        let sum = |counters: &[(u64, Vec<f64>)], index: usize| -> f64 {
            counters.iter().map(|(_, values)| values[index]).sum()
        };
        let change = |index| sum(&self.counters, index) - sum(&before.counters, index);
        (change(0), change(1))
    }
}
