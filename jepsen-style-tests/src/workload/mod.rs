//! What clients do while faults strike: one behaviour a file.
//!
//! Each is a task with its own client of the library, on a host of its own, and takes down every
//! operation. It works until the faults are over, then ends what it has begun.

pub mod consume;
mod controls;
pub mod groups;
pub mod members;
pub mod orders;
pub mod produce;
pub mod read;
mod send;
pub mod storm;
pub mod topics;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quipu_client::{Client, ClientConfig, Code, Outcome};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::history::{Answer, Call, Failure, Recorder};
pub use controls::{Controls, Storm};

/// The standing topic of a run.
pub const TOPIC: &str = "events";

/// Pause before a client that could not be made is tried again.
const CONNECT_AGAIN: Duration = Duration::from_millis(200);
/// Digits of a record's number, with which its value begins.
const NUMBER_DIGITS: usize = 20;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The cluster is being formed.
    Forming,
    /// Clients work, faults strike.
    Working,
    /// Faults are over, but some nodes stay dead; clients end what they have begun, and then the
    /// living must serve.
    Core,
    /// All nodes are back.
    Ending,
}

/// What every client task has.
#[derive(Clone)]
pub struct Worker {
    /// Its name in the history.
    pub process: String,
    /// Where it writes what it does.
    pub recorder: Recorder,
    /// How far the run is.
    pub phase: watch::Receiver<Phase>,
    /// Its choices.
    pub rng: fastrand::Rng,
    /// Partitions of the topic.
    pub partitions: u32,
    /// The number that the next record gets, over all clients.
    pub values: Rc<Cell<u64>>,
    /// How its client behaves.
    pub config: ClientConfig,
    /// What the nemesis wants of clients.
    pub controls: Controls,
}

/// A partition as a client names it and as the history does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its number in the topic.
    pub partition: u32,
    /// Its number in the history, where a topic made again has numbers of its own.
    pub number: u32,
}

impl Worker {
    /// Waits until the cluster serves, and connects. `None` if the run ends before.
    pub async fn client(&mut self) -> Option<Client> {
        // The sender lives as long as the world.
        let _ = self.phase.wait_for(|phase| *phase > Phase::Forming).await;
        while self.is_working() {
            match Client::connect(self.config.clone()).await {
                Ok(client) => return Some(client),
                Err(_) => sleep(CONNECT_AGAIN).await,
            }
        }
        None
    }

    /// Whether faults still strike.
    pub fn is_working(&self) -> bool {
        *self.phase.borrow() == Phase::Working
    }

    /// The same task in its `life`th life, after it was killed.
    #[must_use]
    pub fn reborn(&self, life: u32) -> Self {
        let mut other = self.clone();
        if life > 0 {
            other.process = format!("{}.{life}", self.process);
            let more = u64::from(life);
            other.rng = fastrand::Rng::with_seed(other.rng.fork().get_seed().wrapping_add(more));
            other.config.seed = self.config.seed.map(|seed| seed.wrapping_add(more << 32));
        }
        other
    }

    /// Waits for up to so many milliseconds, less while there is a rush.
    pub async fn pause(&mut self, ms_max: u64) {
        let ms_max = if self.controls.is_rush() { ms_max / 20 } else { ms_max };
        let ms = self.rng.u64(0..=ms_max);
        sleep(Duration::from_millis(ms)).await;
    }

    /// Any partition of the standing topic; the first ones more often.
    pub fn partition(&mut self) -> u32 {
        let end = self.rng.u32(1..=self.partitions);
        self.rng.u32(..end)
    }

    /// Any place in the standing topic.
    pub fn place(&mut self) -> Place {
        let partition = self.partition();
        Place { topic: TOPIC.to_owned(), partition, number: partition }
    }

    /// Numbers for so many records.
    pub fn take_values(&self, count: usize) -> Vec<u64> {
        let first = self.values.get();
        let values: Vec<u64> = (first..).take(count).collect();
        self.values.set(values.last().map_or(first, |last| last + 1));
        values
    }

    /// A record's bytes: its number, and something behind it.
    pub fn payload(&mut self, value: u64) -> Bytes {
        let padding = self.rng.usize(0..=300);
        let mut text = format!("{value:0NUMBER_DIGITS$}");
        text.extend(std::iter::repeat_n('.', padding));
        text.into()
    }

    /// An operation begins.
    pub fn invoke(&self, call: Call) -> u64 {
        self.recorder.invoke(&self.process, call)
    }

    /// It was answered.
    pub fn ok(&self, op: u64, answer: Answer) {
        self.recorder.ok(&self.process, op, answer);
    }

    /// It failed.
    pub fn failed(&self, op: u64, code: Code, outcome: Outcome, error: &dyn std::error::Error) {
        let failure = Failure { code: code.name().to_owned(), message: error.to_string() };
        self.recorder.failed(&self.process, op, outcome == Outcome::Unknown, failure);
    }
}

/// The number that a record's value begins with; `u64::MAX` for what is no record of ours, which
/// nobody ever sends.
pub fn value_of(payload: Option<&Bytes>) -> u64 {
    let digits = payload.and_then(|bytes| bytes.get(..NUMBER_DIGITS));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.unwrap_or(u64::MAX)
}

/// Says when all client tasks have ended.
#[derive(Clone)]
pub struct Attendance(watch::Sender<usize>);

impl Attendance {
    /// Nobody is there yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Wraps a task that counts as there until it ends.
    pub fn attend<T>(&self, task: T) -> impl Future<Output = ()> + use<T>
    where
        T: Future<Output = ()> + 'static,
    {
        self.0.send_modify(|count| *count += 1);
        let count = self.0.clone();
        async move {
            task.await;
            count.send_modify(|count| *count -= 1);
        }
    }

    /// Waits until nobody is there.
    pub async fn all_gone(&self) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Default for Attendance {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_the_number_it_begins_with() {
        let padded = Bytes::from(format!("{:020}....", 42));
        assert_eq!(value_of(Some(&padded)), 42);
        assert_eq!(value_of(Some(&Bytes::from_static(b"short"))), u64::MAX);
        assert_eq!(value_of(None), u64::MAX);
    }
}
