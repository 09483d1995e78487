//! `quipu upgrade …`: to another version, node by node.
//!
//! What is decided and done is in `crate::upgrade`; here it is asked for and shown.

mod show;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::args::{GlobalArgs, PaceArgs, RollbackArgs, RunArgs, UpgradeCommand};
use crate::commands::{cluster_dir, connect, is_json, nodes};
use crate::failure::{Failure, usage};
use crate::output::{print_json, print_line};
use crate::upgrade::binary::Binary;
use crate::upgrade::drive::{Driver, Means};
use crate::upgrade::facts::Look;
use crate::upgrade::progress::{Direction, NodeState, Progress};

pub(super) async fn run(global: &GlobalArgs, command: UpgradeCommand) -> anyhow::Result<()> {
    match command {
        UpgradeCommand::Plan { to } => plan(global, to).await,
        UpgradeCommand::Check => check(global).await,
        UpgradeCommand::Run(args) => forward(global, args).await,
        UpgradeCommand::Status => status(global),
        UpgradeCommand::Rollback(args) => back(global, args).await,
        UpgradeCommand::Finalize { level } => finalize(global, level).await,
    }
}

async fn plan(global: &GlobalArgs, to: PathBuf) -> anyhow::Result<()> {
    let to = Binary::ask(&to).await?;
    let look = Look::at(&nodes(global)?).await?;
    let order = order(&look);
    show::plan(global, &to, &look, &order)?;
    match to.speaks(look.features.level) {
        true => Ok(()),
        false => Err(Failure::Reported.into()),
    }
}

async fn check(global: &GlobalArgs) -> anyhow::Result<()> {
    let look = Look::at(&nodes(global)?).await?;
    let order = order(&look);
    match show::check(global, &look, &order)? {
        true => Ok(()),
        false => Err(Failure::Reported.into()),
    }
}

async fn forward(global: &GlobalArgs, args: RunArgs) -> anyhow::Result<()> {
    let folder = cluster_dir(global).path().to_owned();
    let to = match &args.to {
        Some(path) => Some(Binary::ask(path).await?),
        None => None,
    };
    let mut progress = match (Progress::load(&folder)?, to) {
        (Some(known), None) => known,
        (Some(known), Some(to)) if known.to == to => known,
        (Some(known), Some(_)) if under_way(&known) => bail!(
            "an upgrade to {} is under way, {} of {} nodes run it; go on without --to, or `quipu \
             upgrade rollback` first",
            known.to.version,
            known.done(),
            known.nodes.len()
        ),
        (_, Some(to)) => {
            let look = Look::at(&nodes(global)?).await?;
            let from = old_binary(global, &args).await?;
            Progress::new(from, to, order(&look))
        }
        (None, None) => return usage("no upgrade is under way; --to names the new quipud"),
    };
    if let Some(from) = &args.from {
        progress.from = Some(Binary::ask(from).await?);
    }
    progress.turn(Direction::Forward);
    progress.save(&folder)?;
    let driver = driver(global, &args.pace, args.count)?;
    driver.run(&mut progress).await?;
    over(global, &progress)
}

async fn back(global: &GlobalArgs, args: RollbackArgs) -> anyhow::Result<()> {
    let folder = cluster_dir(global).path().to_owned();
    let progress = Progress::load(&folder)?;
    let mut progress = progress.context("no upgrade was begun here; there is nothing to undo")?;
    if let Some(from) = &args.from {
        progress.from = Some(Binary::ask(from).await?);
    }
    progress.turn(Direction::Back);
    progress.save(&folder)?;
    let driver = driver(global, &args.pace, usize::MAX)?;
    driver.run(&mut progress).await?;
    over(global, &progress)
}

fn status(global: &GlobalArgs) -> anyhow::Result<()> {
    match Progress::load(cluster_dir(global).path())? {
        Some(progress) => show::progress(global, &progress),
        None if is_json(global) => print_json(&json!({ "upgrade": null })),
        None => print_line("no upgrade was begun here"),
    }
}

fn under_way(progress: &Progress) -> bool {
    let first = progress.nodes.first().map_or(NodeState::Old, |node| node.state);
    first == NodeState::Changing || progress.nodes.iter().any(|node| node.state != first)
}

fn over(global: &GlobalArgs, progress: &Progress) -> anyhow::Result<()> {
    show::progress(global, progress)
}

fn driver(global: &GlobalArgs, pace: &PaceArgs, nodes_max: usize) -> anyhow::Result<Driver> {
    let dir = cluster_dir(global);
    let means = match &pace.exec {
        Some(command) => Means::Command(command.clone()),
        None if global.nodes.is_empty() && dir.load()?.is_some() => Means::Local(dir.clone()),
        None => {
            return usage(
                "these nodes are not of a local cluster: --exec says how one is given the other \
                 binary and restarted",
            );
        }
    };
    Ok(Driver {
        nodes: nodes(global)?,
        folder: dir.path().to_owned(),
        means,
        soak: Duration::from_secs(pace.soak),
        patience: Duration::from_secs(pace.patience),
        tells: !is_json(global),
        nodes_max,
    })
}

/// What the nodes run now: as named, else the file of a local node's process.
async fn old_binary(global: &GlobalArgs, args: &RunArgs) -> anyhow::Result<Option<Binary>> {
    if let Some(from) = &args.from {
        return Ok(Some(Binary::ask(from).await?));
    }
    if args.pace.exec.is_some() {
        return Ok(None);
    }
    let Some(layout) = cluster_dir(global).load()? else { return Ok(None) };
    let process = layout.nodes.iter().find_map(|node| node.process.as_ref());
    let file = process.and_then(|process| process.file());
    match file {
        Some(file) => Ok(Some(Binary::ask(&file).await?)),
        None => Ok(None),
    }
}

/// Nodes that lead little go first, the leader of the metadata last: so leaderships move the least.
fn order(look: &Look) -> Vec<(u64, String)> {
    let mut order: Vec<(u64, String)> =
        look.addresses.iter().map(|(label, address)| (*label, address.clone())).collect();
    order.sort_by_key(|(label, _)| {
        (look.metadata_leader == Some(*label), look.facts.leads(*label), *label)
    });
    order
}

async fn finalize(global: &GlobalArgs, level: Option<u32>) -> anyhow::Result<()> {
    let admin = connect(global).await?.admin();
    let before = admin.describe_features().await?.level;
    let level = admin.finalize_level(level).await?;
    if is_json(global) {
        return print_json(&json!({ "level": level, "level_before": before }));
    }
    match level == before {
        true => print_line(&format!("feature level {level} was finalized already")),
        false => print_line(&format!(
            "feature level {level} is finalized; nodes that don't speak it are refused from now on"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quipu_client::{Features, LedGroup, NodeReport};

    use super::*;
    use crate::upgrade::gate::Facts;

    fn report(node_id: u64, leads: usize) -> Option<NodeReport> {
        let group = LedGroup { name: "t/0".to_owned(), voters: Vec::new() };
        Some(NodeReport {
            node_id,
            version: "0.1.0".to_owned(),
            disk_free_bytes: None,
            disk_reserve_bytes: 0,
            led: vec![group; leads],
            closed: Vec::new(),
        })
    }

    #[test]
    fn leaders_go_last_and_the_leader_of_the_metadata_after_them() {
        let nodes: BTreeMap<_, _> =
            [(1, report(1, 1)), (2, report(2, 5)), (3, report(3, 2))].into();
        let look = Look {
            facts: Facts { nodes, groups: 8 },
            features: Features { level: 1, level_common: Some(1), nodes: Vec::new() },
            addresses: [1, 2, 3].map(|label| (label, format!("h{label}:1"))).into(),
            metadata_leader: Some(1),
        };
        let labels: Vec<u64> = order(&look).into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, [3, 2, 1]);
    }

    #[test]
    fn an_upgrade_is_under_way_while_nodes_differ() {
        let binary = |version: &str| Binary {
            path: "/q".into(),
            version: version.to_owned(),
            level_min: 1,
            level_max: 1,
        };
        let order = vec![(1, "a:1".to_owned()), (2, "b:1".to_owned())];
        let mut progress = Progress::new(None, binary("0.2.0"), order);
        assert!(!under_way(&progress));
        progress.begin(1);
        assert!(under_way(&progress));
        progress.finish(1);
        assert!(under_way(&progress));
        progress.begin(2);
        progress.finish(2);
        assert!(!under_way(&progress));
    }
}
