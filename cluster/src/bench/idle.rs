//! `bench idle`: what partitions cost in which nothing happens, and how fast one wakes.

use std::time::Duration;

use anyhow::Context as _;
use quipu_client::{AppendOptions, AppendRecord, Outcome};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::meter::Window;
use super::report::{Report, Run};
use super::stage::Stage;
use super::topic::BenchTopic;
use super::{cost_within, figure};
use crate::args::{GlobalArgs, IdleBenchArgs};
use crate::latency::Latencies;
use crate::output::live::progress;

/// Looks at idle partitions.
pub(super) async fn run(global: &GlobalArgs, args: &IdleBenchArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for _ in 0..args.stage.repeat {
        let stage = Stage::open(global, &args.stage).await?;
        runs.push(run_once(&stage, args).await?);
    }
    let settings = json!({
        "partitions": args.partitions,
        "replicas": args.replicas,
        "settle_s": args.settle,
        "seconds": args.seconds,
        "wake": args.wake,
    });
    Report { bench: "idle", settings, runs }.finish(global, args.stage.svg.as_deref())
}

async fn run_once(stage: &Stage, args: &IdleBenchArgs) -> anyhow::Result<Run> {
    let bar = progress(None);
    let client = stage.client().await?;
    let settle = Duration::from_secs(args.settle);
    let window = || Window::after(Duration::ZERO, Duration::from_secs(args.seconds));
    bar.set_message("looking at the nodes without partitions");
    sleep(settle).await;
    let empty = cost_within(stage, window()).await?;
    bar.set_message("creating partitions");
    let begun = Instant::now();
    let topic = BenchTopic::create(&client, args.partitions, args.replicas).await?;
    topic.wait_led(&client).await?;
    let created = begun.elapsed();
    bar.set_message("looking at the nodes with idle partitions");
    sleep(settle).await;
    let idle = cost_within(stage, window()).await?;
    let mut run = Run::default();
    run.set(figure::CPU_PER_NODE_EMPTY, empty.cpu_per_s_max());
    run.set(figure::CPU_PER_NODE, idle.cpu_per_s_max());
    run.set(figure::RSS_BYTES_EMPTY, empty.rss_bytes_max());
    run.set(figure::RSS_BYTES_MAX, idle.rss_bytes_max());
    run.set(figure::CREATE_S, created.as_secs_f64());
    run.set_nodes(&idle);
    bar.set_message("waking partitions");
    let mut latencies = Latencies::new();
    for partition in 0..args.wake.min(args.partitions) {
        let at = Instant::now();
        let record = vec![AppendRecord::new("wake")];
        match client.append(&topic.name, partition, record, AppendOptions::default()).await {
            Ok(_) => latencies.record(at.elapsed()),
            Err(error) => run.failed(error.to_string(), Outcome::Definite),
        }
    }
    run.set_latencies(&latencies);
    bar.finish_and_clear();
    topic.end(&client, stage).await.context("after the bench")?;
    Ok(run)
}
