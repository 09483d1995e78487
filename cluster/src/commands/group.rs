//! `quipu group …`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jiff::Timestamp;
use quipu_client::{
    Client, GroupDescription, GroupError, GroupOffset, PartitionLag, TopicPartition,
};
use serde_json::json;

use crate::args::{CommitArgs, GlobalArgs, GroupCommand, SeekArgs};
use crate::commands::{confirm, connect, is_json, offsets};
use crate::output::table::{Column, NONE, grouped, table};
use crate::output::{print, print_json, print_line};

pub(super) async fn run(global: &GlobalArgs, command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::Ls => list(global).await,
        GroupCommand::Describe { group } => describe(global, &group).await,
        GroupCommand::Commit(args) => commit(global, args).await,
        GroupCommand::Seek(args) => seek(global, args).await,
        GroupCommand::Rm { group, yes } => {
            confirm::deletion("group", &group, yes)?;
            connect(global).await?.groups().delete(&group).await?;
            if is_json(global) {
                return print_json(&json!({ "group": group, "deleted": true }));
            }
            print_line(&format!("deleted group {group}"))
        }
    }
}

async fn list(global: &GlobalArgs) -> anyhow::Result<()> {
    let groups = connect(global).await?.groups().list().await?;
    if is_json(global) {
        for group in groups {
            print_json(&json!({ "group": group }))?;
        }
        return Ok(());
    }
    print(table(&[Column::Text("group")], groups.into_iter().map(|group| vec![group])).as_bytes())
}

async fn describe(global: &GlobalArgs, group: &str) -> anyhow::Result<()> {
    let groups = connect(global).await?.groups();
    let description = groups.describe(group).await?;
    let lags: BTreeMap<(String, u32), PartitionLag> = groups
        .lag(group)
        .await?
        .into_iter()
        .map(|lag| ((lag.topic.clone(), lag.partition), lag))
        .collect();
    let rows: Vec<(&GroupOffset, Option<&PartitionLag>)> = description
        .offsets
        .iter()
        .map(|offset| (offset, lags.get(&(offset.topic.clone(), offset.partition))))
        .collect();
    if is_json(global) {
        return print_json(&description_json(&description, &rows));
    }
    print(description_text(&description, &rows).as_bytes())
}

fn description_json(
    description: &GroupDescription,
    rows: &[(&GroupOffset, Option<&PartitionLag>)],
) -> serde_json::Value {
    let offsets: Vec<_> = rows
        .iter()
        .map(|(offset, lag)| {
            json!({
                "topic": offset.topic,
                "partition": offset.partition,
                "offset": offset.offset,
                "log_start_offset": lag.map(|lag| lag.log_start_offset),
                "high_watermark": lag.map(|lag| lag.high_watermark),
                "lag": lag.map(|lag| lag.lag),
                "metadata": offset.metadata,
                "committed_at_ms": offset.committed_at_ms,
            })
        })
        .collect();
    json!({
        "group": description.group,
        "coordinator": description.coordinator,
        "leader_node": description.leader_node,
        "offsets": offsets,
    })
}

fn description_text(
    description: &GroupDescription,
    rows: &[(&GroupOffset, Option<&PartitionLag>)],
) -> String {
    let kept_by = match description.leader_node {
        Some(node) => format!("kept by node {node}"),
        None => "kept by no node at this moment".to_owned(),
    };
    let columns = [
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("offset"),
        Column::Number("end"),
        Column::Number("lag"),
        Column::Text("committed"),
        Column::Text("metadata"),
    ];
    let total: u64 = rows.iter().filter_map(|(_, lag)| lag.map(|lag| lag.lag)).sum();
    let rows = rows.iter().map(|(offset, lag)| {
        vec![
            offset.topic.clone(),
            offset.partition.to_string(),
            grouped(offset.offset),
            lag.map_or(NONE.to_owned(), |lag| grouped(lag.high_watermark)),
            lag.map_or(NONE.to_owned(), |lag| grouped(lag.lag)),
            offset.committed_at_ms.map_or(NONE.to_owned(), time_text),
            offset.metadata.clone().unwrap_or_default(),
        ]
    });
    format!(
        "group {}, {kept_by}, lag {}\n\n{}",
        description.group,
        grouped(total),
        table(&columns, rows)
    )
}

fn time_text(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.to_string())
}

async fn commit(global: &GlobalArgs, args: CommitArgs) -> anyhow::Result<()> {
    let CommitArgs { group, topic, partition, offset, metadata } = args;
    let committed = GroupOffset { metadata, ..GroupOffset::new(&topic, partition, offset) };
    let ended = connect(global).await?.groups().commit(&group, vec![committed]).await;
    if matches!(ended, Err(GroupError::OffsetRegression { .. })) {
        return ended.context("a commit never goes back; `quipu group seek` does");
    }
    ended?;
    if is_json(global) {
        return print_json(&json!({
            "group": group, "topic": topic, "partition": partition, "offset": offset,
        }));
    }
    print_line(&format!("group {group} has consumed {topic}/{partition} up to {offset}"))
}

/// One partition's change: from where (`None`: nothing committed) to where.
struct Move {
    partition: u32,
    from: Option<u64>,
    to: u64,
}

async fn seek(global: &GlobalArgs, args: SeekArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let moves = moves(&client, &args).await?;
    if !args.dry_run {
        let offsets = moves.iter().map(|one| GroupOffset::new(&args.topic, one.partition, one.to));
        client.groups().reset(&args.group, offsets.collect()).await?;
    }
    if is_json(global) {
        for one in moves {
            print_json(&json!({
                "group": args.group,
                "topic": args.topic,
                "partition": one.partition,
                "from": one.from,
                "to": one.to,
                "dry_run": args.dry_run,
            }))?;
        }
        return Ok(());
    }
    print(moves_text(&args.topic, &moves).as_bytes())?;
    if args.dry_run {
        return print_line("\nNothing was changed (--dry-run).");
    }
    Ok(())
}

async fn moves(client: &Client, args: &SeekArgs) -> anyhow::Result<Vec<Move>> {
    let partitions = offsets::partitions(client, &args.topic, &args.partitions).await?;
    let asked: Vec<TopicPartition> =
        partitions.iter().map(|partition| TopicPartition::new(&args.topic, *partition)).collect();
    let committed = client.groups().fetch(&args.group, &asked).await?;
    let mut moves = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let to = offsets::resolve(client, &args.topic, partition, args.to).await?.offset;
        let from = committed.iter().find(|offset| offset.partition == partition);
        moves.push(Move { partition, from: from.map(|offset| offset.offset), to });
    }
    Ok(moves)
}

fn moves_text(topic: &str, moves: &[Move]) -> String {
    let columns = [
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("from"),
        Column::Number("to"),
        Column::Number("change"),
    ];
    let rows = moves.iter().map(|one| {
        let change = match one.from {
            Some(from) if one.to >= from => format!("+{}", grouped(one.to - from)),
            Some(from) => format!("-{}", grouped(from - one.to)),
            None => NONE.to_owned(),
        };
        vec![
            topic.to_owned(),
            one.partition.to_string(),
            one.from.map_or(NONE.to_owned(), grouped),
            grouped(one.to),
            change,
        ]
    });
    table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_seek_shows_what_moves_where() {
        let moves = [
            Move { partition: 0, from: Some(1_500), to: 0 },
            Move { partition: 1, from: Some(10), to: 12 },
            Move { partition: 2, from: None, to: 3 },
        ];
        expect![[r#"
            TOPIC    PARTITION   FROM  TO  CHANGE
            flights          0  1,500   0  -1,500
            flights          1     10  12      +2
            flights          2      -   3       -
        "#]]
        .assert_eq(&moves_text("flights", &moves));
    }

    #[test]
    fn a_group_is_described_with_its_lag() {
        let offset = GroupOffset {
            metadata: Some("host a".to_owned()),
            committed_at_ms: Some(1_357_035_420_000),
            ..GroupOffset::new("flights", 0, 1_500)
        };
        let lag = PartitionLag {
            topic: "flights".to_owned(),
            partition: 0,
            group_offset: 1_500,
            log_start_offset: 0,
            high_watermark: 2_011,
            lag: 511,
        };
        let gone = GroupOffset::new("gone", 7, 3);
        let description = GroupDescription {
            group: "billing".to_owned(),
            coordinator: 2,
            leader_node: Some(3),
            offsets: vec![offset.clone(), gone.clone()],
        };
        let rows = [(&offset, Some(&lag)), (&gone, None)];
        expect![[r#"
            group billing, kept by node 3, lag 511

            TOPIC    PARTITION  OFFSET    END  LAG  COMMITTED             METADATA
            flights          0   1,500  2,011  511  2013-01-01T10:17:00Z  host a
            gone             7       3      -    -  -
        "#]]
        .assert_eq(&description_text(&description, &rows));
    }
}
