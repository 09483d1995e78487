//! Printing of plans, checks and progress.

use serde_json::json;

use crate::args::GlobalArgs;
use crate::commands::is_json;
use crate::output::table::{Column, table};
use crate::output::{print, print_json, print_line};
use crate::upgrade::binary::Binary;
use crate::upgrade::facts::Look;
use crate::upgrade::progress::{Direction, NodeState, Progress};

/// What a new binary would bring, and the order.
pub(super) fn plan(
    global: &GlobalArgs,
    to: &Binary,
    look: &Look,
    order: &[(u64, String)],
) -> anyhow::Result<()> {
    let level = look.features.level;
    if is_json(global) {
        let order: Vec<u64> = order.iter().map(|(label, _)| *label).collect();
        return print_json(&json!({
            "version": to.version,
            "level_min": to.level_min,
            "level_max": to.level_max,
            "level": level,
            "possible": to.speaks(level),
            "order": order,
        }));
    }
    let (min, max) = (to.level_min, to.level_max);
    print_line(&format!(
        "{} is quipud {}, feature levels {min} to {max}",
        to.path.display(),
        to.version
    ))?;
    if !to.speaks(level) {
        return print_line(&format!(
            "it can't be used here: feature level {level} is finalized, and is never taken back"
        ));
    }
    let what = match max > level {
        true => format!("level {max} can be finalized when all nodes run it, and not undone then"),
        false => "it brings no higher feature level: there will be nothing to finalize".to_owned(),
    };
    print_line(&format!("the cluster has feature level {level}; {what}\n"))?;
    print_line("order, the leaders last:")?;
    for (label, address) in order {
        let leads = look.facts.leads(*label);
        print_line(&format!("  node {label} ({address}), leads {leads} groups"))?;
    }
    Ok(())
}

/// Whether each node may be stopped now. Answers whether every one may.
pub(super) fn check(
    global: &GlobalArgs,
    look: &Look,
    order: &[(u64, String)],
) -> anyhow::Result<bool> {
    let mut all = true;
    for (label, _) in order {
        let verdict = look.facts.may_stop(*label);
        let may = verdict.reasons.is_empty();
        all &= may;
        if is_json(global) {
            print_json(&json!({
                "node": label,
                "may_stop": may,
                "reasons": verdict.reasons,
                "notes": verdict.notes,
            }))?;
            continue;
        }
        print_line(&format!(
            "node {label} {}",
            if may { "may be stopped" } else { "must stay up" }
        ))?;
        for line in verdict.reasons.iter().chain(&verdict.notes) {
            print_line(&format!("  {line}"))?;
        }
    }
    Ok(all)
}

/// How far it is, and what can be done next.
pub(super) fn progress(global: &GlobalArgs, progress: &Progress) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(&json!({
            "from": progress.from.as_ref().map(|binary| &binary.version),
            "to": progress.to.version,
            "direction": progress.direction,
            "done": progress.done(),
            "nodes": progress.nodes,
            "halted": progress.halted,
        }));
    }
    print(text(progress).as_bytes())
}

fn text(progress: &Progress) -> String {
    let old = progress.from.as_ref().map_or("the old version", |binary| &binary.version);
    let columns = [Column::Number("node"), Column::Text("address"), Column::Text("runs")];
    let rows = progress.nodes.iter().map(|node| {
        let runs = match node.state {
            NodeState::Old => old.to_owned(),
            NodeState::New => progress.to.version.clone(),
            NodeState::Changing => "being exchanged".to_owned(),
        };
        vec![node.node_id.to_string(), node.address.clone(), runs]
    });
    let rows = table(&columns, rows);
    let new = &progress.to.version;
    let way = match progress.direction {
        Direction::Forward => format!("upgrade from {old} to {new}"),
        Direction::Back => format!("back from {new} to {old}"),
    };
    let head = format!("{way}: {} of {} nodes run {new}", progress.done(), progress.nodes.len());
    let next = match (&progress.halted, progress.next(), progress.direction) {
        (Some(reason), _, _) => format!(
            "halted: {reason}\n`quipu upgrade run` goes on when it is mended, `quipu upgrade \
             rollback` goes back"
        ),
        (None, Some(_), _) => {
            "`quipu upgrade run` goes on, `quipu upgrade rollback` goes back".to_owned()
        }
        (None, None, Direction::Forward) => {
            "every node runs the new version. `quipu upgrade finalize` makes \
             use of what it brings; until then `quipu upgrade rollback` still goes back"
                .to_owned()
        }
        (None, None, Direction::Back) => "every node runs the old version again".to_owned(),
    };
    format!("{head}\n\n{rows}\n{next}\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_progress_says_what_can_be_done_next() {
        let binary = |version: &str| Binary {
            path: "/opt/quipud".into(),
            version: version.to_owned(),
            level_min: 1,
            level_max: 2,
        };
        let order = vec![(2, "127.0.0.1:9401".to_owned()), (1, "127.0.0.1:9400".to_owned())];
        let mut progress = Progress::new(Some(binary("0.1.0")), binary("0.2.0"), order);
        progress.begin(2);
        progress.finish(2);
        progress.begin(1);
        progress.halted = Some("node 2 does not answer".to_owned());
        expect![[r#"
            upgrade from 0.1.0 to 0.2.0: 1 of 2 nodes run 0.2.0

            NODE  ADDRESS         RUNS
               2  127.0.0.1:9401  0.2.0
               1  127.0.0.1:9400  being exchanged

            halted: node 2 does not answer
            `quipu upgrade run` goes on when it is mended, `quipu upgrade rollback` goes back
        "#]]
        .assert_eq(&text(&progress));
    }
}
