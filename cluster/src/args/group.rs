//! `quipu group …`.

use std::time::Duration;

use clap::Subcommand;

use super::values;
use crate::position::{self, Position};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups
    Ls,
    /// Show a group's members, its offsets, and how far it is behind
    Describe {
        /// The group
        group: String,
    },
    /// Show how far a group is behind: records, and how long the first of them has been waiting
    Lag(LagArgs),
    /// Show who is in a group, and which partitions each has
    Members {
        /// The group
        group: String,
    },
    /// Commit a group offset, as a consumer would
    Commit(CommitArgs),
    /// Set group offsets to a position, forwards or back
    Seek(SeekArgs),
    /// Delete a group and its offsets
    Rm {
        /// The group
        group: String,
        /// Don't ask for the name again
        #[arg(long)]
        yes: bool,
    },
}

/// Show how far a group is behind: records, and how long the first of them has been waiting
#[derive(Debug, clap::Args)]
pub(crate) struct LagArgs {
    /// The group
    pub(crate) group: String,
    /// Again and again until interrupted, in such intervals [default: 1s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s",
        value_parser = values::duration)]
    pub(crate) watch: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CommitArgs {
    /// The group
    pub(crate) group: String,
    /// The topic
    #[arg(long, value_name = "T")]
    pub(crate) topic: String,
    /// The partition
    #[arg(short, long, value_name = "P")]
    pub(crate) partition: u32,
    /// The next offset to consume
    #[arg(long, value_name = "OFFSET")]
    pub(crate) offset: u64,
    /// Free text kept with the offset, at most 4 KiB
    #[arg(long, value_name = "TEXT")]
    pub(crate) metadata: Option<String>,
}

/// Set group offsets to a position, forwards or back
#[derive(Debug, clap::Args)]
pub(crate) struct SeekArgs {
    /// The group
    pub(crate) group: String,
    /// The topic
    #[arg(long, value_name = "T")]
    pub(crate) topic: String,
    /// Only this partition; may be repeated
    #[arg(short, long = "partition", value_name = "P")]
    pub(crate) partitions: Vec<u32>,
    /// Where the group shall go on
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true,
        value_parser = position::parse_now, long_help = format!(
            "Where the group shall go on: {}", position::GRAMMAR))]
    pub(crate) to: Position,
    /// Show what would change and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
