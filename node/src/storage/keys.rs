//! Every key of the store. Whoever has read this file knows what a node's disk holds.
//!
//! ```text
//! Space::Log     group u32 | index u64                      an entry of a Raft log
//! Space::State   kind u8 | group u32                        one value per group
//!                kind u8 | group u32 | number u64           many values per group, in order
//!                kind u8                                    one value per node
//! ```
//!
//! Numbers are big-endian, so that the order of the keys is the order of the numbers. A range
//! never reaches into the next group or kind: its end is its greatest key and one zero byte.
//!
//! Keys are stored: numbers of kinds are never changed and never used again.
//! `docs/formats/storage-keys.md` says the same for readers outside this code.

use bytes::{BufMut, Bytes, BytesMut};
use node_core::ids::{GroupId, ProducerId};

use super::{Space, WriteBatch};

const KIND_BYTES: usize = 1;
const GROUP_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;

/// What a key of [`Space::State`] leads to. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// Per group: term and candidate this replica voted for. Synced before the vote is sent.
    Vote = 1,
    /// Per group: position of the last entry that openraft purged. Bytes may stay for longer.
    LastPurged = 2,
    /// Per log group: what apply knows beside the tables: offsets, chain hash, last applied.
    Head = 3,
    /// Per log group and producer id: the batches remembered of one producer.
    Producer = 4,
    /// Per log group and Raft index: a checkpoint at that entry, a rung of the ladder.
    Rung = 5,
    /// Per log group and base offset: which entry holds the records from there, and its times.
    Index = 6,
    /// Per table group: its full snapshot.
    Snapshot = 7,
    /// Per table group: position of the last entry known to be committed.
    Committed = 8,
    /// Per group hosted here: the manifest record, from which a start finds its replicas.
    Replica = 9,
    /// Per log group: what is known of its rungs without opening their checkpoints.
    Ladder = 10,
    /// Once per node: its uuid, its label, its cluster.
    NodeIdentity = 128,
    /// Once per node: the format of this store.
    StoreFormat = 129,
}

/// How keys of a kind go on after the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Node,
    Group,
    GroupAndNumber,
}

impl KeyKind {
    /// All kinds, in the order of their keys.
    pub const ALL: [Self; 12] = [
        Self::Vote,
        Self::LastPurged,
        Self::Head,
        Self::Producer,
        Self::Rung,
        Self::Index,
        Self::Snapshot,
        Self::Committed,
        Self::Replica,
        Self::Ladder,
        Self::NodeIdentity,
        Self::StoreFormat,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Vote => 1,
            Self::LastPurged => 2,
            Self::Head => 3,
            Self::Producer => 4,
            Self::Rung => 5,
            Self::Index => 6,
            Self::Snapshot => 7,
            Self::Committed => 8,
            Self::Replica => 9,
            Self::Ladder => 10,
            Self::NodeIdentity => 128,
            Self::StoreFormat => 129,
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    const fn shape(self) -> Shape {
        match self {
            Self::Vote
            | Self::LastPurged
            | Self::Head
            | Self::Snapshot
            | Self::Committed
            | Self::Replica
            | Self::Ladder => Shape::Group,
            Self::Producer | Self::Rung | Self::Index => Shape::GroupAndNumber,
            Self::NodeIdentity | Self::StoreFormat => Shape::Node,
        }
    }
}

/// Keys from `start`, inclusive, to `end`, exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that belongs to it.
    pub start: Bytes,
    /// The first key that doesn't.
    pub end: Bytes,
}

impl KeyRange {
    /// True if no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && *key < *self.end
    }

    fn of_keys(first: Bytes, last: &[u8]) -> Self {
        Self { start: first, end: after(last) }
    }
}

/// The least key greater than `key`: where a scan goes on, or the end of a range that holds it.
pub fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Key of the entry at `index`, in [`Space::Log`].
pub fn log_entry(group: GroupId, index: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(GROUP_BYTES + NUMBER_BYTES);
    key.put_u32(group.0);
    key.put_u64(index);
    key.freeze()
}

/// Group and index of a key in [`Space::Log`]; `None` if it isn't one.
pub fn parse_log_entry(key: &[u8]) -> Option<(GroupId, u64)> {
    let (group, index) = key.split_at_checked(GROUP_BYTES)?;
    let group = u32::from_be_bytes(group.try_into().ok()?);
    let index = u64::from_be_bytes(index.try_into().ok()?);
    Some((GroupId(group), index))
}

/// Entries of `group` from `index_first` up to and not including `index_end`.
pub fn log_entries(group: GroupId, index_first: u64, index_end: u64) -> KeyRange {
    KeyRange { start: log_entry(group, index_first), end: log_entry(group, index_end) }
}

/// Entries of `group` from `index_first` on: what a truncation deletes.
pub fn log_from(group: GroupId, index_first: u64) -> KeyRange {
    KeyRange::of_keys(log_entry(group, index_first), &log_entry(group, u64::MAX))
}

/// Entries of `group` up to `index_last`, inclusive: what a purge deletes.
pub fn log_through(group: GroupId, index_last: u64) -> KeyRange {
    KeyRange::of_keys(log_entry(group, 0), &log_entry(group, index_last))
}

/// The whole log of `group`.
pub fn log(group: GroupId) -> KeyRange {
    log_from(group, 0)
}

/// Key of [`KeyKind::Vote`].
pub fn vote(group: GroupId) -> Bytes {
    of_group(KeyKind::Vote, group)
}

/// Key of [`KeyKind::LastPurged`].
pub fn last_purged(group: GroupId) -> Bytes {
    of_group(KeyKind::LastPurged, group)
}

/// Key of [`KeyKind::Head`].
pub fn head(group: GroupId) -> Bytes {
    of_group(KeyKind::Head, group)
}

/// What is known of a log group's rungs without opening their checkpoints.
pub fn ladder(group: GroupId) -> Bytes {
    of_group(KeyKind::Ladder, group)
}

/// Key of [`KeyKind::Producer`].
pub fn producer(group: GroupId, producer: ProducerId) -> Bytes {
    of_number(KeyKind::Producer, group, producer.0)
}

/// All producers of `group`.
pub fn producers(group: GroupId) -> KeyRange {
    all_of(KeyKind::Producer, group)
}

/// Key of [`KeyKind::Rung`].
pub fn rung(group: GroupId, index: u64) -> Bytes {
    of_number(KeyKind::Rung, group, index)
}

/// All rungs of `group`, in the order of their entries.
pub fn rungs(group: GroupId) -> KeyRange {
    all_of(KeyKind::Rung, group)
}

/// Rungs of `group` up to and including the one at `index_last`.
pub fn rungs_through(group: GroupId, index_last: u64) -> KeyRange {
    numbers(KeyKind::Rung, group, 0, index_last)
}

/// Key of [`KeyKind::Index`].
pub fn index(group: GroupId, base_offset: u64) -> Bytes {
    of_number(KeyKind::Index, group, base_offset)
}

/// The whole index of `group`, in the order of offsets.
pub fn indexes(group: GroupId) -> KeyRange {
    all_of(KeyKind::Index, group)
}

/// Index of `group` from the one with `base_offset_first` on.
pub fn indexes_from(group: GroupId, base_offset_first: u64) -> KeyRange {
    numbers(KeyKind::Index, group, base_offset_first, u64::MAX)
}

/// Index of `group` up to and including `base_offset_last`. The last of these holds the records
/// at that offset.
pub fn indexes_through(group: GroupId, base_offset_last: u64) -> KeyRange {
    numbers(KeyKind::Index, group, 0, base_offset_last)
}

/// Key of [`KeyKind::Snapshot`].
pub fn snapshot(group: GroupId) -> Bytes {
    of_group(KeyKind::Snapshot, group)
}

/// Key of [`KeyKind::Committed`].
pub fn committed(group: GroupId) -> Bytes {
    of_group(KeyKind::Committed, group)
}

/// Key of [`KeyKind::Replica`].
pub fn replica(group: GroupId) -> Bytes {
    of_group(KeyKind::Replica, group)
}

/// The manifest: one record for each group hosted here.
pub fn replicas() -> KeyRange {
    let first = of_group(KeyKind::Replica, GroupId(0));
    KeyRange::of_keys(first, &of_group(KeyKind::Replica, GroupId(u32::MAX)))
}

/// Key of [`KeyKind::NodeIdentity`].
pub fn node_identity() -> Bytes {
    of_node(KeyKind::NodeIdentity)
}

/// Key of [`KeyKind::StoreFormat`].
pub fn store_format() -> Bytes {
    of_node(KeyKind::StoreFormat)
}

/// A key of [`Space::State`], taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateKey {
    /// What it leads to.
    pub kind: KeyKind,
    /// Whose it is; `None` for what a node has once.
    pub group: Option<GroupId>,
    /// Producer id, Raft index or base offset; `None` where a group has one value.
    pub number: Option<u64>,
}

/// Takes a key of [`Space::State`] apart; `None` if it isn't one that this version writes.
pub fn parse_state(key: &[u8]) -> Option<StateKey> {
    let (&kind, rest) = key.split_first()?;
    let kind = KeyKind::of_number(kind)?;
    let group = |bytes: &[u8]| Some(GroupId(u32::from_be_bytes(bytes.try_into().ok()?)));
    match kind.shape() {
        Shape::Node => rest.is_empty().then_some(StateKey { kind, group: None, number: None }),
        Shape::Group => Some(StateKey { kind, group: Some(group(rest)?), number: None }),
        Shape::GroupAndNumber => {
            let (group_bytes, number) = rest.split_at_checked(GROUP_BYTES)?;
            let number = u64::from_be_bytes(number.try_into().ok()?);
            Some(StateKey { kind, group: Some(group(group_bytes)?), number: Some(number) })
        }
    }
}

/// Adds to `batch` the deletion of everything stored for `group`, its manifest record included.
///
/// In one batch, hence all or nothing: no start can find a replica with half of its data.
pub fn delete_group(batch: &mut WriteBatch, group: GroupId) {
    for (space, range) in ranges_of_group(group) {
        batch.delete_range(space, range);
    }
}

/// Every range that can hold keys of `group`.
pub fn ranges_of_group(group: GroupId) -> Vec<(Space, KeyRange)> {
    let mut ranges = vec![(Space::Log, log(group))];
    for kind in KeyKind::ALL {
        if kind.shape() != Shape::Node {
            ranges.push((Space::State, all_of(kind, group)));
        }
    }
    ranges
}

fn of_node(kind: KeyKind) -> Bytes {
    Bytes::copy_from_slice(&[kind.number()])
}

fn of_group(kind: KeyKind, group: GroupId) -> Bytes {
    let mut key = BytesMut::with_capacity(KIND_BYTES + GROUP_BYTES);
    key.put_u8(kind.number());
    key.put_u32(group.0);
    key.freeze()
}

fn of_number(kind: KeyKind, group: GroupId, number: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(KIND_BYTES + GROUP_BYTES + NUMBER_BYTES);
    key.put_u8(kind.number());
    key.put_u32(group.0);
    key.put_u64(number);
    key.freeze()
}

/// All keys of `kind` and `group`, whatever their shape.
fn all_of(kind: KeyKind, group: GroupId) -> KeyRange {
    match kind.shape() {
        Shape::Node => KeyRange::of_keys(of_node(kind), &of_node(kind)),
        Shape::Group => KeyRange::of_keys(of_group(kind, group), &of_group(kind, group)),
        Shape::GroupAndNumber => numbers(kind, group, 0, u64::MAX),
    }
}

/// Keys of `kind` and `group` with numbers from `first` to `last`, both inclusive.
fn numbers(kind: KeyKind, group: GroupId, first: u64, last: u64) -> KeyRange {
    KeyRange::of_keys(of_number(kind, group, first), &of_number(kind, group, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/formats/storage-keys.md");

    fn key_of(kind: KeyKind, group: GroupId, number: u64) -> Bytes {
        match kind.shape() {
            Shape::Node => of_node(kind),
            Shape::Group => of_group(kind, group),
            Shape::GroupAndNumber => of_number(kind, group, number),
        }
    }

    proptest! {
        #[test]
        fn a_log_key_reads_back(group: u32, index: u64) {
            let key = log_entry(GroupId(group), index);
            prop_assert_eq!(parse_log_entry(&key), Some((GroupId(group), index)));
        }

        #[test]
        fn log_keys_are_ordered_as_group_then_index(a: (u32, u64), b: (u32, u64)) {
            let key = |(group, index)| log_entry(GroupId(group), index);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn a_state_key_reads_back(kind in 0..KeyKind::ALL.len(), group: u32, number: u64) {
            let kind = KeyKind::ALL[kind];
            let key = key_of(kind, GroupId(group), number);
            let parsed = parse_state(&key).expect("made above");
            prop_assert_eq!(parsed.kind, kind);
            prop_assert_eq!(parsed.group.unwrap_or(GroupId(group)), GroupId(group));
            prop_assert_eq!(parsed.number.unwrap_or(number), number);
            prop_assert_eq!(key_of(kind, GroupId(group), number), key);
        }

        #[test]
        fn foreign_keys_never_panic(key in prop::collection::vec(any::<u8>(), 0..20)) {
            let _ = parse_log_entry(&key);
            let _ = parse_state(&key);
        }

        #[test]
        fn the_ranges_of_a_group_hold_its_keys_and_no_other(
            kind in 0..KeyKind::ALL.len(), group: u32, other: u32, number: u64,
        ) {
            let kind = KeyKind::ALL[kind];
            prop_assume!(kind.shape() != Shape::Node);
            let ranges = ranges_of_group(GroupId(group));
            let holds = |key: &[u8], space| {
                ranges.iter().any(|(of, range)| *of == space && range.contains(key))
            };
            prop_assert!(holds(&key_of(kind, GroupId(group), number), Space::State));
            prop_assert!(holds(&log_entry(GroupId(group), number), Space::Log));
            if other != group {
                prop_assert!(!holds(&key_of(kind, GroupId(other), number), Space::State));
                prop_assert!(!holds(&log_entry(GroupId(other), number), Space::Log));
            }
        }
    }

    #[test]
    fn the_last_group_and_the_last_number_have_an_end_too() {
        let last = GroupId(u32::MAX);
        assert!(log(last).contains(&log_entry(last, u64::MAX)));
        assert!(replicas().contains(&replica(last)));
        assert!(!replicas().contains(&of_node(KeyKind::NodeIdentity)));
        assert!(!indexes(GroupId(3)).contains(&index(GroupId(4), 0)));
    }

    #[test]
    fn ranges_are_inclusive_where_their_name_says_through() {
        let group = GroupId(3);
        assert!(log_through(group, 9).contains(&log_entry(group, 9)));
        assert!(!log_through(group, 9).contains(&log_entry(group, 10)));
        assert!(log_from(group, 9).contains(&log_entry(group, 9)));
        assert!(!log_entries(group, 4, 9).contains(&log_entry(group, 9)));
        assert!(log_entries(group, 9, 9).is_empty());
        assert!(indexes_through(group, 5).contains(&index(group, 5)));
        assert!(!rungs_through(group, 5).contains(&rung(group, 6)));
    }

    #[test]
    fn node_keys_belong_to_no_group() {
        for kind in [KeyKind::NodeIdentity, KeyKind::StoreFormat] {
            let key = of_node(kind);
            for group in [0, u32::from(kind.number()), u32::MAX] {
                let ranges = ranges_of_group(GroupId(group));
                assert!(ranges.iter().all(|(_, range)| !range.contains(&key)), "group {group}");
            }
        }
    }

    /// The bytes in the page after `name`, written as hex pairs in backquotes.
    fn bytes_on_page(name: &str) -> Vec<u8> {
        let (_, after) = PAGE.split_once(&format!("| {name} | `")).expect("the page has the row");
        let (hex, _) = after.split_once('`').expect("the backquote is closed");
        let byte = |pair| u8::from_str_radix(pair, 16).expect("a hex pair");
        hex.split_whitespace().map(byte).collect()
    }

    #[test]
    fn the_examples_of_the_page_decode_to_what_it_says() {
        let group = GroupId(1000);
        let entry_key = bytes_on_page("key of an entry");
        assert_eq!(parse_log_entry(&entry_key), Some((group, 7)));
        let value = bytes_on_page("value of that entry");
        let entry = super::super::entry::decode(group, 7, value.into()).expect("undamaged");
        assert_eq!((entry.term, entry.payload.as_ref()), (2, b"knot".as_slice()));

        let index_key = bytes_on_page("key of an index entry");
        let parsed = StateKey { kind: KeyKind::Index, group: Some(group), number: Some(300) };
        assert_eq!(parse_state(&index_key), Some(parsed));

        let vote_key = bytes_on_page("key of a vote");
        assert_eq!(vote(group), vote_key);
        let vote =
            super::super::sealed::open(&vote_key, bytes_on_page("value of that vote").into())
                .expect("undamaged");
        assert_eq!((vote.version, vote.body.as_ref()), (1, [0, 0, 0, 2].as_slice()));
    }

    #[test]
    fn the_page_lists_every_kind_with_its_number() {
        for kind in KeyKind::ALL {
            let row = format!("| {} | {kind:?} |", kind.number());
            assert!(PAGE.contains(&row), "docs/formats/storage-keys.md lacks `{row}`");
        }
    }
}
