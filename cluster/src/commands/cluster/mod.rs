//! `quipu cluster …`: local clusters, and forming and checking any cluster.
//!
//! `up` starts what is down, `signals` ends, stops and restarts nodes, `status` shows them,
//! `health` has all nodes asked what is wrong, `features` shows the feature levels.

mod features;
mod health;
mod signals;
mod status;
mod up;

use rustix::process::Signal;
use serde_json::json;

use crate::args::{ClusterCommand, GlobalArgs};
use crate::commands::{connect, is_json};
use crate::failure::usage;
use crate::local::processes::ProcessState;
use crate::output::{print_json, print_line};

pub(super) async fn run(global: &GlobalArgs, command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Up(args) => up::run(global, &args).await,
        ClusterCommand::Status => status::run(global).await,
        ClusterCommand::Kill { node } => signals::kill(global, node).await,
        ClusterCommand::Pause { node } => {
            signals::send(global, node, Signal::STOP, ProcessState::Paused)
        }
        ClusterCommand::Resume { node } => {
            signals::send(global, node, Signal::CONT, ProcessState::Running)
        }
        ClusterCommand::Restart { node, quipud } => {
            signals::restart(global, node, quipud.as_deref()).await
        }
        ClusterCommand::Down(args) => signals::down(global, &args).await,
        ClusterCommand::Init => init(global).await,
        ClusterCommand::Health { watch } => health::run(global, watch).await,
        ClusterCommand::Features => features::run(global).await,
    }
}

async fn init(global: &GlobalArgs) -> anyhow::Result<()> {
    if global.nodes.is_empty() {
        return usage("init needs --nodes with the addresses of all nodes that form the cluster");
    }
    let admin = connect(global).await?.admin().at_address(&global.nodes[0]);
    let cluster_id = admin.init_cluster(&global.nodes).await?;
    if is_json(global) {
        return print_json(&json!({ "cluster_id": cluster_id, "nodes": global.nodes }));
    }
    print_line(&format!("formed cluster {cluster_id} of {} nodes", global.nodes.len()))
}
