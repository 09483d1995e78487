//! Starts node processes that outlive the command, finds them again, and signals them.
//!
//! A process number alone may belong to somebody else by the next command. A process is therefore
//! remembered with its start time and the machine's boot, and signalled through a file descriptor
//! (pidfd) that is opened first and checked after: the descriptor can't come to mean another
//! process between the check and the signal. Linux only, since it reads /proc.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Between two looks at whether a process has ended.
const POLL: Duration = Duration::from_millis(20);

/// A process, told apart from every other that has or had its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks between boot and the process's start (proc(5), stat, field 22).
    started_ticks: u64,
    /// Changes with every boot of the machine.
    boot_id: String,
}

/// What a remembered process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessState {
    Running,
    /// Stopped by SIGSTOP.
    Paused,
    /// Ended, whether or not its number belongs to another.
    Down,
}

/// How one node is started.
#[derive(Debug, Clone)]
pub(crate) struct NodeCommand {
    pub(crate) quipud: PathBuf,
    pub(crate) node_id: u64,
    pub(crate) listen: String,
    pub(crate) http_listen: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) log_file: PathBuf,
    /// Addresses of the cluster's nodes.
    pub(crate) join: Vec<String>,
}

impl NodeCommand {
    /// Starts the node in a process group of its own, so that an interrupt at the terminal
    /// doesn't reach it. The caller may drop the child: it lives on.
    pub(crate) fn spawn(&self) -> anyhow::Result<(ProcessId, Child)> {
        fs::create_dir_all(&self.data_dir)
            .with_context(|| format!("can't make the folder {}", self.data_dir.display()))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_file)
            .with_context(|| format!("can't write {}", self.log_file.display()))?;
        let child = Command::new(&self.quipud)
            .args(["--node-id", &self.node_id.to_string()])
            .args(["--listen", &self.listen])
            // Said, so that a variable meant for another node doesn't say it.
            .args(["--advertise", &self.listen])
            .args(["--http-listen", &self.http_listen])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--join", &self.join.join(",")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("can't share the log file")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", self.quipud.display()))?;
        match ProcessId::of(child.id()) {
            Ok(process) => Ok((process, child)),
            Err(error) => {
                let mut child = child;
                // What can't be found again must not be left behind.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl ProcessId {
    /// Remembers a process that runs.
    pub(crate) fn of(pid: u32) -> anyhow::Result<ProcessId> {
        let stat = Stat::read(pid).with_context(|| format!("process {pid} is not there"))?;
        Ok(ProcessId { pid, started_ticks: stat.started_ticks, boot_id: boot_id()? })
    }

    /// What the process does at this moment.
    pub(crate) fn state(&self) -> ProcessState {
        let Some(stat) = Stat::read(self.pid) else { return ProcessState::Down };
        if !self.is_same(&stat) {
            return ProcessState::Down;
        }
        match stat.state {
            'Z' | 'X' | 'x' => ProcessState::Down,
            'T' => ProcessState::Paused,
            _ => ProcessState::Running,
        }
    }

    /// The file that the process runs, while it does and the file is still there.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let file = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        Some(file).filter(|file| self.state() != ProcessState::Down && file.is_file())
    }

    /// Sends a signal to this process and to no other. Fails if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} is no process number", self.pid))?;
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            bail!("process {} has ended", self.pid);
        };
        // AFTER the descriptor is open, so that what is checked is what gets the signal.
        if self.state() == ProcessState::Down {
            bail!("process {} has ended", self.pid);
        }
        pidfd_send_signal(&handle, signal)
            .with_context(|| format!("can't signal process {}", self.pid))
    }

    /// Waits until the process has ended; says whether it did in time.
    pub(crate) async fn wait_down(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.state() != ProcessState::Down {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    fn is_same(&self, stat: &Stat) -> bool {
        stat.started_ticks == self.started_ticks
            && boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
    }
}

/// What /proc/PID/stat says.
struct Stat {
    state: char,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may itself hold spaces and
    /// parentheses, so fields are counted from the last one that closes.
    fn parse(text: &str) -> Option<Stat> {
        let (_, after_name) = text.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // Field 22 of all; the state was field 3.
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Stat { state, started_ticks })
    }
}

fn boot_id() -> anyhow::Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path)
        .with_context(|| format!("local clusters need Linux: can't read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("600").spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let text = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.started_ticks), ('S', 777));
        assert!(Stat::parse("12 (a) S 1 2").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[tokio::test]
    async fn a_process_can_be_paused_resumed_and_killed() {
        let mut sleeper = Sleeper::start();
        let process = ProcessId::of(sleeper.0.id()).unwrap();
        assert_eq!(process.state(), ProcessState::Running);
        process.signal(Signal::STOP).unwrap();
        while process.state() != ProcessState::Paused {
            tokio::task::yield_now().await;
        }
        process.signal(Signal::CONT).unwrap();
        process.signal(Signal::KILL).unwrap();
        assert!(process.wait_down(Duration::from_secs(10)).await);
        sleeper.0.wait().unwrap();
        assert_eq!(process.state(), ProcessState::Down);
        assert!(process.signal(Signal::KILL).is_err());
    }

    #[test]
    fn a_process_with_the_same_number_but_another_start_gets_no_signal() {
        let sleeper = Sleeper::start();
        let real = ProcessId::of(sleeper.0.id()).unwrap();
        let earlier = ProcessId { started_ticks: real.started_ticks - 1, ..real.clone() };
        let other_boot = ProcessId { boot_id: "another".to_owned(), ..real.clone() };
        for stale in [earlier, other_boot] {
            assert_eq!(stale.state(), ProcessState::Down);
            assert!(stale.signal(Signal::KILL).is_err());
        }
        assert_eq!(real.state(), ProcessState::Running);
    }
}
