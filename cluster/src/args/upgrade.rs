//! `quipu upgrade …`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum UpgradeCommand {
    /// Show what a new binary would bring, and in which order nodes would get it; changes nothing
    Plan {
        /// The new quipud
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Ask for each node whether it may be stopped now; exit code 0 means every one may
    Check,
    /// Exchange the nodes' binary, one node after the other, or go on with that
    Run(RunArgs),
    /// Show how far an upgrade is
    Status,
    /// Bring the exchanged nodes back to the old binary, the last one first
    Rollback(RollbackArgs),
    /// Raise the finalized feature level, for ever: no node can go back to an older version then
    Finalize {
        /// To this level [default: the highest that every node speaks]
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
        level: Option<u32>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The new quipud [default: that of the upgrade under way]
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// The old quipud, for a rollback [default: what the local nodes run]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Exchange so many nodes and stop there
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The old quipud [default: what was remembered]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PaceArgs {
    /// For nodes on other hosts: a shell command that gives one node the other binary and restarts
    /// it; {host}, {node}, {address}, {binary} and {version} are filled in
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Watch each exchanged node for so long before the next
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) soak: u64,
    /// Halt when a check fails for so long
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    pub(crate) patience: u64,
}
