//! `quipu demo`.

use std::path::PathBuf;

/// Three nodes, real events, the leader killed in the middle, and a verdict
///
/// Starts three nodes in a temporary folder, appends events with their subject as the key and
/// consumes them at the same time, also by a group of three processes; kills the leader of the
/// busiest partition with SIGKILL, restarts it, kills a member of the group; and then compares
/// what was acknowledged with what a fresh linearizable read and all three replicas answer, and
/// with what the group printed. Everything is stopped and deleted at the end.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// CloudEvents to append, one a line [default: 12,134 flight events that are built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Spread the events over so long
    #[arg(long, value_name = "S", default_value_t = 12,
        value_parser = clap::value_parser!(u64).range(3..=3_600))]
    pub(crate) seconds: u64,
    /// The node's binary [default: beside this one, else $QUIPUD, else on the path]
    #[arg(long, value_name = "FILE")]
    pub(crate) quipud: Option<PathBuf>,
}
