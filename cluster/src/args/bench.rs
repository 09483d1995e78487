//! `quipu bench …`.

use clap::Subcommand;

use super::CompressionArg;
use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Append for a while and report rate and latency; creates the topic where it is missing
    Append(BenchAppendArgs),
    /// Read what is there, from the start, and report the rate
    Read(BenchReadArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchAppendArgs {
    /// The topic
    #[arg(default_value = "bench")]
    pub(crate) topic: String,
    /// Bytes of each record's value; they don't compress
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = values::bytes)]
    pub(crate) record_bytes: u32,
    /// Bytes of a batch at most
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = values::bytes)]
    pub(crate) batch_bytes: u32,
    /// Wait so long for a batch to fill, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) linger_ms: u64,
    /// Producers at the same time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) producers: u16,
    /// Partitions of the topic, if it has to be created
    #[arg(short, long, value_name = "N", default_value_t = 6,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: u32,
    /// Append for so long
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Append at most so many records a second, all producers together [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Compress batches
    #[arg(long, value_name = "CODEC", default_value = "none")]
    pub(crate) compression: CompressionArg,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchReadArgs {
    /// The topic
    #[arg(default_value = "bench")]
    pub(crate) topic: String,
    /// Stop after so long, even before the end
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
}
