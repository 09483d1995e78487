//! Which package may depend on which, read from Cargo.lock, where every chain of dependencies is.
//!
//! The folders that may name a crate are a rule about sources and stand in `tidy.rs`; here it is
//! about what gets linked. Cargo.lock does not tell development dependencies from others, so these
//! rules hold for tests too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::repository_root;

/// A package of ours and what it must not reach through any chain of dependencies.
const UNREACHABLE: [(&str, &[&str]); 4] = [
    ("cluster", &["librocksdb-sys", "openraft", "node", "turmoil"]),
    ("quipu-client", &["librocksdb-sys", "openraft", "node", "node-core", "turmoil"]),
    ("node-core", &["librocksdb-sys", "openraft", "tokio", "tonic", "prost"]),
    ("node", &["turmoil", "jepsen-style-tests"]),
];

#[test]
fn packages_reach_only_what_they_may() {
    let lock = lock_file();
    let graph = dependency_graph(&lock);
    let mut problems = Vec::new();
    for (package, forbidden) in UNREACHABLE {
        assert!(graph.contains_key(package), "Cargo.lock has no package {package}");
        let reached = reachable(&graph, package);
        for name in forbidden.iter().filter(|name| reached.contains(**name)) {
            problems.push(format!("{package} depends, maybe through others, on {name}"));
        }
    }
    assert!(problems.is_empty(), "wrong dependencies:\n{}", problems.join("\n"));
}

/// A library of another version would be linked without a complaint and break at run time.
#[test]
fn the_prebuilt_rocksdb_is_of_the_locked_version() {
    let Ok(config) = fs::read_to_string(repository_root().join(".cargo/rocksdb.toml")) else {
        return;
    };
    let lock = lock_file();
    let version = locked_version(&lock, "librocksdb-sys").expect("the node depends on RocksDB");
    assert!(
        config.contains(&format!("/rocksdb-{version}-")),
        ".cargo/rocksdb.toml is not for librocksdb-sys {version}; run `make deps`:\n{config}"
    );
}

fn lock_file() -> String {
    fs::read_to_string(repository_root().join("Cargo.lock")).expect("Cargo.lock is committed")
}

/// From package name to the names it depends on. Versions of one crate are taken together.
fn dependency_graph(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = quoted_value(package, "name").expect("each locked package has a name");
        let listed = package.split_once("dependencies = [").map_or("", |(_, list)| list);
        let list = listed.split(']').next().unwrap_or_default();
        // An entry is `"name"` or `"name version"`.
        let names = list.split('"').skip(1).step_by(2);
        let names = names.map(|entry| entry.split(' ').next().unwrap_or(entry));
        graph.entry(name).or_default().extend(names);
    }
    graph
}

fn reachable<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
    while let Some(name) = waiting.pop() {
        if reached.insert(name) {
            waiting.extend(graph.get(name).into_iter().flatten());
        }
    }
    reached
}

fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    lock.split("[[package]]")
        .find(|package| quoted_value(package, "name") == Some(name))
        .and_then(|package| quoted_value(package, "version"))
}

fn quoted_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let start = format!("{key} = \"");
    text.lines().find_map(|line| line.strip_prefix(start.as_str())?.strip_suffix('"'))
}

#[test]
fn a_dependency_through_others_is_reached() {
    let lock = r#"
[[package]]
name = "a"
version = "1"
dependencies = [
 "b 2",
]

[[package]]
name = "b"
version = "2"
dependencies = [
 "c",
]

[[package]]
name = "c"
version = "3"
"#;
    assert_eq!(reachable(&dependency_graph(lock), "a"), BTreeSet::from(["b", "c"]));
    assert_eq!(reachable(&dependency_graph(lock), "c"), BTreeSet::new());
    assert_eq!(locked_version(lock, "c"), Some("3"));
}
