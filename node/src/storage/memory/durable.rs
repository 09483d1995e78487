//! What a power cut would leave of a simulated disk, to be looked at while the disk is in use.

use bytes::Bytes;

use super::MemoryEngine;
use crate::storage::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, WriteBatch,
};

/// The durable rows of a disk, as they stand: damage is not told, and nothing is counted. For
/// those who watch a simulation; no node uses it.
#[derive(Debug, Clone)]
pub struct DurableView(MemoryEngine);

impl MemoryEngine {
    /// What the disk would hold after a power cut that keeps none of the un-synced writes.
    pub fn durable(&self) -> DurableView {
        DurableView(self.clone())
    }
}

impl Engine for DurableView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.disk().durable.space(space).get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        let disk = self.0.disk();
        let mut bytes = 0;
        let mut pairs: Vec<KeyValue> = Vec::new();
        for (key, value) in disk.durable.pairs(space, range) {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && (pairs.len() >= limit.items || bytes > limit.bytes) {
                break;
            }
            pairs.push((key.clone(), value.clone()));
        }
        Ok(pairs)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        let disk = self.0.disk();
        let last = disk.durable.pairs(space, range).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn write(&self, _: WriteBatch, _: Durability) -> Result<(), StorageError> {
        Err(StorageError::Io { what: "writing to a view of a disk is not supported".to_owned() })
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        Ok(self.0.disk().durable.bytes())
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_synced_is_not_in_the_view() {
        let engine = MemoryEngine::new();
        let put = |key: &'static [u8], durability| {
            let mut batch = WriteBatch::new();
            batch.put(Space::State, Bytes::from_static(key), Bytes::from_static(b"value"));
            engine.write(batch, durability).expect("memory");
        };
        let view = engine.durable();
        let has = |key: &[u8]| view.get(Space::State, key).expect("a view").is_some();
        put(b"a", Durability::Buffered);
        assert!(!has(b"a"));
        put(b"b", Durability::Synced);
        assert!(has(b"a") && has(b"b"));
        assert!(view.write(WriteBatch::new(), Durability::Synced).is_err());
    }
}
