//! What each command does. `run` chooses; the rest is one file a command.

mod append;
mod bench;
mod cluster;
mod completions;
mod confirm;
mod consume;
mod group;
mod node;
mod offsets;
mod partition;
mod printer;
mod read;
mod rebalance;
mod topic;
mod upgrade;

use anyhow::Context as _;
use quipu_client::{Client, ClientConfig};

use crate::args::{Cli, Command, GlobalArgs, OutputForm};
use crate::demo;
use crate::failure::usage;
use crate::local::layout::{ClusterDir, DIR_DEFAULT};
use crate::local::ports::BASE_PORT;

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let prints_records = matches!(command, Command::Read(_) | Command::Consume(_));
    if global.output == OutputForm::Cloudevents && !prints_records {
        return usage("-o cloudevents is a form of records; `quipu read` and `consume` print them");
    }
    match command {
        Command::Cluster(command) => Box::pin(cluster::run(&global, command)).await,
        Command::Upgrade(command) => Box::pin(upgrade::run(&global, command)).await,
        Command::Topic(command) => Box::pin(topic::run(&global, command)).await,
        Command::Append(args) => Box::pin(append::run(&global, args)).await,
        Command::Read(args) => Box::pin(read::run(&global, args)).await,
        Command::Consume(args) => Box::pin(consume::run(&global, args)).await,
        Command::Group(command) => Box::pin(group::run(&global, command)).await,
        Command::Partition(command) => Box::pin(partition::run(&global, command)).await,
        Command::Node(command) => Box::pin(node::run(&global, command)).await,
        Command::Rebalance(command) => Box::pin(rebalance::run(&global, command)).await,
        Command::Bench(command) => Box::pin(bench::run(&global, command)).await,
        Command::Demo(args) => Box::pin(demo::run(&global, args)).await,
        Command::Completions { shell } => completions::run(shell),
    }
}

/// The folder of the local cluster.
fn cluster_dir(global: &GlobalArgs) -> ClusterDir {
    ClusterDir::new(global.dir.clone().unwrap_or_else(|| DIR_DEFAULT.into()))
}

/// Connects to the cluster that the command line means.
async fn connect(global: &GlobalArgs) -> anyhow::Result<Client> {
    let nodes = nodes(global)?;
    Client::connect(ClientConfig::new(nodes)).await.context(
        "can't reach the cluster; --nodes or QUIPU_NODES says where it is, `quipu cluster up` \
         starts one here",
    )
}

/// Addresses to ask first: those named, else those of the local cluster, else the default.
fn nodes(global: &GlobalArgs) -> anyhow::Result<Vec<String>> {
    if !global.nodes.is_empty() {
        return Ok(global.nodes.clone());
    }
    let dir = cluster_dir(global);
    // A folder that is named has to hold a cluster; the default one may be missing.
    let layout = if global.dir.is_some() { Some(dir.load_existing()?) } else { dir.load()? };
    match layout {
        Some(layout) => Ok(layout.addresses()),
        None => Ok(vec![format!("127.0.0.1:{BASE_PORT}")]),
    }
}

/// Whether answers are printed as JSON.
fn is_json(global: &GlobalArgs) -> bool {
    global.output == OutputForm::Json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::layout::Layout;
    use crate::local::ports::NodePorts;

    fn global(nodes: &[&str], dir: Option<&std::path::Path>) -> GlobalArgs {
        GlobalArgs {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            dir: dir.map(Into::into),
            output: OutputForm::Table,
        }
    }

    #[test]
    fn named_nodes_come_before_the_local_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(&[NodePorts { listen: 9700, http: 9800 }]);
        ClusterDir::new(folder.path()).save(&layout).unwrap();
        assert_eq!(nodes(&global(&["a:1"], Some(folder.path()))).unwrap(), ["a:1"]);
        assert_eq!(nodes(&global(&[], Some(folder.path()))).unwrap(), ["127.0.0.1:9700"]);
    }

    #[test]
    fn a_named_folder_without_a_cluster_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = nodes(&global(&[], Some(folder.path()))).unwrap_err().to_string();
        assert!(error.starts_with("there is no local cluster in "), "{error}");
    }
}
