//! The client that does for the nemesis what only a client can do.

use std::time::Duration;

use quipu_client::{AdminError, Client, Outcome, PlannedChange};
use tokio::time::sleep;

use super::{TOPIC, Worker};
use crate::nemesis::{Carried, Order, Orders, pick};

/// How often it looks for orders.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Carries out orders until the faults are over.
pub async fn carry_out(mut worker: Worker, orders: Orders) {
    let Some(client) = worker.client().await else { return };
    while worker.is_working() {
        match orders.take() {
            Some((kind, order)) => {
                let (carried, detail) = carry(&client, &order).await;
                orders.done(kind, carried, detail);
            }
            None => sleep(LOOK_EVERY).await,
        }
    }
}

async fn carry(client: &Client, order: &Order) -> (Carried, String) {
    let done = match order {
        Order::MoveLeader { partition, to } => {
            client.admin().move_leader(TOPIC, *partition, *to).await.map(drop)
        }
        Order::Retention { bytes } => {
            let setting = ("retention.bytes".to_owned(), bytes.to_string());
            client.admin().alter_topic(TOPIC, [setting]).await.map(drop)
        }
        Order::Drain { node } => client.admin().drain_node(*node).await.map(drop),
        Order::Resume { node } => client.admin().resume_node(*node).await.map(drop),
        Order::Remove { node } => client.admin().remove_node(*node, false).await.map(drop),
        Order::CancelRemoval { node } => client.admin().cancel_removal(*node).await.map(drop),
        Order::MoveReplica { partition, choice } => {
            match planned_move(client, *partition, *choice).await {
                Ok(Some(change)) => client.admin().place_replicas(&change).await,
                Ok(None) => return (Carried::Refused, format!("{order:?}: nowhere to move it")),
                Err(error) => Err(error),
            }
        }
        Order::Rebalance { choice } => {
            let plan = client.admin().plan_rebalance(0).await;
            match plan.as_ref().map(|plan| pick(&plan.changes, *choice)) {
                Ok(Some(change)) => client.admin().place_replicas(change).await,
                Ok(None) => return (Carried::Refused, format!("{order:?}: it is even")),
                Err(error) => Err(error.clone()),
            }
        }
    };
    match done {
        Ok(()) => (Carried::Out, format!("{order:?}")),
        Err(error) if error.outcome() == Outcome::Definite => {
            (Carried::Refused, format!("{order:?}: {error}"))
        }
        Err(error) => (Carried::Unknown, format!("{order:?}: {error}")),
    }
}

/// A replica of a partition goes to a node that has none.
async fn planned_move(
    client: &Client,
    partition: u32,
    choice: u64,
) -> Result<Option<PlannedChange>, AdminError> {
    let topic = client.admin().describe_topic(TOPIC).await?;
    let cluster = client.admin().describe_cluster().await?;
    let Some(placed) = topic.partitions.into_iter().find(|it| it.partition == partition) else {
        return Ok(None);
    };
    let labels = cluster.nodes.iter().map(|node| node.node_id);
    let free: Vec<u64> = labels.filter(|label| !placed.replicas.contains(label)).collect();
    let (Some(to), Some(from)) = (pick(&free, choice), pick(&placed.replicas, choice >> 32)) else {
        return Ok(None);
    };
    let moved = |node: &u64| if node == from { *to } else { *node };
    Ok(Some(PlannedChange {
        group: placed.group,
        what: format!("{TOPIC}/{partition}"),
        to_nodes: placed.replicas.iter().map(moved).collect(),
        from_nodes: placed.replicas.clone(),
        bytes: 0,
        replicas_made: 1,
    }))
}
