//! `quipu bench`: what a cluster on this machine, or another one, does in a second, and what that
//! costs. How to read the figures is told in docs/benchmarks.md.
//!
//! - `stage`: the cluster that is measured, by default one that lives as long as the run;
//! - `load`, `pace`, `chunk`, `payload`: producers, when they send, and what;
//! - `meter`: what is counted; `sample`, `usage`, `scrape`: what it costs;
//! - `append`, `read`, `failover`, `groups`, `idle`, `disk`: what each bench does;
//! - `figure`, `report`, `plot`: what is told.

mod append;
mod chunk;
mod disk;
mod failover;
mod figure;
mod groups;
mod idle;
mod load;
mod meter;
mod pace;
mod payload;
mod plot;
mod read;
mod report;
mod sample;
mod scrape;
mod stage;
mod topic;
mod usage;

use anyhow::bail;
use tokio::time::sleep_until;

use self::meter::Window;
use self::sample::{Cost, Sample};
use self::stage::Stage;
use crate::args::{BenchCommand, GlobalArgs};
use crate::failure::Failure;
use crate::interrupts::Interrupts;

/// Runs a bench. Whatever happens, the nodes it started are stopped and their data deleted.
pub(crate) async fn run(global: &GlobalArgs, command: BenchCommand) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        ended = Box::pin(run_one(global, command)) => ended,
        () = interrupts.next() => Err(Failure::Interrupted.into()),
    }
}

async fn run_one(global: &GlobalArgs, command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Append(args) => append::run(global, &args).await,
        BenchCommand::Latency(args) => append::run_latency(global, &args).await,
        BenchCommand::Read(args) => read::run(global, &args).await,
        BenchCommand::Failover(args) => failover::run(global, &args).await,
        BenchCommand::Idle(args) => idle::run(global, &args).await,
        BenchCommand::Disk(args) => disk::run(global, &args).await,
        BenchCommand::Groups(args) => groups::run(global, &args).await,
        BenchCommand::Operate => {
            bail!("not supported: this version measures no cluster that is changed meanwhile yet")
        }
    }
}

/// What the processes use within the window.
async fn cost_within(stage: &Stage, window: Window) -> anyhow::Result<Cost> {
    sleep_until(window.start).await;
    let before = Sample::take(stage).await?;
    sleep_until(window.end).await;
    Ok(Sample::take(stage).await?.since(&before))
}
