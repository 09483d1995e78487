//! How a consumer reads ahead, and where it begins.

use std::time::Duration;

use crate::error::ConnectError;
use crate::read::ReadLevel;

/// How a [`Consumer`](crate::Consumer) behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Default: committed.
    pub level: ReadLevel,
    /// Bytes of records read ahead of the application, over all partitions. Each partition has an
    /// equal share, and at least one batch. Default: 16 MiB.
    pub prefetch_bytes: u32,
    /// At most so many bytes in one fetch, but always at least one batch. Default: 1 MiB.
    pub fetch_bytes: u32,
    /// Longest wait of a fetch for records to come. While none do it is doubled, up to 5 s.
    /// Default: 500 ms.
    pub max_wait: Duration,
    /// What to do when a partition does not hold the next offset. Default: stop with an error.
    pub out_of_range: OutOfRange,
    /// Read at the replicas of the node with this label. Default: at the leaders.
    pub node: Option<u64>,
    /// A partition that cannot be read for so long is reported, and then again after as long; the
    /// consumer keeps trying. Default: 30 s.
    pub report_after: Duration,
}

/// What to do when a partition does not hold the next offset, because retention has passed it or
/// because it was never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Stop the partition with an error: nothing is skipped in silence.
    #[default]
    Error,
    /// Go on at the log start.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The first record kept.
    Earliest,
    /// The next record appended.
    Latest,
    /// This offset. May lie at the end, and not beyond.
    Offset(u64),
    /// So many records before the end, or the first one kept.
    Tail(u64),
    /// The first record that the leader stamped at or after this time, milliseconds since 1970.
    EntryTime(u64),
    /// The first record whose own timestamp is at or after this time, milliseconds since 1970.
    EventTime(i64),
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            level: ReadLevel::Committed,
            prefetch_bytes: 16 << 20,
            fetch_bytes: 1 << 20,
            max_wait: Duration::from_millis(500),
            out_of_range: OutOfRange::default(),
            node: None,
            report_after: Duration::from_secs(30),
        }
    }
}

impl ConsumerConfig {
    /// Checks that the configuration makes sense.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`] names the first field that does not.
    pub fn validate(&self) -> Result<(), ConnectError> {
        let zero = [
            ("prefetch_bytes", self.prefetch_bytes == 0),
            ("fetch_bytes", self.fetch_bytes == 0),
            ("max_wait", self.max_wait.is_zero()),
            ("report_after", self.report_after.is_zero()),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(ConnectError::InvalidConfig(format!("{name}: zero"))),
            None => Ok(()),
        }
    }
}
