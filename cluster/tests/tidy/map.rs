//! The map, docs/ARCHITECTURE.md, names only paths that exist.
//!
//! A map that names a folder of last year sends its reader astray and is believed for long. A path
//! may be shortened on the page (`raft/mod.rs`) as long as some file ends so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{repository_files, repository_root};

const PAGE: &str = "docs/ARCHITECTURE.md";

/// What a word with one of these endings and a slash names is a file.
const FILE_ENDINGS: [&str; 8] =
    [".rs", ".md", ".proto", ".toml", ".sh", ".txt", ".yaml", ".service"];

#[test]
fn the_architecture_page_names_only_paths_that_exist() {
    let Ok(text) = fs::read_to_string(repository_root().join(PAGE)) else {
        return;
    };
    let missing = missing_paths(&text, &known_paths(&repository_files()));
    assert!(missing.is_empty(), "stale paths:\n{}", missing.join("\n"));
}

/// Each path in backticks that is neither a known path nor the end of one. Blocks of code are
/// drawings and are left alone.
fn missing_paths(text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut in_code = false;
    for (number, line) in super::numbered(text) {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            for path in expand_braces(quoted).iter().filter(|path| looks_like_a_path(path, known)) {
                let path = path.trim_end_matches('/');
                let end = format!("/{path}");
                if !known.contains(path) && !known.iter().any(|known| known.ends_with(&end)) {
                    missing.push(format!("{PAGE}:{number}: `{path}` does not exist"));
                }
            }
        }
    }
    missing
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`; a text without braces as itself.
fn expand_braces(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else {
        return vec![text.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![text.to_owned()];
    };
    inside.split(',').map(|part| format!("{before}{}{after}", part.trim())).collect()
}

/// A file by its ending, a folder by its slash, or anything below a folder of the root.
fn looks_like_a_path(text: &str, known: &BTreeSet<String>) -> bool {
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
        return false;
    }
    let Some((first, _)) = text.split_once('/') else {
        return text.ends_with(".rs");
    };
    let named = text.ends_with('/') || FILE_ENDINGS.iter().any(|ending| text.ends_with(ending));
    !first.is_empty() && (named || known.contains(first))
}

/// All files and all folders that hold one.
fn known_paths(files: &[String]) -> BTreeSet<String> {
    files
        .iter()
        .flat_map(|file| Path::new(file).ancestors())
        .map(|path| path.display().to_string())
        .filter(|path| !path.is_empty())
        .collect()
}

#[test]
fn a_stale_path_is_reported_with_its_line() {
    let files = ["node/src/raft/mod.rs", "docs/errors.md"].map(str::to_owned);
    let page = "Text `raft/mod.rs`, `node/src/`, `and/or`.\n`node/src/raft/{mod,old}.rs`\n";
    let report = format!("{PAGE}:2: `node/src/raft/old.rs` does not exist");
    assert_eq!(missing_paths(page, &known_paths(&files)), [report]);
}

#[test]
fn a_drawing_may_name_what_does_not_exist() {
    let page = "```\n`old.rs`\n```\n";
    assert_eq!(missing_paths(page, &BTreeSet::new()), [""; 0]);
}
