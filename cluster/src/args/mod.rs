//! The command line as it is typed. Everything is checked here as far as it can be without a
//! cluster; what comes out are closed types, no strings to be read again.

mod append;
mod bench;
mod cluster;
mod consume;
mod demo;
mod group;
mod node;
mod partition;
mod read;
mod rebalance;
mod topic;
mod upgrade;
mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use append::{AppendArgs, CompressionArg};
pub(crate) use bench::{
    AppendBenchArgs, BatchArgs, BenchCommand, DiskBenchArgs, FailoverBenchArgs, FaultArg,
    GroupsBenchArgs, IdleBenchArgs, LatencyBenchArgs, PayloadArg, ReadBenchArgs, ReadMode,
    StageArgs, TimeArgs, TopicArgs, ValueArgs,
};
pub(crate) use cluster::{ClusterCommand, DownArgs, UpArgs};
pub(crate) use consume::ConsumeArgs;
pub(crate) use demo::DemoArgs;
pub(crate) use group::{CommitArgs, GroupCommand, LagArgs, SeekArgs};
pub(crate) use node::{NodeCommand, WaitArgs};
pub(crate) use partition::PartitionCommand;
pub(crate) use read::{DEFAULT_FORMAT, LevelArg, ReadArgs};
pub(crate) use rebalance::{ApplyArgs, RebalanceCommand};
pub(crate) use topic::{CreateArgs, TopicCommand};
pub(crate) use upgrade::{PaceArgs, RollbackArgs, RunArgs, UpgradeCommand};
pub(crate) use values::Setting;

/// Runs local Quipu clusters, and works with any cluster from the shell.
///
/// Quipu is a replicated event log: topics have partitions, a partition is a totally ordered log
/// of records, and an append that was acknowledged is on stable storage on a majority of nodes.
#[derive(Debug, Parser)]
#[command(name = "quipu", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  quipu demo                            three nodes, real events, a leader killed: see it hold
  quipu cluster up -n 3                 a local cluster that stays
  quipu topic create orders -p 6 -r 3
  echo '{\"id\":1}' | quipu append orders --key o-1
  quipu read orders --follow

Exit codes: 0 done, 1 the operation or the verdict failed, 2 usage, 3 no node could be reached or
the outcome is unknown, 130 interrupted.";

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GlobalArgs {
    /// Nodes to ask first, as HOST:PORT,HOST:PORT; the others are found through them [default:
    /// the local cluster of --dir if there is one, else 127.0.0.1:9400]
    #[arg(
        long,
        global = true,
        env = "QUIPU_NODES",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "HOST:PORT",
        value_parser = values::address,
        help_heading = "Global options"
    )]
    pub(crate) nodes: Vec<String>,
    /// Folder of the local cluster [default: .quipu; for `demo` a temporary one]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) dir: Option<PathBuf>,
    /// How to print: tables for people, one JSON object a line for scripts
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORM",
        default_value = "table",
        help_heading = "Global options"
    )]
    pub(crate) output: OutputForm,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// Tables, for people.
    Table,
    /// One object a line with stable keys (docs/cli.md).
    Json,
    /// Only with `read` and `consume`: each record as the CloudEvent that was appended.
    Cloudevents,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start and break local clusters; form and check any cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Go to another version node by node, and finalize what it brings
    #[command(subcommand)]
    Upgrade(UpgradeCommand),
    /// Create, list, describe, change and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Append records, one a line, from a file or from stdin
    Append(AppendArgs),
    /// Read records, each partition in its order
    Read(ReadArgs),
    /// Consume topics together with the other members of a group
    Consume(ConsumeArgs),
    /// Groups: list, describe, how far behind, members, commit, seek, delete
    #[command(subcommand)]
    Group(GroupCommand),
    /// One partition's replicas and leader
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// The cluster's nodes: list, drain, remove
    #[command(subcommand)]
    Node(NodeCommand),
    /// Even out replicas and leaders over the nodes
    #[command(subcommand)]
    Rebalance(RebalanceCommand),
    /// Measure a cluster, and the disk below it
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Three nodes, real events, the leader killed in the middle, and a verdict
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// The shell that shall complete
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use expect_test::expect_file;

    use super::*;

    fn help(path: &[&str]) -> String {
        let mut command = Cli::command();
        command.build();
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).expect("the command is there");
        }
        found.clone().term_width(100).render_long_help().to_string()
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_reads_well() {
        expect_file!["expected/quipu.txt"].assert_eq(&help(&[]));
        expect_file!["expected/append.txt"].assert_eq(&help(&["append"]));
        expect_file!["expected/read.txt"].assert_eq(&help(&["read"]));
        expect_file!["expected/consume.txt"].assert_eq(&help(&["consume"]));
        expect_file!["expected/cluster.txt"].assert_eq(&help(&["cluster"]));
    }

    #[test]
    fn positions_may_begin_with_a_hyphen() {
        let cli = parse("quipu read flights --from -5 --to end").unwrap();
        let Command::Read(read) = cli.command else { panic!("not read") };
        assert_eq!(read.from.to_string(), "-5");
        let cli = parse("quipu group seek g --topic t --to @-1h --dry-run").unwrap();
        assert!(matches!(cli.command, Command::Group(GroupCommand::Seek(_))));
    }

    #[test]
    fn flags_that_contradict_each_other_are_usage_errors() {
        for line in [
            "quipu append t --key k --key-path .subject",
            "quipu append t --expect-end 3",
            "quipu consume t",
            "quipu consume --group g",
            "quipu consume t --group g --idle-exit 5",
            "quipu consume t --group g --from 17",
            "quipu read t -f %s -o",
            "quipu read t --follow --to 5",
            "quipu read t --level bounded",
            "quipu read t --level weak",
            "quipu topic create t -p 0",
            "quipu topic create t --set retention.ms",
            "quipu topic create t -r 2",
            "quipu cluster up -n 0",
            "quipu --nodes nowhere topic ls",
            "quipu bench append t --record-bytes 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn global_flags_may_stand_before_or_after_the_command() {
        for line in
            ["quipu -o json --nodes a:1,b:2 topic ls", "quipu topic ls --nodes a:1,b:2 -o json"]
        {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.nodes, ["a:1", "b:2"]);
            assert_eq!(cli.global.output, OutputForm::Json);
        }
    }
}
