//! `quipu topic …`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use quipu_client::{Client, NewTopic, Offsets, Partition, Position, Topic};
use serde_json::json;

use crate::args::{CreateArgs, GlobalArgs, Setting, TopicCommand};
use crate::commands::{confirm, connect, is_json};
use crate::output::table::{Column, NONE, grouped, table};
use crate::output::{print, print_json, print_line};

/// A partition without a leader shall not hold up the description of the others.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(3);

/// Partitions that are asked for their offsets at the same time.
const OFFSETS_AT_ONCE: usize = 32;

/// Said with every description, since a record may be seen after its retention.
const RETENTION_NOTE: &str = "Retention works in steps: a record past its limit may stay until\n\
    the step it belongs to is over, at most 64 MiB or 10 minutes later.";

pub(super) async fn run(global: &GlobalArgs, command: TopicCommand) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create(args) => create(global, args).await,
        TopicCommand::Ls => list(global).await,
        TopicCommand::Describe { topic } => {
            let client = connect(global).await?;
            let topic = client.admin().describe_topic(&topic).await?;
            describe(global, &client, &topic).await
        }
        TopicCommand::Set { topic, settings } => {
            let client = connect(global).await?;
            let settings = settings.into_iter().map(|Setting { name, value }| (name, value));
            let topic = client.admin().alter_topic(&topic, settings).await?;
            describe(global, &client, &topic).await
        }
        TopicCommand::Rm { topic, yes } => {
            confirm::deletion("topic", &topic, yes)?;
            connect(global).await?.admin().delete_topic(&topic).await?;
            if is_json(global) {
                return print_json(&json!({ "topic": topic, "deleted": true }));
            }
            print_line(&format!("deleted topic {topic}"))
        }
    }
}

async fn create(global: &GlobalArgs, args: CreateArgs) -> anyhow::Result<()> {
    let configs: BTreeMap<String, String> =
        args.settings.into_iter().map(|setting| (setting.name, setting.value)).collect();
    let new = NewTopic {
        name: args.topic,
        partitions: args.partitions,
        replication_factor: args.replication.unwrap_or(0),
        configs,
    };
    let topic = connect(global).await?.admin().create_topic(new).await?;
    if is_json(global) {
        return print_json(&json!({
            "topic": topic.name,
            "topic_id": topic.topic_id,
            "partitions": topic.partitions.len(),
            "replication_factor": topic.replication_factor,
            "configs": topic.configs,
        }));
    }
    let partitions = topic.partitions.len();
    print_line(&format!(
        "created topic {}: {partitions} partition{}, replication factor {}",
        topic.name,
        if partitions == 1 { "" } else { "s" },
        topic.replication_factor
    ))
}

async fn list(global: &GlobalArgs) -> anyhow::Result<()> {
    let topics = connect(global).await?.admin().list_topics().await?;
    if is_json(global) {
        for topic in topics {
            print_json(&json!({
                "topic": topic.name,
                "partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
            }))?;
        }
        return Ok(());
    }
    let columns = [Column::Text("topic"), Column::Number("partitions"), Column::Number("replicas")];
    let rows = topics.into_iter().map(|topic| {
        vec![topic.name, topic.partitions.to_string(), topic.replication_factor.to_string()]
    });
    print(table(&columns, rows).as_bytes())
}

async fn describe(global: &GlobalArgs, client: &Client, topic: &Topic) -> anyhow::Result<()> {
    let partitions: Vec<(&Partition, Option<Offsets>)> = futures::stream::iter(&topic.partitions)
        .map(|partition| async move {
            let asked = client.list_offsets(&topic.name, partition.partition, Position::Latest);
            let offsets = tokio::time::timeout(OFFSETS_TIMEOUT, asked).await;
            (partition, offsets.ok().and_then(Result::ok))
        })
        .buffered(OFFSETS_AT_ONCE)
        .collect()
        .await;
    if is_json(global) {
        return print_json(&description_json(topic, &partitions));
    }
    print(description(topic, &partitions).as_bytes())
}

fn description_json(
    topic: &Topic,
    partitions: &[(&Partition, Option<Offsets>)],
) -> serde_json::Value {
    let partitions: Vec<_> = partitions
        .iter()
        .map(|(partition, offsets)| {
            json!({
                "partition": partition.partition,
                "group": partition.group,
                "leader": partition.leader,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replicas,
                "log_start_offset": offsets.map(|offsets| offsets.log_start_offset),
                "high_watermark": offsets.map(|offsets| offsets.high_watermark),
            })
        })
        .collect();
    json!({
        "topic": topic.name,
        "topic_id": topic.topic_id,
        "replication_factor": topic.replication_factor,
        "configs": topic.configs,
        "partitions": partitions,
    })
}

fn description(topic: &Topic, partitions: &[(&Partition, Option<Offsets>)]) -> String {
    let mut text = format!(
        "topic {} ({}), replication factor {}\n",
        topic.name, topic.topic_id, topic.replication_factor
    );
    for (name, value) in &topic.configs {
        text.push_str(&format!("  {name}={value}\n"));
    }
    text.push('\n');
    let columns = [
        Column::Number("partition"),
        Column::Number("leader"),
        Column::Number("epoch"),
        Column::Text("replicas"),
        Column::Number("start"),
        Column::Number("end"),
    ];
    let rows = partitions.iter().map(|(partition, offsets)| {
        let replicas: Vec<String> = partition.replicas.iter().map(u64::to_string).collect();
        vec![
            partition.partition.to_string(),
            partition.leader.map_or(NONE.to_owned(), |leader| leader.to_string()),
            partition.leader_epoch.to_string(),
            replicas.join(","),
            offsets.map_or(NONE.to_owned(), |offsets| grouped(offsets.log_start_offset)),
            offsets.map_or(NONE.to_owned(), |offsets| grouped(offsets.high_watermark)),
        ]
    });
    text.push_str(&table(&columns, rows));
    text.push('\n');
    text.push_str(RETENTION_NOTE);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_description_has_settings_partitions_and_the_note_on_retention() {
        let topic = Topic {
            name: "flights".to_owned(),
            topic_id: "5c1f".to_owned(),
            replication_factor: 3,
            configs: [("retention.ms".to_owned(), "-1".to_owned())].into(),
            partitions: vec![
                Partition {
                    partition: 0,
                    group: 11,
                    leader: Some(2),
                    leader_address: None,
                    leader_epoch: 4,
                    replicas: vec![2, 3, 1],
                },
                Partition {
                    partition: 1,
                    group: 12,
                    leader: None,
                    leader_address: None,
                    leader_epoch: 1,
                    replicas: vec![3, 1, 2],
                },
            ],
        };
        let offsets = Offsets { offset: 2_011, log_start_offset: 0, high_watermark: 2_011 };
        let partitions = [(&topic.partitions[0], Some(offsets)), (&topic.partitions[1], None)];
        expect![[r#"
            topic flights (5c1f), replication factor 3
              retention.ms=-1

            PARTITION  LEADER  EPOCH  REPLICAS  START    END
                    0       2      4  2,3,1         0  2,011
                    1       -      1  3,1,2         -      -

            Retention works in steps: a record past its limit may stay until
            the step it belongs to is over, at most 64 MiB or 10 minutes later.
        "#]]
        .assert_eq(&description(&topic, &partitions));
    }
}
