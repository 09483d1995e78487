//! `bench read`: from the start, behind appends as they come, or only where the log ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use quipu_client::{
    Client, Consumer, ConsumerConfig, FetchOptions, Position, ProducerConfig, ReadLevel, StartAt,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::append::payload_name;
use super::load::{Amount, Load, lock};
use super::meter::{Meter, Window};
use super::payload::{Payload, STAMP_BYTES, due_of};
use super::report::{Report, Run};
use super::stage::Stage;
use super::topic::BenchTopic;
use super::{cost_within, figure};
use crate::args::{GlobalArgs, LevelArg, PayloadArg, ReadBenchArgs, ReadMode};
use crate::failure::usage;
use crate::output::live::progress;

/// Producers that fill a topic for a scan.
const FILLERS: u64 = 4;

/// Readers that have not seen an acknowledged record so long after the last append never will.
const DRAIN: Duration = Duration::from_secs(10);

type SharedMeter = Arc<Mutex<Meter>>;

/// Reads for a while.
pub(super) async fn run(global: &GlobalArgs, args: &ReadBenchArgs) -> anyhow::Result<()> {
    let payload = Payload::new(&args.values)?;
    if args.mode == ReadMode::Tail
        && (args.values.payload == PayloadArg::Flights || payload.record_bytes() < STAMP_BYTES)
    {
        return usage(
            "a tail puts a time into each value: it needs random ones of 8 bytes or more",
        );
    }
    let mut runs = Vec::new();
    for number in 1..=args.stage.repeat {
        let bar = progress(None);
        bar.set_message(format!("run {number} of {}", args.stage.repeat));
        let stage = Stage::open(global, &args.stage).await?;
        let reading = Reading {
            topic: BenchTopic::open(&stage.client().await?, &args.topic).await?,
            client: stage.client().await?,
            stage: &stage,
            args,
            payload: &payload,
        };
        runs.push(match args.mode {
            ReadMode::Scan => reading.scan().await?,
            ReadMode::Tail => reading.tail().await?,
            ReadMode::Ends => reading.ends().await?,
        });
        reading.topic.end(&reading.client, &stage).await?;
        bar.finish_and_clear();
    }
    let settings = json!({
        "topic": args.topic.topic,
        "partitions": args.topic.partitions,
        "replicas": args.topic.replicas,
        "payload": payload_name(&args.values),
        "record_bytes": payload.record_bytes(),
        "mode": match args.mode {
            ReadMode::Scan => "scan",
            ReadMode::Tail => "tail",
            ReadMode::Ends => "ends",
        },
        "level": match args.level {
            LevelArg::Linearizable => "linearizable".to_owned(),
            LevelArg::Committed => "committed".to_owned(),
            LevelArg::Bounded(ms) => format!("bounded:{ms}"),
        },
        "readers": args.readers,
        "records": args.records,
        "rate": args.rate,
        "fetch_bytes": args.fetch_bytes,
        "warmup_s": args.time.warmup,
        "seconds": args.time.seconds,
    });
    Report { bench: "read", settings, runs }.finish(global, args.stage.svg.as_deref())
}

/// One run.
struct Reading<'a> {
    topic: BenchTopic,
    client: Client,
    stage: &'a Stage,
    args: &'a ReadBenchArgs,
    payload: &'a Payload,
}

impl Reading<'_> {
    fn level(&self) -> ReadLevel {
        match self.args.level {
            LevelArg::Linearizable => ReadLevel::Linearizable,
            LevelArg::Committed => ReadLevel::Committed,
            LevelArg::Bounded(ms) => ReadLevel::Bounded(Duration::from_millis(ms.into())),
        }
    }

    fn window(&self) -> Window {
        let time = self.args.time;
        Window::after(Duration::from_secs(time.warmup), Duration::from_secs(time.seconds))
    }

    async fn consumer(&self, start: StartAt) -> anyhow::Result<Consumer> {
        let client = self.stage.client().await?;
        let partitions = client.partition_count(&self.topic.name).await?;
        let config = ConsumerConfig {
            level: self.level(),
            fetch_bytes: self.args.fetch_bytes,
            ..ConsumerConfig::default()
        };
        let mut consumer = client.consumer(config)?;
        let all = (0..partitions).map(|partition| (self.topic.name.clone(), partition, start));
        consumer.assign(all.collect()).await?;
        Ok(consumer)
    }

    async fn fill(&self, records: u64) -> anyhow::Result<()> {
        let meter = Arc::new(Mutex::new(Meter::new(Window::after(Duration::ZERO, DRAIN))));
        let config = ProducerConfig::default();
        let room = config.batch_bytes - 1_024;
        if self.payload.record_bytes() > room {
            return usage(format!("records of more than {room} bytes can't be filled in"));
        }
        let load = Load {
            topic: self.topic.name.clone(),
            partitions: self.client.partition_count(&self.topic.name).await?,
            payload: self.payload.clone(),
            config,
            amount: Amount::Records(records),
            stamped_since: None,
            producers: FILLERS,
        };
        load.run(std::slice::from_ref(&self.client), &meter).await?;
        let failed = lock(&meter).failed;
        if failed > 0 {
            bail!("{failed} of {records} records could not be appended, so nothing was measured");
        }
        Ok(())
    }

    /// How many records the topic holds.
    async fn count(&self) -> anyhow::Result<u64> {
        let mut count = 0;
        for partition in 0..self.client.partition_count(&self.topic.name).await? {
            let ends =
                self.client.list_offsets(&self.topic.name, partition, Position::Latest).await?;
            count += ends.high_watermark - ends.log_start_offset;
        }
        Ok(count)
    }

    async fn scan(&self) -> anyhow::Result<Run> {
        if self.topic.is_new {
            self.fill(self.args.records).await?;
        }
        let count = self.count().await?;
        if count == 0 {
            bail!("the topic {} is empty", self.topic.name);
        }
        let window = self.window();
        let meter = Arc::new(Mutex::new(Meter::new(window)));
        let mut readers = JoinSet::new();
        for _ in 0..self.args.readers {
            let consumer = self.consumer(StartAt::Earliest).await?;
            readers.spawn(scan_again_and_again(consumer, count, Arc::clone(&meter)));
        }
        let (cost, ()) = tokio::try_join!(cost_within(self.stage, window), all(readers))?;
        let mut run = Run::default();
        let per_s = {
            let mut meter = lock(&meter);
            run.set_reads(&mut meter);
            meter.records as f64 / window.length().as_secs_f64()
        };
        run.set_cost(&cost, per_s);
        Ok(run)
    }

    async fn tail(&self) -> anyhow::Result<Run> {
        let mut consumers = Vec::new();
        for _ in 0..self.args.readers {
            consumers.push(self.consumer(StartAt::Latest).await?);
        }
        let window = self.window();
        let origin = Instant::now();
        let (appended, read) =
            (Arc::new(Mutex::new(Meter::new(window))), Arc::new(Mutex::new(Meter::new(window))));
        let (total, total_known) = watch::channel(None);
        let mut readers = JoinSet::new();
        for consumer in consumers {
            readers.spawn(follow(consumer, origin, total_known.clone(), Arc::clone(&read)));
        }
        let load = Load {
            topic: self.topic.name.clone(),
            partitions: self.client.partition_count(&self.topic.name).await?,
            payload: self.payload.clone(),
            config: ProducerConfig::default(),
            amount: Amount::Rate(self.args.rate),
            stamped_since: Some(origin),
            producers: 1,
        };
        let loading = async {
            load.run(std::slice::from_ref(&self.client), &appended).await?;
            total.send_replace(Some(lock(&appended).acked));
            anyhow::Ok(())
        };
        let ((), cost, ()) =
            tokio::try_join!(loading, cost_within(self.stage, window), all(readers))?;
        let mut run = Run::default();
        let mut read = lock(&read);
        let appended = lock(&appended);
        for error in &appended.failures {
            run.failed(error.to_string(), error.outcome());
        }
        read.unsent += appended.unsent;
        run.set_meter(&mut read);
        run.set_cost(&cost, read.records as f64 / window.length().as_secs_f64());
        Ok(run)
    }

    async fn ends(&self) -> anyhow::Result<Run> {
        let partitions = self.client.partition_count(&self.topic.name).await?;
        if self.topic.is_new {
            self.fill(u64::from(partitions)).await?;
        }
        let window = self.window();
        let meter = Arc::new(Mutex::new(Meter::new(window)));
        let mut readers = JoinSet::new();
        for (reader, partition) in (0..self.args.readers).zip((0..partitions).cycle()) {
            let client = self.stage.client().await?;
            let topic = self.topic.name.clone();
            let found = client.list_offsets(&topic, partition, Position::Latest).await?;
            let asking = Asking { client, topic, partition, level: self.level() };
            let meter = Arc::clone(&meter);
            readers.spawn(async move {
                let asked = asking.again_and_again(found.high_watermark, &meter).await;
                asked.with_context(|| format!("reader {reader}"))
            });
        }
        let (cost, ()) = tokio::try_join!(cost_within(self.stage, window), all(readers))?;
        let mut run = Run::default();
        let mut meter = lock(&meter);
        let per_s = meter.records as f64 / window.length().as_secs_f64();
        run.set(figure::READS_PER_S, per_s);
        run.set_latencies(&meter.latencies);
        run.points = meter.points();
        run.set_cost(&cost, per_s);
        Ok(run)
    }
}

async fn all(mut running: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = running.join_next().await {
        ended.context("a reader panicked")??;
    }
    Ok(())
}

fn value_bytes(value: Option<&Bytes>) -> u32 {
    value.map_or(0, |value| u32::try_from(value.len()).unwrap_or(u32::MAX))
}

/// Reads all there is, and begins again, until the window ends.
async fn scan_again_and_again(
    mut consumer: Consumer,
    count: u64,
    meter: SharedMeter,
) -> anyhow::Result<()> {
    let end = lock(&meter).window().end;
    let assigned: Vec<_> = consumer
        .assignment()
        .iter()
        .map(|place| (place.topic.clone(), place.partition, StartAt::Earliest))
        .collect();
    while Instant::now() < end {
        let mut seen = 0;
        while seen < count && Instant::now() < end {
            let Ok(next) = timeout_at(end, consumer.next_batch()).await else { return Ok(()) };
            let records = next.context("nothing is assigned")??;
            let bytes = records.iter().map(|record| value_bytes(record.value.as_ref()));
            let bytes = bytes.map(u64::from).sum();
            seen += u64::try_from(records.len())?;
            lock(&meter).read(Instant::now(), u64::try_from(records.len())?, bytes);
        }
        consumer.assign(assigned.clone()).await?;
    }
    Ok(())
}

/// Reads what is appended until all of it was seen.
async fn follow(
    mut consumer: Consumer,
    origin: Instant,
    mut total: watch::Receiver<Option<u64>>,
    meter: SharedMeter,
) -> anyhow::Result<()> {
    let mut seen = 0;
    let mut give_up = None;
    loop {
        let known = *total.borrow_and_update();
        if known.is_some_and(|total| seen >= total) {
            return Ok(());
        }
        let patience = Instant::now() + Duration::from_secs(86_400);
        let give_up_at = match known {
            Some(_) => *give_up.get_or_insert_with(|| Instant::now() + DRAIN),
            None => patience,
        };
        tokio::select! {
            next = timeout_at(give_up_at, consumer.next_batch()) => {
                let Ok(next) = next else { bail!("a reader has not seen every record appended") };
                let records = next.context("nothing is assigned")??;
                let at = Instant::now();
                let mut meter = lock(&meter);
                for record in records {
                    let value = record.value.unwrap_or_default();
                    if let Some(due) = due_of(&value, origin) {
                        seen += 1;
                        meter.acked(due, at, value_bytes(Some(&value)));
                    }
                }
            }
            // The sender lives until the readers have ended.
            _ = total.changed(), if known.is_none() => {}
        }
    }
}

/// Where a reader asks.
struct Asking {
    client: Client,
    topic: String,
    partition: u32,
    level: ReadLevel,
}

impl Asking {
    /// Fetches at the end of the partition, one fetch after the other, until the window ends.
    async fn again_and_again(&self, from: u64, meter: &Mutex<Meter>) -> anyhow::Result<()> {
        let end = lock(meter).window().end;
        let mut next = from;
        loop {
            let asked_at = Instant::now();
            if asked_at >= end {
                return Ok(());
            }
            let options = FetchOptions { level: self.level, ..FetchOptions::default() };
            let fetched = self.client.fetch(&self.topic, self.partition, next, options).await?;
            next = fetched.next_offset;
            lock(meter).acked(asked_at, Instant::now(), 0);
        }
    }
}
