//! Clients that append: one batch after the other in several ways, or many records under way.
//!
//! An append that is not acknowledged ends a producer's identity: nobody knows which number is
//! next, or, if it was refused, its number would stand for other records in the history.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quipu_client::{Client, ProduceRecord, ProducerConfig, ProducerIdentity};

use super::send::{Parcel, Sent};
use super::{Place, TOPIC, Worker};
use crate::history::{Answer, Call};
use crate::plan::{ProducerPlan, ProducerStyle};

/// Times that a batch is sent again after it was acknowledged, at most.
const REPEATS_MAX: u32 = 3;
/// Batches that a zombie remembers and sends again.
const OLD_BATCHES_MAX: usize = 8;
/// How often a burst is that much larger than usual while there is a rush.
const RUSH_FACTOR: u64 = 8;

/// Works as planned until the faults are over.
pub async fn run(worker: Worker, plan: ProducerPlan) {
    match plan.style {
        ProducerStyle::OneShot => one_shot(worker, plan).await,
        ProducerStyle::Plain => plain(worker, plan).await,
        ProducerStyle::Conditional => conditional(worker, plan).await,
        ProducerStyle::Zombie => zombie(worker, plan).await,
        ProducerStyle::Pipelined => pipelined(worker, plan).await,
    }
}

/// How many records the next batch or burst has.
fn count(worker: &mut Worker, plan: ProducerPlan) -> u64 {
    let most = if worker.controls.is_rush() { plan.records * RUSH_FACTOR } else { plan.records };
    worker.rng.u64(1..=most)
}

/// Numbers for the batches of one identity: the next sequence, by partition.
#[derive(Debug, Clone)]
struct Numbers {
    identity: ProducerIdentity,
    next: BTreeMap<u32, u32>,
}

impl Numbers {
    fn new(identity: ProducerIdentity) -> Self {
        Self { identity, next: BTreeMap::new() }
    }

    fn stamp(&self, parcel: &mut Parcel) {
        let sequence_first = self.next.get(&parcel.place.partition).copied().unwrap_or(0);
        parcel.identity = Some(ProducerIdentity { sequence_first, ..self.identity });
    }

    fn used(&mut self, parcel: &Parcel) {
        let count = u32::try_from(parcel.values.len()).expect("a batch is small");
        *self.next.entry(parcel.place.partition).or_default() += count;
    }
}

async fn one_shot(mut worker: Worker, plan: ProducerPlan) {
    let Some(client) = worker.client().await else { return };
    let mut numbers: Option<Numbers> = None;
    while worker.is_working() {
        worker.pause(plan.pause_ms).await;
        let Some(known) = &mut numbers else {
            // Asking has no effect that a history could show.
            numbers = client.new_producer().await.ok().map(Numbers::new);
            continue;
        };
        let (place, count) = (worker.place(), count(&mut worker, plan));
        let mut parcel = Parcel::new(&mut worker, place, count);
        known.stamp(&mut parcel);
        match parcel.send(&worker, &client).await {
            Sent::At(_) => known.used(&parcel),
            Sent::Refused | Sent::Conflict(_) | Sent::Unknown => numbers = None,
        }
    }
}

async fn plain(mut worker: Worker, plan: ProducerPlan) {
    let Some(client) = worker.client().await else { return };
    while worker.is_working() {
        worker.pause(plan.pause_ms).await;
        let (place, count) = (worker.place(), count(&mut worker, plan));
        Parcel::new(&mut worker, place, count).send(&worker, &client).await;
    }
}

async fn conditional(mut worker: Worker, plan: ProducerPlan) {
    let Some(client) = worker.client().await else { return };
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    while worker.is_working() {
        worker.pause(plan.pause_ms).await;
        let (place, count) = (worker.place(), count(&mut worker, plan));
        let end = ends.entry(place.partition).or_default();
        let mut parcel = Parcel::new(&mut worker, place, count);
        parcel.expects = Some(*end);
        match parcel.send(&worker, &client).await {
            Sent::At(Some(base)) => *end = base + count,
            Sent::Conflict(actual) => *end = actual,
            // Where it ends is found out by the next conflict.
            Sent::At(None) | Sent::Refused | Sent::Unknown => {}
        }
    }
}

/// Numbers its batches, repeats them at once and long after, and now and then is taken over by
/// another one with a higher epoch and goes on all the same.
async fn zombie(mut worker: Worker, plan: ProducerPlan) {
    let Some(client) = worker.client().await else { return };
    let mut numbers: Option<Numbers> = None;
    let mut old: Vec<Parcel> = Vec::new();
    while worker.is_working() {
        worker.pause(plan.pause_ms).await;
        let Some(known) = &mut numbers else {
            numbers = client.new_producer().await.ok().map(Numbers::new);
            old.clear();
            continue;
        };
        if !old.is_empty() && worker.rng.u8(0..4) == 0 {
            let index = worker.rng.usize(..old.len());
            old[index].send(&worker, &client).await;
            continue;
        }
        if worker.rng.u8(0..30) == 0 {
            let known = known.clone();
            numbers = take_over(&mut worker, &client, known).await;
            old.clear();
            continue;
        }
        let (place, count) = (worker.place(), count(&mut worker, plan));
        let mut parcel = Parcel::new(&mut worker, place, count);
        known.stamp(&mut parcel);
        match send_again_and_again(&mut worker, &client, &parcel).await {
            Sent::At(_) => {
                known.used(&parcel);
                remember(&mut old, parcel);
            }
            Sent::Refused | Sent::Conflict(_) | Sent::Unknown => numbers = None,
        }
    }
}

fn remember(old: &mut Vec<Parcel>, parcel: Parcel) {
    if old.len() == OLD_BATCHES_MAX {
        old.remove(0);
    }
    old.push(parcel);
}

/// The first answer that says where it stands; it is sent some times more after that.
async fn send_again_and_again(worker: &mut Worker, client: &Client, parcel: &Parcel) -> Sent {
    let mut best = parcel.send(worker, client).await;
    for _ in 0..worker.rng.u32(0..=REPEATS_MAX) {
        let sent = parcel.send(worker, client).await;
        if !matches!(best, Sent::At(_)) && best != Sent::Unknown || matches!(sent, Sent::At(_)) {
            best = sent;
        }
    }
    best
}

/// A newer incarnation writes with the next epoch; then the older one tries to go on. Answers who
/// goes on, if that is known.
async fn take_over(worker: &mut Worker, client: &Client, mut older: Numbers) -> Option<Numbers> {
    let epoch = older.identity.epoch.checked_add(1)?;
    let mut newer = Numbers::new(ProducerIdentity { epoch, ..older.identity });
    let place = worker.place();
    let mut first = Parcel::new(worker, place.clone(), 1);
    newer.stamp(&mut first);
    let sent = first.send(worker, client).await;
    newer.used(&first);
    let mut late = Parcel::new(worker, place, 1);
    older.stamp(&mut late);
    older.used(&late);
    late.send(worker, client).await;
    matches!(sent, Sent::At(_)).then_some(newer)
}

async fn pipelined(mut worker: Worker, plan: ProducerPlan) {
    let Some(client) = worker.client().await else { return };
    let delivery_timeout = Duration::from_secs(worker.rng.u64(2..=20));
    let idempotent = worker.rng.u8(0..5) > 0;
    let config = ProducerConfig { delivery_timeout, idempotent, ..ProducerConfig::default() };
    let producer = client.producer(config).expect("a valid configuration");
    let mut under_way = FuturesUnordered::new();
    while worker.is_working() {
        worker.pause(plan.pause_ms).await;
        let count = usize::try_from(count(&mut worker, plan)).unwrap_or(1);
        let Place { partition, .. } = worker.place();
        for value in worker.take_values(count) {
            let record = ProduceRecord {
                partition: Some(partition),
                ..ProduceRecord::new(TOPIC, worker.payload(value))
            };
            let op = worker.invoke(Call::Append { partition, values: vec![value] });
            let delivery = producer.send(record).await;
            let worker = worker.clone();
            under_way.push(async move {
                match delivery.await {
                    Ok(metadata) => {
                        worker.ok(op, Answer::Appended { base_offset: metadata.offset });
                    }
                    Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
                }
            });
        }
        // Mostly it does not wait for what is under way.
        while under_way.len() > 4 * count || worker.rng.u8(0..8) == 0 && !under_way.is_empty() {
            under_way.next().await;
        }
    }
    while under_way.next().await.is_some() {}
    producer.close().await;
}
