//! Keys and values of a simulated disk at one moment, and the damage that they carry.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::harm::{Damage, FaultKind, Harm};
use crate::storage::{KeyRange, Space, Write, WriteBatch};

/// What became of a damaged value that was written to again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// It is again what it was before.
    Repaired,
    /// Another value stands there.
    Overwritten,
    /// The key is deleted.
    Deleted,
}

/// Keys and values of both spaces at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    log: BTreeMap<Bytes, Bytes>,
    state: BTreeMap<Bytes, Bytes>,
    harmed: BTreeMap<(Space, Bytes), Harm>,
    /// Of all keys and values.
    bytes: u64,
}

impl Image {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn space(&self, space: Space) -> &BTreeMap<Bytes, Bytes> {
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

    pub(super) fn pairs(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> + use<'_> {
        // A range whose end lies before its start is empty here, and would be a panic there.
        let end = range.end.as_ref().max(range.start.as_ref());
        let bounds = (Bound::Included(range.start.as_ref()), Bound::Excluded(end));
        self.space(space).range::<[u8], _>(bounds)
    }

    /// The damage of a key, if it has any.
    pub(super) fn harm_of(&self, space: Space, key: &[u8]) -> Option<&Harm> {
        if self.harmed.is_empty() {
            return None;
        }
        self.harmed.get(&(space, Bytes::copy_from_slice(key)))
    }

    pub(super) fn harmed_keys(&self) -> BTreeSet<(Space, Bytes)> {
        self.harmed.keys().cloned().collect()
    }

    /// Remembers that somebody read a damaged key.
    pub(super) fn mark_met(&mut self, space: Space, key: &Bytes) {
        if let Some(harm) = self.harmed.get_mut(&(space, key.clone())) {
            harm.met = true;
        }
    }

    /// Makes the changes of a batch. Answers what became of the damage it wrote over.
    pub(super) fn apply(&mut self, batch: &WriteBatch) -> Vec<(FaultKind, Resolved)> {
        let mut resolved = Vec::new();
        for write in batch.writes() {
            self.apply_one(write, &mut resolved);
        }
        resolved
    }

    /// Makes only the first half of a batch's changes, which no write-ahead log does.
    pub(super) fn apply_half(&mut self, batch: &WriteBatch) {
        let half = batch.writes().len() / 2;
        for write in &batch.writes()[..half] {
            self.apply_one(write, &mut Vec::new());
        }
    }

    fn apply_one(&mut self, write: &Write, resolved: &mut Vec<(FaultKind, Resolved)>) {
        match write {
            Write::Put { space, key, value } => {
                if let Some(harm) = self.remove(*space, key) {
                    let whole = harm.original == *value;
                    let now = if whole { Resolved::Repaired } else { Resolved::Overwritten };
                    resolved.push((harm.kind, now));
                }
                self.insert(*space, key.clone(), value.clone());
            }
            Write::Delete { space, key } => {
                let harm = self.remove(*space, key);
                resolved.extend(harm.map(|harm| (harm.kind, Resolved::Deleted)));
            }
            Write::DeleteRange { space, range } => {
                let keys: Vec<Bytes> =
                    self.pairs(*space, range).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    let harm = self.remove(*space, &key);
                    resolved.extend(harm.map(|harm| (harm.kind, Resolved::Deleted)));
                }
            }
        }
    }

    fn insert(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.bytes += pair_bytes(&key, &value);
        self.space_mut(space).insert(key, value);
    }

    fn remove(&mut self, space: Space, key: &[u8]) -> Option<Harm> {
        let (key, value) = self.space_mut(space).remove_entry(key)?;
        self.bytes -= pair_bytes(&key, &value);
        self.harmed.remove(&(space, key))
    }

    /// Damages the value of `key`; `false` if there is none.
    pub(super) fn damage(&mut self, space: Space, key: &[u8], damage: &Damage) -> bool {
        let Some((key, value)) = self.space(space).get_key_value(key) else {
            return false;
        };
        let (key, value) = (key.clone(), value.clone());
        let known = self.remove(space, &key);
        let original = known.map_or_else(|| value.clone(), |harm| harm.original);
        let (kind, unreadable) = (damage.kind(), *damage == Damage::Unreadable);
        self.insert(space, key.clone(), damage.of(&value));
        self.harmed.insert((space, key), Harm { kind, unreadable, original, met: false });
        true
    }
}

pub(super) fn pair_bytes(key: &[u8], value: &[u8]) -> u64 {
    u64::try_from(key.len() + value.len()).expect("a usize fits 64 bits")
}
