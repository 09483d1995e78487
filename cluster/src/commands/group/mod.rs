//! `quipu group …`: here what is short; `describe` shows what a group is and how far behind, `seek`
//! moves its offsets.

mod describe;
mod seek;

use anyhow::Context as _;
use quipu_client::{GroupError, GroupOffset};
use serde_json::json;

pub(crate) use self::describe::places_text;
use crate::args::{CommitArgs, GlobalArgs, GroupCommand};
use crate::commands::{confirm, connect, is_json};
use crate::output::table::{Column, table};
use crate::output::{print, print_json, print_line};

pub(super) async fn run(global: &GlobalArgs, command: GroupCommand) -> anyhow::Result<()> {
    match command {
        GroupCommand::Ls => list(global).await,
        GroupCommand::Describe { group } => describe::describe(global, &group).await,
        GroupCommand::Lag(args) => describe::lag(global, &args).await,
        GroupCommand::Members { group } => describe::members(global, &group).await,
        GroupCommand::Commit(args) => commit(global, args).await,
        GroupCommand::Seek(args) => seek::seek(global, args).await,
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
