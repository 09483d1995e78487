//! Real `quipud` processes on this machine under kill -9 and SIGSTOP: what the simulator can't
//! show, because it replaces the disk, the clock and the kernel.
//!
//! Each check starts a fresh cluster on loopback, does its worst for a bounded time, and ends with
//! a verdict line and an exit code: 0 kept, 1 broken or not in time, 2 wrong arguments, 3 the
//! check itself could not be carried out. Nothing is judged by what the check counted on the way:
//! clients record what they asked and were answered, and the simulator's checkers judge that
//! history, together with what every node serves at the end. Numbers come from the nodes' metrics
//! and from /proc.
//!
//! The seed decides what is done and when; what the machine makes of it is never the same twice.
//!
//! | file | what |
//! |---|---|
//! | `node`, `cluster`, `quipud` | processes: start, kill, stop, wait |
//! | `recorder`, `load`, `payload`, `survey` | the history: how it comes about |
//! | `pump`, `agreement` | appends in bulk, counted and compared |
//! | `judge`, `promptness`, `stage` | the verdict and how it is told |
//! | `scrape`, `usage` | metrics and /proc |
//! | `kills`, `linearizable`, `pause`, `catch_up`, `saturate`, `idle`, `upgrade` | the checks |

mod agreement;
mod catch_up;
mod cluster;
mod idle;
mod judge;
mod kills;
mod linearizable;
mod load;
mod node;
mod pause;
mod payload;
mod promptness;
mod pump;
mod quipud;
mod recorder;
mod saturate;
mod scrape;
mod stage;
mod survey;
mod upgrade;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::live::stage::{Report, Stage};

/// Nodes of every cluster here.
const NODES: u64 = 3;

const EXIT_BROKEN: u8 = 1;
const EXIT_NOT_CARRIED_OUT: u8 = 3;

/// Fault tests on real processes.
#[derive(Debug, Parser)]
#[command(name = "quipu-live", about, version)]
pub struct LiveArgs {
    #[command(subcommand)]
    check: Check,
    /// Decides what is done and when; without it, a new one is drawn and printed
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Folder for data, logs and the history, made below it; default: the system's for temporary
    /// files. Deleted after a good verdict
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the folder after a good verdict, too
    #[arg(long, global = true)]
    keep: bool,
    /// The node's binary; default: $QUIPUD, the one beside this binary, target/release,
    /// target/debug
    #[arg(long, global = true, value_name = "FILE")]
    quipud: Option<PathBuf>,
    /// A setting of every node, as in docs/operating/configuration.md; may be repeated
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Kill all nodes at once, again and again, under appends: nothing acknowledged is lost
    KillAll(kills::KillAll),
    /// Kill the nodes in turn under appends: nothing acknowledged is lost
    KillTurns(kills::KillTurns),
    /// Read on every node right after each acknowledged append, while leaders move
    Linearizable(linearizable::Linearizable),
    /// Lose a disk, and be away for longer than the log is kept: one checkpoint, then the log
    CatchUp(catch_up::CatchUp),
    /// Append as fast as it goes to many partitions: no leader changes
    Saturate(saturate::Saturate),
    /// Do nothing with many partitions: it costs next to nothing
    Idle(idle::Idle),
    /// Go to the new release node by node under appends, back, forward again, and finalize
    Upgrade(upgrade::Upgrade),
}

impl Check {
    /// The time after which it has not succeeded.
    fn bound(&self) -> Duration {
        match self {
            Self::KillAll(check) => check.bound(),
            Self::KillTurns(check) => check.bound(),
            Self::Linearizable(check) => check.bound(),
            Self::CatchUp(check) => check.bound(),
            Self::Saturate(check) => check.bound(),
            Self::Idle(check) => check.bound(),
            Self::Upgrade(check) => check.bound(),
        }
    }

    async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        match self {
            Self::KillAll(check) => check.run(stage).await,
            Self::KillTurns(check) => check.run(stage).await,
            Self::Linearizable(check) => check.run(stage).await,
            Self::CatchUp(check) => check.run(stage).await,
            Self::Saturate(check) => check.run(stage).await,
            Self::Idle(check) => check.run(stage).await,
            Self::Upgrade(check) => check.run(stage).await,
        }
    }
}

/// Runs the check that the arguments ask for, and says how it ended.
pub fn main(args: &LiveArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return stage::not_carried_out(&error.into()),
    };
    // Whatever still runs is dropped with the runtime, and the processes with it.
    runtime.block_on(run(args))
}

async fn run(args: &LiveArgs) -> ExitCode {
    let stage = match Stage::new(args) {
        Ok(stage) => stage,
        Err(error) => return stage::not_carried_out(&error),
    };
    let bound = args.check.bound();
    let ended = tokio::select! {
        ended = timeout(bound, args.check.run(&stage)) => ended,
        // Dropping the check ends its processes.
        () = interrupted() => return stage.interrupted(),
    };
    match ended {
        Ok(Ok(report)) => stage.conclude(report, args.keep),
        Ok(Err(error)) => stage.failed(&error),
        Err(_) => stage.late(bound),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns when somebody wants this program to end.
async fn interrupted() {
    let terminated = signal(SignalKind::terminate());
    let Ok(mut terminated) = terminated else { return std::future::pending().await };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
