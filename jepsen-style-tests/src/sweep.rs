//! Runs many seeds, each in a process of its own, some at a time.
//!
//! A process per run, because the crates below us keep state per process, and because a run that
//! aborts must not take the others along. A child finds its plan in its folder, writes its report
//! there and leaves; what it prints on standard error goes to a file beside the report.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::nemesis::FaultCounts;
use crate::plan::Plan;
use crate::report::{self, Finding, Report};

/// How often running children are looked at.
const POLL: Duration = Duration::from_millis(20);

/// The name under which the binary runs the plan of a folder in this very process.
pub const ONE_RUN: &str = "one-run";

/// Which runs, and how.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// One run each.
    pub plans: Vec<Plan>,
    /// Each run has a folder in it, named by its seed.
    pub folder: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// Also write traces as text.
    pub trace_text: bool,
    /// The planted bug that nodes shall have. Only in a build of the zoo.
    pub planted: Option<String>,
    /// Go on after Raft broke a promise.
    pub to_the_end: bool,
}

/// A process that runs one seed.
struct Running {
    seed: u64,
    nodes: usize,
    child: Child,
    folder: PathBuf,
}

impl Sweep {
    /// Runs all seeds. `each` gets every report, in the order in which runs end, and says whether
    /// further runs shall begin.
    ///
    /// # Errors
    /// If a child can't be started or ends without a report.
    pub fn run(&self, mut each: impl FnMut(&Report) -> bool) -> anyhow::Result<()> {
        let mut plans = self.plans.iter();
        let mut running: Vec<Running> = Vec::new();
        let mut more = true;
        loop {
            while more && running.len() < self.jobs {
                let Some(plan) = plans.next() else { break };
                running.push(self.start(plan)?);
            }
            if running.is_empty() {
                return Ok(());
            }
            let mut still = Vec::new();
            for mut run in running {
                match run.child.try_wait()? {
                    None => still.push(run),
                    Some(status) => {
                        let report = run.report(&status.to_string());
                        // Children that still run are waited for also if this one failed.
                        more &= each(&report?);
                    }
                }
            }
            running = still;
            std::thread::sleep(POLL);
        }
    }

    fn start(&self, plan: &Plan) -> anyhow::Result<Running> {
        let seed = plan.seed;
        let folder = self.folder.join(seed.to_string());
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        remove_if_there(&folder.join("report.json"))?;
        report::write_plan(&folder, plan)?;
        let errors = File::create(folder.join("stderr.txt"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(ONE_RUN)
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .env_remove("QUIPU_ZOO");
        if self.trace_text {
            command.arg("--trace-text");
        }
        if self.to_the_end {
            command.arg("--to-the-end");
        }
        if let Some(planted) = &self.planted {
            command.env("QUIPU_ZOO", planted);
        }
        let child = command.spawn().context("can't start a process for a run")?;
        Ok(Running { seed, nodes: plan.nodes.len(), child, folder })
    }
}

impl Running {
    /// What the run left; if it left nothing, because it was aborted, what it said last.
    fn report(&self, status: &str) -> anyhow::Result<Report> {
        let path = self.folder.join("report.json");
        let Ok(text) = fs::read_to_string(&path) else {
            let errors = fs::read_to_string(self.folder.join("stderr.txt")).unwrap_or_default();
            return match first_panic(&errors) {
                Some(panic) => Ok(self.aborted(&panic, status)),
                None => bail!("the run of seed {} left no report ({status})", self.seed),
            };
        };
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// A panic that could not be caught: while a node was torn down after it, something panicked
    /// again.
    fn aborted(&self, panic: &str, status: &str) -> Report {
        let what = format!("something panicked ({status}): {panic}");
        Report {
            seed: self.seed,
            nodes: self.nodes,
            simulated_ms: 0,
            trace_hash: String::new(),
            trace_events: 0,
            disk_hashes: Vec::new(),
            operations: [].into(),
            faults: FaultCounts::default(),
            violations: vec![Finding { kind: "panicked".to_owned(), what, evidence: Vec::new() }],
        }
    }
}

/// Place and message of the first panic, as the standard hook prints them.
fn first_panic(errors: &str) -> Option<String> {
    let mut lines = errors.lines().skip_while(|line| !line.contains(" panicked at "));
    let (place, message) = (lines.next()?, lines.next().unwrap_or_default());
    let place = place.split_once(" panicked at ").map_or(place, |(_, place)| place);
    Some(format!("{message}, at {place}"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_told_with_its_place() {
        let errors = "noise\n\nthread 'main' (1) panicked at a.rs:1:2:\nit broke\nstack\n\
            thread 'main' (1) panicked at b.rs:3:4:\nagain\n";
        assert_eq!(first_panic(errors).as_deref(), Some("it broke, at a.rs:1:2:"));
        assert_eq!(first_panic("all is well\n"), None);
    }
}
