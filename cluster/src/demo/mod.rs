//! `quipu demo`: three real nodes, real events, the leader killed in the middle, and a verdict.
//!
//! - `events`: what is appended; `schedule`: when;
//! - `nodes`: the processes, which end with the demo however it ends;
//! - `group`: three consumers that share the topic, one of which is killed;
//! - `workload`: appends and consumes, and breaks a node meanwhile;
//! - `progress`: the live line, which is only for the eye;
//! - `answers`: what a fresh reader and the replicas say at the end;
//! - `history` and `verdict`: what is judged, and the judgement.

mod answers;
mod content;
mod events;
mod group;
mod history;
mod nodes;
mod progress;
mod schedule;
mod verdict;
mod workload;

use std::time::Duration;

use anyhow::Context as _;
use quipu_client::{Client, ClientConfig, NewTopic};
use serde_json::json;

use crate::args::{DemoArgs, GlobalArgs, OutputForm};
use crate::demo::group::DemoGroup;
use crate::demo::nodes::DemoNodes;
use crate::demo::progress::Progress;
use crate::demo::verdict::{Verdict, judge};
use crate::demo::workload::Workload;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::local::quipud;
use crate::output::{print_json, print_line};

/// The demo's topic.
const TOPIC: &str = "flights";
const PARTITIONS: u32 = 6;
const REPLICAS: u32 = 3;

/// Violations that are listed; a broken cluster may have thousands.
const VIOLATIONS_SHOWN: usize = 20;

/// Runs the demo. Whatever happens, its nodes are stopped and their data deleted.
pub(crate) async fn run(global: &GlobalArgs, args: DemoArgs) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        ended = Box::pin(run_to_verdict(global, args)) => ended,
        () = interrupts.next() => Err(Failure::Interrupted.into()),
    }
}

async fn run_to_verdict(global: &GlobalArgs, args: DemoArgs) -> anyhow::Result<()> {
    let events = events::load(args.data.as_deref())?;
    let quipud = quipud::find(args.quipud.as_deref())?;
    let progress = Progress::begin(events.len());

    progress.say("starting three nodes");
    let mut nodes = DemoNodes::start(quipud, global.dir.as_deref()).await?;
    let client = connect(&nodes).await?;
    let topic = NewTopic { replication_factor: REPLICAS, ..NewTopic::new(TOPIC, PARTITIONS) };
    client.admin().create_topic(topic).await.context("can't create the topic")?;
    progress.say(&format!(
        "appending {} events to {PARTITIONS} partitions, {REPLICAS} replicas each",
        events.len()
    ));
    let workload = Workload {
        client,
        group: Some(DemoGroup::start(&nodes.addresses())?),
        events,
        duration: Duration::from_secs(args.seconds),
        progress: progress.clone(),
    };
    let mut history = workload.run(&mut nodes).await?;

    progress.say("reading everything back and asking the replicas");
    if let Err(error) = nodes.wait_healthy().await {
        // The verdict says whether that did harm.
        progress.say(&format!("{error:#}"));
    }
    // A client of its own, which has seen nothing of the run.
    let reader = connect(&nodes).await?;
    history.read = answers::read_all(&reader).await?;
    history.nodes = nodes.ids();
    history.replicas = answers::replicas(&reader, &history).await?;
    progress.end();
    drop(nodes);
    report(global, &judge(&history))
}

async fn connect(nodes: &DemoNodes) -> anyhow::Result<Client> {
    Client::connect(ClientConfig::new(nodes.addresses())).await.context("can't reach the nodes")
}

#[allow(clippy::print_stderr, reason = "the offending records are no part of the verdict line")]
fn report(global: &GlobalArgs, verdict: &Verdict) -> anyhow::Result<()> {
    if global.output == OutputForm::Json {
        let violations: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "verdict": verdict.to_string(),
            "good": verdict.is_good(),
            "acked": verdict.acked,
            "read": verdict.read,
            "lost": verdict.lost(),
            "duplicated": verdict.duplicated(),
            "reordered": verdict.reordered(),
            "failover_ms": verdict.failover.map(|failover| failover.as_millis()),
            "replicas_agree": verdict.replicas_agree(),
            "group_missing": verdict.missing(),
            "violations": violations,
        }))?;
    } else {
        for violation in verdict.violations.iter().take(VIOLATIONS_SHOWN) {
            eprintln!("{violation}");
        }
        let more = verdict.violations.len().saturating_sub(VIOLATIONS_SHOWN);
        if more > 0 {
            eprintln!("and {more} more; -o json lists all");
        }
        print_line(&verdict.to_string())?;
    }
    if verdict.is_good() { Ok(()) } else { Err(Failure::Reported.into()) }
}
