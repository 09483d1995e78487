//! A list of changes that a store makes together or not at all.

use bytes::Bytes;

use super::{KeyRange, Space};

/// Bytes counted per change on top of its key and value: what the store's own record costs.
const CHANGE_BYTES: usize = 16;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets `key` to `value`.
    Put {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
        /// Replaces any older value.
        value: Bytes,
    },
    /// Removes `key` if it is there.
    Delete {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
    },
    /// Removes every key of `range`.
    DeleteRange {
        /// Where.
        space: Space,
        /// Half-open.
        range: KeyRange,
    },
}

/// Changes in the order in which they take effect: of two changes of one key the later one wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    writes: Vec<Write>,
    bytes: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.push(Write::Put { space, key, value });
    }

    /// Removes `key` if it is there.
    pub fn delete(&mut self, space: Space, key: Bytes) {
        self.push(Write::Delete { space, key });
    }

    /// Removes every key of `range`; an empty range is no change.
    pub fn delete_range(&mut self, space: Space, range: KeyRange) {
        if !range.is_empty() {
            self.push(Write::DeleteRange { space, range });
        }
    }

    /// Adds the changes of `later` after those already here.
    pub fn append(&mut self, later: Self) {
        self.bytes += later.bytes;
        if self.writes.is_empty() {
            self.writes = later.writes;
        } else {
            self.writes.extend(later.writes);
        }
    }

    /// The changes in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// About the bytes this batch costs in the write-ahead log.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if nothing would change.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn push(&mut self, write: Write) {
        self.bytes += CHANGE_BYTES
            + match &write {
                Write::Put { key, value, .. } => key.len() + value.len(),
                Write::Delete { key, .. } => key.len(),
                Write::DeleteRange { range, .. } => range.start.len() + range.end.len(),
            };
        self.writes.push(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_batches_keeps_their_order_and_adds_their_bytes() {
        let mut first = WriteBatch::new();
        first.put(Space::State, Bytes::from_static(b"k"), Bytes::from_static(b"old"));
        let mut later = WriteBatch::new();
        later.delete(Space::State, Bytes::from_static(b"k"));
        let bytes = first.bytes() + later.bytes();

        first.append(later);

        assert_eq!(first.bytes(), bytes);
        assert!(matches!(first.writes(), [Write::Put { .. }, Write::Delete { .. }]));
    }

    #[test]
    fn deleting_an_empty_range_is_no_change() {
        let mut batch = WriteBatch::new();
        let key = Bytes::from_static(b"k");
        batch.delete_range(Space::Log, KeyRange { start: key.clone(), end: key });
        assert!(batch.is_empty());
    }
}
