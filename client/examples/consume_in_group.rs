//! Consumes a topic together with whoever else is in the group, and prints what it gets.
//!
//! Start it in several shells: they share the partitions. End one with Ctrl-C and the others have
//! its partitions at once; kill one, and they have them when its session ends. Needs a cluster.
//!
//! ```text
//! cargo run -p quipu-client --example consume_in_group -- orders billing 127.0.0.1:9400
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use anyhow::{Context, Result};
use quipu_client::{Client, ClientConfig, GroupConfig, Listener};

/// Ends after so long without a record.
const IDLE: Duration = Duration::from_secs(8);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().context("name the topic")?;
    let group = arguments.next().context("name the group")?;
    let mut nodes: Vec<String> = arguments.collect();
    if nodes.is_empty() {
        nodes.push("127.0.0.1:9400".to_owned());
    }
    let client = Client::connect(ClientConfig::new(nodes)).await?;
    let listener = Some(Listener::new(|event| println!("# {event:?}")));
    let session_timeout = Duration::from_secs(3);
    let config = GroupConfig { listener, session_timeout, ..GroupConfig::new(group, [topic]) };
    let mut consumer = client.group_consumer(config)?;
    loop {
        tokio::select! {
            record = consumer.next() => match record {
                // Asking for the next record says that this one is dealt with.
                Ok(record) => println!("{} {}", record.partition, record.offset),
                Err(error) if error.retriable() => println!("# {error}"),
                Err(error) => return Err(error.into()),
            },
            _ = tokio::signal::ctrl_c() => break,
            () = tokio::time::sleep(IDLE) => break,
        }
    }
    consumer.close().await?;
    Ok(())
}
