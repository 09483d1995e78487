//! One append with the library's one-shot call, as the history has it.

use quipu_client::{AppendError, AppendOptions, AppendRecord, Client, Outcome, ProducerIdentity};

use super::{Place, Worker};
use crate::history::{Answer, Call, ProducerStamp};

/// An append, ready to be sent, also more than once.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub place: Place,
    pub values: Vec<u64>,
    pub records: Vec<AppendRecord>,
    pub identity: Option<ProducerIdentity>,
    pub expects: Option<u64>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It stands in the log; where is not known for old repetitions.
    At(Option<u64>),
    /// Its condition does not hold; the log ends here.
    Conflict(u64),
    /// It had no effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Parcel {
    /// So many new records.
    pub(super) fn new(worker: &mut Worker, place: Place, count: u64) -> Self {
        let values = worker.take_values(usize::try_from(count).unwrap_or(1));
        let records = values.iter().map(|value| AppendRecord::new(worker.payload(*value)));
        Self { place, records: records.collect(), values, identity: None, expects: None }
    }

    /// Appends it and takes down how that went.
    pub(super) async fn send(&self, worker: &Worker, client: &Client) -> Sent {
        let op = worker.invoke(self.call());
        let options = AppendOptions {
            expect_end_offset: self.expects,
            identity: self.identity,
            ..AppendOptions::default()
        };
        let (topic, partition) = (&self.place.topic, self.place.partition);
        match client.append(topic, partition, self.records.clone(), options).await {
            Ok(appended) => {
                worker.ok(op, Answer::Appended { base_offset: appended.base_offset });
                Sent::At(appended.base_offset)
            }
            Err(AppendError::EndOffsetConflict { end_offset, .. }) => {
                worker.ok(op, Answer::Conflict { end_offset });
                Sent::Conflict(end_offset)
            }
            Err(error) => {
                worker.failed(op, error.code(), error.outcome(), &error);
                match error.outcome() {
                    Outcome::Definite => Sent::Refused,
                    Outcome::Unknown => Sent::Unknown,
                }
            }
        }
    }

    fn call(&self) -> Call {
        let (partition, values) = (self.place.number, self.values.clone());
        if self.identity.is_none() && self.expects.is_none() {
            return Call::Append { partition, values };
        }
        let producer = self.identity.map(|identity| ProducerStamp {
            id: identity.id,
            epoch: u32::from(identity.epoch),
            sequence_first: identity.sequence_first,
        });
        Call::AppendWith { partition, values, expect_end_offset: self.expects, producer }
    }
}
