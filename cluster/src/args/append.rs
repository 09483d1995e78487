//! `quipu append`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::key_path::KeyPath;

/// Append records, one a line, from a file or from stdin
///
/// Prints how many records were acknowledged, at which offsets, how fast, and how long an append
/// took. A line that can't be a record ends the command with its line number; the records before
/// it stay appended.
#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// The topic
    pub(crate) topic: String,
    /// The key of every record
    #[arg(short, long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Where each line (JSON) has its key, for example .subject or .data.id
    #[arg(long, value_name = "PATH", conflicts_with = "key")]
    pub(crate) key_path: Option<KeyPath>,
    /// Lines are CloudEvents: data becomes the value, attributes become headers
    #[arg(long)]
    pub(crate) cloudevents: bool,
    /// Read lines from this file instead of stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Compress batches
    #[arg(long, value_name = "CODEC", default_value = "lz4")]
    pub(crate) compression: CompressionArg,
    /// Append to this partition, whatever the key
    #[arg(short, long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// Append all records as one atomic batch, and only if the partition ends at this offset
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub(crate) expect_end: Option<u64>,
    /// Wait so long for a batch to fill, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) linger_ms: u64,
    /// Batches of one partition that may be unanswered at the same time
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) in_flight: u16,
}

/// A batch's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    /// Not compressed
    None,
    /// Fast
    Lz4,
    /// Small
    Zstd,
}
