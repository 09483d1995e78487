//! How many group offsets can be committed in a second: committers of groups of their own, each
//! with one commit in flight, of one partition.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quipu_client::{Client, GroupOffset, Position};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::GroupsBenchArgs;
use crate::bench::cost_within;
use crate::bench::figure;
use crate::bench::meter::Window;
use crate::bench::report::Run;
use crate::bench::stage::Stage;
use crate::bench::topic::BenchTopic;
use crate::latency::Latencies;

/// Before it is measured.
const WARMUP: Duration = Duration::from_secs(2);

/// Clients that the committers share.
const CLIENTS: usize = 8;

pub(super) async fn measure(
    stage: &Stage,
    args: &GroupsBenchArgs,
    topic: &BenchTopic,
    run: &mut Run,
) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(stage.client().await?);
    }
    let window = Window::after(WARMUP, Duration::from_secs(args.seconds));
    let mut committing = JoinSet::new();
    for (number, client) in (0..u32::from(args.committers)).zip(clients.iter().cycle()) {
        let committer = Committer {
            client: client.clone(),
            group: format!("{}-{number}", topic.name),
            topic: topic.name.as_str().into(),
            partition: number % args.partitions,
        };
        committing.spawn(committer.run(window));
    }
    let cost = cost_within(stage, window).await?;
    let mut latencies = Latencies::new();
    while let Some(ended) = committing.join_next().await {
        for took in ended.context("a committer panicked")?? {
            latencies.record(took);
        }
    }
    let per_s = latencies.count() as f64 / window.length().as_secs_f64();
    run.set(figure::COMMITS_PER_S, per_s);
    run.set_latencies(&latencies);
    run.set_cost(&cost, per_s);
    Ok(())
}

struct Committer {
    client: Client,
    group: String,
    topic: Arc<str>,
    partition: u32,
}

impl Committer {
    /// Commits one record after the other, and at the end of the partition the end again. How long
    /// each took that ended within the window.
    async fn run(self, window: Window) -> anyhow::Result<Vec<Duration>> {
        let ends = self.client.list_offsets(&self.topic, self.partition, Position::Latest).await?;
        let mut took = Vec::new();
        let mut offset = 0;
        while Instant::now() < window.end {
            offset = ends.high_watermark.min(offset + 1);
            let begun = Instant::now();
            let offsets = vec![GroupOffset::new(&*self.topic, self.partition, offset)];
            self.client.groups().commit(&self.group, offsets).await?;
            let ended = Instant::now();
            if window.contains(ended) {
                took.push(ended - begun);
            }
        }
        Ok(took)
    }
}
