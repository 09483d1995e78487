//! What each release wrote is read by this build, and written again to the very same bytes.
//!
//! `tests/golden/RELEASE/KIND/NAME.hex` holds the bytes of one command, outcome, snapshot or row.
//! Files of a release are never changed: they are what stands on somebody's disk. Each kind of
//! command and outcome that this build reads must have one, so that a new kind brings its bytes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use node_core::codec::DecodeError;
use node_core::groups::{GroupCommand, GroupTable};
use node_core::metadata::{MetadataCommand, MetadataOutcome, MetadataState};
use node_core::partition::{IndexRecord, LogCommand, PartitionState};

/// Reads bytes and writes them again.
type Again = fn(Bytes) -> Result<Bytes, DecodeError>;

const AGAIN: [(&str, Again); 7] = [
    ("log-command", |bytes| LogCommand::decode(bytes).map(|it| it.encode())),
    ("group-command", |bytes| GroupCommand::decode(bytes).map(|it| it.encode())),
    ("metadata-command", |bytes| MetadataCommand::decode(bytes).map(|it| it.encode())),
    ("metadata-outcome", |bytes| MetadataOutcome::decode(bytes).map(|it| it.encode())),
    ("index-record", |bytes| IndexRecord::decode(bytes).map(|it| it.encode())),
    ("group-snapshot", |bytes| GroupTable::decode_snapshot(bytes).map(|it| it.encode_snapshot())),
    ("metadata-snapshot", |bytes| {
        MetadataState::decode_snapshot(bytes).map(|it| it.encode_snapshot())
    }),
];

/// Rows that are read together, and a checkpoint, which is written by apply alone.
const OTHERS: [&str; 4] = ["head", "ladder", "producer", "checkpoint"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn bytes_of(path: &Path) -> Bytes {
    let text = fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The files of one kind of value, of all releases.
fn golden(kind: &str) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    for release in entries(&root()) {
        let folder = release.join(kind);
        if folder.is_dir() {
            for file in entries(&folder) {
                let name = format!("{}/{kind}/{}", name_of(&release), name_of(&file));
                found.push((name, bytes_of(&file)));
            }
        }
    }
    assert!(!found.is_empty(), "there is no golden {kind}");
    found
}

#[test]
fn every_golden_file_is_read_and_written_again_to_the_same_bytes() {
    for (kind, again) in AGAIN {
        for (name, bytes) in golden(kind) {
            assert_eq!(again(bytes.clone()), Ok(bytes), "{name}");
        }
    }
}

#[test]
fn golden_rows_of_a_partition_make_it_again() {
    let one = |kind: &str| golden(kind).into_iter().next().unwrap().1;
    let state = PartitionState::restore(one("head"), one("ladder"), [one("producer")]).unwrap();
    assert_eq!((state.encode_head(), state.encode_ladder()), (one("head"), one("ladder")));
    let producer = state.encode_producer(node_core::ids::ProducerId(7));
    assert_eq!(producer, Some(one("producer")));
    for (name, bytes) in golden("checkpoint") {
        assert!(PartitionState::from_checkpoint(bytes).is_ok(), "{name}");
    }
}

#[test]
fn no_golden_file_is_left_out() {
    let known: BTreeSet<&str> = AGAIN.iter().map(|(kind, _)| *kind).chain(OTHERS).collect();
    for release in entries(&root()) {
        for folder in entries(&release) {
            assert!(known.contains(name_of(&folder).as_str()), "{}", folder.display());
        }
    }
}

/// A kind is one that this build reads if two bytes of it are too few rather than unknown.
fn kinds_read(again: Again) -> BTreeSet<u8> {
    let unknown = |kind: &u8| {
        let answer = again(Bytes::copy_from_slice(&[1, *kind]));
        matches!(answer, Err(DecodeError::UnknownKind { .. }))
    };
    (0..=u8::MAX).filter(|kind| !unknown(kind)).collect()
}

#[test]
fn every_kind_of_command_and_outcome_has_a_golden_file() {
    for (what, again) in AGAIN.into_iter().take(4) {
        let mut files: BTreeMap<u8, String> = BTreeMap::new();
        for (name, bytes) in golden(what) {
            files.insert(bytes[1], name);
        }
        let kinds = kinds_read(again);
        assert!(kinds.len() > 1, "{what} has kinds");
        for kind in kinds {
            assert!(
                files.contains_key(&kind),
                "{what} {kind} has no file: add tests/golden/RELEASE/{what}/NAME.hex with its bytes"
            );
        }
    }
}
