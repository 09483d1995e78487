//! `quipu append`: one record a line.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quipu_client::{AppendOptions, AppendRecord, Client, Compression, ProduceRecord};
use tokio::io::{AsyncBufRead, BufReader};
use tokio::time::Instant;

use crate::args::{AppendArgs, CompressionArg, GlobalArgs};
use crate::cloudevents::{EventRecord, record_of_line};
use crate::commands::{connect, is_json, offsets};
use crate::deliveries::{Deliveries, OffsetSpan, Summary, Tally};
use crate::failure::Failure;
use crate::latency::{Latencies, per_second, seconds};
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::output::live::progress;
use crate::output::table::{Column, grouped, table};
use crate::output::{print, print_json};

/// Read from a file or from stdin at once.
const READ_BYTES: usize = 256 << 10;

type Input = Box<dyn AsyncBufRead + Unpin + Send>;

pub(super) async fn run(global: &GlobalArgs, args: AppendArgs) -> anyhow::Result<()> {
    let input = Lines::new(open(args.file.as_deref()).await?, LINE_BYTES_MAX);
    let client = connect(global).await?;
    if let Some(partition) = args.partition {
        offsets::partitions(&client, &args.topic, &[partition]).await?;
    }
    match (args.expect_end, args.partition) {
        (Some(expected), Some(partition)) => {
            append_at(global, &client, (partition, expected), input, &args).await
        }
        _ => append_all(global, &client, input, &args).await,
    }
}

async fn open(file: Option<&Path>) -> anyhow::Result<Input> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, tokio::io::stdin())));
    };
    let file = tokio::fs::File::open(path)
        .await
        .with_context(|| format!("can't read {}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
}

/// Everything through a producer, in the order of the lines.
async fn append_all(
    global: &GlobalArgs,
    client: &Client,
    mut input: Lines<Input>,
    args: &AppendArgs,
) -> anyhow::Result<()> {
    // Asked first, so that an unknown topic is one error and not one for each line.
    client.partition_count(&args.topic).await?;
    let producer = client.producer(quipu_client::ProducerConfig {
        linger: Duration::from_millis(args.linger_ms),
        in_flight: args.in_flight.into(),
        compression: compression(args.compression),
        ..Default::default()
    })?;
    let bar = progress(None);
    let deliveries = Deliveries::start(bar.clone());
    let started = Instant::now();
    let end = loop {
        let record = match next_record(&mut input, args).await {
            Ok(Some(record)) => record,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let Numbered { number, record } = record;
        let record = ProduceRecord {
            topic: args.topic.clone(),
            partition: args.partition,
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp_ms: record.timestamp_ms,
        };
        let at = Instant::now();
        let delivery = producer.send(record).await;
        deliveries.add(number, at, delivery).await;
        if number.is_multiple_of(1_000) {
            bar.set_message(format!("{} records sent", grouped(number)));
        }
    };
    producer.flush().await;
    let tally = deliveries.finish().await;
    bar.finish_and_clear();
    report(global, &tally.summary(started.elapsed()))?;
    // The lines before a bad one are appended, and told, before the bad one is.
    end?;
    failures(&tally)
}

/// All lines as one atomic batch, if the partition ends where it is expected to.
async fn append_at(
    global: &GlobalArgs,
    client: &Client,
    (partition, expected): (u32, u64),
    mut input: Lines<Input>,
    args: &AppendArgs,
) -> anyhow::Result<()> {
    let mut records = Vec::new();
    let mut bytes = 0;
    while let Some(Numbered { number, record }) = next_record(&mut input, args).await? {
        bytes += record.value.as_ref().map_or(0, Bytes::len);
        if bytes > quipu_batch::DECOMPRESSED_BYTES_MAX {
            anyhow::bail!(
                "--expect-end appends one batch, and from line {number} on there is more than a \
                 batch can hold; nothing was appended"
            );
        }
        records.push(record);
    }
    if records.is_empty() {
        anyhow::bail!("there are no records to append");
    }
    let options = AppendOptions {
        expect_end_offset: Some(expected),
        compression: compression(args.compression),
        ..Default::default()
    };
    let started = Instant::now();
    let appended = client.append(&args.topic, partition, records, options).await?;
    let elapsed = started.elapsed();
    let count = u64::from(appended.record_count);
    let mut latencies = Latencies::new();
    latencies.record(elapsed);
    let span = appended
        .base_offset
        .map(|first| (partition.to_string(), OffsetSpan { first, last: first + count - 1 }));
    let summary = Summary {
        records: count,
        acked: count,
        failed: 0,
        partitions: span.into_iter().collect(),
        seconds: seconds(elapsed),
        records_per_s: per_second(count, elapsed),
        p50_ms: latencies.percentile_ms(0.5),
        p99_ms: latencies.percentile_ms(0.99),
    };
    report(global, &summary)
}

/// A record and the line it was made of.
#[derive(Debug, PartialEq, Eq)]
struct Numbered {
    number: u64,
    record: AppendRecord,
}

async fn next_record(
    input: &mut Lines<Input>,
    args: &AppendArgs,
) -> anyhow::Result<Option<Numbered>> {
    let Some(Line { number, bytes }) = input.next().await? else { return Ok(None) };
    let record = record(&bytes, args).with_context(|| format!("line {number}"))?;
    Ok(Some(Numbered { number, record }))
}

/// The record of one line.
fn record(line: &Bytes, args: &AppendArgs) -> anyhow::Result<AppendRecord> {
    let key = match (&args.key, &args.key_path) {
        (Some(key), _) => Some(Bytes::copy_from_slice(key.as_bytes())),
        (None, Some(path)) => Some(Bytes::from(path.key_of(line)?)),
        (None, None) => None,
    };
    if args.cloudevents {
        let EventRecord { value, headers, timestamp_ms } = record_of_line(line)?;
        return Ok(AppendRecord { key, value, headers, timestamp_ms });
    }
    Ok(AppendRecord { key, ..AppendRecord::new(line.clone()) })
}

pub(super) fn compression(arg: CompressionArg) -> Compression {
    match arg {
        CompressionArg::None => Compression::None,
        CompressionArg::Lz4 => Compression::Lz4,
        CompressionArg::Zstd => Compression::Zstd,
    }
}

fn report(global: &GlobalArgs, summary: &Summary) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(summary);
    }
    print(summary_text(summary).as_bytes())
}

fn summary_text(summary: &Summary) -> String {
    let mut text = format!(
        "records {}, acked {}, failed {}\n{} s, {} records/s, p50 {} ms, p99 {} ms\n",
        grouped(summary.records),
        grouped(summary.acked),
        grouped(summary.failed),
        summary.seconds,
        summary.records_per_s,
        summary.p50_ms,
        summary.p99_ms
    );
    if !summary.partitions.is_empty() {
        let columns =
            [Column::Number("partition"), Column::Number("first"), Column::Number("last")];
        let mut spans: Vec<_> = summary.partitions.iter().collect();
        spans.sort_by_key(|(partition, _)| partition.parse::<u32>().unwrap_or(u32::MAX));
        let rows = spans.into_iter().map(|(partition, span)| {
            vec![partition.clone(), grouped(span.first), grouped(span.last)]
        });
        text.push_str(&table(&columns, rows));
    }
    text
}

/// Tells the records that were not acknowledged, if there are any.
#[allow(clippy::print_stderr, reason = "failures of single records are no part of the summary")]
fn failures(tally: &Tally) -> anyhow::Result<()> {
    if tally.failed() == 0 {
        return Ok(());
    }
    for (number, error) in &tally.failures {
        eprintln!("error: line {number}: {error}");
    }
    if tally.failed() > u64::try_from(tally.failures.len()).unwrap_or(u64::MAX) {
        eprintln!("error: {} records were not acknowledged, the first are above", tally.failed());
    }
    let failure = if tally.any_unknown { Failure::ReportedUnknown } else { Failure::Reported };
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use expect_test::expect;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> AppendArgs {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Append(args) = cli.command else { panic!("not append") };
        args
    }

    fn made(line: &'static str, of: &str) -> Result<AppendRecord, String> {
        record(&Bytes::from_static(line.as_bytes()), &args(of)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_the_value_and_the_key_is_given_or_found() {
        let plain = made("hello ", "quipu append t").unwrap();
        assert_eq!(plain, AppendRecord::new("hello "));
        let given = made("hello", "quipu append t --key k").unwrap();
        assert_eq!(given.key.as_deref(), Some(&b"k"[..]));
        let found = made(r#"{"a":"x"}"#, "quipu append t --key-path .a").unwrap();
        assert_eq!(found.key.as_deref(), Some(&b"x"[..]));
        assert_eq!(found.value.as_deref(), Some(&br#"{"a":"x"}"#[..]));
    }

    #[test]
    fn an_event_takes_its_key_from_the_whole_line() {
        let line =
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"k","data":1}"#;
        let event = made(line, "quipu append t --cloudevents --key-path .subject").unwrap();
        assert_eq!(event.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(event.value.as_deref(), Some(&b"1"[..]));
        assert!(made("x", "quipu append t --cloudevents").unwrap_err().contains("not a JSON"));
    }

    #[test]
    fn the_summary_lists_partitions_by_number() {
        let span = |first, last| OffsetSpan { first, last };
        let summary = Summary {
            records: 12_134,
            acked: 12_134,
            failed: 0,
            partitions: [("10".to_owned(), span(0, 5)), ("2".to_owned(), span(7, 2_010))].into(),
            seconds: 0.84,
            records_per_s: 14_445.2,
            p50_ms: 3.1,
            p99_ms: 12.4,
        };
        expect![[r#"
            records 12,134, acked 12,134, failed 0
            0.84 s, 14445.2 records/s, p50 3.1 ms, p99 12.4 ms
            PARTITION  FIRST   LAST
                    2      7  2,010
                   10      0      5
        "#]]
        .assert_eq(&summary_text(&summary));
    }
}
