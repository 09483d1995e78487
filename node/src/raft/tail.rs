//! The newest entries of a group's log, in memory.
//!
//! Keeps what is not yet on disk or not yet applied, and beyond that the newest entries up to
//! [`limits::TAIL_BYTES_MAX`], so that consumers at the end and followers that keep up never read
//! from disk.

use std::collections::VecDeque;

use openraft::EntryPayload;

use super::types::{Entry, LogId, Vote};
use crate::limits;

#[derive(Default)]
pub(super) struct Tail {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// Dense, up to and with `last`. May be shorter than the log, and empty.
    pub(super) entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries below are on disk.
    pub(super) flushed_end: u64,
    /// Entries below are applied.
    pub(super) applied_end: u64,
    /// How often entries were taken from its end.
    pub(super) cuts: u64,
}

impl Tail {
    pub(super) fn push(&mut self, entry: Entry) {
        let index = entry.log_id.index();
        let follows = self.entries.back().is_none_or(|last| last.log_id.index() + 1 == index);
        if !follows {
            // The log jumped, as it does after a snapshot.
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes += payload_bytes(&entry);
        self.last = Some(entry.log_id);
        self.entries.push_back(entry);
    }

    /// Lets go of entries that are on disk and applied, oldest first, while there are too many.
    pub(super) fn evict(&mut self) {
        let end = self.flushed_end.min(self.applied_end);
        while self.bytes > limits::TAIL_BYTES_MAX || self.entries.len() > limits::TAIL_ENTRIES_MAX {
            let Some(first) = self.entries.front() else { break };
            if first.log_id.index() >= end {
                break;
            }
            self.bytes -= payload_bytes(first);
            self.entries.pop_front();
        }
    }

    pub(super) fn truncate(&mut self, start: u64) {
        while self.entries.back().is_some_and(|last| last.log_id.index() >= start) {
            if let Some(gone) = self.entries.pop_back() {
                self.bytes -= payload_bytes(&gone);
            }
        }
        self.flushed_end = self.flushed_end.min(start);
    }

    pub(super) fn purge(&mut self, end: u64) {
        while self.entries.front().is_some_and(|first| first.log_id.index() < end) {
            if let Some(gone) = self.entries.pop_front() {
                self.bytes -= payload_bytes(&gone);
            }
        }
    }

    pub(super) fn copy(&self, start: u64, end: u64, bytes_max: usize, into: &mut Vec<Entry>) {
        let Some(first) = self.entries.front().map(|entry| entry.log_id.index()) else { return };
        if start < first {
            return;
        }
        let skip = usize::try_from(start - first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            if entry.log_id.index() >= end || bytes >= bytes_max {
                return;
            }
            bytes += payload_bytes(entry);
            into.push(entry.clone());
        }
    }
}

/// Bytes an entry holds in memory: its payload, and what every entry costs.
pub(super) fn payload_bytes(entry: &Entry) -> usize {
    const ENTRY_BYTES: usize = 96;
    ENTRY_BYTES
        + match &entry.payload {
            EntryPayload::Normal(command) => command.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}
