//! `quipu rebalance …`: what would even the cluster out, and doing it.
//!
//! Applied step by step, each by a plan made anew: what joins, dies or is removed meanwhile is
//! taken into account, and a command that is cut off is simply started again.

use std::time::Duration;

use quipu_client::{Admin, PlannedChange, RebalancePlan};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::args::{ApplyArgs, GlobalArgs, RebalanceCommand};
use crate::commands::{connect, is_json};
use crate::failure::Failure;
use crate::output::live::progress;
use crate::output::table::{Column, bytes, table};
use crate::output::{print, print_json, print_line};

/// How often the plan is made anew.
const LOOK: Duration = Duration::from_millis(500);

/// Groups of which replicas are moved at one time.
const AT_ONCE: usize = 4;

pub(super) async fn run(global: &GlobalArgs, command: RebalanceCommand) -> anyhow::Result<()> {
    let admin = connect(global).await?.admin();
    match command {
        RebalanceCommand::Plan { replication } => {
            show(global, &admin.plan_rebalance(replication.unwrap_or(0)).await?)
        }
        RebalanceCommand::Apply(args) => apply(global, &admin, args).await,
    }
}

async fn apply(global: &GlobalArgs, admin: &Admin, args: ApplyArgs) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(args.within);
    let bar = progress(None);
    let mut done = Done::default();
    loop {
        let plan = admin.plan_rebalance(args.replication.unwrap_or(0)).await?;
        if plan.changes.is_empty() && plan.leaders.is_empty() && plan.under_way == 0 {
            bar.finish_and_clear();
            return report(global, &done, None);
        }
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            report(global, &done, Some(&plan))?;
            return Err(Failure::Reported.into());
        }
        bar.set_message(format!(
            "{} groups to change, {} being moved, {} leaders to move",
            plan.changes.len(),
            plan.under_way,
            plan.leaders.len()
        ));
        step(admin, &plan, &mut done).await;
        tokio::time::sleep(LOOK).await;
    }
}

/// What was begun so far.
#[derive(Debug, Default)]
struct Done {
    replicas: u64,
    bytes: u64,
    leaders: u64,
}

/// The next few changes of a plan. What fails is in the next plan again.
async fn step(admin: &Admin, plan: &RebalancePlan, done: &mut Done) {
    let room = AT_ONCE.saturating_sub(usize::try_from(plan.under_way).unwrap_or(AT_ONCE));
    let (orders, moves): (Vec<&PlannedChange>, Vec<&PlannedChange>) =
        plan.changes.iter().partition(|change| change.replicas_made == 0);
    for change in moves.into_iter().take(room).chain(orders) {
        if admin.place_replicas(change).await.is_ok() {
            done.replicas += u64::from(change.replicas_made);
            done.bytes += u64::from(change.replicas_made) * change.bytes;
        }
    }
    for lead in &plan.leaders {
        done.leaders += u64::from(admin.move_group_leader(lead).await.is_ok());
    }
}

fn report(global: &GlobalArgs, done: &Done, left: Option<&RebalancePlan>) -> anyhow::Result<()> {
    let changes = left.map_or(0, |plan| plan.changes.len());
    if is_json(global) {
        return print_json(&json!({
            "replicas_moved": done.replicas,
            "bytes_moved": done.bytes,
            "leaders_moved": done.leaders,
            "balanced": left.is_none(),
            "changes_left": changes,
        }));
    }
    print_line(&format!(
        "moved {} replicas ({}) and {} leaders",
        done.replicas,
        bytes(done.bytes),
        done.leaders
    ))?;
    match left {
        None => print_line("the cluster is even"),
        Some(plan) => print_line(&format!(
            "time is up: {changes} groups to change, {} being moved, {} leaders to move; the \
             moves go on, and the same command goes on with the rest",
            plan.under_way,
            plan.leaders.len()
        )),
    }
}

fn show(global: &GlobalArgs, plan: &RebalancePlan) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(&plan_json(plan));
    }
    print(plan_text(plan).as_bytes())
}

fn plan_json(plan: &RebalancePlan) -> Value {
    let changes: Vec<Value> = plan
        .changes
        .iter()
        .map(|change| {
            json!({ "group": change.group, "what": change.what, "from": change.from_nodes,
                "to": change.to_nodes, "replicas_made": change.replicas_made,
                "bytes": change.bytes })
        })
        .collect();
    let leaders: Vec<Value> = plan
        .leaders
        .iter()
        .map(|lead| {
            json!({ "group": lead.group, "what": lead.what, "from": lead.from_node,
                "to": lead.to_node })
        })
        .collect();
    json!({ "changes": changes, "leaders": leaders, "under_way": plan.under_way })
}

fn plan_text(plan: &RebalancePlan) -> String {
    let under_way = match plan.under_way {
        0 => String::new(),
        count => format!("replicas of {count} groups are being moved\n"),
    };
    if plan.changes.is_empty() && plan.leaders.is_empty() {
        return format!("{under_way}nothing to move: the cluster is even\n");
    }
    let columns = [
        Column::Text("group"),
        Column::Text("from"),
        Column::Text("to"),
        Column::Number("moves"),
        Column::Number("size"),
    ];
    let mut rows = Vec::new();
    for change in &plan.changes {
        rows.push(vec![
            change.what.clone(),
            joined(&change.from_nodes),
            joined(&change.to_nodes),
            change.replicas_made.to_string(),
            bytes(u64::from(change.replicas_made) * change.bytes),
        ]);
    }
    for lead in &plan.leaders {
        let (from, to) = (lead.from_node, lead.to_node);
        rows.push(vec![
            lead.what.clone(),
            format!("leader {from}"),
            format!("leader {to}"),
            "0".to_owned(),
            bytes(0),
        ]);
    }
    let made: u64 = plan.changes.iter().map(|change| u64::from(change.replicas_made)).sum();
    let size: u64 =
        plan.changes.iter().map(|change| u64::from(change.replicas_made) * change.bytes).sum();
    format!(
        "{under_way}{}\n{made} replicas to move, {}; `quipu rebalance apply` does it\n",
        table(&columns, rows),
        bytes(size)
    )
}

fn joined(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use quipu_client::LeaderMove;

    use super::*;

    #[test]
    fn the_plan_shows_each_group_and_what_it_costs() {
        let change = |what: &str, to_nodes, replicas_made| PlannedChange {
            group: 1_000,
            what: what.to_owned(),
            from_nodes: vec![1, 2, 3],
            to_nodes,
            bytes: 3 << 20,
            replicas_made,
        };
        let lead = LeaderMove { group: 1_001, what: "t/1".to_owned(), from_node: 1, to_node: 2 };
        let plan = RebalancePlan {
            changes: vec![change("t/0", vec![1, 4, 3], 1), change("t/2", vec![2, 1, 3], 0)],
            leaders: vec![lead],
            under_way: 1,
        };
        expect![[r#"
            replicas of 1 groups are being moved
            GROUP  FROM      TO        MOVES     SIZE
            t/0    1,2,3     1,4,3         1  3.0 MiB
            t/2    1,2,3     2,1,3         0      0 B
            t/1    leader 1  leader 2      0      0 B

            1 replicas to move, 3.0 MiB; `quipu rebalance apply` does it
        "#]]
        .assert_eq(&plan_text(&plan));
        let even = RebalancePlan { changes: vec![], leaders: vec![], under_way: 0 };
        assert_eq!(plan_text(&even), "nothing to move: the cluster is even\n");
    }
}
