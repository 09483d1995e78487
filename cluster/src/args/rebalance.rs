//! `quipu rebalance …`.

use clap::Subcommand;

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum RebalanceCommand {
    /// Show what would be moved, and change nothing
    Plan {
        /// Each group should also have at least so many replicas: 3 or 5
        #[arg(short = 'r', long, value_name = "N", value_parser = values::replication_factor)]
        replication: Option<u32>,
    },
    /// Move replicas and leaders until the cluster is even
    Apply(ApplyArgs),
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ApplyArgs {
    /// Each group should also have at least so many replicas: 3 or 5
    #[arg(short = 'r', long, value_name = "N", value_parser = values::replication_factor)]
    pub(crate) replication: Option<u32>,
    /// Seconds to go on; moves under way then go on by themselves
    #[arg(long, value_name = "SECONDS", default_value = "3600",
        value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(crate) within: u64,
}
