//! `quipu group seek`: where a group goes on, forwards or back.

use quipu_client::{Client, GroupOffset, TopicPartition};
use serde_json::json;

use crate::args::{GlobalArgs, SeekArgs};
use crate::commands::{connect, is_json, offsets};
use crate::output::table::{Column, NONE, grouped, table};
use crate::output::{print, print_json, print_line};

/// One partition's change: from where (`None`: nothing committed) to where.
struct Move {
    partition: u32,
    from: Option<u64>,
    to: u64,
}

pub(super) async fn seek(global: &GlobalArgs, args: SeekArgs) -> anyhow::Result<()> {
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
}
