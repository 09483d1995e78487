//! How a producer gathers, sends and gives up.

use std::time::Duration;

use quipu_batch::{BATCH_BYTES_MAX, Compression};

use crate::error::ConnectError;
use crate::producer::batcher::BatcherConfig;

/// Batches of one partition that may be unanswered at once. A partition remembers the last 64 of
/// each producer, so that a repetition of any of them is recognised.
pub(crate) const IN_FLIGHT_MAX: u32 = 32;
/// Far below the time after which a partition forgets an idle producer (7 days), because a batch
/// that is sent again after that could not be recognised.
const DELIVERY_TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// The buffer is counted in 32 bits.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// How a [`Producer`](crate::Producer) behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// How long a batch that is not full waits for more records. Default: 1 ms. Zero: not at all;
    /// batches still form while earlier ones are on their way.
    pub linger: Duration,
    /// Most bytes of a batch before compression. Default: 256 KiB. At most 8 MiB.
    pub batch_bytes: usize,
    /// Batches of one partition that may be unanswered at once, 1 to 32. Default: 5.
    pub in_flight: u32,
    /// Default: none.
    pub compression: Compression,
    /// Number the batches, so that one sent twice is written once. Default: true. Without it one
    /// batch of a partition is in flight at a time, and one of unknown outcome is not sent again
    /// but fails.
    pub idempotent: bool,
    /// A record that is not acknowledged so long after it was handed over has failed.
    /// Default: 120 s. At most 24 h.
    pub delivery_timeout: Duration,
    /// Bytes of records that may wait or be on their way; beyond, `send` waits. Default: 32 MiB.
    /// At most 1 GiB.
    pub buffer_bytes: usize,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            linger: Duration::from_millis(1),
            batch_bytes: 256 << 10,
            in_flight: 5,
            compression: Compression::None,
            idempotent: true,
            delivery_timeout: Duration::from_secs(120),
            buffer_bytes: 32 << 20,
        }
    }
}

impl ProducerConfig {
    pub(crate) fn batcher(&self) -> BatcherConfig {
        BatcherConfig {
            linger: self.linger,
            batch_bytes: self.batch_bytes,
            compression: self.compression,
            delivery_timeout: self.delivery_timeout,
        }
    }

    /// Checks that the configuration makes sense.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`] names the first field that does not.
    pub fn validate(&self) -> Result<(), ConnectError> {
        let invalid = |reason: String| Err(ConnectError::InvalidConfig(reason));
        if !(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            return invalid(format!("batch_bytes: outside 1..={BATCH_BYTES_MAX}"));
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight) {
            return invalid(format!("in_flight: outside 1..={IN_FLIGHT_MAX}"));
        }
        if self.delivery_timeout.is_zero() || self.delivery_timeout > DELIVERY_TIMEOUT_MAX {
            return invalid(format!("delivery_timeout: outside 0..={DELIVERY_TIMEOUT_MAX:?}"));
        }
        if self.linger >= self.delivery_timeout {
            return invalid("linger: not below delivery_timeout".to_owned());
        }
        if !(self.batch_bytes..=BUFFER_BYTES_MAX).contains(&self.buffer_bytes) {
            return invalid(format!("buffer_bytes: outside batch_bytes..={BUFFER_BYTES_MAX}"));
        }
        Ok(())
    }
}
