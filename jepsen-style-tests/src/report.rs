//! What a run leaves behind: a small report for tables and comparisons, and files for people.
//!
//! In the folder of the run: `plan.json`, `history.jsonl`, `report.json`, and `trace.txt` if it was
//! asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::nemesis::FaultCounts;
use crate::plan::Plan;

/// The outcome of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many nodes the cluster had.
    pub nodes: usize,
    /// Simulated time that passed, in milliseconds.
    pub simulated_ms: u64,
    /// Hash of everything that could be seen.
    pub trace_hash: String,
    /// Events that went into it.
    pub trace_events: u64,
    /// Hash of what is on each node's disk at the end, visible rows only.
    pub disk_hashes: Vec<String>,
    /// Operations by kind and outcome.
    pub operations: BTreeMap<String, u64>,
    /// What the faults did.
    pub faults: FaultCounts,
    /// What was wrong. Empty: nothing.
    pub violations: Vec<Finding>,
}

/// A violation for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its short name.
    pub kind: String,
    /// In plain words.
    pub what: String,
    /// The lines of the history that show it.
    pub evidence: Vec<String>,
}

/// Writes a plan into `folder`, which must be there.
///
/// # Errors
/// If the file can't be written.
pub fn write_plan(folder: &Path, plan: &Plan) -> io::Result<()> {
    serde_json::to_writer_pretty(File::create(folder.join("plan.json"))?, plan)?;
    Ok(())
}

/// Reads the plan of a run from its folder, or from a file.
///
/// # Errors
/// If there is none, or it is not of this version.
pub fn read_plan(path: &Path) -> io::Result<Plan> {
    let path = if path.is_dir() { path.join("plan.json") } else { path.to_owned() };
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

/// Writes the files of a run into `folder`, which is made if it is missing.
///
/// # Errors
/// If the folder or a file can't be written.
pub fn write(folder: &Path, plan: &Plan, history: &History, report: &Report) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_plan(folder, plan)?;
    history.write(BufWriter::new(File::create(folder.join("history.jsonl"))?))?;
    serde_json::to_writer_pretty(File::create(folder.join("report.json"))?, report)?;
    Ok(())
}
