//! A store in memory whose power can be cut: what a simulated node has for a disk.
//!
//! It keeps two images. `visible` is what reads see; `durable` is what a power cut leaves. A
//! write that is not synced waits in a list of pending batches, in order, as in the one
//! write-ahead log of a real store: a cut keeps some first part of that list and never half a
//! batch, and a synced write makes everything before it durable. The same calls give the same
//! bytes, so a run with one seed can be repeated.
//!
//! The handle is cheap to clone and stands for the disk, not for the process: a simulation keeps
//! one for each host and hands it to the next start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::error::ADVICE_VALUE;
use super::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, Write, WriteBatch,
};

/// How a write or a sync fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// The disk answers with an error, as EIO.
    Io,
    /// No space is left, as ENOSPC.
    Full,
}

/// What happens to a stored value behind the store's back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// One bit turns; counted from the first bit of the value, modulo its length.
    FlipBit {
        /// Which.
        bit: usize,
    },
    /// Only the first `len` bytes are left.
    Truncate {
        /// Bytes that stay.
        len: usize,
    },
    /// Other bytes stand there: a misdirected write, or an old value come back.
    Replace(Bytes),
    /// The block can't be read: every read that meets the key answers `Damaged`, until the key
    /// is written again.
    Unreadable,
}

/// What was done so far; never reset, not even by a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Writes that succeeded, synced or not.
    pub writes: u64,
    /// Synced writes that succeeded.
    pub syncs: u64,
    /// Power cuts.
    pub power_cuts: u64,
}

/// A simulated disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    visible: Image,
    durable: Image,
    /// Visible, not durable; oldest first.
    pending: VecDeque<WriteBatch>,
    /// A sync has failed: the write-ahead log has a hole, and nothing after it can become
    /// durable, whatever later syncs answer. Until the next power cut.
    wal_broken: bool,
    fail_next_write: Option<MemoryFault>,
    fail_next_sync: Option<MemoryFault>,
    capacity_bytes: Option<u64>,
    counts: MemoryCounts,
}

/// Keys and values of both spaces at one moment.
#[derive(Debug, Clone, Default)]
struct Image {
    log: BTreeMap<Bytes, Bytes>,
    state: BTreeMap<Bytes, Bytes>,
    /// Keys whose value is there and can't be read.
    unreadable: BTreeSet<(Space, Bytes)>,
    /// Of all keys and values.
    bytes: u64,
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
    /// and did not happen yet are forgotten.
    pub fn power_cut(&self, keep_batches: usize) -> usize {
        let mut guard = self.disk();
        let disk = &mut *guard;
        let kept = keep_batches.min(disk.pending.len());
        for batch in disk.pending.drain(..kept) {
            disk.durable.apply(&batch);
        }
        let lost = disk.pending.len();
        disk.pending.clear();
        disk.visible = disk.durable.clone();
        disk.wal_broken = false;
        disk.fail_next_write = None;
        disk.fail_next_sync = None;
        disk.counts.power_cuts += 1;
        lost
    }

    /// Batches that a power cut may lose.
    pub fn pending_batches(&self) -> usize {
        self.disk().pending.len()
    }

    /// The next write fails and changes nothing.
    pub fn fail_next_write(&self, fault: MemoryFault) {
        self.disk().fail_next_write = Some(fault);
    }

    /// The next synced write fails after its changes became visible. From then on nothing
    /// becomes durable, as after a failed fsync, though later syncs succeed: whoever goes on
    /// after the error loses data at the next power cut.
    pub fn fail_next_sync(&self, fault: MemoryFault) {
        self.disk().fail_next_sync = Some(fault);
    }

    /// Writes fail with [`StorageError::Full`] that would leave more than `bytes` of keys and
    /// values; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity_bytes = bytes;
    }

    /// Damages the stored value of `key`; `false` if there is none.
    pub fn damage(&self, space: Space, key: &[u8], damage: Damage) -> bool {
        let mut guard = self.disk();
        let disk = &mut *guard;
        let found = disk.visible.damage(space, key, &damage);
        // A pending write of the key stays whole: the damage is to what is on the disk.
        disk.durable.damage(space, key, &damage);
        found
    }

    /// What was done so far.
    pub fn counts(&self) -> MemoryCounts {
        self.disk().counts
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no call panics while it changes the disk")
    }
}

impl Engine for MemoryEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let disk = self.disk();
        let value = disk.visible.space(space).get(key).cloned();
        disk.visible.check_readable(space, key)?;
        Ok(value)
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        let disk = self.disk();
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for (key, value) in disk.visible.pairs(space, range) {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && (pairs.len() >= limit.items || bytes > limit.bytes) {
                break;
            }
            disk.visible.check_readable(space, key)?;
            pairs.push((key.clone(), value.clone()));
        }
        Ok(pairs)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        let disk = self.disk();
        let Some((key, value)) = disk.visible.pairs(space, range).next_back() else {
            return Ok(None);
        };
        disk.visible.check_readable(space, key)?;
        Ok(Some((key.clone(), value.clone())))
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        self.disk().write(batch, durability)
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        Ok(self.disk().visible.bytes)
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        let disk = self.disk();
        Ok(disk.capacity_bytes.map(|capacity| capacity.saturating_sub(disk.visible.bytes)))
    }
}

impl Disk {
    fn write(&mut self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        if let Some(fault) = self.fail_next_write.take() {
            return Err(fault.during("a write"));
        }
        let put = batch.writes().iter().map(put_bytes).sum::<u64>();
        // Deletions need no space, so that a full disk can be emptied.
        let too_much = |capacity| put > 0 && self.visible.bytes + put > capacity;
        if self.capacity_bytes.is_some_and(too_much) {
            return Err(MemoryFault::Full.during("a write"));
        }
        self.visible.apply(&batch);
        if !batch.is_empty() {
            self.pending.push_back(batch);
        }
        if durability == Durability::Synced {
            self.sync()?;
        }
        self.counts.writes += 1;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if let Some(fault) = self.fail_next_sync.take() {
            self.wal_broken = true;
            return Err(fault.during("a sync"));
        }
        if !self.wal_broken {
            for batch in self.pending.drain(..) {
                self.durable.apply(&batch);
            }
        }
        self.counts.syncs += 1;
        Ok(())
    }
}

impl Image {
    fn space(&self, space: Space) -> &BTreeMap<Bytes, Bytes> {
        match space {
            Space::Log => &self.log,
            Space::State => &self.state,
        }
    }

    fn space_mut(&mut self, space: Space) -> &mut BTreeMap<Bytes, Bytes> {
        match space {
            Space::Log => &mut self.log,
            Space::State => &mut self.state,
        }
    }

    fn pairs(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        // A range whose end lies before its start is empty here, and would be a panic there.
        let end = range.end.as_ref().max(range.start.as_ref());
        let bounds = (Bound::Included(range.start.as_ref()), Bound::Excluded(end));
        self.space(space).range::<[u8], _>(bounds)
    }

    fn check_readable(&self, space: Space, key: &[u8]) -> Result<(), StorageError> {
        let known_bad = !self.unreadable.is_empty()
            && self.unreadable.contains(&(space, Bytes::copy_from_slice(key)));
        if !known_bad {
            return Ok(());
        }
        let what = format!("the block of key {key:02x?} can't be read");
        Err(StorageError::Damaged { what, advice: ADVICE_VALUE })
    }

    fn apply(&mut self, batch: &WriteBatch) {
        for write in batch.writes() {
            match write {
                Write::Put { space, key, value } => {
                    self.remove(*space, key);
                    self.insert(*space, key.clone(), value.clone());
                }
                Write::Delete { space, key } => self.remove(*space, key),
                Write::DeleteRange { space, range } => {
                    let keys: Vec<Bytes> =
                        self.pairs(*space, range).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        self.remove(*space, &key);
                    }
                }
            }
        }
    }

    fn insert(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.bytes += pair_bytes(&key, &value);
        self.space_mut(space).insert(key, value);
    }

    fn remove(&mut self, space: Space, key: &[u8]) {
        if let Some((key, value)) = self.space_mut(space).remove_entry(key) {
            self.bytes -= pair_bytes(&key, &value);
            self.unreadable.remove(&(space, key));
        }
    }

    fn damage(&mut self, space: Space, key: &[u8], damage: &Damage) -> bool {
        let Some((key, value)) = self.space(space).get_key_value(key) else {
            return false;
        };
        let (key, mut value) = (key.clone(), value.to_vec());
        match damage {
            Damage::FlipBit { bit } => {
                let bit = bit.checked_rem(value.len() * 8).unwrap_or(0);
                if let Some(byte) = value.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Damage::Truncate { len } => value.truncate(*len),
            Damage::Replace(other) => value = other.to_vec(),
            Damage::Unreadable => {
                self.unreadable.insert((space, key));
                return true;
            }
        }
        self.remove(space, &key);
        self.insert(space, key, value.into());
        true
    }
}

impl MemoryFault {
    fn during(self, operation: &str) -> StorageError {
        let what = format!("{operation} failed because a simulation said so");
        match self {
            Self::Io => StorageError::Io { what },
            Self::Full => StorageError::Full { what },
        }
    }
}

fn put_bytes(write: &Write) -> u64 {
    match write {
        Write::Put { key, value, .. } => pair_bytes(key, value),
        Write::Delete { .. } | Write::DeleteRange { .. } => 0,
    }
}

fn pair_bytes(key: &[u8], value: &[u8]) -> u64 {
    u64::try_from(key.len() + value.len()).expect("a usize fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static [u8], value: &'static [u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Space::State, Bytes::from_static(key), Bytes::from_static(value));
        batch
    }

    fn read(engine: &MemoryEngine, key: &[u8]) -> Option<Bytes> {
        engine.get(Space::State, key).expect("undamaged")
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_first_part_of_the_rest() {
        for keep in 0..=3 {
            let engine = MemoryEngine::new();
            engine.write(put(b"a", b"synced"), Durability::Synced).expect("memory");
            engine.write(put(b"b", b"1"), Durability::Buffered).expect("memory");
            engine.write(put(b"c", b"2"), Durability::Buffered).expect("memory");
            engine.write(put(b"b", b"3"), Durability::Buffered).expect("memory");
            assert_eq!(read(&engine, b"b").as_deref(), Some(b"3".as_slice()), "visible at once");

            assert_eq!(engine.power_cut(keep), 3 - keep);

            let b = [None, Some(b"1"), Some(b"1"), Some(b"3")][keep];
            let c = [None, None, Some(b"2"), Some(b"2")][keep];
            assert_eq!(read(&engine, b"a").as_deref(), Some(b"synced".as_slice()));
            assert_eq!(read(&engine, b"b").as_deref(), b.map(<[u8; 1]>::as_slice), "keep {keep}");
            assert_eq!(read(&engine, b"c").as_deref(), c.map(<[u8; 1]>::as_slice), "keep {keep}");
        }
    }

    #[test]
    fn a_synced_write_makes_everything_before_it_durable() {
        let engine = MemoryEngine::new();
        engine.write(put(b"a", b"1"), Durability::Buffered).expect("memory");
        engine.write(WriteBatch::new(), Durability::Synced).expect("memory");
        assert_eq!(engine.pending_batches(), 0);
        engine.power_cut(0);
        assert!(read(&engine, b"a").is_some());
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let engine = MemoryEngine::new();
        engine.fail_next_write(MemoryFault::Io);
        let failed = engine.write(put(b"a", b"1"), Durability::Synced);
        assert!(matches!(failed, Err(StorageError::Io { .. })));
        assert_eq!(read(&engine, b"a"), None);
        engine.write(put(b"a", b"2"), Durability::Synced).expect("only one was to fail");
    }

    #[test]
    fn after_a_failed_sync_nothing_becomes_durable_whatever_is_answered() {
        let engine = MemoryEngine::new();
        engine.fail_next_sync(MemoryFault::Io);
        assert!(engine.write(put(b"a", b"1"), Durability::Synced).is_err());
        engine.write(put(b"b", b"2"), Durability::Synced).expect("the lie of a retried fsync");
        engine.power_cut(0);
        assert_eq!((read(&engine, b"a"), read(&engine, b"b")), (None, None));
    }

    #[test]
    fn a_full_disk_refuses_puts_and_takes_deletions() {
        let engine = MemoryEngine::new();
        engine.set_capacity(Some(10));
        engine.write(put(b"key", b"value"), Durability::Synced).expect("8 of 10 bytes");
        assert_eq!(engine.space_left(), Ok(Some(2)));
        let full = engine.write(put(b"kez", b"value"), Durability::Synced);
        assert!(matches!(full, Err(StorageError::Full { .. })));

        let mut batch = WriteBatch::new();
        batch.delete(Space::State, Bytes::from_static(b"key"));
        engine.write(batch, Durability::Synced).expect("needs no space");
        assert_eq!(engine.bytes_used(), Ok(0));
    }

    #[test]
    fn damage_survives_a_power_cut_and_ends_with_a_new_value() {
        let engine = MemoryEngine::new();
        engine.write(put(b"a", b"1"), Durability::Synced).expect("memory");
        assert!(engine.damage(Space::State, b"a", Damage::FlipBit { bit: 0 }));
        engine.power_cut(0);
        assert_eq!(read(&engine, b"a").as_deref(), Some(b"0".as_slice()));

        assert!(engine.damage(Space::State, b"a", Damage::Unreadable));
        let damaged = engine.get(Space::State, b"a");
        assert!(matches!(damaged, Err(StorageError::Damaged { .. })));
        engine.write(put(b"a", b"1"), Durability::Synced).expect("memory");
        assert_eq!(read(&engine, b"a").as_deref(), Some(b"1".as_slice()));
        assert!(!engine.damage(Space::State, b"b", Damage::Unreadable), "there is no such key");
    }
}
