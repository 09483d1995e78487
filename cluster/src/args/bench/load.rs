//! Flags that several benches share: which topic, which values, which batches.

use clap::ValueEnum;

use crate::args::CompressionArg;
use crate::args::values;

/// The topic that is used.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopicArgs {
    /// The topic; it is created where it is missing, and stays. Without a name the bench uses one
    /// of its own and deletes it at the end
    pub(crate) topic: Option<String>,
    /// Partitions of the topic, if it has to be created
    #[arg(short, long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "The load")]
    pub(crate) partitions: u32,
    /// Replicas of each partition, if the topic has to be created: 1, 3 or 5
    #[arg(short, long, value_name = "N", default_value = "3",
        value_parser = values::replication_factor, help_heading = "The load")]
    pub(crate) replicas: u32,
}

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PayloadArg {
    /// Random bytes, which don't compress
    Random,
    /// The flights of the demo, one JSON object of about 430 bytes a record
    Flights,
}

/// The values of records.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ValueArgs {
    /// Bytes of each record's value
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = record_bytes,
        help_heading = "The load")]
    pub(crate) record_bytes: u32,
    /// What the values are
    #[arg(
        long,
        value_name = "KIND",
        default_value = "random",
        conflicts_with = "record_bytes",
        help_heading = "The load"
    )]
    pub(crate) payload: PayloadArg,
}

/// How producers make batches.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BatchArgs {
    /// Bytes of a batch at most
    #[arg(long, value_name = "BYTES", default_value = "256KiB", value_parser = batch_bytes,
        help_heading = "The load")]
    pub(crate) batch_bytes: u32,
    /// Records of a batch at most, instead of --batch-bytes; 1: every record is its own append
    #[arg(long, value_name = "N", conflicts_with = "batch_bytes",
        value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "The load")]
    pub(crate) batch_records: Option<u32>,
    /// Wait so long for a batch to fill, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(0..=60_000), help_heading = "The load")]
    pub(crate) linger_ms: u64,
    /// Batches of one producer and partition that may be unanswered at the same time
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=32), help_heading = "The load")]
    pub(crate) in_flight: u32,
    /// Bytes of records that wait or are on their way in one producer; without --rate this is what
    /// bounds the latency
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = values::bytes,
        help_heading = "The load")]
    pub(crate) buffer_bytes: u32,
    /// Compress batches
    #[arg(long, value_name = "CODEC", default_value = "none", help_heading = "The load")]
    pub(crate) compression: CompressionArg,
}

/// A batch holds at least one record, and its header.
const RECORD_BYTES_MAX: u32 = 4 << 20;
const BATCH_BYTES_MAX: u32 = 8 << 20;

fn record_bytes(text: &str) -> Result<u32, String> {
    at_most(text, RECORD_BYTES_MAX, "4 MiB")
}

fn batch_bytes(text: &str) -> Result<u32, String> {
    at_most(text, BATCH_BYTES_MAX, "8 MiB")
}

fn at_most(text: &str, bytes_max: u32, name: &str) -> Result<u32, String> {
    let bytes = values::bytes(text)?;
    if bytes > bytes_max { Err(format!("want at most {name}")) } else { Ok(bytes) }
}
