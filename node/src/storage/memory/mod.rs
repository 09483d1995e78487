//! A store in memory whose power can be cut and whose disk can lie: what a simulated node has for
//! a disk.
//!
//! It keeps two images. `visible` is what reads see; `durable` is what a power cut leaves. A
//! write that is not synced waits in a list of pending batches, in order, as in the one
//! write-ahead log of a real store: a cut keeps some first part of that list and never half a
//! batch, and a synced write makes everything before it durable. The same calls give the same
//! bytes, so a run with one seed can be repeated.
//!
//! Beyond that it does what disks do: fails, fills up, is slow, turns bits, loses or misdirects
//! what it was given, comes back empty or old. `disk` is the model, `harm` names each trouble and
//! counts what became of it, `image` is the bytes.
//!
//! The handle is cheap to clone and stands for the disk, not for the process: a simulation keeps
//! one for each host and hands it to the next start.

mod disk;
mod durable;
mod harm;
mod image;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use self::disk::Disk;
pub use self::durable::DurableView;
pub use self::harm::{Damage, Effects, FaultKind, MemoryFault};
use self::image::Image;
use super::{Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, WriteBatch};

/// What was done so far; never reset, not even by a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Writes that succeeded, synced or not.
    pub writes: u64,
    /// Synced writes that succeeded.
    pub syncs: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Writes and syncs that were begun; a synced write is two. Where a power cut can come.
    pub steps: u64,
}

/// How a power cut goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// Of the writes that were not synced so many survive, the oldest.
    pub keep_batches: usize,
    /// What else is found of the others.
    pub tear: Tear,
}

/// What a power cut leaves of the first write that it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tear {
    /// Nothing that counts: its record is not there or is cut off, and is dropped.
    #[default]
    Dropped,
    /// The record is bad and one after it is whole, because the disk wrote them in its own
    /// order. The store does not open.
    Hole,
    /// Half of its changes are there and nothing shows it. No log with checksums does that: it is
    /// here to see that a check would notice.
    HalfRecord,
    /// It is missing, all later ones are there, and nothing shows it. No log does that either.
    UnseenHole,
}

/// What a disk held at some time, to be put back later.
#[derive(Debug, Clone)]
pub struct DiskImage(Image);

/// A simulated disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    disk: Arc<Mutex<Disk>>,
}

impl MemoryEngine {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of the writes that were not synced the `keep_batches` oldest survive,
    /// all others are gone. Returns how many were lost.
    ///
    /// Whoever holds a handle can go on at once, as after a restart. Faults that were asked for
    /// and did not happen yet are forgotten; a full or slow disk stays full or slow.
    pub fn power_cut(&self, keep_batches: usize) -> usize {
        self.cut(PowerCut { keep_batches, tear: Tear::Dropped })
    }

    /// Cuts the power in a certain way. Returns how many writes are gone, lost synced ones
    /// included.
    pub fn cut(&self, cut: PowerCut) -> usize {
        self.disk().cut(cut)
    }

    /// Ends the process and leaves the machine running: un-synced writes are still in the page
    /// cache, and RocksDB makes what it finds there durable when it opens (it writes the log's
    /// records into sorted files and syncs these). After a failed sync the pages are gone instead.
    pub fn restart_process(&self) {
        self.disk().restart_process();
    }

    /// Batches that a power cut may lose.
    pub fn pending_batches(&self) -> usize {
        self.disk().pending.len()
    }

    /// The next write fails and changes nothing.
    pub fn fail_next_write(&self, fault: MemoryFault) {
        self.disk().plan.fail_next_write = Some(fault);
    }

    /// The next synced write fails after its changes became visible. From then on nothing
    /// becomes durable, as after a failed fsync, though later syncs succeed: whoever goes on
    /// after the error loses data at the next power cut.
    pub fn fail_next_sync(&self, fault: MemoryFault) {
        self.disk().plan.fail_next_sync = Some(fault);
    }

    /// Writes and syncs that should have failed do not.
    pub fn forget_faults(&self) {
        let plan = &mut self.disk().plan;
        (plan.fail_next_write, plan.fail_next_sync) = (None, None);
    }

    /// The next `count` reads that have anything to read answer that their block is damaged.
    pub fn fail_next_reads(&self, count: u32) {
        self.disk().plan.fail_reads = count;
    }

    /// The next `count` syncs that have anything to sync are answered and do nothing: what they
    /// should have kept is gone at the next power cut. If something synced stands behind it in
    /// the log then, the store does not open; if not, nobody can tell.
    pub fn lose_next_syncs(&self, count: u64) {
        self.disk().plan.lose_syncs = count;
    }

    /// The power is gone before step `step` of [`MemoryCounts::steps`], counted from 0: that one
    /// and all later ones fail. Until the next power cut.
    pub fn die_at_step(&self, step: u64) {
        self.disk().plan.dies_at_step = Some(step);
    }

    /// Writes fail with [`StorageError::Full`] that would leave more than `bytes` of keys and
    /// values; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().plan.capacity_bytes = bytes;
    }

    /// Each sync takes so much longer. For whoever runs the log writer: the engine itself never
    /// waits.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.disk().plan.sync_delay = delay;
    }

    /// See [`set_sync_delay`](Self::set_sync_delay).
    pub fn sync_delay(&self) -> Duration {
        self.disk().plan.sync_delay
    }

    /// Damages the stored value of `key`; `false` if there is none on the disk. A pending write of
    /// the key stays whole: the damage is to what it will replace.
    pub fn damage(&self, space: Space, key: &[u8], damage: Damage) -> bool {
        let mut guard = self.disk();
        let disk = &mut *guard;
        let found = disk.durable.damage(space, key, &damage);
        if found {
            if !disk.is_pending(space, key) {
                disk.visible.damage(space, key, &damage);
            }
            disk.ledger.of(damage.kind()).injected += 1;
        }
        found
    }

    /// A block of keys is lost: every value of `range` becomes unreadable. Returns how many.
    pub fn damage_range(&self, space: Space, range: &KeyRange) -> usize {
        let keys: Vec<Bytes> = {
            let disk = self.disk();
            disk.durable.pairs(space, range).map(|(key, _)| key.clone()).collect()
        };
        keys.iter().filter(|key| self.damage(space, key, Damage::Unreadable)).count()
    }

    /// The write of `from` landed where `onto` stands: `onto` has its bytes now, and where it
    /// belongs there is nothing to be read. `false` if either has no value.
    pub fn misdirect(&self, space: Space, from: &[u8], onto: &[u8]) -> bool {
        let value = {
            let disk = self.disk();
            let stands = disk.durable.space(space).contains_key(onto);
            disk.durable.space(space).get(from).filter(|_| stands).cloned()
        };
        value.is_some_and(|value| {
            self.damage(space, onto, Damage::Replace(value))
                && self.damage(space, from, Damage::Unreadable)
        })
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        self.disk().replace(Image::default(), FaultKind::Wiped);
    }

    /// Another disk in the same state, un-synced writes and planned faults included.
    pub fn duplicate(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk().clone())) }
    }

    /// What the disk holds durably, as a copy of it would.
    pub fn image(&self) -> DiskImage {
        DiskImage(self.disk().durable.clone())
    }

    /// An older state of the disk comes back: a restored backup, a forgotten mirror.
    pub fn roll_back(&self, image: &DiskImage) {
        self.disk().replace(image.0.clone(), FaultKind::RolledBack);
    }

    /// What was done so far.
    pub fn counts(&self) -> MemoryCounts {
        self.disk().counts
    }

    /// What became of the faults so far, by kind.
    pub fn effects(&self) -> BTreeMap<FaultKind, Effects> {
        self.disk().ledger.all()
    }

    /// Shows every visible row to `look`, damaged ones as they stand, and counts nothing.
    pub fn for_each_row(&self, mut look: impl FnMut(Space, &Bytes, &Bytes)) {
        let disk = self.disk();
        for space in [Space::Log, Space::State] {
            for (key, value) in disk.visible.space(space) {
                look(space, key, value);
            }
        }
    }

    /// Keys whose value on the disk is damaged.
    pub fn harmed_keys(&self) -> BTreeSet<(Space, Bytes)> {
        self.disk().durable.harmed_keys()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no call panics while it changes the disk")
    }
}

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let mut disk = self.disk();
        disk.check_opens()?;
        let found = disk.visible.space(space).get_key_value(key);
        let Some((key, value)) = found.map(|(key, value)| (key.clone(), value.clone())) else {
            return Ok(None);
        };
        disk.check_any_read()?;
        disk.check_read(space, &key)?;
        Ok(Some(value))
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        let mut disk = self.disk();
        disk.check_opens()?;
        let mut pairs: Vec<KeyValue> = Vec::new();
        let mut bytes = 0;
        for (key, value) in disk.visible.pairs(space, range) {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && (pairs.len() >= limit.items || bytes > limit.bytes) {
                break;
            }
            pairs.push((key.clone(), value.clone()));
        }
        if !pairs.is_empty() {
            disk.check_any_read()?;
        }
        for (key, _) in &pairs {
            disk.check_read(space, key)?;
        }
        Ok(pairs)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        let mut disk = self.disk();
        disk.check_opens()?;
        let last = disk.visible.pairs(space, range).next_back();
        let Some((key, value)) = last.map(|(key, value)| (key.clone(), value.clone())) else {
            return Ok(None);
        };
        disk.check_any_read()?;
        disk.check_read(space, &key)?;
        Ok(Some((key, value)))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.disk().write(batch, durability)
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        let disk = self.disk();
        disk.check_opens()?;
        Ok(disk.visible.bytes())
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        let disk = self.disk();
        disk.check_opens()?;
        let used = disk.visible.bytes();
        Ok(disk.plan.capacity_bytes.map(|capacity| capacity.saturating_sub(used)))
    }
}
