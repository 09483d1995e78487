//! What many partitions cost while nobody uses them: processor time and memory of every node.

use std::time::Duration;

use clap::Args;
use quipu_client::{AppendOptions, AppendRecord, NewTopic};
use tokio::time::{Instant, sleep};

use crate::live::cluster::LiveCluster;
use crate::live::stage::{Report, Stage};
use crate::live::usage;

const TOPIC: &str = "idle";

/// A leader and its followers all rest within this time after the last append.
const PARKED_WITHIN: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(500);

/// Creates partitions and leaves them alone.
#[derive(Debug, Args)]
pub(super) struct Idle {
    /// Partitions, each with three replicas
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// How long to measure
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// All nodes together, in percent of one core, at most
    #[arg(long, default_value_t = 10.0)]
    percent_max: f64,
}

impl Idle {
    /// What is measured, and time to create and to park.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(300 + self.seconds)
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let mut cluster = stage.cluster().await?;
        let client = cluster.client(stage.client_config(1)).await?;
        let created_at = Instant::now();
        let topic = NewTopic { replication_factor: 3, ..NewTopic::new(TOPIC, self.partitions) };
        client.admin().create_topic(topic).await?;
        stage.say(format_args!(
            "{} partitions created in {} ms",
            self.partitions,
            created_at.elapsed().as_millis()
        ));
        // One record each, so that none rests only because it never worked.
        for partition in 0..self.partitions {
            let records = vec![AppendRecord::new("x")];
            client.append(TOPIC, partition, records, AppendOptions::default()).await?;
        }
        drop(client);
        let parked = self.wait_parked(stage, &cluster).await?;

        let before = cpu_times(&cluster)?;
        let started = Instant::now();
        sleep(Duration::from_secs(self.seconds)).await;
        let seconds = started.elapsed().as_secs_f64();
        let after = cpu_times(&cluster)?;
        let mut percent_all = 0.0;
        for ((node, before), (_, after)) in before.iter().zip(&after) {
            let percent = (*after - *before).as_secs_f64() / seconds * 100.0;
            percent_all += percent;
            let memory = usage::memory(cluster.node(*node).pid().unwrap_or(0))?;
            stage.say(format_args!(
                "node {node}: {percent:.1} % of a core, {} MB resident, {} MB at most",
                memory.resident / 1_000_000,
                memory.resident_max / 1_000_000,
            ));
        }
        let line = format!(
            "verdict: {} idle partitions, all nodes together {percent_all:.1} % of one core over \
             {seconds:.0} s",
            self.partitions
        );
        let violations = cluster.violations();
        let errors_logged = cluster.errors_logged();
        let mut report = Report { line, violations, errors_logged, ..Report::default() };
        report.demand(percent_all < self.percent_max, || {
            format!("{percent_all:.1} % of a core is not below {} %", self.percent_max)
        });
        report.demand(parked, || "not every group was parked in time".to_owned());
        Ok(report)
    }

    /// Waits until every group of every node rests. Says whether that came.
    async fn wait_parked(&self, stage: &Stage, cluster: &LiveCluster) -> anyhow::Result<bool> {
        let deadline = Instant::now() + PARKED_WITHIN;
        let started = Instant::now();
        loop {
            let mut counts = Vec::new();
            for (node, metrics) in cluster.metrics_of_all().await? {
                let hosted = metrics.get("quipu_groups_hosted")?;
                counts.push((node, metrics.get("quipu_groups_parked")?, hosted));
            }
            // A node counts the groups that it leads and that rest.
            let parked: f64 = counts.iter().map(|(_, parked, _)| parked).sum();
            let all = counts.iter().all(|(_, _, hosted)| parked >= *hosted);
            if all || Instant::now() >= deadline {
                for (node, parked, hosted) in counts {
                    stage.say(format_args!(
                        "node {node}: leads {parked} parked groups, of {hosted} groups hosted"
                    ));
                }
                stage.say(format_args!("waited {} ms", started.elapsed().as_millis()));
                return Ok(all);
            }
            sleep(POLL).await;
        }
    }
}

fn cpu_times(cluster: &LiveCluster) -> anyhow::Result<Vec<(u64, Duration)>> {
    let nodes = cluster.ids().into_iter();
    let time = |node| Ok((node, usage::cpu_time(cluster.node(node).pid().unwrap_or(0))?));
    nodes.map(time).collect()
}
