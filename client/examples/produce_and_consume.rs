//! Writes a hundred orders, keyed by customer, and reads them back as a group.
//!
//! Run it twice: the second run goes on where the first one committed. Needs a cluster; its
//! addresses are the arguments, or 127.0.0.1:9400.
//!
//! ```text
//! cargo run -p quipu-client --example produce_and_consume -- 127.0.0.1:9400
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::Result;
use quipu_client::{
    AdminError, Client, ClientConfig, ConsumerConfig, GroupOffset, NewTopic, ProduceRecord,
    ProducerConfig, StartAt,
};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const ORDERS: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let mut nodes: Vec<String> = std::env::args().skip(1).collect();
    if nodes.is_empty() {
        nodes.push("127.0.0.1:9400".to_owned());
    }
    let client = Client::connect(ClientConfig::new(nodes)).await?;
    match client.admin().create_topic(NewTopic::new(TOPIC, 3)).await {
        Ok(_) | Err(AdminError::TopicExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    produce(&client).await?;
    consume(&client).await
}

async fn produce(client: &Client) -> Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    let mut deliveries = Vec::new();
    for order in 0..ORDERS {
        // Orders of one customer share a partition, and so keep their order.
        let customer = format!("customer-{}", order % 7);
        let record = ProduceRecord::keyed(TOPIC, customer, format!("order {order}"));
        deliveries.push(producer.send(record).await);
    }
    for delivery in deliveries {
        // An error says whether the record was certainly not appended: `error.outcome()`.
        delivery.await?;
    }
    producer.close().await;
    println!("{ORDERS} orders are on stable storage on a majority of the nodes");
    Ok(())
}

async fn consume(client: &Client) -> Result<()> {
    let groups = client.groups();
    let committed = groups.fetch(GROUP, &[]).await?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    let mut starts = Vec::new();
    for partition in 0..client.partition_count(TOPIC).await? {
        let known = committed.iter().find(|one| one.topic == TOPIC && one.partition == partition);
        let start = known.map_or(StartAt::Earliest, |known| StartAt::Offset(known.offset));
        starts.push((TOPIC.to_owned(), partition, start));
    }
    consumer.assign(starts).await?;

    let mut billed = 0;
    while billed < ORDERS {
        let Some(batch) = consumer.next_batch().await else { break };
        let batch = batch?;
        billed += batch.len();
        // What is committed before the work is done is lost if the work fails; what is committed
        // after it may be done twice. This is the second kind.
        if let Some(last) = batch.last() {
            let next = GroupOffset::new(TOPIC, last.partition, last.offset + 1);
            groups.commit(GROUP, vec![next]).await?;
        }
    }
    for lag in groups.lag(GROUP).await? {
        println!(
            "partition {}: billed up to {}, {} left",
            lag.partition,
            lag.group_offset.unwrap_or(0),
            lag.lag.unwrap_or(0)
        );
    }
    Ok(())
}
