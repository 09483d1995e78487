//! An event-sourced aggregate: load it by its key, decide, append if nobody was quicker.
//!
//! Each order is an aggregate with its events in one partition, that of its key. A command loads
//! the events, checks its rule against the state that they add up to, and appends what follows from
//! it on the condition that the partition ends where the loading ended. Whoever loses the race
//! loads what is new and decides again, so no update is lost and no rule is broken. Needs a
//! cluster; its addresses are the arguments, or 127.0.0.1:9400.
//!
//! ```text
//! cargo run -p quipu-client --example event_sourced_aggregate -- 127.0.0.1:9400
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(unreachable_pub, missing_docs, reason = "a test of the repository runs it, too")]

use anyhow::{Context as _, Result, bail};
use quipu_client::{
    AdminError, AppendError, AppendOptions, AppendRecord, Client, ClientConfig, FetchOptions,
    NewTopic,
};

const TOPIC: &str = "stock";
const KEY: &str = "warehouse-1/apples";
const WRITERS: u64 = 16;
const ORDERS_EACH: u64 = 5;
const APPLES: i64 = 60;

/// What is in stock, by its events up to an offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stock {
    apples: i64,
    /// Events of this aggregate: its version.
    version: u64,
    /// Where the partition was read to.
    end_offset: u64,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Taken,
    SoldOut,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut nodes: Vec<String> = std::env::args().skip(1).collect();
    if nodes.is_empty() {
        nodes.push("127.0.0.1:9400".to_owned());
    }
    run(nodes).await
}

/// Sixteen writers at one aggregate.
pub async fn run(nodes: Vec<String>) -> Result<()> {
    let client = Client::connect(ClientConfig::new(nodes)).await?;
    match client.admin().create_topic(NewTopic::new(TOPIC, 1)).await {
        Ok(_) | Err(AdminError::TopicExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let before = load(&client, Stock::default()).await?;
    let delivery = vec![event(APPLES - before.apples)];
    client.append(TOPIC, 0, delivery, AppendOptions::default()).await?;
    let delivered = load(&client, before).await?;

    let writers = (0..WRITERS).map(|_| tokio::spawn(writer(client.clone())));
    let mut taken = 0;
    for writer in writers.collect::<Vec<_>>() {
        taken += writer.await??;
    }
    let left = load(&client, Stock::default()).await?;
    let events = left.version - delivered.version;
    println!("{WRITERS} writers: {taken} apples taken, {events} events, {} left", left.apples);
    // A lost update would be an apple that two were given, or an event that is not there.
    if events != taken || left.apples != APPLES - i64::try_from(taken)? || left.apples != 0 {
        bail!("an update was lost");
    }
    Ok(())
}

/// Orders one apple after the other. Answers how many it got.
async fn writer(client: Client) -> Result<u64> {
    let mut stock = Stock::default();
    let mut taken = 0;
    for _ in 0..ORDERS_EACH {
        match take_one(&client, &mut stock).await? {
            Decision::Taken => taken += 1,
            Decision::SoldOut => break,
        }
    }
    Ok(taken)
}

/// The command: load, decide, append on the condition that nothing came between.
async fn take_one(client: &Client, stock: &mut Stock) -> Result<Decision> {
    loop {
        *stock = load(client, *stock).await?;
        if stock.apples < 1 {
            return Ok(Decision::SoldOut);
        }
        let condition =
            AppendOptions { expect_end_offset: Some(stock.end_offset), ..AppendOptions::default() };
        match client.append(TOPIC, 0, vec![event(-1)], condition).await {
            Ok(_) => return Ok(Decision::Taken),
            // Somebody was quicker, perhaps with another aggregate of the same partition.
            Err(AppendError::EndOffsetConflict { .. }) => {}
            // `error.outcome()` tells whether it may have happened all the same; a real program
            // would give each event an id and look for it before trying again.
            Err(error) => return Err(error.into()),
        }
    }
}

/// The aggregate with all events that were acknowledged before this call, from where it was known.
async fn load(client: &Client, known: Stock) -> Result<Stock> {
    let mut stock = known;
    loop {
        let fetched = client.fetch(TOPIC, 0, stock.end_offset, FetchOptions::default()).await?;
        for record in &fetched.records {
            // The partition holds other aggregates, too.
            if record.key.as_deref() == Some(KEY.as_bytes()) {
                let value = record.value.as_deref().context("an event without a value")?;
                stock.apples += std::str::from_utf8(value)?.parse::<i64>()?;
                stock.version += 1;
            }
        }
        stock.end_offset = fetched.next_offset;
        if stock.end_offset >= fetched.high_watermark {
            return Ok(stock);
        }
    }
}

/// So many apples more, or fewer.
fn event(apples: i64) -> AppendRecord {
    AppendRecord { key: Some(KEY.into()), ..AppendRecord::new(apples.to_string()) }
}
