//! `quipu topic …`.

use clap::Subcommand;

use super::values::{self, Setting};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List the topics
    Ls,
    /// Show a topic's settings, partitions, leaders and replicas
    Describe {
        /// The topic
        topic: String,
    },
    /// Change settings; an empty value sets the default again
    Set {
        /// The topic
        topic: String,
        /// What to change
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<Setting>,
    },
    /// Delete a topic and all its records
    Rm {
        /// The topic
        topic: String,
        /// Don't ask for the name again
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The topic's name
    pub(crate) topic: String,
    /// How many partitions
    #[arg(short, long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: u32,
    /// How many replicas each partition has: 1, 3 or 5 [default: 3 where there are three nodes]
    #[arg(short, long, value_name = "N", value_parser = values::replication_factor)]
    pub(crate) replication: Option<u32>,
    /// A setting, for example retention.ms=86400000; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) settings: Vec<Setting>,
}
