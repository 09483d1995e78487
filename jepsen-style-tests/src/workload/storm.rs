//! Clients that give up long before an answer can come, and send the same again and again.
//!
//! Each carrier takes a new producer's identity for each batch and sends it several times at once,
//! until one of its attempts is answered or the storm is over. Without numbers, what may be in the
//! log already is not sent again but other records in its place.

use std::time::Duration;

use futures::future::join_all;
use quipu_client::{Client, ProducerIdentity};
use tokio::time::sleep;

use super::send::{Parcel, Sent};
use super::{Storm, Worker};

/// Who carries batches at a time, in each client task.
const CARRIERS: usize = 6;
/// How often a batch is sent at once.
const AT_ONCE: usize = 3;
/// How often it is looked whether a storm has begun.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest pause before a batch is sent again, in milliseconds.
const PAUSE_MS_MAX: u64 = 5;

/// Waits for storms and takes part in them, until the faults are over.
pub async fn take_part(mut worker: Worker) {
    let Some(patient) = worker.client().await else { return };
    while worker.is_working() {
        match worker.controls.storm() {
            None => sleep(LOOK_EVERY).await,
            Some(storm) => rage(&mut worker, &patient, storm).await,
        }
    }
}

async fn rage(worker: &mut Worker, patient: &Client, storm: Storm) {
    let mut config = worker.config.clone();
    config.request_timeout = Duration::from_millis(storm.patience_ms);
    config.retry_timeout = config.request_timeout;
    let Ok(client) = Client::connect(config).await else {
        sleep(LOOK_EVERY).await;
        return;
    };
    let carriers = (0..CARRIERS).map(|number| {
        let (mut carrier, seed) = (worker.clone(), worker.rng.u64(..));
        carrier.process = format!("{}.{number}", worker.process);
        carrier.rng = fastrand::Rng::with_seed(seed);
        carry(carrier, patient, client.clone(), storm.numbered)
    });
    join_all(carriers.collect::<Vec<_>>()).await;
}

/// Carries one batch after the other while the storm lasts.
async fn carry(mut worker: Worker, patient: &Client, client: Client, numbered: bool) {
    let mut identity: Option<ProducerIdentity> = None;
    while is_raging(&worker) {
        if numbered && identity.is_none() {
            match patient.new_producer().await {
                Ok(given) => identity = Some(given),
                Err(_) => sleep(LOOK_EVERY).await,
            }
            continue;
        }
        let (place, count) = (worker.place(), worker.rng.u64(1..=3));
        let mut parcel = Parcel::new(&mut worker, place, count);
        parcel.identity = identity;
        // Its next batch may be for another partition, which counts from 0.
        identity = None;
        while is_raging(&worker) && !once(&mut worker, &client, &parcel).await {
            worker.controls.count_retry();
            if !numbered {
                break;
            }
        }
    }
}

/// Answers whether there is an answer.
async fn once(worker: &mut Worker, client: &Client, parcel: &Parcel) -> bool {
    let times = if parcel.identity.is_some() { AT_ONCE } else { 1 };
    let sent = join_all((0..times).map(|_| parcel.send(worker, client))).await;
    worker.pause(PAUSE_MS_MAX).await;
    sent.iter().any(|sent| matches!(sent, Sent::At(_)))
}

fn is_raging(worker: &Worker) -> bool {
    worker.is_working() && worker.controls.storm().is_some()
}
