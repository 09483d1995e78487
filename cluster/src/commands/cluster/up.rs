//! `quipu cluster up`: a new local cluster, or those nodes of a known one that are down.

use anyhow::bail;

use crate::args::{GlobalArgs, UpArgs};
use crate::commands::cluster::status;
use crate::commands::{cluster_dir, is_json};
use crate::failure::usage;
use crate::local::layout::Layout;
use crate::local::ports::{self, BASE_PORT};
use crate::local::quipud;
use crate::local::start::LocalCluster;
use crate::output::live::progress;
use crate::output::print_line;

/// Nodes of a local cluster where nothing is said.
const NODES_DEFAULT: u16 = 3;

pub(super) async fn run(global: &GlobalArgs, args: &UpArgs) -> anyhow::Result<()> {
    let dir = cluster_dir(global);
    let quipud = quipud::find(args.quipud.as_deref())?;
    let _lock = dir.lock()?;
    let layout = layout_for(dir.load()?, args)?;
    let mut cluster = LocalCluster { dir, layout, quipud };
    if let Some(node) = cluster.nodes_paused().first() {
        bail!("node {node} is paused; `quipu cluster resume {node}` lets it go on");
    }
    let starting = cluster.nodes_down();
    for node_id in &starting {
        let node = cluster.layout.node(*node_id)?;
        ports::check_free([node.listen_port, node.http_port])?;
    }
    let spinner = progress(None);
    for node_id in &starting {
        spinner.set_message(format!("starting node {node_id}"));
        cluster.start(*node_id)?;
    }
    for node in &cluster.layout.nodes {
        spinner.set_message(format!("waiting for node {}", node.node_id));
        cluster.wait_reachable(node.node_id).await?;
    }
    spinner.set_message("waiting until the cluster is healthy");
    cluster.form().await?;
    cluster.wait_healthy().await?;
    spinner.finish_and_clear();
    status::run(global).await?;
    if is_json(global) {
        return Ok(());
    }
    print_line(&next_steps(global, starting.len(), cluster.layout.nodes.len()))
}

/// The cluster as it is remembered, or a new one. What is remembered can't be changed by flags.
fn layout_for(known: Option<Layout>, args: &UpArgs) -> anyhow::Result<Layout> {
    let Some(layout) = known else {
        let count = args.count.unwrap_or(NODES_DEFAULT);
        let ports = ports::counted_from(args.base_port.unwrap_or(BASE_PORT), count)?;
        return Ok(Layout::new(&ports));
    };
    let has = layout.nodes.len();
    if args.count.is_some_and(|count| usize::from(count) != has) {
        return usage(format!("this cluster has {has} nodes; -n makes sense with a new one only"));
    }
    let first_port = layout.nodes.first().map(|node| node.listen_port);
    if args.base_port.is_some() && args.base_port != first_port {
        return usage("this cluster has its ports; --base-port makes sense with a new one only");
    }
    Ok(layout)
}

fn next_steps(global: &GlobalArgs, started: usize, nodes: usize) -> String {
    let dir = match &global.dir {
        Some(dir) => format!(" --dir {}", dir.display()),
        None => String::new(),
    };
    let what = match started {
        0 => "All nodes were up already.".to_owned(),
        _ if started == nodes => format!("{started} nodes are up."),
        _ => format!("{started} of {nodes} nodes were down and are up again."),
    };
    let replication = if nodes >= 3 { " -r 3" } else { "" };
    format!(
        "\n{what} Go on with:\n  \
         quipu{dir} topic create orders -p 6{replication}\n  \
         echo '{{\"id\":1}}' | quipu{dir} append orders --key o-1\n  \
         quipu{dir} read orders\n  \
         quipu{dir} cluster kill 1      # and `cluster restart 1`\n  \
         quipu{dir} cluster down        # the data stays; --delete-data deletes it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::ports::NodePorts;

    fn layout() -> Layout {
        Layout::new(&[
            NodePorts { listen: 9400, http: 9500 },
            NodePorts { listen: 9401, http: 9501 },
        ])
    }

    #[test]
    fn a_cluster_keeps_its_size_and_its_ports() {
        let args = |count, base_port| UpArgs { count, base_port, quipud: None };
        assert_eq!(layout_for(None, &args(None, None)).unwrap().nodes.len(), 3);
        assert_eq!(layout_for(Some(layout()), &args(None, None)).unwrap(), layout());
        assert_eq!(layout_for(Some(layout()), &args(Some(2), Some(9400))).unwrap(), layout());
        assert!(layout_for(Some(layout()), &args(Some(3), None)).is_err());
        assert!(layout_for(Some(layout()), &args(None, Some(9500))).is_err());
    }
}
