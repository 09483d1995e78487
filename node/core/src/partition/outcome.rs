//! What applying one entry did: the answers for its sender, and what the caller has to store.

use super::index_record::IndexRecord;
use crate::ids::{ProducerEpoch, ProducerId};
use crate::position::RaftPosition;
use crate::time::EntryTime;

/// What became of one batch. Only `Appended` changed the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Its records are in the log now.
    Appended {
        /// Offset of the first.
        base_offset: u64,
    },
    /// A retry of a batch that was appended before. Answered as the first copy was.
    Duplicate {
        /// Where the first copy starts; `None`: so long ago that the place is forgotten.
        base_offset: Option<u64>,
    },
    /// The expected end offset is not the actual one.
    Conflict {
        /// The actual end offset when the batch's turn came.
        end_offset: u64,
    },
    /// A newer session of this producer exists. Final: the sender must stop.
    Fenced {
        /// The epoch that fenced it.
        epoch_current: ProducerEpoch,
    },
    /// A sequence is missing before this batch, or it cuts across batches already accepted.
    OutOfOrder {
        /// The next sequence that will be accepted.
        sequence_expected: u32,
    },
    /// The producer is not remembered, and the batch is not at the start of its sequence.
    UnknownProducer,
    /// Not a whole record batch. The edge lets none through, so another node is at fault.
    Malformed,
}

/// What applying one entry changed. The caller stores it all in one atomic write, together with
/// the [head](super::PartitionState::encode_head).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each batch of the entry, in its order.
    pub outcomes: Vec<BatchOutcome>,
    /// The log's time at this entry: the entry's own, or an earlier entry's where that is later.
    pub time: EntryTime,
    /// To be kept under its base offset; `None` where no batch was accepted.
    pub index: Option<IndexRecord>,
    /// Producers whose rows are to be written.
    pub producers_changed: Vec<ProducerId>,
    /// Producers whose rows are to be deleted; none of them is in `producers_changed`.
    pub producers_removed: Vec<ProducerId>,
    /// A rung made at this entry: its checkpoint is to be kept, and the ladder row written.
    pub rung: Option<Rung>,
    /// Raft indices of rungs whose checkpoints are to be deleted; the ladder row is to be
    /// written. These were made before this entry.
    pub rungs_removed: Vec<u64>,
    /// The log start moved: entries up to the rung, and index records below the offset, may go.
    pub log_start_moved: Option<LogStartMoved>,
}

impl Applied {
    /// Whether the ladder row has to be written again.
    #[must_use]
    pub fn ladder_changed(&self) -> bool {
        self.rung.is_some() || !self.rungs_removed.is_empty()
    }
}

/// Where the log starts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStartMoved {
    /// The rung at the new log start: the checkpoint a new replica begins with. Entries up to
    /// and with its index are not needed any more.
    pub rung: RungSummary,
    /// The log start before.
    pub from: u64,
    /// First offset still to be read.
    pub to: u64,
}

/// A rung without its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RungSummary {
    /// Counts the partition's rungs from 1.
    pub number: u64,
    /// The entry after which the checkpoint was made.
    pub position: RaftPosition,
    /// The next offset there: every record before the rung has a lower one.
    pub next_offset: u64,
    /// Payload bytes of the partition up to there, since its beginning.
    pub bytes_total: u64,
    /// The log's time there: no entry before the rung is later.
    pub time: EntryTime,
}

/// A checkpoint at a position of the log that is the same on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Where.
    pub summary: RungSummary,
    /// The state there, as if the log started there, for
    /// [`from_checkpoint`](super::PartitionState::from_checkpoint). The same bytes on every
    /// replica.
    pub checkpoint: bytes::Bytes,
}
