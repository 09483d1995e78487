//! `quipu bench …`: what is measured, and the bounds of every number that may be asked for.
//!
//! `load` holds the flags that several benches share: the topic, the values, the batches.

mod load;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::read::LevelArg;
use super::values;

pub(crate) use load::{BatchArgs, PayloadArg, TopicArgs, ValueArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Append for a while: throughput, latency, and what it costs the nodes
    Append(AppendBenchArgs),
    /// Read from the start, behind appends as they come, or only where the log ends
    Read(ReadBenchArgs),
    /// Append with one record in flight at a time
    Latency(LatencyBenchArgs),
    /// Kill or pause leaders: the time from the fault to the next acknowledged append
    Failover(FailoverBenchArgs),
    /// What partitions cost in which nothing happens
    Idle(IdleBenchArgs),
    /// The disk alone: syncs of 4 KiB, and sequential writing; the limit to compare with
    Disk(DiskBenchArgs),
    /// What members of a group notice when one leaves, dies or comes; offset commits; idle groups
    Groups(GroupsBenchArgs),
    /// Not supported yet: a cluster that is changed while it serves
    Operate,
}

/// Which cluster is measured, how often, and what is drawn.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StageArgs {
    /// Run so often, each time on a fresh cluster if it is started here; the median is told, and
    /// the spread
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=100), help_heading = "The run")]
    pub(crate) repeat: u16,
    /// Draw throughput and latency over time and the percentiles into this file
    #[arg(long, value_name = "FILE", help_heading = "The run")]
    pub(crate) svg: Option<PathBuf>,
    /// Folder below which a cluster that is started here keeps its data; on the disk that shall be
    /// measured [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR", help_heading = "The run")]
    pub(crate) below: Option<PathBuf>,
    /// The node's binary [default: the one beside this command, else $QUIPUD, else on the path]
    #[arg(long, value_name = "FILE", help_heading = "The run")]
    pub(crate) quipud: Option<PathBuf>,
}

/// How long is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TimeArgs {
    /// Measure for so long
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = "The run")]
    pub(crate) seconds: u64,
    /// Work for so long before that without measuring
    #[arg(long, value_name = "S", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(0..=3_600), help_heading = "The run")]
    pub(crate) warmup: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AppendBenchArgs {
    #[command(flatten)]
    pub(crate) topic: TopicArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) batches: BatchArgs,
    /// Producers at the same time
    #[arg(long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "The load")]
    pub(crate) producers: u16,
    /// Clients, each with connections of its own, that the producers share [default: as many as
    /// producers]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "The load")]
    pub(crate) clients: Option<u16>,
    /// Send so many records a second, all producers together, whether or not the earlier ones are
    /// acknowledged; latency counts from when a record was due [default: as fast as they are taken]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "The load")]
    pub(crate) rate: Option<u64>,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

/// What a reader does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadMode {
    /// Read everything from the start, as fast as possible
    Scan,
    /// Follow appends of --rate from the end; latency is from the append to the consumer
    Tail,
    /// Ask where the log ends, one question at a time: the cost of a read at its level
    Ends,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReadBenchArgs {
    #[command(flatten)]
    pub(crate) topic: TopicArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    /// What the readers do
    #[arg(long, value_name = "MODE", default_value = "scan", help_heading = "The load")]
    pub(crate) mode: ReadMode,
    /// What a read must have seen: linearizable, committed or bounded:MS
    #[arg(long, value_name = "LEVEL", default_value = "committed", help_heading = "The load")]
    pub(crate) level: LevelArg,
    /// Readers at the same time; each reads all partitions
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1_024), help_heading = "The load")]
    pub(crate) readers: u16,
    /// Append so many records before a scan, unless the topic was there already
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000),
        help_heading = "The load")]
    pub(crate) records: u64,
    /// Append so many records a second while tailing
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "The load")]
    pub(crate) rate: u64,
    /// Bytes of one fetch at most
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = values::bytes,
        help_heading = "The load")]
    pub(crate) fetch_bytes: u32,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LatencyBenchArgs {
    #[command(flatten)]
    pub(crate) topic: TopicArgs,
    #[command(flatten)]
    pub(crate) values: ValueArgs,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

/// What is done to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultArg {
    /// SIGKILL: its connections break at once
    Kill,
    /// SIGSTOP: its connections stay open, and nothing answers
    Pause,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FailoverBenchArgs {
    /// Partitions of the topic that the bench creates and deletes, three replicas each
    #[arg(short, long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=1_000), help_heading = "The load")]
    pub(crate) partitions: u32,
    /// What happens to the node that leads most partitions
    #[arg(long, value_name = "FAULT", default_value = "kill", help_heading = "The load")]
    pub(crate) fault: FaultArg,
    /// So many faults one after the other, each after the cluster is healthy again
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=1_000), help_heading = "The load")]
    pub(crate) rounds: u16,
    /// Between two appends to one partition, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=1_000), help_heading = "The load")]
    pub(crate) every_ms: u64,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GroupsBenchArgs {
    /// Partitions of the topic that the bench creates and deletes, three replicas each
    #[arg(short, long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1_000), help_heading = "The load")]
    pub(crate) partitions: u32,
    /// Members of the group, each with connections of its own; no more than partitions
    #[arg(long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(2..=256), help_heading = "The load")]
    pub(crate) members: u16,
    /// Records a second that they are given, all together
    #[arg(long, value_name = "N", default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000), help_heading = "The load")]
    pub(crate) rate: u64,
    /// So many changes one after the other: one leaves, one comes, one dies, one comes, ...
    #[arg(long, value_name = "N", default_value_t = 12,
        value_parser = clap::value_parser!(u16).range(1..=1_000), help_heading = "The load")]
    pub(crate) rounds: u16,
    /// Silence after which a member is taken for dead, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3_000,
        value_parser = clap::value_parser!(u64).range(1_000..=60_000), help_heading = "The load")]
    pub(crate) session_timeout_ms: u64,
    /// Then commit offsets, so many at a time, each for a group of its own
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=1_024), help_heading = "The load")]
    pub(crate) committers: u16,
    /// Measure commits, and what idle groups cost, for so long each
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3_600), help_heading = "The run")]
    pub(crate) seconds: u64,
    /// Then form so many groups of one member that have nothing to consume
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = "The load")]
    pub(crate) idle_groups: u32,
    /// Let the nodes come to rest for so long before and after that
    #[arg(long, value_name = "S", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(0..=3_600), help_heading = "The run")]
    pub(crate) settle: u64,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IdleBenchArgs {
    /// Partitions of the topic that the bench creates and deletes
    #[arg(short, long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "The load")]
    pub(crate) partitions: u32,
    /// Replicas of each partition: 1, 3 or 5
    #[arg(short, long, value_name = "N", default_value = "3",
        value_parser = values::replication_factor, help_heading = "The load")]
    pub(crate) replicas: u32,
    /// Let the partitions fall asleep for so long before measuring
    #[arg(long, value_name = "S", default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(0..=3_600), help_heading = "The run")]
    pub(crate) settle: u64,
    /// Measure for so long
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3_600), help_heading = "The run")]
    pub(crate) seconds: u64,
    /// Then append once to so many of the idle partitions, one after the other
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = "The load")]
    pub(crate) wake: u32,
    #[command(flatten)]
    pub(crate) stage: StageArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiskBenchArgs {
    /// The folder whose disk is measured [default: the system's folder for temporary files]
    pub(crate) folder: Option<PathBuf>,
    /// Write so many blocks of 4 KiB, each synced before the next
    #[arg(long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(10..=1_000_000), help_heading = "The run")]
    pub(crate) syncs: u32,
    /// Write so many bytes in sequence
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = values::bytes,
        help_heading = "The run")]
    pub(crate) bytes: u32,
    /// Run so often; the median is told, and the spread
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=100), help_heading = "The run")]
    pub(crate) repeat: u16,
    /// Draw the percentiles into this file
    #[arg(long, value_name = "FILE", help_heading = "The run")]
    pub(crate) svg: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::{BenchCommand, Cli, Command};

    fn parse(line: &str) -> Result<BenchCommand, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Bench(command) => Ok(command),
            other => panic!("not a bench: {other:?}"),
        }
    }

    #[test]
    fn numbers_beyond_their_bounds_are_usage_errors() {
        for line in [
            "quipu bench append --record-bytes 0",
            "quipu bench append --producers 0",
            "quipu bench append --producers 257",
            "quipu bench append --partitions 0",
            "quipu bench append --partitions 10001",
            "quipu bench append --seconds 0",
            "quipu bench append --seconds 86401",
            "quipu bench append --rate 0",
            "quipu bench append --in-flight 33",
            "quipu bench append --batch-bytes 9MiB",
            "quipu bench append --batch-records 0",
            "quipu bench append --linger-ms 60001",
            "quipu bench append --replicas 2",
            "quipu bench append --repeat 0",
            "quipu bench append --repeat 101",
            "quipu bench read --level weak",
            "quipu bench read --mode backwards",
            "quipu bench read --readers 0",
            "quipu bench failover --rounds 0",
            "quipu bench failover --fault fire",
            "quipu bench failover --every-ms 0",
            "quipu bench idle --wake -1",
            "quipu bench groups --members 1",
            "quipu bench groups --session-timeout-ms 999",
            "quipu bench disk --syncs 9",
            "quipu bench disk --bytes 2048MiB",
            "quipu bench",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_usage_errors() {
        for line in [
            "quipu bench append --batch-bytes 1KiB --batch-records 2",
            "quipu bench append --payload flights --record-bytes 100",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_bench_runs_without_a_flag() {
        for name in ["append", "read", "latency", "failover", "idle", "disk", "groups", "operate"] {
            parse(&format!("quipu bench {name}")).expect(name);
        }
    }
}
