//! One script, both engines: what the simulator's store promises is what the real one does.
//!
//! A simulation proves something about a node only as far as [`MemoryEngine`] behaves like
//! [`RocksEngine`]. Each test here runs on both. What only the simulated one can do (power cuts)
//! is in `log_writer_cuts.rs`, what only the real one does (files) beside its code.

use bytes::Bytes;
use node::storage::memory::MemoryEngine;
use node::storage::rocks::{RocksEngine, RocksOptions};
use node::storage::{Durability, Engine, KeyRange, ScanLimit, Space, WriteBatch, keys};
use node_core::ids::GroupId;
use proptest::prelude::*;

/// A store that can be closed and opened again, as by the end of a process.
trait World {
    fn open(&self) -> Box<dyn Engine>;
}

struct Memory(MemoryEngine);

struct Rocks(tempfile::TempDir);

impl World for Memory {
    fn open(&self) -> Box<dyn Engine> {
        self.0.restart_process();
        Box::new(self.0.clone())
    }
}

impl World for Rocks {
    fn open(&self) -> Box<dyn Engine> {
        Box::new(RocksEngine::open(self.0.path(), RocksOptions::default()).expect("opens"))
    }
}

fn on_both(script: impl Fn(&dyn World)) {
    script(&Memory(MemoryEngine::new()));
    script(&Rocks(tempfile::tempdir().expect("a temporary directory")));
}

const GROUP: GroupId = GroupId(7);
const NEIGHBOURS: [GroupId; 2] = [GroupId(6), GroupId(8)];
const EVERYTHING: ScanLimit = ScanLimit::new(usize::MAX, usize::MAX);

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn range(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange { start: value(start), end: value(end) }
}

fn write(engine: &dyn Engine, durability: Durability, fill: impl FnOnce(&mut WriteBatch)) {
    let mut batch = WriteBatch::new();
    fill(&mut batch);
    engine.write(batch, durability).expect("the disk is sound");
}

fn indexes_in(engine: &dyn Engine, range: &KeyRange, limit: ScanLimit) -> Vec<u64> {
    let pairs = engine.scan(Space::Log, range, limit).expect("undamaged");
    pairs.iter().map(|(key, _)| keys::parse_log_entry(key).expect("a log key").1).collect()
}

/// Entries 1 to 9 of the group and of the groups beside it.
fn fill_three_logs(engine: &dyn Engine) {
    write(engine, Durability::Synced, |batch| {
        for group in [NEIGHBOURS[0], GROUP, NEIGHBOURS[1]] {
            for index in 1..=9 {
                batch.put(Space::Log, keys::log_entry(group, index), value("entry"));
            }
        }
    });
}

#[test]
fn a_value_is_read_as_it_was_last_written() {
    on_both(|world| {
        let engine = world.open();
        let key = value("key");
        assert_eq!(engine.get(Space::State, &key), Ok(None));
        write(&*engine, Durability::Buffered, |batch| {
            batch.put(Space::State, key.clone(), value("old"));
            batch.put(Space::State, key.clone(), value(""));
        });
        assert_eq!(engine.get(Space::State, &key), Ok(Some(value(""))), "empty is not missing");
        assert_eq!(engine.get(Space::Log, &key), Ok(None), "spaces are apart");
        write(&*engine, Durability::Buffered, |batch| batch.delete(Space::State, key.clone()));
        assert_eq!(engine.get(Space::State, &key), Ok(None));
        write(&*engine, Durability::Buffered, |batch| batch.delete(Space::State, key.clone()));
    });
}

#[test]
fn small_and_large_values_come_back_whole() {
    on_both(|world| {
        let engine = world.open();
        let sizes = [0, 1, 511, 512, 513, 100_000, 5_000_000];
        write(&*engine, Durability::Synced, |batch| {
            for (index, size) in (1..).zip(sizes) {
                let entry = Bytes::from(vec![7; size]);
                batch.put(Space::Log, keys::log_entry(GROUP, index), entry);
            }
        });
        drop(engine);
        let engine = world.open();
        for (index, size) in (1..).zip(sizes) {
            let found = engine.get(Space::Log, &keys::log_entry(GROUP, index));
            assert_eq!(found.expect("undamaged").expect("written").len(), size);
        }
    });
}

#[test]
fn a_scan_is_ascending_and_half_open() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        let part = keys::log_entries(GROUP, 3, 6);
        assert_eq!(indexes_in(&*engine, &part, EVERYTHING), [3, 4, 5]);
        let nothing = keys::log_entries(GROUP, 6, 6);
        assert!(indexes_in(&*engine, &nothing, EVERYTHING).is_empty());
        let backwards = keys::log_entries(GROUP, 6, 3);
        assert!(indexes_in(&*engine, &backwards, EVERYTHING).is_empty());
        assert_eq!(engine.last_before(Space::Log, &backwards), Ok(None));
    });
}

#[test]
fn a_scan_stops_at_its_limits_but_not_before_the_first_pair() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        let log = keys::log(GROUP);
        let pair_bytes = 12 + "entry".len();
        assert_eq!(indexes_in(&*engine, &log, ScanLimit::items(4)), [1, 2, 3, 4]);
        assert_eq!(indexes_in(&*engine, &log, ScanLimit::bytes(3 * pair_bytes)), [1, 2, 3]);
        assert_eq!(indexes_in(&*engine, &log, ScanLimit::bytes(4 * pair_bytes - 1)), [1, 2, 3]);
        assert_eq!(indexes_in(&*engine, &log, ScanLimit::bytes(0)), [1]);
        assert_eq!(indexes_in(&*engine, &log, ScanLimit::items(0)), [1]);
    });
}

#[test]
fn no_read_and_no_deletion_crosses_into_another_group() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        let all: Vec<u64> = (1..=9).collect();
        assert_eq!(indexes_in(&*engine, &keys::log(GROUP), EVERYTHING), all);
        assert_eq!(indexes_in(&*engine, &keys::log_from(GROUP, 7), EVERYTHING), [7, 8, 9]);
        assert!(indexes_in(&*engine, &keys::log_from(GROUP, 10), EVERYTHING).is_empty());
        let beyond = engine.last_before(Space::Log, &keys::log_from(GROUP, 10));
        assert_eq!(beyond, Ok(None), "the neighbour's entries are not this group's");

        write(&*engine, Durability::Synced, |batch| keys::delete_group(batch, GROUP));

        assert!(indexes_in(&*engine, &keys::log(GROUP), EVERYTHING).is_empty());
        for neighbour in NEIGHBOURS {
            assert_eq!(indexes_in(&*engine, &keys::log(neighbour), EVERYTHING), all);
        }
    });
}

#[test]
fn the_greatest_key_of_a_range_is_found() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        let last = |range: &KeyRange| {
            let found = engine.last_before(Space::Log, range).expect("undamaged");
            found.map(|(key, _)| keys::parse_log_entry(&key).expect("a log key").1)
        };
        assert_eq!(last(&keys::log(GROUP)), Some(9));
        assert_eq!(last(&keys::log_entries(GROUP, 1, 5)), Some(4), "the end is not in it");
        assert_eq!(last(&keys::log_through(GROUP, 5)), Some(5));
        write(&*engine, Durability::Buffered, |batch| {
            batch.delete_range(Space::Log, keys::log_from(GROUP, 4));
        });
        assert_eq!(last(&keys::log(GROUP)), Some(3));
        assert_eq!(last(&keys::log(GroupId(9))), None);
    });
}

#[test]
fn changes_of_one_batch_take_effect_in_order() {
    on_both(|world| {
        let engine = world.open();
        write(&*engine, Durability::Synced, |batch| {
            batch.put(Space::State, value("a"), value("deleted"));
            batch.put(Space::State, value("b"), value("kept"));
            batch.delete_range(Space::State, range("a", "b"));
            batch.put(Space::State, value("a"), value("written again"));
            batch.put(Space::State, value("c"), value("deleted"));
            batch.delete(Space::State, value("c"));
        });
        assert_eq!(engine.get(Space::State, b"a"), Ok(Some(value("written again"))));
        assert_eq!(engine.get(Space::State, b"b"), Ok(Some(value("kept"))));
        assert_eq!(engine.get(Space::State, b"c"), Ok(None));
    });
}

#[test]
fn truncating_and_writing_the_same_indexes_again_leaves_the_new_entries() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        write(&*engine, Durability::Synced, |batch| {
            batch.delete_range(Space::Log, keys::log_from(GROUP, 5));
            batch.put(Space::Log, keys::log_entry(GROUP, 5), value("new"));
        });
        let found = engine.scan(Space::Log, &keys::log_from(GROUP, 4), EVERYTHING);
        let expected = [
            (keys::log_entry(GROUP, 4), value("entry")),
            (keys::log_entry(GROUP, 5), value("new")),
        ];
        assert_eq!(found.expect("undamaged"), expected);
    });
}

#[test]
fn what_was_written_is_there_after_reopening_synced_or_not() {
    on_both(|world| {
        let engine = world.open();
        fill_three_logs(&*engine);
        write(&*engine, Durability::Buffered, |batch| {
            batch.delete_range(Space::Log, keys::log_through(GROUP, 4));
            batch.put(Space::State, keys::vote(GROUP), value("vote"));
        });
        engine.write(WriteBatch::new(), Durability::Synced).expect("syncs what came before");
        drop(engine);

        let engine = world.open();
        assert_eq!(indexes_in(&*engine, &keys::log(GROUP), EVERYTHING), [5, 6, 7, 8, 9]);
        assert_eq!(engine.get(Space::State, &keys::vote(GROUP)), Ok(Some(value("vote"))));
    });
}

#[test]
fn a_process_that_ends_loses_nothing_that_was_written() {
    on_both(|world| {
        let engine = world.open();
        write(&*engine, Durability::Buffered, |batch| {
            batch.put(Space::State, keys::vote(GROUP), value("never synced"));
        });
        drop(engine);
        let engine = world.open();
        assert_eq!(engine.get(Space::State, &keys::vote(GROUP)), Ok(Some(value("never synced"))));
    });
}

#[test]
fn an_empty_batch_changes_nothing_and_succeeds() {
    on_both(|world| {
        let engine = world.open();
        for durability in [Durability::Buffered, Durability::Synced] {
            assert_eq!(engine.write(WriteBatch::new(), durability), Ok(()));
        }
        assert!(indexes_in(&*engine, &keys::log(GROUP), EVERYTHING).is_empty());
    });
}

#[test]
fn a_store_says_what_it_uses() {
    on_both(|world| {
        let engine = world.open();
        let before = engine.bytes_used().expect("known");
        write(&*engine, Durability::Synced, |batch| {
            let entry = Bytes::from(vec![7; 1 << 20]);
            batch.put(Space::Log, keys::log_entry(GROUP, 1), entry);
        });
        assert!(engine.bytes_used().expect("known") >= before + (1 << 20));
        assert!(engine.space_left().is_ok());
    });
}

/// A change drawn at random, over few keys so that changes meet.
#[derive(Debug, Clone)]
enum Change {
    Put { space: Space, group: u8, index: u8, size: u16 },
    Delete { space: Space, group: u8, index: u8 },
    DeleteFrom { group: u8, index: u8 },
    DeleteThrough { group: u8, index: u8 },
}

fn any_change() -> impl Strategy<Value = Change> {
    let space = prop_oneof![Just(Space::Log), Just(Space::State)];
    let place = (space, 0..3_u8, 0..8_u8);
    prop_oneof![
        4 => (place.clone(), 0..1000_u16)
            .prop_map(|((space, group, index), size)| Change::Put { space, group, index, size }),
        2 => place.prop_map(|(space, group, index)| Change::Delete { space, group, index }),
        1 => (0..3_u8, 0..8_u8).prop_map(|(group, index)| Change::DeleteFrom { group, index }),
        1 => (0..3_u8, 0..8_u8).prop_map(|(group, index)| Change::DeleteThrough { group, index }),
    ]
}

fn batch_of(changes: &[Change]) -> WriteBatch {
    let group_id = |group: u8| GroupId(group.into());
    let key_of = |space, group, index: u8| match space {
        Space::Log => keys::log_entry(group_id(group), index.into()),
        Space::State => keys::index(group_id(group), index.into()),
    };
    let mut batch = WriteBatch::new();
    for change in changes {
        match *change {
            Change::Put { space, group, index, size } => {
                let value = Bytes::from(vec![index; size.into()]);
                batch.put(space, key_of(space, group, index), value);
            }
            Change::Delete { space, group, index } => {
                batch.delete(space, key_of(space, group, index));
            }
            Change::DeleteFrom { group, index } => {
                batch.delete_range(Space::Log, keys::log_from(group_id(group), index.into()));
            }
            Change::DeleteThrough { group, index } => {
                batch.delete_range(Space::Log, keys::log_through(group_id(group), index.into()));
            }
        }
    }
    batch
}

fn contents(engine: &dyn Engine) -> Vec<Vec<(Bytes, Bytes)>> {
    let everything = KeyRange { start: Bytes::new(), end: Bytes::from_static(&[0xff; 16]) };
    [Space::Log, Space::State]
        .map(|space| engine.scan(space, &everything, EVERYTHING).expect("undamaged"))
        .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_batches_leaves_both_engines_equal(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 1..12), 1..12),
        reopen_after in 0..12_usize,
    ) {
        let memory = Memory(MemoryEngine::new());
        let rocks = Rocks(tempfile::tempdir().expect("a temporary directory"));
        let mut engines = [memory.open(), rocks.open()];
        for (number, changes) in batches.iter().enumerate() {
            for engine in &engines {
                let written = engine.write(batch_of(changes), Durability::Buffered);
                written.expect("the disk is sound");
            }
            if number == reopen_after {
                drop(engines);
                engines = [memory.open(), rocks.open()];
            }
            prop_assert_eq!(contents(&*engines[0]), contents(&*engines[1]));
        }
    }
}
