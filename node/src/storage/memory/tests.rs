//! What the simulated disk keeps, loses and tells.

use super::*;
use crate::storage::{keys, sealed};
use node_core::ids::GroupId;

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

/// A disk with synced "a" and then un-synced "b" = 1, "c" = 2.
fn two_pending() -> MemoryEngine {
    let engine = MemoryEngine::new();
    engine.write(put(b"a", b"synced"), Durability::Synced).expect("memory");
    engine.write(put(b"b", b"1"), Durability::Buffered).expect("memory");
    engine.write(put(b"c", b"2"), Durability::Buffered).expect("memory");
    engine
}

fn does_not_open(engine: &MemoryEngine) -> bool {
    let read = engine.get(Space::State, b"a").map(drop);
    let write = engine.write(put(b"z", b"z"), Durability::Buffered);
    [read, write].iter().all(|done| {
        let advice = |advice: &str| advice.contains("count this disk as lost");
        matches!(done, Err(StorageError::Damaged { advice: it, .. }) if advice(it))
    })
}

fn effects(engine: &MemoryEngine, kind: FaultKind) -> Effects {
    engine.effects().get(&kind).copied().unwrap_or_default()
}

#[test]
fn a_later_record_without_an_earlier_one_is_a_store_that_does_not_open() {
    let engine = two_pending();
    engine.cut(PowerCut { keep_batches: 0, tear: Tear::Hole });
    assert!(does_not_open(&engine));
    assert_eq!(effects(&engine, FaultKind::HoleAtCut).detected, 1);
    engine.wipe();
    assert_eq!(read(&engine, b"a"), None, "an empty disk opens");
}

#[test]
fn without_un_synced_records_there_is_nothing_to_tear() {
    for tear in [Tear::Hole, Tear::HalfRecord, Tear::UnseenHole] {
        let engine = two_pending();
        engine.write(WriteBatch::new(), Durability::Synced).expect("memory");
        assert_eq!(engine.cut(PowerCut { keep_batches: 0, tear }), 0);
        assert_eq!(read(&engine, b"c").as_deref(), Some(b"2".as_slice()));
    }
}

#[test]
fn half_a_record_is_what_only_a_broken_log_leaves() {
    let engine = MemoryEngine::new();
    let mut batch = put(b"a", b"1");
    batch.append(put(b"b", b"2"));
    engine.write(batch, Durability::Buffered).expect("memory");
    engine.cut(PowerCut { keep_batches: 0, tear: Tear::HalfRecord });
    assert!(read(&engine, b"a").is_some() && read(&engine, b"b").is_none());
}

#[test]
fn a_lost_write_before_a_kept_one_is_found_and_a_lost_end_is_not() {
    for synced_behind in [true, false] {
        let engine = MemoryEngine::new();
        engine.write(put(b"a", b"1"), Durability::Synced).expect("memory");
        engine.lose_next_syncs(1);
        engine.write(put(b"a", b"2"), Durability::Synced).expect("so it was told");
        if synced_behind {
            engine.write(put(b"b", b"3"), Durability::Synced).expect("memory");
        }
        assert_eq!(read(&engine, b"a").as_deref(), Some(b"2".as_slice()), "still in memory");

        assert_eq!(engine.power_cut(0), 1);

        assert_eq!(does_not_open(&engine), synced_behind);
        let detected = u64::from(synced_behind);
        let lost = Effects { injected: 1, met: 1, detected, ..Effects::default() };
        assert_eq!(effects(&engine, FaultKind::LostWrite), lost);
        if !synced_behind {
            assert_eq!(read(&engine, b"a").as_deref(), Some(b"1".as_slice()), "an older state");
        }
    }
}

#[test]
fn a_restarted_process_finds_what_was_not_synced_and_makes_it_durable() {
    let engine = two_pending();
    engine.restart_process();
    assert_eq!(engine.power_cut(0), 0);
    assert_eq!(read(&engine, b"c").as_deref(), Some(b"2".as_slice()));

    engine.write(put(b"d", b"4"), Durability::Buffered).expect("memory");
    engine.fail_next_sync(MemoryFault::Io);
    assert!(engine.write(WriteBatch::new(), Durability::Synced).is_err());
    engine.restart_process();
    assert_eq!(read(&engine, b"d"), None, "the pages of a failed sync are gone");
}

#[test]
fn a_failed_sync_leaves_nothing_of_the_un_synced_whatever_the_cut_would_keep() {
    let engine = two_pending();
    engine.fail_next_sync(MemoryFault::Io);
    assert!(engine.write(WriteBatch::new(), Durability::Synced).is_err());
    assert_eq!(engine.power_cut(2), 2);
    assert_eq!(read(&engine, b"b"), None);
}

#[test]
fn the_power_can_go_before_each_write_and_each_sync() {
    let count_done = |step| {
        let engine = MemoryEngine::new();
        engine.die_at_step(step);
        let done = [b"a", b"b"].map(|key| engine.write(put(key, b"1"), Durability::Synced).is_ok());
        (done.iter().filter(|done| **done).count(), engine.pending_batches())
    };
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)];
    for (step, expected) in (0..).zip(expected) {
        assert_eq!(count_done(step), expected, "done and pending at step {step}");
    }
}

#[test]
fn each_damage_is_counted_with_what_became_of_it() {
    let group = GroupId(7);
    let key = keys::vote(group);
    let value = sealed::seal(&key, 1, b"vote");
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    batch.put(Space::State, key.clone(), value);
    engine.write(batch.clone(), Durability::Synced).expect("memory");

    engine.damage(Space::State, &key, Damage::FlipBit { bit: 50 });
    let injected = Effects { injected: 1, ..Effects::default() };
    assert_eq!(effects(&engine, FaultKind::BitRot), injected);
    for _ in 0..2 {
        assert!(engine.get(Space::State, &key).is_ok(), "its reader checks it");
    }
    let met = Effects { met: 1, detected: 1, ..injected };
    assert_eq!(effects(&engine, FaultKind::BitRot), met, "met once however often it is read");

    engine.write(batch, Durability::Buffered).expect("memory");
    assert_eq!(effects(&engine, FaultKind::BitRot), met, "not repaired before it is durable");
    engine.write(WriteBatch::new(), Durability::Synced).expect("memory");
    assert_eq!(effects(&engine, FaultKind::BitRot), Effects { repaired: 1, ..met });

    engine.damage(Space::State, &key, Damage::Unreadable);
    engine.write(put(b"other", b"x"), Durability::Synced).expect("memory");
    let mut batch = WriteBatch::new();
    batch.delete(Space::State, key);
    engine.write(batch, Durability::Synced).expect("memory");
    let gone = Effects { injected: 1, written_over: 1, ..Effects::default() };
    assert_eq!(effects(&engine, FaultKind::Unreadable), gone);
}

#[test]
fn a_repair_that_a_power_cut_takes_back_is_no_repair() {
    let engine = MemoryEngine::new();
    engine.write(put(b"a", b"1"), Durability::Synced).expect("memory");
    engine.damage(Space::State, b"a", Damage::Unreadable);
    engine.write(put(b"a", b"1"), Durability::Buffered).expect("memory");
    assert!(read(&engine, b"a").is_some());
    engine.power_cut(0);
    assert!(engine.get(Space::State, b"a").is_err());
    assert_eq!(effects(&engine, FaultKind::Unreadable).repaired, 0);
}

#[test]
fn a_misdirected_write_is_missing_where_it_belongs_and_foreign_where_it_is() {
    let engine = MemoryEngine::new();
    engine.write(put(b"a", b"of a"), Durability::Synced).expect("memory");
    engine.write(put(b"b", b"of b"), Durability::Synced).expect("memory");
    assert!(!engine.misdirect(Space::State, b"a", b"c"));
    assert!(engine.misdirect(Space::State, b"a", b"b"));
    assert_eq!(read(&engine, b"b").as_deref(), Some(b"of a".as_slice()));
    assert!(engine.get(Space::State, b"a").is_err());
}

#[test]
fn a_failing_read_is_damage_to_whoever_reads_and_passes() {
    let engine = two_pending();
    engine.fail_next_reads(1);
    assert_eq!(engine.get(Space::State, b"missing"), Ok(None), "there is nothing to read");
    assert!(matches!(engine.get(Space::State, b"a"), Err(StorageError::Damaged { .. })));
    assert!(read(&engine, b"a").is_some());
}

#[test]
fn an_old_image_comes_back_whole() {
    let engine = two_pending();
    let old = engine.image();
    engine.write(put(b"a", b"newer"), Durability::Synced).expect("memory");
    engine.roll_back(&old);
    assert_eq!(read(&engine, b"a").as_deref(), Some(b"synced".as_slice()));
    assert_eq!(read(&engine, b"b"), None, "it was not durable then");
    assert_eq!(effects(&engine, FaultKind::RolledBack).injected, 1);
}
