//! `quipu bench …`: a first measure of a cluster, not a benchmark suite.
//!
//! Values are random bytes, so that compression has nothing to win. Latency is that of a record,
//! from when it was handed to the producer until it was acknowledged.

use std::time::Duration;

use bytes::Bytes;
use quipu_client::{
    AdminError, Client, FetchOptions, NewTopic, ProduceRecord, Producer, ProducerConfig,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::{BenchAppendArgs, BenchCommand, BenchReadArgs, GlobalArgs};
use crate::commands::append::compression;
use crate::commands::{connect, is_json, offsets};
use crate::deliveries::{Deliveries, Tally};
use crate::failure::Failure;
use crate::latency::{Latencies, per_second, seconds};
use crate::output::live::progress;
use crate::output::table::{bytes, grouped};
use crate::output::{print_json, print_line};
use crate::position::Position;

/// Where the rate is limited, records are handed over in steps of so long.
const STEP: Duration = Duration::from_millis(5);

/// Of one fetch.
const FETCH_BYTES: u32 = 4 << 20;

pub(super) async fn run(global: &GlobalArgs, command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Append(args) => append(global, &args).await,
        BenchCommand::Read(args) => read(global, &args).await,
    }
}

async fn append(global: &GlobalArgs, args: &BenchAppendArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    match client.admin().create_topic(NewTopic::new(&args.topic, args.partitions)).await {
        Ok(_) | Err(AdminError::TopicExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let bar = progress(None);
    bar.set_message(format!("appending for {} s", args.seconds));
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let mut producers = JoinSet::new();
    for number in 0..u64::from(args.producers) {
        let producer = client.producer(ProducerConfig {
            linger: Duration::from_millis(args.linger_ms),
            batch_bytes: usize::try_from(args.batch_bytes)?,
            compression: compression(args.compression),
            ..Default::default()
        })?;
        let load = Load {
            topic: args.topic.clone(),
            value: random_bytes(number, usize::try_from(args.record_bytes)?),
            // Shared out so that the sum is exact.
            rate: args.rate.map(|rate| share(rate, number, args.producers.into())),
            until,
        };
        producers.spawn(load.run(producer, Deliveries::start(bar.clone())));
    }
    let mut total: Option<Tally> = None;
    for tally in producers.join_all().await {
        match &mut total {
            Some(total) => total.merge(tally),
            None => total = Some(tally),
        }
    }
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    let Some(total) = total else { return Ok(()) };
    report_append(global, args, &total, elapsed)
}

fn share(total: u64, number: u64, of: u64) -> u64 {
    total / of + u64::from(number < total % of)
}

fn random_bytes(seed: u64, length: usize) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(seed);
    Bytes::from_iter(std::iter::repeat_with(|| rng.u8(..)).take(length))
}

/// What one producer does.
struct Load {
    topic: String,
    value: Bytes,
    /// Records a second; `None`: as fast as they are taken.
    rate: Option<u64>,
    until: Instant,
}

impl Load {
    async fn run(self, producer: Producer, deliveries: Deliveries) -> Tally {
        let started = Instant::now();
        let mut number = 0;
        while Instant::now() < self.until {
            if self.rate.is_some_and(|rate| number >= due(rate, started.elapsed())) {
                tokio::time::sleep(STEP).await;
                continue;
            }
            let at = Instant::now();
            let record = ProduceRecord::new(self.topic.as_str(), self.value.clone());
            let delivery = producer.send(record).await;
            deliveries.add(number, at, delivery).await;
            number += 1;
        }
        producer.flush().await;
        deliveries.finish().await
    }
}

/// Records that should have been handed over after so long.
fn due(rate: u64, elapsed: Duration) -> u64 {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    rate.saturating_mul(ms) / 1_000 + 1
}

#[allow(clippy::print_stderr, reason = "failures are no part of the measurement")]
fn report_append(
    global: &GlobalArgs,
    args: &BenchAppendArgs,
    tally: &Tally,
    elapsed: Duration,
) -> anyhow::Result<()> {
    let summary = tally.summary(elapsed);
    let p999_ms = tally.latencies.percentile_ms(0.999);
    let rate_bytes = summary.records_per_s * f64::from(args.record_bytes);
    if is_json(global) {
        print_json(&json!({
            "topic": args.topic,
            "record_bytes": args.record_bytes,
            "producers": args.producers,
            "records": summary.records,
            "acked": summary.acked,
            "failed": summary.failed,
            "seconds": summary.seconds,
            "records_per_s": summary.records_per_s,
            "bytes_per_s": rate_bytes.round(),
            "p50_ms": summary.p50_ms,
            "p99_ms": summary.p99_ms,
            "p999_ms": p999_ms,
        }))?;
    } else {
        print_line(&format!(
            "acked {} records of {} in {} s: {} records/s, {:.1} MB/s; p50 {} ms, p99 {} ms, \
             p99.9 {p999_ms} ms; failed {}",
            grouped(summary.acked),
            bytes(args.record_bytes.into()),
            summary.seconds,
            summary.records_per_s,
            rate_bytes / 1e6,
            summary.p50_ms,
            summary.p99_ms,
            grouped(summary.failed)
        ))?;
    }
    if tally.failed() == 0 {
        return Ok(());
    }
    for (number, error) in &tally.failures {
        eprintln!("error: record {number}: {error}");
    }
    let failure = if tally.any_unknown { Failure::ReportedUnknown } else { Failure::Reported };
    Err(failure.into())
}

/// What one partition's reader got.
struct Got {
    records: u64,
    bytes: u64,
    latencies: Latencies,
}

async fn read(global: &GlobalArgs, args: &BenchReadArgs) -> anyhow::Result<()> {
    let client = connect(global).await?;
    let partitions = offsets::partitions(&client, &args.topic, &[]).await?;
    let bar = progress(None);
    bar.set_message(format!("reading {}", args.topic));
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let mut readers = JoinSet::new();
    for partition in partitions {
        readers.spawn(read_partition(client.clone(), args.topic.clone(), partition, until));
    }
    let mut total = Got { records: 0, bytes: 0, latencies: Latencies::new() };
    for got in readers.join_all().await {
        let got = got?;
        total.records += got.records;
        total.bytes += got.bytes;
        total.latencies.add(&got.latencies);
    }
    let elapsed = started.elapsed();
    bar.finish_and_clear();
    let records_per_s = per_second(total.records, elapsed);
    let bytes_per_s = per_second(total.bytes, elapsed);
    let percentile = |part| total.latencies.percentile_ms(part);
    if is_json(global) {
        return print_json(&json!({
            "topic": args.topic,
            "records": total.records,
            "bytes": total.bytes,
            "seconds": seconds(elapsed),
            "records_per_s": records_per_s,
            "bytes_per_s": bytes_per_s.round(),
            "fetch_p50_ms": percentile(0.5),
            "fetch_p99_ms": percentile(0.99),
            "fetch_p999_ms": percentile(0.999),
        }));
    }
    print_line(&format!(
        "read {} records ({}) in {} s: {records_per_s} records/s, {:.1} MB/s; one fetch p50 {} ms, \
         p99 {} ms, p99.9 {} ms",
        grouped(total.records),
        bytes(total.bytes),
        seconds(elapsed),
        bytes_per_s / 1e6,
        percentile(0.5),
        percentile(0.99),
        percentile(0.999)
    ))
}

/// From the start to the end of a partition, or until the time is up.
async fn read_partition(
    client: Client,
    topic: String,
    partition: u32,
    until: Instant,
) -> anyhow::Result<Got> {
    let start = offsets::resolve(&client, &topic, partition, Position::Earliest).await?;
    let mut got = Got { records: 0, bytes: 0, latencies: Latencies::new() };
    let mut next = start.offset;
    while next < start.high_watermark && Instant::now() < until {
        let options = FetchOptions { max_bytes: FETCH_BYTES, ..Default::default() };
        let at = Instant::now();
        let fetched = client.fetch(&topic, partition, next, options).await?;
        got.latencies.record(at.elapsed());
        for record in &fetched.records {
            let key = record.key.as_ref().map_or(0, Bytes::len);
            let value = record.value.as_ref().map_or(0, Bytes::len);
            got.records += 1;
            got.bytes += u64::try_from(key + value)?;
        }
        next = fetched.next_offset;
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_rate_is_shared_out_exactly() {
        let shares: Vec<u64> = (0..3).map(|number| share(10, number, 3)).collect();
        assert_eq!(shares, [4, 3, 3]);
        assert_eq!(due(1_000, Duration::from_secs(2)), 2_001);
        assert_eq!(due(u64::MAX, Duration::from_secs(2)), u64::MAX / 1_000 + 1);
    }
}
