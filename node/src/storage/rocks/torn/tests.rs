//! Which logs are cut off at their last record, and which are not opened.

use std::io::{Seek, SeekFrom, Write as _};
use std::ops::Range;

use proptest::prelude::*;

use super::super::tests::{
    GROUP, append, directory, entry, files, flip_bit, is_damaged, open, opened, read,
};
use super::*;
use crate::storage::Durability;

/// Long enough for seven blocks.
const LONG: usize = 200_000;

/// Eight synced entries and a last one of `size` bytes. Answers where the last record lies.
fn written(directory: &Path, size: usize, last: Durability) -> (PathBuf, Range<u64>) {
    let engine = opened(directory);
    (1..=8).for_each(|index| append(&engine, GROUP, index, 1000, Durability::Synced));
    let log = files(directory, "log").pop().expect("there is a write-ahead log");
    let length = || fs::metadata(&log).expect("exists").len();
    let start = length();
    append(&engine, GROUP, 9, size, last);
    let last = start..length();
    drop(engine);
    (log, last)
}

fn zero(log: &Path, part: Range<u64>) {
    let mut file = OpenOptions::new().write(true).open(log).expect("exists");
    file.seek(SeekFrom::Start(part.start)).expect("seekable");
    let zeros = vec![0; usize::try_from(part.end - part.start).expect("small")];
    file.write_all(&zeros).expect("writable");
}

/// `numerator` to `numerator + 1` parts of `of`.
fn part(last: &Range<u64>, numerator: u64, of: u64) -> Range<u64> {
    let length = last.end - last.start;
    last.start + length * numerator / of..last.start + length * (numerator + 1) / of
}

#[test]
fn a_torn_record_that_was_never_synced_is_cut_off_and_all_that_was_synced_is_kept() {
    for (numerator, of) in [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2), (0, 1), (3, 7)] {
        let directory = directory();
        let (log, last) = written(directory.path(), LONG, Durability::Buffered);
        zero(&log, part(&last, numerator, of));
        let engine = opened(directory.path());
        for index in 1..=8 {
            assert_eq!(read(&engine, GROUP, index), Ok(Some(entry(index, 1000))));
        }
        assert_eq!(read(&engine, GROUP, 9), Ok(None), "part {numerator} of {of}");
        append(&engine, GROUP, 9, 500, Durability::Synced);
        drop(engine);
        assert_eq!(read(&opened(directory.path()), GROUP, 9), Ok(Some(entry(9, 500))));
    }
}

#[test]
fn one_lost_sector_in_the_middle_of_a_long_record_is_enough() {
    let directory = directory();
    let (log, last) = written(directory.path(), LONG, Durability::Buffered);
    let sector = (last.start + 100_000) / 512 * 512;
    zero(&log, sector..sector + 512);
    let engine = opened(directory.path());
    assert_eq!(read(&engine, GROUP, 9), Ok(None));
    assert_eq!(files(directory.path(), "torn").len(), 1, "it is set aside");
}

#[test]
fn a_synced_record_that_lost_sectors_is_damage() {
    for (numerator, of) in [(0, 3), (1, 3), (1, 2), (0, 1)] {
        let directory = directory();
        let (log, last) = written(directory.path(), LONG, Durability::Synced);
        zero(&log, part(&last, numerator, of));
        assert!(is_damaged(&open(directory.path())), "part {numerator} of {of}");
    }
}

#[test]
fn without_the_note_of_what_was_synced_nothing_is_cut_off() {
    for note in [None, Some(b"garbage".as_slice())] {
        let directory = directory();
        let (log, last) = written(directory.path(), LONG, Durability::Buffered);
        zero(&log, part(&last, 1, 3));
        let path = directory.path().join(NOTE_FILE);
        match note {
            None => fs::remove_file(path).expect("exists"),
            Some(garbage) => fs::write(path, garbage).expect("writable"),
        }
        assert!(is_damaged(&open(directory.path())));
    }
}

#[test]
fn an_un_synced_record_with_a_whole_one_behind_it_is_not_cut_off() {
    let directory = directory();
    let engine = opened(directory.path());
    (1..=8).for_each(|index| append(&engine, GROUP, index, 1000, Durability::Synced));
    let log = files(directory.path(), "log").pop().expect("there is a write-ahead log");
    let start = fs::metadata(&log).expect("exists").len();
    append(&engine, GROUP, 9, 40_000, Durability::Buffered);
    let end = fs::metadata(&log).expect("exists").len();
    // What is behind it may have been synced together with it.
    append(&engine, GROUP, 10, 100, Durability::Buffered);
    drop(engine);
    zero(&log, start + 600..end - 600);
    assert!(is_damaged(&open(directory.path())));
}

#[test]
fn a_flipped_bit_is_not_a_torn_write() {
    let directory = directory();
    let (log, last) = written(directory.path(), LONG, Durability::Buffered);
    let length = fs::metadata(&log).expect("exists").len();
    flip_bit(&log, last.start + 70_000, length);
    assert!(is_damaged(&open(directory.path())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_sectors_are_lost_no_synced_entry_is(
        size in prop_oneof![20..2_000_usize, 2_000..120_000_usize],
        lost in prop::collection::vec(0..300_u64, 1..6),
        synced in any::<bool>(),
    ) {
        let directory = directory();
        let last = if synced { Durability::Synced } else { Durability::Buffered };
        let (log, end) = written(directory.path(), size, last);
        let sectors = end.start / 512..end.end.div_ceil(512);
        for sector in lost {
            let sector = sectors.start + sector % (sectors.end - sectors.start);
            // A sector that holds the end of an older record is written as a whole.
            zero(&log, (sector * 512).max(end.start)..(sector * 512 + 512).min(end.end));
        }
        match open(directory.path()) {
            Err(refused) => prop_assert!(is_damaged::<()>(&Err(refused))),
            Ok(engine) => {
                for index in 1..=8 {
                    prop_assert_eq!(read(&engine, GROUP, index), Ok(Some(entry(index, 1000))));
                }
                let last = read(&engine, GROUP, 9);
                let whole = Ok(Some(entry(9, size)));
                prop_assert!(last == whole || !synced && last == Ok(None));
            }
        }
    }
}
