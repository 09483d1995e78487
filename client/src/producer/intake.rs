//! Where records enter: what the handles of a producer and its task share.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Notify, Semaphore, watch};

use crate::producer::batcher::Batcher;
use crate::producer::config::ProducerConfig;
use crate::producer::payload::Waiting;

/// What the handles of a producer and its sender share.
#[derive(Debug)]
pub(crate) struct Intake {
    batcher: Mutex<Batcher<Waiting>>,
    /// Bytes of the buffer that are free. Closed when the producer is.
    pub(crate) room: Semaphore,
    /// The sender should look.
    pub(crate) wake: Notify,
    /// Number below which every batch has come to its end.
    pub(crate) settled_below: watch::Sender<u64>,
}

impl Intake {
    pub(crate) fn new(config: &ProducerConfig) -> Intake {
        Intake {
            batcher: Mutex::new(Batcher::new(config.batcher())),
            room: Semaphore::new(config.buffer_bytes),
            wake: Notify::new(),
            settled_below: watch::Sender::new(0),
        }
    }

    pub(crate) fn batcher(&self) -> MutexGuard<'_, Batcher<Waiting>> {
        self.batcher.lock().expect("no panic while the lock is held")
    }
}
