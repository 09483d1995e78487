//! `quipu node …`.

use clap::Subcommand;

/// Seconds that draining or removing is waited for, where nothing else is said.
const WITHIN_S: &str = "600";

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes: what each is for, holds and leads
    Ls,
    /// Show one node: what it holds, what it waits for, whether it may be stopped
    Status {
        /// The node's number
        node: u64,
    },
    /// Move leaderships away from a node and keep its replicas, as before stopping it
    Drain(WaitArgs),
    /// Let a drained node lead again
    Resume {
        /// The node's number
        node: u64,
    },
    /// Move everything away from a node, then take it out of the cluster for good
    Remove {
        #[command(flatten)]
        wait: WaitArgs,
        /// Only show what would be moved, and where to
        #[arg(long)]
        dry_run: bool,
    },
    /// End a removal: moves under way are undone, those that are over stay
    Cancel {
        /// The node's number
        node: u64,
    },
    /// How a node is added: it is started with --join
    Add,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WaitArgs {
    /// The node's number
    pub(crate) node: u64,
    /// Begin it, and don't wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds to wait; what is not done by then goes on
    #[arg(long, value_name = "SECONDS", default_value = WITHIN_S,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) within: u64,
}
