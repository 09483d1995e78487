//! A client that creates a topic, appends to it, reads it, deletes it, and creates it again under
//! the same name: nothing of the older one may be seen in the newer.

use std::time::Duration;

use quipu_client::{AdminError, Client, FetchOptions, NewTopic, ReadError};
use tokio::time::sleep;

use super::send::Parcel;
use super::{Place, Worker, value_of};
use crate::history::{Answer, Call};

/// The name that is used again and again.
const NAME: &str = "comes-and-goes";
/// Where the numbers of its partitions begin in the history: above those of the standing topic.
const NUMBERS_FROM: u32 = 1_000;
/// Partitions of each.
const PARTITIONS: u32 = 2;
/// Longest pause between two calls, in milliseconds.
const PAUSE_MS_MAX: u64 = 80;
/// Pause before something that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Does so until the faults are over.
pub async fn come_and_go(mut worker: Worker) {
    let Some(client) = worker.client().await else { return };
    for round in 0.. {
        if !create(&worker, &client).await {
            return;
        }
        let first = NUMBERS_FROM + round * PARTITIONS;
        for _ in 0..worker.rng.u32(5..60) {
            if !worker.is_working() {
                return;
            }
            worker.pause(PAUSE_MS_MAX).await;
            let partition = worker.rng.u32(..PARTITIONS);
            let place = Place { topic: NAME.to_owned(), partition, number: first + partition };
            if worker.rng.bool() {
                let count = worker.rng.u64(1..=10);
                Parcel::new(&mut worker, place, count).send(&worker, &client).await;
            } else {
                read(&worker, &client, &place).await;
            }
        }
        if !delete(&worker, &client).await {
            return;
        }
    }
}

/// Answers whether it exists now, made by this call or an earlier one whose outcome was unknown.
/// Nobody else makes it, and it was not there before.
async fn create(worker: &Worker, client: &Client) -> bool {
    while worker.is_working() {
        let (topic, partitions) = (NAME.to_owned(), PARTITIONS);
        let op = worker.invoke(Call::CreateTopic { topic, partitions });
        match client.admin().create_topic(NewTopic::new(NAME, PARTITIONS)).await {
            Ok(_) => {
                worker.ok(op, Answer::Done);
                return true;
            }
            Err(error) => {
                worker.failed(op, error.code(), error.outcome(), &error);
                if matches!(error, AdminError::TopicExists { .. }) {
                    return true;
                }
            }
        }
        sleep(AGAIN_AFTER).await;
    }
    false
}

/// Answers whether it is gone now.
async fn delete(worker: &Worker, client: &Client) -> bool {
    while worker.is_working() {
        let op = worker.invoke(Call::DeleteTopic { topic: NAME.to_owned() });
        match client.admin().delete_topic(NAME).await {
            Ok(()) => {
                worker.ok(op, Answer::Done);
                return true;
            }
            Err(error) => {
                worker.failed(op, error.code(), error.outcome(), &error);
                if matches!(error, AdminError::UnknownTopic { .. }) {
                    return true;
                }
            }
        }
        sleep(AGAIN_AFTER).await;
    }
    false
}

async fn read(worker: &Worker, client: &Client, place: &Place) {
    let (partition, from) = (place.number, 0);
    // Whoever leads it answers; the history has no name for that, and no check asks which.
    let op = worker.invoke(Call::Read { partition, node: 0, from });
    match client.fetch(NAME, place.partition, from, FetchOptions::default()).await {
        Ok(fetched) => {
            let records = fetched.records.iter();
            let values = records.map(|record| value_of(record.value.as_ref())).collect();
            worker.ok(op, Answer::Records { values, end: fetched.high_watermark });
        }
        Err(ReadError::OffsetOutOfRange { high_watermark, .. }) => {
            worker.ok(op, Answer::Records { values: Vec::new(), end: high_watermark });
        }
        Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
    }
}
