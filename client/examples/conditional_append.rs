//! An account in a log of its own: withdraw only what is there, though others withdraw too.
//!
//! Read the whole log, decide, and append on the condition that nobody has appended since. Who
//! loses the race decides again. Needs a cluster; its addresses are the arguments, or
//! 127.0.0.1:9400.
//!
//! ```text
//! cargo run -p quipu-client --example conditional_append -- 127.0.0.1:9400
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::{Context as _, Result};
use quipu_client::{
    AdminError, AppendError, AppendOptions, AppendRecord, Client, ClientConfig, FetchOptions,
    NewTopic,
};

const TOPIC: &str = "account";

#[tokio::main]
async fn main() -> Result<()> {
    let mut nodes: Vec<String> = std::env::args().skip(1).collect();
    if nodes.is_empty() {
        nodes.push("127.0.0.1:9400".to_owned());
    }
    let client = Client::connect(ClientConfig::new(nodes)).await?;
    match client.admin().create_topic(NewTopic::new(TOPIC, 1)).await {
        Ok(_) | Err(AdminError::TopicExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let deposit = vec![AppendRecord::new("100")];
    client.append(TOPIC, 0, deposit, AppendOptions::default()).await?;

    // Ten at once want 30 each.
    let customers = (0..10).map(|customer| {
        let client = client.clone();
        tokio::spawn(async move { withdraw(&client, customer, 30).await })
    });
    for customer in customers.collect::<Vec<_>>() {
        customer.await??;
    }
    let (balance, _) = balance(&client).await?;
    println!("what is left: {balance}");
    Ok(())
}

/// Whether the account had enough.
async fn withdraw(client: &Client, customer: usize, amount: i64) -> Result<bool> {
    loop {
        let (balance, end_offset) = balance(client).await?;
        if balance < amount {
            println!("customer {customer}: only {balance} left");
            return Ok(false);
        }
        let record = vec![AppendRecord::new(format!("-{amount}"))];
        let condition =
            AppendOptions { expect_end_offset: Some(end_offset), ..AppendOptions::default() };
        match client.append(TOPIC, 0, record, condition).await {
            Ok(_) => {
                println!("customer {customer}: took {amount} of {balance}");
                return Ok(true);
            }
            // Somebody was quicker: decide again.
            Err(AppendError::EndOffsetConflict { .. }) => {}
            // `error.outcome()` tells whether it may have happened all the same; a real program
            // would mark the record with an id and look for it before trying again.
            Err(error) => return Err(error.into()),
        }
    }
}

/// The sum of all records, and the end of the log up to which it was read.
async fn balance(client: &Client) -> Result<(i64, u64)> {
    let (mut balance, mut offset) = (0, 0);
    loop {
        let fetched = client.fetch(TOPIC, 0, offset, FetchOptions::default()).await?;
        for record in &fetched.records {
            let text = std::str::from_utf8(record.value.as_deref().context("no value")?)?;
            balance += text.parse::<i64>()?;
        }
        offset = fetched.next_offset;
        if offset >= fetched.high_watermark {
            return Ok((balance, offset));
        }
    }
}
