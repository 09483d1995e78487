//! The single demands of an operator, each tried again until it is met or late.

use std::fmt::Display;
use std::time::Duration;

use quipu_client::{AppendOptions, AppendRecord, Client, FetchOptions, ReadError, ReadLevel};
use tokio::time::{Instant, sleep};

use super::{Operator, SERVES_WITHIN};
use crate::history::{Answer, Call};
use crate::violation::Violation;
use crate::workload::{TOPIC, groups, value_of};
use crate::world::hex;

/// Pause before something that failed is tried again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Operator {
    /// Demands that a partition takes an append.
    pub(super) async fn append(&self, client: &Client, partition: u32) -> Result<(), Violation> {
        let deadline = Instant::now() + SERVES_WITHIN;
        match self.append_until(client, partition, deadline).await {
            None => Ok(()),
            Some(last) => {
                let what = format!("an append to partition {partition} was not had; last: {last}");
                Err(Violation::NotServing { what })
            }
        }
    }

    /// Answers the last failure, if it was late.
    pub(super) async fn append_until(
        &self,
        client: &Client,
        partition: u32,
        deadline: Instant,
    ) -> Option<String> {
        let mut worker = self.worker.clone();
        loop {
            let values = worker.take_values(1);
            let payload = worker.payload(values[0]);
            let op = worker.invoke(Call::Append { partition, values });
            let records = vec![AppendRecord::new(payload)];
            match client.append(TOPIC, partition, records, AppendOptions::default()).await {
                Ok(appended) => {
                    worker.ok(op, Answer::Appended { base_offset: appended.base_offset });
                    return None;
                }
                Err(error) => {
                    worker.failed(op, error.code(), error.outcome(), &error);
                    if Instant::now() >= deadline {
                        return Some(error.to_string());
                    }
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Reads a node's end of a partition, linearizable, until that succeeds or is late.
    pub(super) async fn read_until(
        &self,
        client: &Client,
        node: u64,
        partition: u32,
        deadline: Instant,
    ) {
        while Instant::now() < deadline {
            let op = self.worker.invoke(Call::Read { partition, node, from: 0 });
            let options =
                FetchOptions { node: Some(node), max_bytes: 1, ..FetchOptions::default() };
            let (end, values) = match client.fetch(TOPIC, partition, 0, options).await {
                Ok(fetched) => {
                    let records = fetched.records.iter();
                    let values = records.map(|record| value_of(record.value.as_ref()));
                    (fetched.high_watermark, values.collect())
                }
                Err(ReadError::OffsetOutOfRange { high_watermark, .. }) => {
                    (high_watermark, Vec::new())
                }
                Err(error) => {
                    self.worker.failed(op, error.code(), error.outcome(), &error);
                    sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            self.worker.ok(op, Answer::Records { values, end });
            return;
        }
    }

    /// Demands the whole log of a partition as a node serves it.
    pub(super) async fn survey(
        &self,
        client: &Client,
        node: u64,
        partition: u32,
    ) -> Result<(), Violation> {
        let what = format!("the log of partition {partition} from node {node}");
        let op = self.worker.invoke(Call::Survey { partition, node });
        let read = demand(&what, SERVES_WITHIN, async || {
            match read_all(client, node, partition).await {
                // Damage does not go away by asking again.
                Err(error @ (ReadError::Corrupt { .. } | ReadError::Gap { .. })) => Ok(Err(error)),
                Err(error) => Err(error),
                Ok(all) => Ok(Ok(all)),
            }
        });
        let (start, values) = match read.await? {
            Ok(all) => all,
            Err(error) => {
                self.worker.failed(op, error.code(), error.outcome(), &error);
                return Ok(());
            }
        };
        let end = start + u64::try_from(values.len()).expect("a usize fits");
        let replica = demand(&what, SERVES_WITHIN, async || {
            client.admin().describe_replica(node, TOPIC, partition, Some(end)).await
        });
        let replica = replica.await?;
        let hash = replica.chain_hash.filter(|_| replica.chain_hash_offset == end);
        let chain_hash = hash.map(|hash| hex(&hash));
        self.worker.ok(op, Answer::Log { start, values, chain_hash });
        Ok(())
    }

    /// Demands the offsets of every group.
    pub(super) async fn look_at_groups(
        &self,
        client: &Client,
        partitions: u32,
    ) -> Result<(), Violation> {
        for group in &self.groups {
            for partition in 0..partitions {
                let what = format!("the offset of group {group} in partition {partition}");
                demand(&what, SERVES_WITHIN, async || {
                    let group = group.clone();
                    match groups::fetch_once(&self.worker, client, group, partition).await {
                        true => Ok(()),
                        false => Err("it is in the history why not"),
                    }
                })
                .await?;
            }
        }
        Ok(())
    }
}

/// Every record that a node serves, and the offset of the first.
async fn read_all(
    client: &Client,
    node: u64,
    partition: u32,
) -> Result<(u64, Vec<u64>), ReadError> {
    let options = FetchOptions {
        level: ReadLevel::Linearizable,
        node: Some(node),
        ..FetchOptions::default()
    };
    let start = match client.fetch(TOPIC, partition, 0, options.clone()).await {
        Ok(fetched) => fetched.log_start_offset,
        Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) => log_start_offset,
        Err(error) => return Err(error),
    };
    let (mut values, mut offset) = (Vec::new(), start);
    loop {
        let fetched = client.fetch(TOPIC, partition, offset, options.clone()).await?;
        values.extend(fetched.records.iter().map(|record| value_of(record.value.as_ref())));
        if fetched.next_offset >= fetched.high_watermark {
            return Ok((start, values));
        }
        offset = fetched.next_offset;
    }
}

/// Tries until it succeeds.
pub(super) async fn demand<T, E: Display>(
    what: &str,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Violation> {
    let deadline = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() < deadline => drop(error),
            Err(error) => {
                let what = format!("{what} was not had in time; last: {error}");
                return Err(Violation::NotServing { what });
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}
