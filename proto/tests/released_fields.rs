//! What a release sent can be read: its messages, fields, enums and calls are still there, under
//! the same numbers and of the same types.
//!
//! In Protocol Buffers number and type alone make the bytes of a field, so holding the definitions
//! against each other covers every message, with every value. `tests/golden/RELEASE/` has the
//! definitions of that release, as they were; they are never changed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every definition by its full name: "quipu.v1.Error.code = 1" leads to "ErrorCode".
type Definitions = BTreeMap<String, String>;

/// Reads the small part of the language that our files use.
fn definitions(text: &str) -> Definitions {
    let mut found = Definitions::new();
    let mut scope: Vec<String> = Vec::new();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    for statement in code.split_inclusive([';', '{', '}']) {
        let (body, end) = statement.trim().split_at(statement.trim().len().saturating_sub(1));
        let words: Vec<&str> = body.split_whitespace().collect();
        match (end, words.as_slice()) {
            ("{", [_, name, ..]) => scope.push((*name).to_owned()),
            ("}", _) => {
                scope.pop();
            }
            (";", ["package", name]) => scope.push((*name).to_owned()),
            (";", ["rpc", ..]) => {
                let call = words.join(" ");
                let name = call.split('(').next().unwrap().to_owned();
                found.insert(format!("{}.{name}", scope.join(".")), call);
            }
            (";", [kind @ .., name, "=", number]) if !scope.is_empty() => {
                let key = format!("{} {number}", scope.join("."));
                found.insert(key, format!("{} {name}", kind.join(" ")));
            }
            _ => {}
        }
    }
    found
}

fn protos(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}

fn all_in(folder: &Path) -> Definitions {
    let mut files = Vec::new();
    protos(folder, &mut files);
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    texts.flat_map(|text| definitions(&text)).collect()
}

#[test]
fn what_was_released_is_still_there_under_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let today = all_in(&root.join("quipu"));
    for release in fs::read_dir(root.join("tests/golden")).unwrap() {
        let release = release.unwrap().path();
        let released = all_in(&release);
        assert!(released.len() > 100, "{}: {}", release.display(), released.len());
        for (name, definition) in released {
            assert_eq!(today.get(&name), Some(&definition), "{}: {name}", release.display());
        }
    }
}

#[test]
fn a_changed_type_or_number_is_found() {
    let text = "package p; message M { // a comment; = 9
        repeated uint32 a = 1; oneof o { string b = 2; } }
        enum E { E_NONE = 0; } service S { rpc Call(stream M) returns (M); }";
    let found = definitions(text);
    assert_eq!(found["p.M 1"], "repeated uint32 a");
    assert_eq!(found["p.M.o 2"], "string b");
    assert_eq!(found["p.E 0"], " E_NONE");
    assert_eq!(found["p.S.rpc Call"], "rpc Call(stream M) returns (M)");
    assert_eq!(found.len(), 4);
}
