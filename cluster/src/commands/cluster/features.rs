//! `quipu cluster features`: the finalized feature level, and what each node speaks.

use quipu_client::Features;
use serde_json::json;

use crate::args::GlobalArgs;
use crate::commands::{connect, is_json};
use crate::output::table::{Column, table};
use crate::output::{print, print_json};

pub(super) async fn run(global: &GlobalArgs) -> anyhow::Result<()> {
    let features = connect(global).await?.admin().describe_features().await?;
    match is_json(global) {
        true => print_json(&to_json(&features)),
        false => print(to_text(&features).as_bytes()),
    }
}

fn to_json(features: &Features) -> serde_json::Value {
    let nodes: Vec<_> = features
        .nodes
        .iter()
        .map(|node| {
            json!({
                "node": node.node_id,
                "version": node.version,
                "level_min": node.level_min,
                "level_max": node.level_max,
            })
        })
        .collect();
    json!({ "level": features.level, "level_common": features.level_common, "nodes": nodes })
}

fn to_text(features: &Features) -> String {
    let columns = [Column::Number("node"), Column::Text("version"), Column::Text("speaks levels")];
    let rows = features.nodes.iter().map(|node| {
        let levels = match node.level_min == node.level_max {
            true => node.level_min.to_string(),
            false => format!("{} to {}", node.level_min, node.level_max),
        };
        vec![node.node_id.to_string(), node.version.clone(), levels]
    });
    let next = match features.level_common {
        Some(common) if common > features.level => format!(
            "every node speaks level {common}: `quipu upgrade finalize` makes use of it, and then \
             no node can go back"
        ),
        Some(_) => "nothing can be finalized: not every node speaks a higher level".to_owned(),
        None => "the nodes have no level in common".to_owned(),
    };
    format!("finalized feature level: {}\n\n{}\n{next}\n", features.level, table(&columns, rows))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use quipu_client::NodeLevels;

    use super::*;

    #[test]
    fn the_features_show_what_can_be_finalized() {
        let node = |node_id, version: &str, level_max| NodeLevels {
            node_id,
            version: version.to_owned(),
            level_min: 1,
            level_max,
        };
        let mut features =
            Features { level: 1, level_common: Some(1), nodes: vec![node(1, "0.1.0", 1)] };
        features.nodes.push(node(2, "0.2.0", 2));
        expect![[r#"
            finalized feature level: 1

            NODE  VERSION  SPEAKS LEVELS
               1  0.1.0    1
               2  0.2.0    1 to 2

            nothing can be finalized: not every node speaks a higher level
        "#]]
        .assert_eq(&to_text(&features));
        features.level_common = Some(2);
        assert!(to_text(&features).contains("every node speaks level 2"));
    }
}
