//! Where an entry stands in a Raft log.

use std::fmt;

use crate::codec::{DecodeError, Reader, Writer};

/// Place of an entry in the log of its Raft group. Ordered by term, then index, which for the
/// committed entries of one group is the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftPosition {
    /// The reign under which the entry was proposed; records call it the leader epoch.
    pub term: u64,
    /// Place in the log, dense.
    pub index: u64,
}

impl RaftPosition {
    /// Whether `self` may be the entry applied right after `previous`: logs have no holes, and
    /// terms never fall.
    #[must_use]
    pub fn follows(self, previous: RaftPosition) -> bool {
        previous.index.checked_add(1) == Some(self.index) && previous.term <= self.term
    }

    /// Appends 16 bytes.
    pub fn write(self, writer: &mut Writer) {
        writer.u64(self.term);
        writer.u64(self.index);
    }

    /// Reads what [`RaftPosition::write`] wrote.
    pub fn read(reader: &mut Reader) -> Result<RaftPosition, DecodeError> {
        Ok(RaftPosition { term: reader.u64()?, index: reader.u64()? })
    }

    /// Appends a flag, and the position where there is one.
    pub fn write_option(position: Option<RaftPosition>, writer: &mut Writer) {
        writer.option(position, |writer, position| position.write(writer));
    }

    /// Reads what [`RaftPosition::write_option`] wrote.
    pub fn read_option(reader: &mut Reader) -> Result<Option<RaftPosition>, DecodeError> {
        reader.option(RaftPosition::read)
    }
}

impl fmt::Display for RaftPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}
