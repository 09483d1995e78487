//! Short runs of `quipu bench` against real `quipud` processes, so that neither rots: the shape of
//! what it prints, and that nothing is left behind.
//!
//! `quipud` is the one beside the binary under test; `make test` builds both first.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench(below: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
    command.arg("bench").args(arguments.split_whitespace()).args(["-o", "json"]);
    command.arg("--below").arg(below).env_remove("QUIPU_NODES");
    command
}

fn object(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    assert_eq!(said.lines().count(), 1, "one object a line:\n{said}");
    serde_json::from_str(&said).unwrap()
}

fn median(object: &Value, figure: &str) -> f64 {
    let value = &object["figures"][figure]["median"];
    value.as_f64().unwrap_or_else(|| panic!("no {figure} in {object}"))
}

#[test]
fn appending_is_measured_at_a_cluster_that_lives_as_long_as_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("plot.svg");
    let below = folder.path().join("below");
    let output = bench(&below, "append --rate 500 --producers 2 --seconds 2 --warmup 1")
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let object = object(&output);
    assert_eq!(object["bench"], "append");
    assert_eq!(object["settings"]["rate"], 500);
    assert_eq!(object["runs"].as_array().unwrap().len(), 1);
    // Three seconds of 500, less what a slow machine needs to begin; what is late is sent all the
    // same.
    assert!((1_200.0..=1_501.0).contains(&median(&object, "acked")), "{object}");
    assert!(median(&object, "failed").abs() < f64::EPSILON);
    let latencies: Vec<f64> = ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"]
        .iter()
        .map(|figure| median(&object, figure))
        .collect();
    assert!(latencies.is_sorted() && latencies[0] > 0.0, "{latencies:?}");
    for figure in ["server_cpu_s_per_million", "rss_bytes_max", "syncs_per_s"] {
        assert!(median(&object, figure) > 0.0, "{figure}");
    }
    // Three copies are written, and what frames them.
    assert!(median(&object, "disk_bytes_per_byte") > 3.0, "{object}");
    let nodes = object["runs"][0]["nodes"].as_array().unwrap();
    let numbers: Vec<u64> = nodes.iter().map(|node| node["node"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(fs::read_to_string(&svg).unwrap().contains("</svg>"));
    assert_eq!(fs::read_dir(&below).unwrap().count(), 0, "the data is gone");
}

#[test]
fn readers_get_what_is_appended() {
    let folder = tempfile::tempdir().unwrap();
    let run = "read --mode tail --rate 300 --readers 2 --partitions 2 --seconds 2 --warmup 1";
    let tail = object(&bench(folder.path(), run).output().unwrap());
    // Two readers of three seconds of 300, less what a slow machine needs to begin. Each gets every
    // record, or the bench fails.
    assert!((1_400.0..=1_802.0).contains(&median(&tail, "acked")), "{tail}");
    assert!(median(&tail, "p50_ms") > 0.0);
}

#[test]
fn a_log_is_read_from_the_start_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = "read --records 2000 --record-bytes 100 --level linearizable --seconds 1 --warmup 0";
    let scan = object(&bench(folder.path(), run).output().unwrap());
    assert!(median(&scan, "records_per_s") > 2_000.0, "{scan}");
    let bytes = median(&scan, "bytes_per_s") / median(&scan, "records_per_s");
    assert!((bytes - 100.0).abs() < 1e-3, "{scan}");
}

#[test]
fn a_killed_leader_is_replaced_and_the_time_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = "failover --rounds 1 --partitions 3";
    let failover = object(&bench(folder.path(), run).output().unwrap());
    // Whoever leads most of three partitions leads one.
    assert!(median(&failover, "failovers") >= 1.0, "{failover}");
    assert!(median(&failover, "elections_lost").abs() < f64::EPSILON, "{failover}");
    assert!(median(&failover, "p50_ms") > 0.0, "{failover}");
}

#[test]
fn a_group_is_measured_when_a_member_leaves_and_when_it_only_commits() {
    let folder = tempfile::tempdir().unwrap();
    let run = "groups --partitions 4 --members 2 --rate 200 --rounds 1 --committers 4 --seconds 1 \
               --idle-groups 2 --settle 0";
    let groups = object(&bench(folder.path(), run).output().unwrap());
    assert!(median(&groups, "not_moved").abs() < f64::EPSILON, "{groups}");
    for figure in ["leave_pause_p50_ms", "commits_per_s", "cpu_all_nodes_idle_groups"] {
        assert!(median(&groups, figure) > 0.0, "{figure}");
    }
}

#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = bench(folder.path(), "append --seconds 600")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pids = Vec::new();
    // A minute at most.
    for _ in 0..6_000 {
        pids = node_pids(folder.path());
        if pids.len() == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(pids.len(), 3, "the nodes don't start");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "node process {pid} is left");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the data is gone");
}

/// The processes that the cluster's file names.
fn node_pids(below: &Path) -> Vec<u64> {
    let Some(Ok(folder)) = fs::read_dir(below).unwrap().next() else { return Vec::new() };
    let Ok(text) = fs::read_to_string(folder.path().join("cluster.json")) else {
        return Vec::new();
    };
    let layout: Value = serde_json::from_str(&text).unwrap();
    let nodes = layout["nodes"].as_array().unwrap();
    nodes.iter().filter_map(|node| node["process"]["pid"].as_u64()).collect()
}

#[test]
fn what_is_not_built_yet_says_so() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_quipu")).args(["bench", "operate"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: not supported: "), "{errors}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    for arguments in [
        "append --record-bytes 300KiB",
        "append --payload flights --batch-records 3",
        "read --mode tail --record-bytes 7",
        "append --nodes 127.0.0.1:1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = bench(folder.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments}");
    }
}

#[test]
fn the_disk_is_measured_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_quipu"))
        .args(["bench", "disk", "--syncs", "10", "--bytes", "1MiB", "-o", "json"])
        .arg(folder.path())
        .output()
        .unwrap();
    let object = object(&output);
    assert!(median(&object, "p50_ms") > 0.0);
    assert!(median(&object, "write_bytes_per_s") > 0.0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
