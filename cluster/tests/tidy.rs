//! Rules about the source itself that neither the compiler nor clippy knows.
//!
//! Sizes and headers keep a file readable, dependency homes keep openraft and RocksDB replaceable,
//! and the page checks keep the map in step with the land. They are tests, so that `cargo test`
//! alone finds what is untidy; `cargo tidy` runs only them. They live in this package because it
//! links no RocksDB and is therefore built in seconds, which is itself one of the rules.
//!
//! Not here: the length of functions and banned calls (clippy.toml), formatting (rustfmt.toml).

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/map.rs"]
mod map;
#[path = "tidy/packages.rs"]
mod packages;

/// Lines of a Rust file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Characters of a line of Rust or shell; a line with a link may be longer.
const LINE_COLUMNS_MAX: usize = 100;

/// A crate, and the only paths (prefixes) whose code may name it.
struct Home {
    /// The crate and all crates whose name begins with it and an underscore.
    dependency: &'static str,
    paths: &'static [&'static str],
}

const HOMES: [Home; 3] = [
    Home { dependency: "openraft", paths: &["node/src/raft/"] },
    Home { dependency: "rocksdb", paths: &["node/src/storage/"] },
    Home {
        dependency: "tonic",
        paths: &[
            "proto/",
            "client/",
            "cluster/",
            "jepsen-style-tests/",
            "node/src/edge/",
            "node/src/peer/",
            "node/src/env.rs",
            // Tests of the process call it from outside, as a client does.
            "node/tests/",
        ],
    },
];

/// Where a path of somebody's machine begins. Spelled in two parts, so that this file has none.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// Commands that end processes by name: on a shared machine, those of somebody else too.
const KILLS_BY_NAME: [&str; 2] = [concat!("pk", "ill"), concat!("kill", "all")];

/// This file names what it forbids.
const SELF: &str = "cluster/tests/tidy.rs";

#[test]
fn every_file_is_tidy() {
    let mut problems = Vec::new();
    for path in repository_files() {
        // What is not UTF-8 is data, and none of these rules is about data.
        if let Ok(text) = fs::read_to_string(repository_root().join(&path)) {
            check_file(&path, &text, &mut problems);
        }
    }
    assert!(problems.is_empty(), "{} untidy places:\n{}", problems.len(), problems.join("\n"));
}

fn check_file(path: &str, text: &str, problems: &mut Vec<String>) {
    let mut report = |line: usize, what: &str| problems.push(format!("{path}:{line}: {what}"));
    if path.ends_with(".md") {
        check_one_title(text, &mut report);
    }
    if path.ends_with(".rs") {
        check_header(text, &mut report);
        check_length(text, &mut report);
        check_ignored_tests(path, text, &mut report);
        check_homes(path, text, &mut report);
    }
    if is_script(path, text) {
        check_kills_by_name(text, &mut report);
    }
    if path.ends_with(".rs") || is_script(path, text) {
        check_columns(text, &mut report);
    }
    check_machine_paths(text, &mut report);
}

fn is_script(path: &str, text: &str) -> bool {
    path.ends_with(".sh") || path.ends_with("Makefile") || text.starts_with("#!/")
}

/// The lines of `text` with their numbers, counted from 1 as editors do.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn check_header(text: &str, report: &mut impl FnMut(usize, &str)) {
    let says_something = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "))
        .is_some_and(|header| header.split_whitespace().count() > 1);
    if !says_something {
        report(1, "begin with `//! ` and what this file decides and why it exists");
    }
}

fn check_length(text: &str, report: &mut impl FnMut(usize, &str)) {
    let lines: Vec<&str> = text.lines().collect();
    // Only a module in the file ends the count: `#[cfg(test)]` may stand above other things.
    let tests = lines.windows(2).position(|pair| {
        pair[0].starts_with("#[cfg(test)]") && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let count = tests.unwrap_or(lines.len());
    if count > FILE_LINES_MAX {
        report(count, &format!("{count} lines before the tests, at most {FILE_LINES_MAX}: split"));
    }
}

fn check_columns(text: &str, report: &mut impl FnMut(usize, &str)) {
    for (number, line) in numbered(text) {
        if line.chars().count() > LINE_COLUMNS_MAX && !line.contains("://") {
            report(number, &format!("wider than {LINE_COLUMNS_MAX} columns"));
        }
    }
}

fn check_ignored_tests(path: &str, text: &str, report: &mut impl FnMut(usize, &str)) {
    for (number, line) in numbered(text) {
        if path != SELF && line.trim_start().starts_with("#[ignore") {
            report(number, "an ignored test; assert what is true today instead");
        }
    }
}

fn check_homes(path: &str, text: &str, report: &mut impl FnMut(usize, &str)) {
    if path == SELF {
        return;
    }
    for Home { dependency, paths } in HOMES {
        if paths.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        for (number, line) in numbered(text) {
            if names_crate(line, dependency) {
                report(number, &format!("names `{dependency}`; only {} may", paths.join(", ")));
            }
        }
    }
}

/// Whether the code of `line` has a path that starts in `name` or in a crate `name_…`.
fn names_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        // `storage::rocksdb::X` is a module of ours, `::rocksdb::X` the crate.
        let before = code[..at].strip_suffix("::").unwrap_or(&code[..at]);
        let starts_a_path = !before.ends_with(|c: char| c.is_alphanumeric() || "_-.\"".contains(c));
        let after = &code[at + name.len()..];
        let rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        let whole_name = rest.len() == after.len() || after.starts_with('_');
        let imported = code.trim_start().starts_with("use ") && rest.starts_with([';', ' ']);
        starts_a_path && whole_name && (rest.starts_with("::") || imported)
    })
}

fn check_one_title(text: &str, report: &mut impl FnMut(usize, &str)) {
    let mut in_code = false;
    let mut titles = 0;
    for (number, line) in numbered(text) {
        in_code ^= line.trim_start().starts_with("```");
        if !in_code && line.starts_with("# ") {
            titles += 1;
            if titles > 1 {
                report(number, "a second title; a page has one `# ` line");
            }
        }
    }
    if titles == 0 {
        report(1, "no title; a page has one `# ` line");
    }
}

fn check_kills_by_name(text: &str, report: &mut impl FnMut(usize, &str)) {
    for (number, line) in numbered(text) {
        for command in KILLS_BY_NAME.iter().filter(|command| line.contains(**command)) {
            report(number, &format!("`{command}` ends processes of others; kill by process id"));
        }
    }
}

fn check_machine_paths(text: &str, report: &mut impl FnMut(usize, &str)) {
    for (number, line) in numbered(text) {
        for machine_path in MACHINE_PATHS {
            // Behind a letter, a brace or a dot it is the middle of a longer path.
            let found = line.match_indices(machine_path).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.~})".contains(c))
            });
            if found {
                report(number, &format!("a path of one machine ({machine_path})"));
            }
        }
    }
}

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cluster/ is in the root").to_owned()
}

/// All files of the checkout but those that git leaves out, as paths from the root, in order.
fn repository_files() -> Vec<String> {
    let root = repository_root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the checkout").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(&root).expect("below the root").display().to_string();
            let kind = entry.file_type().expect("a folder of the checkout");
            if is_left_out(&name) {
                continue;
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push(name);
            }
        }
    }
    files.sort();
    files
}

/// What .gitignore names, and git's own folder.
fn is_left_out(name: &str) -> bool {
    name == ".git"
        || name == ".quipu"
        || name == ".cargo/rocksdb.toml"
        || name == "target"
        || name.starts_with("target-")
        || name.ends_with(".profraw")
}

mod the_rules {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        check_file(path, text, &mut problems);
        problems
    }

    #[test]
    fn a_file_without_a_header_is_reported() {
        assert_eq!(problems("a.rs", "//! What a is for.\n"), [""; 0]);
        assert_eq!(problems("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(problems("a.rs", "//! (begun)\n").len(), 1);
    }

    #[test]
    fn only_a_test_module_ends_the_count_of_lines() {
        let long = format!("//! A header.\n{}", "//\n".repeat(FILE_LINES_MAX));
        assert_eq!(problems("a.rs", &long).len(), 1);
        assert_eq!(problems("a.rs", &long.replacen("//\n", "#[cfg(test)]\n", 1)).len(), 1);
        let tests = "#[cfg(test)]\nmod tests {\n";
        assert_eq!(problems("a.rs", &long.replacen("//\n", tests, 1)), [""; 0]);
    }

    #[test]
    fn a_wide_line_is_reported_unless_it_holds_a_link() {
        let wide = "x".repeat(LINE_COLUMNS_MAX + 1);
        let report = format!("a.rs:2: wider than {LINE_COLUMNS_MAX} columns");
        assert_eq!(problems("a.rs", &format!("//! A header.\n//{wide}\n")), [report]);
        assert_eq!(problems("a.rs", &format!("//! A header.\n// https://{wide}\n")), [""; 0]);
    }

    #[test]
    fn a_dependency_outside_its_home_is_reported_with_the_home() {
        let text = "//! A fetch.\nuse rocksdb::DB;\n";
        let report = "node/src/edge/a.rs:2: names `rocksdb`; only node/src/storage/ may";
        assert_eq!(problems("node/src/edge/a.rs", text), [report]);
        assert_eq!(problems("node/src/storage/a.rs", text), [""; 0]);
    }

    #[test]
    fn a_crate_is_told_from_comments_strings_and_modules_of_ours() {
        let naming = [
            "use openraft;",
            "use openraft as raft;",
            "use openraft_rt::Runtime;",
            "x: ::openraft::Raft",
            "Box<openraft::Raft>",
        ];
        for line in naming {
            assert!(names_crate(line, "openraft"), "{line}");
        }
        let harmless = [
            "// openraft::Raft",
            "let openraft = 1;",
            "raft::openraft::Raft",
            "my_openraft::Raft",
            "openrafter::Raft",
            "\"openraft::core=warn\"",
        ];
        for line in harmless {
            assert!(!names_crate(line, "openraft"), "{line}");
        }
    }

    #[test]
    fn a_page_has_exactly_one_title_outside_code() {
        assert_eq!(problems("a.md", "# A\n```\n# a comment\n```\n## B\n"), [""; 0]);
        assert_eq!(problems("a.md", "# A\n# B\n").len(), 1);
        assert_eq!(problems("a.md", "text\n").len(), 1);
    }

    #[test]
    fn a_script_that_kills_by_name_is_reported() {
        let script = format!("#!/bin/sh\n{} quipud\n", KILLS_BY_NAME[0]);
        assert_eq!(problems("scripts/stop", &script).len(), 1);
        assert_eq!(problems("scripts/stop", "#!/bin/sh\nkill \"$pid\"\n"), [""; 0]);
    }

    #[test]
    fn a_path_of_one_machine_is_reported_and_the_middle_of_a_path_is_not() {
        let home = MACHINE_PATHS[0];
        assert_eq!(problems("a.toml", &format!("dir = \"{home}ann/x\"\n")).len(), 1);
        assert_eq!(problems("a.toml", &format!("dir = \"$DIR{home}x\"\n")), [""; 0]);
    }
}
