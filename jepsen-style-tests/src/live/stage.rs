//! What every check has: a seed, a folder, a binary, and one way to say what happens.
//!
//! The folder holds the nodes' data and logs and the history. It stays when anything is wrong, so
//! that what is reported can be looked at.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use quipu_client::ClientConfig;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::history::History;
use crate::live::cluster::LiveCluster;
use crate::live::node::Program;
use crate::live::recorder::Recorder;
use crate::live::{EXIT_BROKEN, EXIT_NOT_CARRIED_OUT, LiveArgs, NODES, quipud};
use crate::violation::Violation;

/// Violations that are told in full; the rest is counted.
const TOLD_MAX: usize = 20;

/// Where a check is carried out.
#[derive(Debug)]
pub(super) struct Stage {
    /// Decides what is done.
    pub(super) seed: u64,
    program: Program,
    folder: TempDir,
    started: Instant,
    /// A cluster has formed: what fails from then on is the cluster's failure.
    formed: AtomicBool,
}

/// How a check ended.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Begins with "verdict: ".
    pub(super) line: String,
    /// Promises that were broken.
    pub(super) violations: Vec<Violation>,
    /// Numbers that were not reached, and what kept the check from looking.
    pub(super) misses: Vec<String>,
    /// Where the violations' operations are looked up.
    pub(super) history: History,
    /// What the nodes' logs complained of; told, not judged.
    pub(super) errors_logged: Vec<String>,
}

impl Report {
    /// Adds a miss unless `holds`.
    pub(super) fn demand(&mut self, holds: bool, miss: impl FnOnce() -> String) {
        if !holds {
            self.misses.push(miss());
        }
    }

    fn is_good(&self) -> bool {
        self.violations.is_empty() && self.misses.is_empty()
    }
}

impl Stage {
    /// A new folder, and the binary that is tested.
    ///
    /// # Errors
    /// If either can't be had.
    pub(super) fn new(args: &LiveArgs) -> anyhow::Result<Self> {
        let seed = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
        let quipud = quipud::find(args.quipud.as_deref())?;
        let below = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&below)
            .with_context(|| format!("can't make the folder {}", below.display()))?;
        let folder = tempfile::Builder::new().prefix("quipu-live-").tempdir_in(&below);
        let folder = folder.with_context(|| format!("no folder in {}", below.display()))?;
        let settings = args.set.clone();
        let program = Program { quipud, settings };
        let (started, formed) = (Instant::now(), AtomicBool::new(false));
        let stage = Self { seed, program, folder, started, formed };
        stage.say(format_args!("seed {seed}, node binary {}", stage.program.quipud.display()));
        stage.say(format_args!("data, logs and history: {}", stage.folder.path().display()));
        Ok(stage)
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Random numbers for one purpose, the same for the same seed.
    pub(super) fn rng(&self, purpose: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(purpose))
    }

    /// The binary that is tested.
    pub(super) fn quipud(&self) -> &Path {
        &self.program.quipud
    }

    /// A cluster was formed: what fails from now on is its failure.
    pub(super) fn formed(&self) {
        self.formed.store(true, Ordering::Relaxed);
    }

    /// A fresh cluster.
    ///
    /// # Errors
    /// If it can't be started.
    pub(super) async fn cluster(&self) -> anyhow::Result<LiveCluster> {
        let cluster = LiveCluster::start(self.program.clone(), self.dir(), NODES).await?;
        self.formed();
        self.say(format_args!("{NODES} nodes: {}", cluster.addresses().join(", ")));
        Ok(cluster)
    }

    /// An empty history, written to the folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn recorder(&self) -> anyhow::Result<Recorder> {
        let path = self.dir().join("history.jsonl");
        Recorder::to_file(&path).with_context(|| format!("can't write {}", path.display()))
    }

    /// A client's configuration, its jitter from the seed.
    pub(super) fn client_config(&self, purpose: u64) -> ClientConfig {
        let seed = Some(self.rng(purpose).u64(..));
        ClientConfig { seed, retry_timeout: Duration::from_secs(30), ..ClientConfig::default() }
    }

    /// One line of what happens, with the seconds since the start.
    pub(super) fn say(&self, what: impl std::fmt::Display) {
        let seconds = self.started.elapsed().as_secs_f64();
        print(format_args!("[{seconds:7.2}] {what}"));
    }

    /// Tells how the check ended, for people and as an exit code.
    pub(super) fn conclude(self, report: Report, keep: bool) -> ExitCode {
        for error in &report.errors_logged {
            self.say(format_args!("logged: {error}"));
        }
        for violation in report.violations.iter().take(TOLD_MAX) {
            print(format_args!("VIOLATION {violation}"));
            for line in report.history.about(&violation.operations()) {
                print(format_args!("    {line}"));
            }
        }
        let untold = report.violations.len().saturating_sub(TOLD_MAX);
        if untold > 0 {
            print(format_args!("and {untold} more violations"));
        }
        for miss in &report.misses {
            print(format_args!("MISSED {miss}"));
        }
        let is_good = report.is_good();
        print(format_args!("{}", report.line));
        if is_good {
            if keep {
                self.keep();
            }
            return ExitCode::SUCCESS;
        }
        self.tell_how_to_reproduce();
        self.keep();
        ExitCode::from(EXIT_BROKEN)
    }

    /// The check did not come to its end in time: something does not serve.
    pub(super) fn late(self, bound: Duration) -> ExitCode {
        let seconds = bound.as_secs();
        print(format_args!("verdict: none, the check was not over after {seconds} s"));
        self.tell_how_to_reproduce();
        self.keep();
        ExitCode::from(EXIT_BROKEN)
    }

    /// The check could not be carried out to its end. Once there was a cluster it is because that
    /// did not answer, or a node did not come back.
    pub(super) fn failed(self, error: &anyhow::Error) -> ExitCode {
        let formed = self.formed.load(Ordering::Relaxed);
        let code = not_carried_out(error);
        self.tell_how_to_reproduce();
        self.keep();
        if formed { ExitCode::from(EXIT_BROKEN) } else { code }
    }

    /// Somebody wanted it to end. Nothing is left behind.
    pub(super) fn interrupted(self) -> ExitCode {
        print(format_args!(
            "interrupted; the nodes are killed and {} deleted",
            self.dir().display()
        ));
        ExitCode::from(EXIT_NOT_CARRIED_OUT)
    }

    fn tell_how_to_reproduce(&self) {
        let mut words: Vec<String> = std::env::args().collect();
        if !words.iter().any(|word| word.starts_with("--seed")) {
            words.extend(["--seed".to_owned(), self.seed.to_string()]);
        }
        print(format_args!("REPRODUCE WITH: {}", words.join(" ")));
    }

    fn keep(self) {
        print(format_args!("kept: {}", self.folder.keep().display()));
    }
}

/// Says why a check has no verdict.
pub(super) fn not_carried_out(error: &anyhow::Error) -> ExitCode {
    print(format_args!("verdict: none, {error:#}"));
    ExitCode::from(EXIT_NOT_CARRIED_OUT)
}

/// The one place that prints. Where nobody reads it, the exit code still tells.
fn print(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{what}");
}
