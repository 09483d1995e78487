//! `quipu read`: partitions are read at the same time, each in its order.
//!
//! Without `--follow` each partition is fetched from its start to its end by a task of its own
//! that reads a little ahead; with it, a consumer of the client library waits for more.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use quipu_client::{
    Client, ConsumedRecord, Consumer, ConsumerConfig, FetchOptions, ReadLevel, StartAt,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::{GlobalArgs, LevelArg, ReadArgs};
use crate::commands::printer::{self, Printer};
use crate::commands::{connect, offsets};
use crate::position::Position;

/// Fetches that wait to be printed, all partitions together; each holds about [`FETCH_BYTES`].
const FETCHES_WAITING: usize = 8;

/// Partitions that are read at the same time; each has a fetch in hand.
const PARTITIONS_AT_ONCE: usize = 16;

/// Of one fetch.
const FETCH_BYTES: u32 = 1 << 20;

/// Longest wait of a fetch for records to come, where the asked replica is behind.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// A replica that gets no further for so long won't reach the end.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run(global: &GlobalArgs, args: ReadArgs) -> anyhow::Result<()> {
    let format = printer::format(global.output, args.format.as_ref())?;
    let client = connect(global).await?;
    let partitions = offsets::partitions(&client, &args.topic, &args.partitions).await?;
    let printer = Printer::new(format, args.count);
    if args.follow {
        return follow(&client, &args, &partitions, printer).await;
    }
    read_to_end(&client, &args, &partitions, printer).await
}

fn level(arg: LevelArg) -> ReadLevel {
    match arg {
        LevelArg::Linearizable => ReadLevel::Linearizable,
        LevelArg::Committed => ReadLevel::Committed,
        LevelArg::Bounded(ms) => ReadLevel::Bounded(Duration::from_millis(ms.into())),
    }
}

async fn read_to_end(
    client: &Client,
    args: &ReadArgs,
    partitions: &[u32],
    mut printer: Printer,
) -> anyhow::Result<()> {
    let level = level(args.level.unwrap_or(LevelArg::Linearizable));
    // BEFORE any record is read: the ends are those of the moment the command began.
    let ranges: Vec<(u32, Range<u64>)> = futures::stream::iter(partitions)
        .map(|partition| async move {
            anyhow::Ok((*partition, range(client, args, *partition, level).await?))
        })
        .buffered(PARTITIONS_AT_ONCE)
        .try_collect()
        .await?;

    let (queue, mut fetched) = mpsc::channel(FETCHES_WAITING);
    let turns = Arc::new(Semaphore::new(PARTITIONS_AT_ONCE));
    let mut readers = JoinSet::new();
    for (partition, range) in ranges {
        let reader = Reader {
            client: client.clone(),
            topic: args.topic.clone(),
            partition,
            range,
            options: FetchOptions {
                level,
                max_bytes: FETCH_BYTES,
                min_bytes: 1,
                max_wait: FETCH_WAIT,
                node: args.node,
            },
            queue: queue.clone(),
        };
        let turns = Arc::clone(&turns);
        readers.spawn(async move {
            let _turn = turns.acquire().await.context("nobody closes the semaphore")?;
            reader.run().await
        });
    }
    drop(queue);

    while !printer.is_done() {
        let records = match fetched.try_recv() {
            Ok(records) => records,
            Err(_) => {
                // Nothing is kept back while nothing comes.
                printer.flush()?;
                let Some(records) = fetched.recv().await else { break };
                records
            }
        };
        printer.print(&records)?;
    }
    // What was read before a failure is printed before it is told.
    printer.flush()?;
    if printer.is_done() {
        return Ok(());
    }
    while let Some(ended) = readers.join_next().await {
        ended.context("a reader panicked")??;
    }
    Ok(())
}

/// From where to where a partition is read.
async fn range(
    client: &Client,
    args: &ReadArgs,
    partition: u32,
    level: ReadLevel,
) -> anyhow::Result<Range<u64>> {
    let from = offsets::resolve(client, &args.topic, partition, args.from).await?;
    let end = match (args.to, level) {
        (Position::Latest, ReadLevel::Linearizable) => {
            offsets::resolve(client, &args.topic, partition, Position::Latest).await?.offset
        }
        // The end that this replica knows, which may lie behind the partition's.
        (Position::Latest, ReadLevel::Committed | ReadLevel::Bounded(_)) => {
            let options =
                FetchOptions { level, max_bytes: 1, node: args.node, ..Default::default() };
            let start = from.log_start_offset;
            client.fetch(&args.topic, partition, start, options).await?.high_watermark
        }
        (to, _) => offsets::resolve(client, &args.topic, partition, to).await?.offset,
    };
    Ok(from.offset..end)
}

/// Reads one partition from a start to an end.
struct Reader {
    client: Client,
    topic: String,
    partition: u32,
    range: Range<u64>,
    options: FetchOptions,
    queue: mpsc::Sender<Vec<ConsumedRecord>>,
}

impl Reader {
    async fn run(self) -> anyhow::Result<()> {
        let mut next = self.range.start;
        let mut progress_at = Instant::now();
        while next < self.range.end {
            let options = self.options.clone();
            let fetched = self.client.fetch(&self.topic, self.partition, next, options).await?;
            if fetched.records.is_empty() {
                if progress_at.elapsed() > PROGRESS_TIMEOUT {
                    bail!(
                        "node {} got no further than {next} of {}/{} for {} s; the end is {}",
                        fetched.served_by,
                        self.topic,
                        self.partition,
                        PROGRESS_TIMEOUT.as_secs(),
                        self.range.end
                    );
                }
                continue;
            }
            progress_at = Instant::now();
            next = fetched.next_offset;
            let mut records = fetched.records;
            records.retain(|record| record.offset < self.range.end);
            if self.queue.send(records).await.is_err() {
                // Enough was printed.
                return Ok(());
            }
        }
        Ok(())
    }
}

async fn follow(
    client: &Client,
    args: &ReadArgs,
    partitions: &[u32],
    mut printer: Printer,
) -> anyhow::Result<()> {
    let mut consumer: Consumer = client.consumer(ConsumerConfig {
        level: level(args.level.unwrap_or(LevelArg::Committed)),
        node: args.node,
        ..Default::default()
    })?;
    let mut assignment = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let from = offsets::resolve(client, &args.topic, *partition, args.from).await?;
        assignment.push((args.topic.clone(), *partition, StartAt::Offset(from.offset)));
    }
    consumer.assign(assignment).await?;
    while !printer.is_done() {
        let Some(records) = consumer.next_batch().await else { break };
        printer.print(&records?)?;
        // Somebody waits for each record, so none is kept back.
        printer.flush()?;
    }
    printer.flush()
}
