//! `bench append` and `bench latency`: many records at a time, and one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quipu_client::{Client, ProduceRecord, Producer, ProducerConfig};
use serde_json::json;
use tokio::time::Instant;

use super::chunk::Ended;
use super::cost_within;
use super::load::{Amount, Load, lock, producer_config};
use super::meter::{Meter, Window};
use super::payload::Payload;
use super::report::{Report, Run};
use super::stage::Stage;
use super::topic::BenchTopic;
use crate::args::{AppendBenchArgs, GlobalArgs, LatencyBenchArgs, PayloadArg, TimeArgs, ValueArgs};
use crate::output::live::progress;

/// Appends for a while.
pub(super) async fn run(global: &GlobalArgs, args: &AppendBenchArgs) -> anyhow::Result<()> {
    let payload = Payload::new(&args.values)?;
    let config = producer_config(&args.batches, &payload)?;
    let mut runs = Vec::new();
    for number in 1..=args.stage.repeat {
        let bar = progress(None);
        bar.set_message(format!("run {number} of {}: starting", args.stage.repeat));
        let stage = Stage::open(global, &args.stage).await?;
        bar.set_message(format!("run {number} of {}: appending", args.stage.repeat));
        runs.push(run_once(&stage, args, &payload, &config).await?);
        bar.finish_and_clear();
    }
    let settings = json!({
        "topic": args.topic.topic,
        "partitions": args.topic.partitions,
        "replicas": args.topic.replicas,
        "payload": payload_name(&args.values),
        "record_bytes": payload.record_bytes(),
        "producers": args.producers,
        "clients": args.clients.unwrap_or(args.producers),
        "batch_bytes": config.batch_bytes,
        "linger_ms": args.batches.linger_ms,
        "in_flight": config.in_flight,
        "buffer_bytes": config.buffer_bytes,
        "compression": config.compression.to_string(),
        "rate": args.rate,
        "warmup_s": args.time.warmup,
        "seconds": args.time.seconds,
    });
    Report { bench: "append", settings, runs }.finish(global, args.stage.svg.as_deref())
}

async fn run_once(
    stage: &Stage,
    args: &AppendBenchArgs,
    payload: &Payload,
    config: &ProducerConfig,
) -> anyhow::Result<Run> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..args.clients.unwrap_or(args.producers) {
        clients.push(stage.client().await?);
    }
    let topic = BenchTopic::open(&clients[0], &args.topic).await?;
    let described = topic.wait_led(&clients[0]).await?;
    let window = window(args.time);
    let meter = Arc::new(Mutex::new(Meter::new(window)));
    let load = Load {
        topic: topic.name.clone(),
        partitions: u32::try_from(described.partitions.len())?,
        payload: payload.clone(),
        config: config.clone(),
        amount: args.rate.map_or(Amount::AsFast, Amount::Rate),
        stamped_since: None,
        producers: args.producers.into(),
    };
    let ((), cost) = tokio::try_join!(load.run(&clients, &meter), cost_within(stage, window))?;
    let mut run = Run::default();
    run.set_meter(&mut lock(&meter));
    let per_s = rate(&lock(&meter));
    run.set_cost(&cost, per_s);
    run.set_disk(&cost, args.topic.replicas);
    topic.end(&clients[0], stage).await?;
    Ok(run)
}

/// Appends one record after the other.
pub(super) async fn run_latency(
    global: &GlobalArgs,
    args: &LatencyBenchArgs,
) -> anyhow::Result<()> {
    let payload = Payload::new(&args.values)?;
    let mut runs = Vec::new();
    for number in 1..=args.stage.repeat {
        let bar = progress(None);
        bar.set_message(format!("run {number} of {}", args.stage.repeat));
        let stage = Stage::open(global, &args.stage).await?;
        runs.push(latency_once(&stage, args, &payload).await?);
        bar.finish_and_clear();
    }
    let settings = json!({
        "topic": args.topic.topic,
        "partitions": args.topic.partitions,
        "replicas": args.topic.replicas,
        "payload": payload_name(&args.values),
        "record_bytes": payload.record_bytes(),
        "warmup_s": args.time.warmup,
        "seconds": args.time.seconds,
    });
    Report { bench: "latency", settings, runs }.finish(global, args.stage.svg.as_deref())
}

async fn latency_once(
    stage: &Stage,
    args: &LatencyBenchArgs,
    payload: &Payload,
) -> anyhow::Result<Run> {
    let client = stage.client().await?;
    let topic = BenchTopic::open(&client, &args.topic).await?;
    topic.wait_led(&client).await?;
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = client.producer(config)?;
    let window = window(args.time);
    let mut meter = Meter::new(window);
    let one_by_one = append_one_by_one(&producer, &topic.name, payload, &mut meter);
    let ((), cost) = tokio::try_join!(one_by_one, cost_within(stage, window))?;
    let mut run = Run::default();
    run.set_meter(&mut meter);
    run.set_cost(&cost, rate(&meter));
    run.set_disk(&cost, args.topic.replicas);
    topic.end(&client, stage).await?;
    Ok(run)
}

async fn append_one_by_one(
    producer: &Producer,
    topic: &str,
    payload: &Payload,
    meter: &mut Meter,
) -> anyhow::Result<()> {
    let mut rng = fastrand::Rng::with_seed(0);
    loop {
        let due = Instant::now();
        if due >= meter.window().end {
            return Ok(());
        }
        let value = payload.value(&mut rng);
        let bytes = u32::try_from(value.len())?;
        let delivery = producer.send(ProduceRecord::new(topic, value)).await;
        let result = delivery.await.map(|_| ());
        meter.add(Ended { due, at: Instant::now(), bytes, result });
    }
}

fn window(time: TimeArgs) -> Window {
    Window::after(Duration::from_secs(time.warmup), Duration::from_secs(time.seconds))
}

fn rate(meter: &Meter) -> f64 {
    meter.records as f64 / meter.window().length().as_secs_f64()
}

/// As the flag names it.
pub(super) fn payload_name(values: &ValueArgs) -> &'static str {
    match values.payload {
        PayloadArg::Random => "random",
        PayloadArg::Flights => "flights",
    }
}
