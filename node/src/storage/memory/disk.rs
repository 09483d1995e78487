//! The inside of a simulated disk: what is visible, what is durable, and what lies between.
//!
//! The model is one write-ahead log in front of a sorted store, as in RocksDB. Each write is one
//! record of that log: it is there whole or not at all, and records are read in order up to the
//! first that is not there. So a power cut leaves a first part of the un-synced records, whatever
//! bytes were cut. If the disk kept a later record and not an earlier one, the log has a record
//! after a bad one, and the store does not open: that is found, never passed over.
//!
//! The one thing no log can find alone is a synced record that is missing at its very end: it
//! looks like a record that was never written.

use std::collections::VecDeque;
use std::time::Duration;

use super::harm::{FaultKind, Ledger, MemoryFault};
use super::image::{Image, pair_bytes};
use super::{MemoryCounts, PowerCut, Tear};
use crate::storage::error::{ADVICE_STORE, ADVICE_VALUE};
use crate::storage::{Durability, Space, StorageError, Write, WriteBatch};

#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) visible: Image,
    pub(super) durable: Image,
    /// Visible, not durable; oldest first.
    pub(super) pending: VecDeque<WriteBatch>,
    /// Synced as far as anybody was told, and not on the disk.
    lost: Vec<WriteBatch>,
    /// Synced writes that are on the disk behind lost ones, where no log reader gets to.
    behind_lost: usize,
    /// A sync has failed: the write-ahead log has a hole, and nothing after it can become
    /// durable, whatever later syncs answer. Until the next power cut.
    wal_broken: bool,
    /// Why the store doesn't open.
    refuses: Option<String>,
    pub(super) plan: FaultPlan,
    pub(super) counts: MemoryCounts,
    pub(super) ledger: Ledger,
}

/// Faults that were asked for and did not happen yet.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultPlan {
    pub(super) fail_next_write: Option<MemoryFault>,
    pub(super) fail_next_sync: Option<MemoryFault>,
    /// So many reads to come fail.
    pub(super) fail_reads: u32,
    /// So many syncs to come are answered and do nothing.
    pub(super) lose_syncs: u64,
    /// The power is gone from this step on.
    pub(super) dies_at_step: Option<u64>,
    pub(super) capacity_bytes: Option<u64>,
    /// On top of what a sync takes anyway.
    pub(super) sync_delay: Duration,
}

impl Disk {
    /// Whether the store can be used at all.
    pub(super) fn check_opens(&self) -> Result<(), StorageError> {
        match &self.refuses {
            None => Ok(()),
            Some(what) => Err(StorageError::Damaged { what: what.clone(), advice: ADVICE_STORE }),
        }
    }

    /// Counts a read of `key`, and refuses it if its block can't be read.
    pub(super) fn check_read(
        &mut self,
        space: Space,
        key: &bytes::Bytes,
    ) -> Result<(), StorageError> {
        let Some(harm) = self.visible.harm_of(space, key) else { return Ok(()) };
        let (kind, unreadable, first) = (harm.kind, harm.unreadable, !harm.met);
        if first {
            let value = self.visible.space(space).get(key);
            let detected = unreadable
                || value.is_some_and(|value| super::harm::is_detectable(space, key, value));
            self.visible.mark_met(space, key);
            self.durable.mark_met(space, key);
            let effects = self.ledger.of(kind);
            effects.met += 1;
            effects.detected += u64::from(detected);
        }
        if !unreadable {
            return Ok(());
        }
        let what = format!("the block of key {key:02x?} can't be read");
        Err(StorageError::Damaged { what, advice: ADVICE_VALUE })
    }

    /// Whether this read, whatever it is of, is one that fails.
    pub(super) fn check_any_read(&mut self) -> Result<(), StorageError> {
        self.check_opens()?;
        if self.plan.fail_reads == 0 {
            return Ok(());
        }
        self.plan.fail_reads -= 1;
        self.ledger.answered(FaultKind::ReadError);
        let what = "a block can't be read because a simulation said so".to_owned();
        Err(StorageError::Damaged { what, advice: ADVICE_VALUE })
    }

    pub(super) fn write(
        &mut self,
        batch: WriteBatch,
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.check_opens()?;
        if !batch.is_empty() {
            self.step()?;
            self.take_in(batch)?;
        }
        if durability == Durability::Synced {
            self.step()?;
            self.sync()?;
        }
        self.counts.writes += 1;
        Ok(())
    }

    /// A write and a sync are a step each.
    fn step(&mut self) -> Result<(), StorageError> {
        if self.plan.dies_at_step.is_some_and(|at| self.counts.steps >= at) {
            return Err(StorageError::Io { what: "the power is gone".to_owned() });
        }
        self.counts.steps += 1;
        Ok(())
    }

    fn take_in(&mut self, batch: WriteBatch) -> Result<(), StorageError> {
        if let Some(fault) = self.plan.fail_next_write.take() {
            self.ledger.answered(fault.kind(FaultKind::WriteError));
            return Err(fault.during("a write"));
        }
        let put = batch.writes().iter().map(put_bytes).sum::<u64>();
        // Deletions need no space, so that a full disk can be emptied.
        let too_much = |capacity| put > 0 && self.visible.bytes() + put > capacity;
        if self.plan.capacity_bytes.is_some_and(too_much) {
            self.ledger.answered(FaultKind::Full);
            return Err(MemoryFault::Full.during("a write"));
        }
        self.visible.apply(&batch);
        self.pending.push_back(batch);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if let Some(fault) = self.plan.fail_next_sync.take() {
            self.ledger.answered(fault.kind(FaultKind::SyncError));
            self.wal_broken = true;
            return Err(fault.during("a sync"));
        }
        if self.wal_broken || self.pending.is_empty() {
            self.counts.syncs += 1;
            return Ok(());
        }
        if self.plan.lose_syncs > 0 {
            self.plan.lose_syncs -= 1;
            self.ledger.of(FaultKind::LostWrite).injected += count(self.pending.len());
            self.lost.extend(self.pending.drain(..));
        } else if self.lost.is_empty() {
            for batch in std::mem::take(&mut self.pending) {
                self.make_durable(&batch);
            }
        } else {
            self.behind_lost += self.pending.len();
            self.pending.clear();
        }
        self.counts.syncs += 1;
        Ok(())
    }

    fn make_durable(&mut self, batch: &WriteBatch) {
        for (kind, resolved) in self.durable.apply(batch) {
            self.ledger.resolved(kind, resolved);
        }
    }

    /// See [`super::MemoryEngine::cut`].
    pub(super) fn cut(&mut self, cut: PowerCut) -> usize {
        let pending = Vec::from(std::mem::take(&mut self.pending));
        // After a failed sync the pages of all that was un-synced are gone.
        let keep = if self.wal_broken { 0 } else { cut.keep_batches.min(pending.len()) };
        let lost_synced = self.lost.len();
        if lost_synced > 0 {
            self.find_lost(keep > 0);
        } else {
            for batch in &pending[..keep] {
                self.make_durable(batch);
            }
            let taken = if self.wal_broken { &[] } else { &pending[keep..] };
            self.tear(cut.tear, taken);
        }
        self.visible = self.durable.clone();
        self.lost.clear();
        self.behind_lost = 0;
        self.wal_broken = false;
        let (capacity, delay) = (self.plan.capacity_bytes, self.plan.sync_delay);
        self.plan =
            FaultPlan { capacity_bytes: capacity, sync_delay: delay, ..FaultPlan::default() };
        self.counts.power_cuts += 1;
        lost_synced + pending.len() - keep
    }

    /// What a reader of the log makes of synced records that are not there.
    fn find_lost(&mut self, something_kept: bool) {
        let lost = count(self.lost.len());
        let detected = something_kept || self.behind_lost > 0;
        let effects = self.ledger.of(FaultKind::LostWrite);
        effects.met += lost;
        if detected {
            effects.detected += lost;
            let what = format!("the write-ahead log lacks {lost} records before its end");
            self.refuses = Some(what);
        }
    }

    /// What else is found of the records that the cut took.
    fn tear(&mut self, tear: Tear, taken: &[WriteBatch]) {
        let Some((first, later)) = taken.split_first() else { return };
        match tear {
            // A bad record with nothing behind it is an end that was cut off.
            Tear::Hole if later.is_empty() => {}
            Tear::Dropped => {}
            Tear::Hole => {
                self.ledger.answered(FaultKind::HoleAtCut);
                let what = "the write-ahead log has a whole record behind a broken one";
                self.refuses = Some(what.to_owned());
            }
            Tear::HalfRecord => {
                self.ledger.of(FaultKind::HalfWriteAtCut).injected += 1;
                self.durable.apply_half(first);
            }
            Tear::UnseenHole => {
                self.ledger.of(FaultKind::UnseenHoleAtCut).injected += 1;
                for batch in later {
                    self.make_durable(batch);
                }
            }
        }
    }

    /// See [`super::MemoryEngine::restart_process`].
    pub(super) fn restart_process(&mut self) {
        if self.wal_broken {
            self.visible = self.durable.clone();
            self.pending.clear();
            self.wal_broken = false;
        } else if self.lost.is_empty() {
            for batch in std::mem::take(&mut self.pending) {
                self.make_durable(&batch);
            }
        } else {
            self.ledger.of(FaultKind::LostWrite).repaired += count(self.lost.len());
            self.durable = self.visible.clone();
            self.pending.clear();
            self.lost.clear();
            self.behind_lost = 0;
        }
    }

    /// Puts another image in the place of all that is here.
    pub(super) fn replace(&mut self, image: Image, kind: FaultKind) {
        self.ledger.of(kind).injected += 1;
        self.visible = image.clone();
        self.durable = image;
        self.pending.clear();
        self.lost.clear();
        self.behind_lost = 0;
        self.wal_broken = false;
        self.refuses = None;
    }

    /// Whether a write of `key` waits to become durable.
    pub(super) fn is_pending(&self, space: Space, key: &[u8]) -> bool {
        let mut writes = self.pending.iter().flat_map(|batch| batch.writes());
        writes.any(|write| match write {
            Write::Put { space: of, key: to, .. } => *of == space && **to == *key,
            Write::Delete { .. } | Write::DeleteRange { .. } => false,
        })
    }
}

fn put_bytes(write: &Write) -> u64 {
    match write {
        Write::Put { key, value, .. } => pair_bytes(key, value),
        Write::Delete { .. } | Write::DeleteRange { .. } => 0,
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).expect("a usize fits 64 bits")
}
