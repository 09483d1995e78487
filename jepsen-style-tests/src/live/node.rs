//! One `quipud` process: started, killed, stopped and continued through its own child handle.
//!
//! A process is only ever signalled while its handle is held and not waited for, so that its
//! number can't belong to anybody else. Dropping the node kills the process.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// Lines of a log that are shown with a failure.
const LOG_LINES: usize = 25;

/// What is run on every node.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The binary.
    pub(super) quipud: PathBuf,
    /// Further settings, by name.
    pub(super) settings: Vec<(String, String)>,
}

/// A node of the cluster under test, running or not.
#[derive(Debug)]
pub(super) struct LiveNode {
    /// Its label.
    pub(super) id: u64,
    /// "127.0.0.1:port" of gRPC.
    pub(super) address: String,
    /// "127.0.0.1:port" of metrics and health.
    pub(super) http: String,
    data_dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl LiveNode {
    /// A node that was not started yet.
    pub(super) fn new(dir: &Path, id: u64, ports: [u16; 2]) -> Self {
        let [grpc, http] = ports.map(|port| format!("127.0.0.1:{port}"));
        let data_dir = dir.join(format!("node-{id}"));
        let log = dir.join(format!("node-{id}.log"));
        Self { id, address: grpc, http, data_dir, log, child: None }
    }

    /// Starts the process. Its log goes on where it ended.
    ///
    /// # Errors
    /// If the process or its log can't be opened.
    pub(super) fn start(&mut self, program: &Program, join: &str) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("can't write {}", self.log.display()))?;
        let mut command = Command::new(&program.quipud);
        // A setting meant for another node must not reach this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUIPUD_") {
                command.env_remove(name);
            }
        }
        for (name, value) in &program.settings {
            command.arg(format!("--{name}={value}"));
        }
        let child = command
            .args(["--node-id", &self.id.to_string()])
            .args(["--listen", &self.address, "--advertise", &self.address])
            .args(["--http-listen", &self.http, "--join", join])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("can't share the log file")?)
            .stderr(log)
            // An interrupt at the terminal is this program's to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", program.quipud.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends SIGKILL; [`LiveNode::reap`] waits for the end.
    ///
    /// # Errors
    /// If the process is not running.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let id = self.id;
        let child = self.child.as_mut().with_context(|| format!("node {id} is not running"))?;
        child.kill().with_context(|| format!("can't kill node {id}"))
    }

    /// Waits for the end of a process that was killed: the kernel's work alone, some milliseconds.
    ///
    /// # Errors
    /// If the process can't be waited for.
    pub(super) fn reap(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait().with_context(|| format!("can't wait for node {}", self.id))?;
        }
        Ok(())
    }

    /// Sends a signal that the process survives: SIGSTOP, SIGCONT.
    ///
    /// # Errors
    /// If the process is not running.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("node {} is down", self.id))?;
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("can't signal node {}", self.id))
    }

    /// How the process ended, if it did without having been killed from here.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// The process's number while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it was started and not killed since.
    pub(super) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Deletes the data of a node that is down, as a broken disk would.
    ///
    /// # Errors
    /// If the folder can't be deleted.
    pub(super) fn lose_disk(&self) -> anyhow::Result<()> {
        assert!(!self.is_up(), "a running node would write on");
        fs::remove_dir_all(&self.data_dir)
            .with_context(|| format!("can't delete {}", self.data_dir.display()))
    }

    /// The whole log, over all starts.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log.
    pub(super) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for LiveNode {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // What has ended already can't be killed, and needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
