//! The worked example of docs/consuming-in-a-group.md, word for word, and that it does what the
//! page says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::consuming_in_groups::{assign, committed, filled};
use crate::fake::settle;

// The example begins.
use quipu_client::{Client, ConsumedRecord, GroupConfig, Listener, PartitionEvent, TopicPartition};

/// Books each order once, however often it is given: it knows how far it has booked.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Booked>>);

#[derive(Default)]
struct Booked {
    /// By partition: the next offset to book.
    next: std::collections::BTreeMap<TopicPartition, u64>,
    total: u64,
}

impl Ledger {
    async fn book(&self, record: ConsumedRecord) -> Result<(), anyhow::Error> {
        let place = TopicPartition::new(record.topic, record.partition);
        let mut booked = self.0.lock().expect("nobody panics with it");
        let next = booked.next.entry(place).or_default();
        if record.offset >= *next {
            *next = record.offset + 1;
            booked.total += 1;
        }
        Ok(())
    }
}

async fn bill(
    client: Client,
    ledger: Ledger,
    stop: impl Future<Output = ()>,
) -> Result<(), anyhow::Error> {
    let tell = |event: PartitionEvent<'_>| match event {
        PartitionEvent::Assigned(places) => tracing::info!(?places, "ours from now on"),
        PartitionEvent::Revoked(places) => tracing::info!(?places, "others go on here"),
        PartitionEvent::Lost(places) => tracing::warn!(?places, "others are here already"),
    };
    let config = GroupConfig {
        client: "billing on host a".to_owned(),
        listener: Some(Listener::new(tell)),
        ..GroupConfig::new("billing", ["t"])
    };
    let mut consumer = client.group_consumer(config)?;
    // Sixteen partitions side by side, each in its order; what is booked is committed.
    let ended = consumer.process(16, stop, |record| ledger.book(record)).await;
    consumer.close().await?;
    Ok(ended?)
}
// The example ends.

#[tokio::test(start_paused = true)]
async fn the_worked_example_books_each_order_once_though_a_partition_moves() {
    let cluster = filled(3);
    assign(&cluster, 3, &[0, 1]);
    let ledger = Ledger::default();
    let moving = cluster.clone();
    let stop = async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assign(&moving, 4, &[1, 2]);
        settle().await;
        tokio::time::sleep(Duration::from_secs(20)).await;
    };
    bill(cluster.client().await, ledger.clone(), stop).await.unwrap();
    assert_eq!(ledger.0.lock().unwrap().total, 30);
    let state = cluster.state();
    let offsets = state.groups["billing"].values().map(|it| it.offset);
    assert_eq!(offsets.collect::<Vec<u64>>(), [10, 10, 10]);
    drop(state);
    assert_eq!(committed(&cluster), [], "it is another group's");
}

#[test]
fn the_page_has_the_example_word_for_word() {
    let source = include_str!("worked_example.rs");
    let example = source.split("// The example begins.\n").nth(1).unwrap();
    let example = example.split("// The example ends.").next().unwrap();
    let page = include_str!("../../../docs/consuming-in-a-group.md");
    assert!(page.contains(&format!("```rust\n{example}```")), "the page differs");
}
