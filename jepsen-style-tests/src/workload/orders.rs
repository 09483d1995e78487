//! The client that does for the nemesis what only a client can do.

use std::time::Duration;

use quipu_client::{Client, Outcome};
use tokio::time::sleep;

use super::{TOPIC, Worker};
use crate::nemesis::{Carried, Order, Orders};

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
    };
    match done {
        Ok(()) => (Carried::Out, format!("{order:?}")),
        Err(error) if error.outcome() == Outcome::Definite => {
            (Carried::Refused, format!("{order:?}: {error}"))
        }
        Err(error) => (Carried::Unknown, format!("{order:?}: {error}")),
    }
}
