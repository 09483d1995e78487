//! `quipu cluster health`: what is wrong with the cluster, and what to do about it.
//!
//! One node asks all others and answers for them. Exit code 0: everything is served with nothing
//! missing, perhaps with advice; 1: something is wrong; 3: nobody could be asked.

use std::time::Duration;

use quipu_client::{Admin, Finding, Health};
use serde_json::{Value, json};

use crate::args::GlobalArgs;
use crate::commands::{connect, is_json};
use crate::failure::Failure;
use crate::output::table::{Column, NONE, table};
use crate::output::{print, print_json, print_line};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(2);

pub(super) async fn run(global: &GlobalArgs, watch: bool) -> anyhow::Result<()> {
    let admin = connect(global).await?.admin();
    loop {
        let health = ask(&admin).await;
        if watch {
            match health {
                Ok(health) => report(global, &health)?,
                Err(error) if is_json(global) => {
                    print_json(&json!({ "healthy": false, "error": format!("{error:#}") }))?;
                }
                Err(error) => print_line(&format!("nobody answers: {error:#}"))?,
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let health = health?;
        report(global, &health)?;
        return if health.healthy { Ok(()) } else { Err(Failure::Reported.into()) };
    }
}

async fn ask(admin: &Admin) -> anyhow::Result<Health> {
    Ok(admin.cluster_health().await?)
}

fn report(global: &GlobalArgs, health: &Health) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(&health_json(health));
    }
    print(health_text(health).as_bytes())
}

fn health_json(health: &Health) -> Value {
    let findings: Vec<Value> = health
        .findings
        .iter()
        .map(|finding| {
            json!({
                "trouble": finding.trouble,
                "severity": finding.severity.name(),
                "node": finding.node,
                "what": finding.what,
                "advice": finding.advice,
            })
        })
        .collect();
    json!({
        "healthy": health.healthy,
        "findings": findings,
        "problems": health.problems,
        "groups": health.groups,
        "leaderless_groups": health.leaderless_groups,
        "dead_nodes": health.dead_nodes,
    })
}

fn health_text(health: &Health) -> String {
    let verdict = match (health.healthy, health.findings.is_empty()) {
        (true, true) => "healthy\n",
        (true, false) => "healthy, with advice:\n",
        (false, _) => "not healthy:\n",
    };
    if health.findings.is_empty() {
        // A node that belongs to no cluster yet has no findings, and says why.
        let problems: Vec<String> =
            health.problems.iter().map(|problem| format!("  {problem}\n")).collect();
        return format!("{verdict}{}", problems.concat());
    }
    let columns = [
        Column::Text("severity"),
        Column::Text("trouble"),
        Column::Number("node"),
        Column::Text("what"),
    ];
    let row = |finding: &Finding| {
        vec![
            finding.severity.name().to_owned(),
            finding.trouble.clone(),
            finding.node.map_or_else(|| NONE.to_owned(), |node| node.to_string()),
            finding.what.clone(),
        ]
    };
    let advice = health.findings.iter();
    let advice: Vec<String> =
        advice.map(|finding| format!("  {}: {}", finding.trouble, finding.advice)).collect();
    let table = table(&columns, health.findings.iter().map(row));
    format!("{verdict}{table}\nwhat to do:\n{}\n", advice.join("\n"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use quipu_client::Severity;

    use super::*;

    fn health(healthy: bool, findings: Vec<Finding>) -> Health {
        let problems = Vec::new();
        Health { healthy, problems, findings, groups: 7, leaderless_groups: 0, dead_nodes: 0 }
    }

    #[test]
    fn each_finding_has_a_line_and_what_to_do() {
        let finding = Finding {
            trouble: "node_down".to_owned(),
            severity: Severity::Warning,
            node: Some(3),
            what: "node 3 does not answer".to_owned(),
            advice: "start it".to_owned(),
        };
        expect![[r#"
            not healthy:
            SEVERITY  TROUBLE    NODE  WHAT
            warning   node_down     3  node 3 does not answer

            what to do:
              node_down: start it
        "#]]
        .assert_eq(&health_text(&health(false, vec![finding])));
        assert_eq!(health_text(&health(true, vec![])), "healthy\n");
    }
}
