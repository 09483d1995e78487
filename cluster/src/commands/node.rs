//! `quipu node …`: how the nodes are, draining, removing, and taking that back.

use std::time::Duration;

use quipu_client::{Admin, NodeStatus, Removal, Standing};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::args::{GlobalArgs, NodeCommand, WaitArgs};
use crate::commands::{connect, is_json};
use crate::failure::Failure;
use crate::output::live::progress;
use crate::output::table::{Column, NONE, bytes, grouped, table};
use crate::output::{print, print_json, print_line};

/// How often a node is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// What `quipu node add` says.
const HOW_TO_ADD: &str = "A node is added by starting it with the address of any other node:\n\n  \
    quipud --node-id N --data-dir DIR --listen IP:PORT --join HOST:PORT\n\n\
    It holds nothing at first. New topics are placed on it, too; `quipu rebalance plan` shows\n\
    what would be moved to it, `quipu rebalance apply` moves it.";

pub(super) async fn run(global: &GlobalArgs, command: NodeCommand) -> anyhow::Result<()> {
    if let NodeCommand::Add = command {
        return print_line(HOW_TO_ADD);
    }
    let admin = connect(global).await?.admin();
    match command {
        NodeCommand::Ls => list(global, &admin.describe_nodes(&[]).await?),
        NodeCommand::Status { node } => show(global, &admin.node_status(node).await?),
        NodeCommand::Drain(wait) => drain(global, &admin, wait).await,
        NodeCommand::Resume { node } => show(global, &admin.resume_node(node).await?),
        NodeCommand::Remove { wait, dry_run } => remove(global, &admin, wait, dry_run).await,
        NodeCommand::Cancel { node } => show(global, &admin.cancel_removal(node).await?),
        NodeCommand::Add => Ok(()),
    }
}

async fn drain(global: &GlobalArgs, admin: &Admin, wait: WaitArgs) -> anyhow::Result<()> {
    let begun = admin.drain_node(wait.node).await?;
    if wait.no_wait {
        return show(global, &begun);
    }
    let (node, done) = watch(admin, wait, begun, |node| node.standing == Standing::Drained).await;
    show(global, &node)?;
    if done { Ok(()) } else { Err(Failure::Reported.into()) }
}

async fn remove(
    global: &GlobalArgs,
    admin: &Admin,
    wait: WaitArgs,
    dry_run: bool,
) -> anyhow::Result<()> {
    let removal = admin.remove_node(wait.node, dry_run).await?;
    if dry_run || wait.no_wait {
        return show_removal(global, &removal);
    }
    let (node, done) = watch(admin, wait, removal.node, |_| false).await;
    if !done {
        show(global, &node)?;
        return Err(Failure::Reported.into());
    }
    if is_json(global) {
        return print_json(&json!({ "node": wait.node, "standing": "removed" }));
    }
    print_line(&format!(
        "node {} belongs to the cluster no more; its process ends by itself, and its data \
         directory can be deleted",
        wait.node
    ))
}

/// Asks until `done`, until the node is gone, or until time is up. Answers the last status, and
/// whether it is done.
async fn watch(
    admin: &Admin,
    wait: WaitArgs,
    begun: NodeStatus,
    done: impl Fn(&NodeStatus) -> bool,
) -> (NodeStatus, bool) {
    let deadline = Instant::now() + Duration::from_secs(wait.within);
    let bar = progress(None);
    let mut last = begun;
    loop {
        if done(&last) {
            bar.finish_and_clear();
            return (last, true);
        }
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            return (last, false);
        }
        bar.set_message(progress_line(&last));
        tokio::time::sleep(LOOK).await;
        // The asked node may be the one that goes, or be starting: the next answer tells.
        let Ok(nodes) = admin.describe_nodes(&[]).await else { continue };
        match nodes.into_iter().find(|node| node.node_id == wait.node) {
            Some(node) => last = node,
            None => {
                bar.finish_and_clear();
                return (NodeStatus { standing: Standing::Removed, ..last }, true);
            }
        }
    }
}

fn progress_line(node: &NodeStatus) -> String {
    match node.standing {
        Standing::Removing => format!(
            "{} groups ({}) left; {}",
            node.moves_left,
            bytes(node.bytes_left),
            node.waits.first().map_or("", String::as_str)
        ),
        _ => format!("{} leaderships left", node.leaders),
    }
}

fn list(global: &GlobalArgs, nodes: &[NodeStatus]) -> anyhow::Result<()> {
    if is_json(global) {
        return nodes.iter().try_for_each(|node| print_json(&node_json(node)));
    }
    print(list_text(nodes).as_bytes())
}

fn list_text(nodes: &[NodeStatus]) -> String {
    let columns = [
        Column::Number("node"),
        Column::Text("standing"),
        Column::Text("alive"),
        Column::Text("address"),
        Column::Number("leaders"),
        Column::Number("replicas"),
        Column::Number("size"),
        Column::Number("behind"),
        Column::Text("may stop"),
        Column::Text("rack"),
        Column::Text("version"),
    ];
    let rows = nodes.iter().map(|node| {
        vec![
            node.node_id.to_string(),
            node.standing.name().to_owned(),
            yes_or_no(node.alive).to_owned(),
            node.address.clone(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            bytes(node.bytes),
            node.behind.to_string(),
            yes_or_no(node.may_stop()).to_owned(),
            node.rack.clone().unwrap_or_else(|| NONE.to_owned()),
            node.version.clone(),
        ]
    });
    table(&columns, rows)
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn show(global: &GlobalArgs, node: &NodeStatus) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(&node_json(node));
    }
    print(status_text(node).as_bytes())
}

fn status_text(node: &NodeStatus) -> String {
    let mut lines = vec![
        format!("node {}: {}, {}", node.node_id, node.standing.name(), node.address),
        format!(
            "leads {} groups, holds {} replicas, {}",
            node.leaders,
            node.replicas,
            bytes(node.bytes)
        ),
    ];
    if !node.alive {
        lines.push("it does not answer".to_owned());
    } else if node.behind > 0 {
        lines.push(format!(
            "{} replicas are behind, one by {} entries",
            node.behind,
            grouped(node.behind_entries)
        ));
    } else {
        lines.push("every replica is caught up".to_owned());
    }
    lines.push(match node.critical {
        0 => "it may be stopped: no other group loses its majority".to_owned(),
        count => format!(
            "it must not be stopped now: {count} groups would have no majority ({})",
            node.critical_names.join(", ")
        ),
    });
    if node.only_copies > 0 {
        lines.push(format!(
            "{} groups have their only replica here ({}) and stand still while it is stopped",
            node.only_copies,
            node.only_copy_names.join(", ")
        ));
    }
    if node.standing == Standing::Removing {
        lines.push(format!("{} groups to move, {}", node.moves_left, bytes(node.bytes_left)));
        lines.extend(node.waits.iter().map(|why| format!("  {why}")));
    }
    lines.join("\n") + "\n"
}

fn show_removal(global: &GlobalArgs, removal: &Removal) -> anyhow::Result<()> {
    let moves = &removal.moves;
    if is_json(global) {
        let moves: Vec<Value> = moves
            .iter()
            .map(|one| {
                json!({ "what": one.what, "from": one.from_node, "to": one.to_node,
                    "bytes": one.bytes })
            })
            .collect();
        return print_json(&json!({ "node": node_json(&removal.node), "moves": moves }));
    }
    let columns = [
        Column::Text("group"),
        Column::Number("from"),
        Column::Number("to"),
        Column::Number("size"),
    ];
    let rows = moves.iter().map(|one| {
        vec![one.what.clone(), one.from_node.to_string(), one.to_node.to_string(), bytes(one.bytes)]
    });
    print(table(&columns, rows).as_bytes())?;
    print_line(&format!(
        "\n{} groups, {} to move",
        removal.node.moves_left,
        bytes(removal.node.bytes_left)
    ))
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "node": node.node_id,
        "uuid": node.uuid,
        "address": node.address,
        "version": node.version,
        "rack": node.rack,
        "alive": node.alive,
        "standing": node.standing.name(),
        "leaders": node.leaders,
        "replicas": node.replicas,
        "bytes": node.bytes,
        "behind": node.behind,
        "behind_entries": node.behind_entries,
        "may_stop": node.may_stop(),
        "caught_up": node.is_caught_up(),
        "critical": node.critical,
        "critical_names": node.critical_names,
        "only_copies": node.only_copies,
        "only_copy_names": node.only_copy_names,
        "moves_left": node.moves_left,
        "bytes_left": node.bytes_left,
        "waits": node.waits,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn node(node_id: u64) -> NodeStatus {
        NodeStatus {
            node_id,
            uuid: "u".to_owned(),
            address: format!("127.0.0.1:{}", 9_399 + node_id),
            version: "0.2.0".to_owned(),
            rack: (node_id == 1).then(|| "a".to_owned()),
            alive: true,
            standing: Standing::Active,
            leaders: 4,
            replicas: 11,
            bytes: 3 << 20,
            behind: 0,
            behind_entries: 0,
            critical: 0,
            critical_names: Vec::new(),
            only_copies: 0,
            only_copy_names: Vec::new(),
            unknown: 0,
            moves_left: 0,
            bytes_left: 0,
            waits: Vec::new(),
        }
    }

    #[test]
    fn the_list_shows_what_each_node_is_for_and_whether_it_may_stop() {
        let critical = NodeStatus { critical: 2, standing: Standing::Drained, ..node(2) };
        let text = list_text(&[node(1), critical]);
        let line =
            |at| text.lines().nth(at).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let cells = |at| line(at).map(|cells| cells.join(" ")).unwrap_or_default();
        assert_eq!(cells(1), "1 active yes 127.0.0.1:9400 4 11 3.0 MiB 0 yes a 0.2.0");
        assert_eq!(cells(2), "2 drained yes 127.0.0.1:9401 4 11 3.0 MiB 0 no - 0.2.0");
    }

    #[test]
    fn a_removal_tells_what_is_left_and_why_it_waits() {
        let removing = NodeStatus {
            standing: Standing::Removing,
            critical: 1,
            critical_names: vec!["t/0".to_owned()],
            moves_left: 3,
            bytes_left: 5 << 20,
            waits: vec!["t/0: node 4 misses 2000 entries".to_owned()],
            ..node(3)
        };
        expect![[r#"
            node 3: removing, 127.0.0.1:9402
            leads 4 groups, holds 11 replicas, 3.0 MiB
            every replica is caught up
            it must not be stopped now: 1 groups would have no majority (t/0)
            3 groups to move, 5.0 MiB
              t/0: node 4 misses 2000 entries
        "#]]
        .assert_eq(&status_text(&removing));
    }
}
