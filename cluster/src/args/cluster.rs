//! `quipu cluster …`.

use std::path::PathBuf;

use clap::Subcommand;

/// Nodes of one local cluster at most; more would only fight for the same disk.
const NODES_MAX: i64 = 15;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start a local cluster, or those of its nodes that are down; it outlives this command
    Up(UpArgs),
    /// Show the nodes of the local cluster, and what the cluster says of itself
    Status,
    /// Kill a node at once, as a crash would (SIGKILL)
    Kill {
        /// The node's number, as `status` shows it
        node: u64,
    },
    /// Stop a node without ending it, as a long pause would (SIGSTOP)
    Pause {
        /// The node's number
        node: u64,
    },
    /// Let a paused node go on (SIGCONT)
    Resume {
        /// The node's number
        node: u64,
    },
    /// Stop a node cleanly if it runs, and start it
    Restart {
        /// The node's number
        node: u64,
        /// The node's binary, as with `up`
        #[arg(long, value_name = "FILE")]
        quipud: Option<PathBuf>,
    },
    /// Stop all nodes cleanly; their data stays
    Down(DownArgs),
    /// Form a cluster, once, of fresh nodes that were started by hand (--nodes names all of them)
    Init,
    /// Ask whether anything is wrong; exit code 0 means no
    Health {
        /// Look again every 2 seconds, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Show the finalized feature level, and which levels each node speaks
    Features,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// How many nodes [default: 3, or as many as the cluster of --dir has]
    #[arg(short = 'n', long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=NODES_MAX))]
    pub(crate) count: Option<u16>,
    /// Node N listens on this port + N - 1, its metrics 100 ports higher [default: 9400]
    #[arg(long, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub(crate) base_port: Option<u16>,
    /// The node's binary [default: beside this one, else $QUIPUD, else on the path]
    #[arg(long, value_name = "FILE")]
    pub(crate) quipud: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// Also delete the folder of the cluster with all its data
    #[arg(long)]
    pub(crate) delete_data: bool,
}
