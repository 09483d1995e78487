//! `quipu partition …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PartitionCommand {
    /// Show what each node knows of its replica, with chain hashes at one common offset
    Describe {
        /// The topic
        topic: String,
        /// The partition
        partition: u32,
    },
    /// Hand the leadership to another replica
    MoveLeader {
        /// The topic
        topic: String,
        /// The partition
        partition: u32,
        /// The node that shall lead
        #[arg(long, value_name = "NODE")]
        to: u64,
    },
}
