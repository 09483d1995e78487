//! `quipu partition …`.

use anyhow::Context as _;
use quipu_client::{Admin, AdminError, Replica};
use serde_json::json;

use crate::args::{GlobalArgs, PartitionCommand};
use crate::commands::{connect, is_json};
use crate::failure::Failure;
use crate::output::table::{Column, NONE, bytes, grouped, table};
use crate::output::{print, print_json, print_line};

pub(super) async fn run(global: &GlobalArgs, command: PartitionCommand) -> anyhow::Result<()> {
    match command {
        PartitionCommand::Describe { topic, partition } => {
            describe(global, &topic, partition).await
        }
        PartitionCommand::MoveLeader { topic, partition, to } => {
            connect(global).await?.admin().move_leader(&topic, partition, to).await?;
            if is_json(global) {
                return print_json(&json!({
                    "topic": topic, "partition": partition, "leader": to,
                }));
            }
            print_line(&format!("node {to} leads {topic}/{partition}"))
        }
    }
}

/// What the nodes say of their replicas, and what that means.
struct Answers {
    /// By node; an error where a node did not answer.
    replicas: Vec<(u64, Result<Replica, AdminError>)>,
    /// Everything below is compared; `None` where no replica answered.
    offset: Option<u64>,
}

impl Answers {
    /// No two replicas that answered have different hashes.
    fn agree(&self) -> bool {
        let mut hashes = self.replicas.iter().filter_map(|(_, replica)| self.hash(replica));
        let first = hashes.next();
        hashes.all(|hash| Some(hash) == first)
    }

    fn hash<'a>(&self, replica: &'a Result<Replica, AdminError>) -> Option<&'a [u8]> {
        let replica = replica.as_ref().ok()?;
        let is_common = Some(replica.chain_hash_offset) == self.offset;
        replica.chain_hash.as_deref().filter(|_| is_common)
    }
}

async fn describe(global: &GlobalArgs, topic: &str, partition: u32) -> anyhow::Result<()> {
    let admin = connect(global).await?.admin();
    let description = admin.describe_topic(topic).await?;
    let found = description.partitions.iter().find(|one| one.partition == partition);
    let nodes = &found
        .with_context(|| {
            format!("topic {topic} has {} partitions, no {partition}", description.partitions.len())
        })?
        .replicas;
    let answers = ask(&admin, topic, partition, nodes).await;
    if is_json(global) {
        print_json(&answers_json(topic, partition, &answers))?;
    } else {
        print(answers_text(topic, partition, &answers).as_bytes())?;
    }
    if !answers.agree() {
        return Err(Failure::Reported.into());
    }
    Ok(())
}

/// Asks each node twice: how far it is, then for its chain hash where all of them are.
async fn ask(admin: &Admin, topic: &str, partition: u32, nodes: &[u64]) -> Answers {
    let ask_all = |at_offset| async move {
        let asked = nodes.iter().map(|node| async move {
            (*node, admin.describe_replica(*node, topic, partition, at_offset).await)
        });
        futures::future::join_all(asked).await
    };
    let first = ask_all(None).await;
    let offset = first
        .iter()
        .filter_map(|(_, replica)| replica.as_ref().ok())
        .map(|replica| replica.high_watermark)
        .min();
    let replicas = if offset.is_some() { ask_all(offset).await } else { first };
    Answers { replicas, offset }
}

fn answers_json(topic: &str, partition: u32, answers: &Answers) -> serde_json::Value {
    let replicas: Vec<_> = answers
        .replicas
        .iter()
        .map(|(node, replica)| match replica {
            Err(error) => json!({ "node": node, "error": error.to_string() }),
            Ok(known) => json!({
                "node": node,
                "replica_id": known.replica_id,
                "role": known.role.name(),
                "term": known.term,
                "log_start_offset": known.log_start_offset,
                "high_watermark": known.high_watermark,
                "chain_hash": answers.hash(replica).map(hex),
                "bytes": known.bytes,
                "producers": known.producers,
                "staleness_ms": known.staleness.map(|lag| lag.as_millis()),
            }),
        })
        .collect();
    json!({
        "topic": topic,
        "partition": partition,
        "chain_hash_offset": answers.offset,
        "agree": answers.agree(),
        "replicas": replicas,
    })
}

fn answers_text(topic: &str, partition: u32, answers: &Answers) -> String {
    let columns = [
        Column::Number("node"),
        Column::Text("role"),
        Column::Number("term"),
        Column::Number("start"),
        Column::Number("end"),
        Column::Number("stored"),
        Column::Number("producers"),
        Column::Text("chain hash"),
    ];
    let rows = answers.replicas.iter().map(|(node, replica)| match replica {
        Err(_) => {
            let mut row = vec![node.to_string(), "no answer".to_owned()];
            row.resize(columns.len(), NONE.to_owned());
            row
        }
        Ok(known) => vec![
            node.to_string(),
            known.role.name().to_owned(),
            known.term.to_string(),
            grouped(known.log_start_offset),
            grouped(known.high_watermark),
            bytes(known.bytes),
            grouped(known.producers),
            answers.hash(replica).map_or(NONE.to_owned(), hex),
        ],
    });
    let table = table(&columns, rows);
    let failed = answers.replicas.iter().filter_map(|(node, replica)| {
        replica.as_ref().err().map(|error| format!("node {node}: {error}\n"))
    });
    let failed: String = failed.collect();
    let conclusion = match answers.offset {
        None => "no replica answered".to_owned(),
        Some(offset) if answers.agree() => format!("replicas agree on everything below {offset}"),
        Some(offset) => format!("REPLICAS DISAGREE on what is below {offset}"),
    };
    format!("{topic}/{partition}\n\n{table}\n{failed}{conclusion}\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::expect;
    use quipu_client::ReplicaRole;

    use super::*;

    fn replica(node_id: u64, role: ReplicaRole, hash: &'static [u8]) -> Replica {
        Replica {
            node_id,
            replica_id: 10 + node_id,
            role,
            term: 4,
            log_start_offset: 0,
            high_watermark: 2_011,
            chain_hash: Some(Bytes::from_static(hash)),
            chain_hash_offset: 2_011,
            bytes: 1_536,
            producers: 1,
            staleness: None,
        }
    }

    fn answers(second: &'static [u8]) -> Answers {
        Answers {
            replicas: vec![
                (1, Ok(replica(1, ReplicaRole::Leader, b"\x0f\xa0"))),
                (2, Ok(replica(2, ReplicaRole::Follower, second))),
                (3, Err(AdminError::UnknownNode { node: 3 })),
            ],
            offset: Some(2_011),
        }
    }

    #[test]
    fn replicas_with_equal_hashes_agree_even_if_one_does_not_answer() {
        expect![[r#"
            flights/0

            NODE  ROLE       TERM  START    END   STORED  PRODUCERS  CHAIN HASH
               1  leader        4      0  2,011  1.5 KiB          1  0fa0
               2  follower      4      0  2,011  1.5 KiB          1  0fa0
               3  no answer     -      -      -        -          -  -

            node 3: the cluster has no node 3
            replicas agree on everything below 2011
        "#]]
        .assert_eq(&answers_text("flights", 0, &answers(b"\x0f\xa0")));
    }

    #[test]
    fn replicas_with_different_hashes_disagree() {
        let different = answers(b"\x00");
        assert!(!different.agree());
        assert!(answers_text("flights", 0, &different).contains("REPLICAS DISAGREE"));
    }

    #[test]
    fn a_hash_at_another_offset_is_not_compared() {
        let mut lagging = answers(b"\x00");
        if let Ok(replica) = &mut lagging.replicas[1].1 {
            replica.chain_hash_offset = 2_000;
        }
        assert!(lagging.agree());
    }
}
