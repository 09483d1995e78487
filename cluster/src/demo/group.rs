//! The demo's group: three `quipu consume` processes that share the topic, one of them killed.
//!
//! What each of them printed is the history. They are processes, so that a kill leaves no chance
//! to commit or to leave; they end with the demo, and by themselves when nothing comes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::demo::TOPIC;
use crate::demo::history::{GroupHistory, GroupRead};
use crate::demo::progress::Progress;

const GROUP: &str = "demo";
const MEMBERS: usize = 3;

/// Silence after which the others get a dead member's partitions.
const SESSION: &str = "3s";

/// A member that outlives a killed demo ends after so long without a record.
const IDLE_EXIT: &str = "60s";

/// In hundredths of the demo's time: when a member is killed.
const KILL_AT: u32 = 60;

/// The kill waits so long at most for the first record of every member.
const SHARED_TIMEOUT: Duration = Duration::from_secs(10);

/// The group has seen everything by then, or never will.
const DONE_TIMEOUT: Duration = Duration::from_secs(30);

/// Three members. Dropping them kills their processes.
#[derive(Debug)]
pub(super) struct DemoGroup {
    members: Vec<Child>,
    printed: Arc<Printed>,
    killed: Option<usize>,
}

/// What all members have printed.
#[derive(Debug, Default)]
struct Printed {
    reads: Mutex<Vec<GroupRead>>,
    news: Notify,
}

impl DemoGroup {
    /// Starts the members.
    pub(super) fn start(nodes: &[String]) -> anyhow::Result<DemoGroup> {
        let quipu = std::env::current_exe().context("can't find this program")?;
        let mut group = DemoGroup { members: Vec::new(), printed: Arc::default(), killed: None };
        for member in 1..=MEMBERS {
            let mut child = Command::new(&quipu)
                .args(["consume", TOPIC, "--group", GROUP, "--session", SESSION, "--quiet"])
                .args(["--idle-exit", IDLE_EXIT, "--format", r"%p %o\n"])
                .args(["--nodes", &nodes.join(",")])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("can't start a consumer")?;
            let stdout = child.stdout.take().context("its stdout is a pipe")?;
            // Ends with the process, whose end of the pipe is closed then.
            tokio::spawn(Arc::clone(&group.printed).take_down(member, stdout));
            group.members.push(child);
        }
        Ok(group)
    }

    /// Kills one member when its time, of a run that takes so long, has come and every member has
    /// printed something.
    pub(super) async fn kill_one(
        &mut self,
        (started, duration): (Instant, Duration),
        progress: &Progress,
    ) -> anyhow::Result<()> {
        sleep_until(started + duration * KILL_AT / 100).await;
        let all_work = |reads: &[GroupRead]| {
            reads.iter().map(|read| read.member).collect::<BTreeSet<_>>().len() == MEMBERS
        };
        // A group that does not share in time loses a member all the same.
        let _ = timeout(SHARED_TIMEOUT, self.printed.until(all_work)).await;
        let number = self.printed.reads().last().map_or(1, |read| read.member);
        let child = self.members.get_mut(number - 1).context("members are numbered from 1")?;
        child.kill().await.context("can't kill a consumer")?;
        self.killed = Some(number);
        let had = self.had(number);
        progress.say(&format!("killed consumer {number} (SIGKILL), which printed last from {had}"));
        Ok(())
    }

    /// Waits until everything below `ends` was printed, and says what was.
    pub(super) async fn finish(mut self, ends: &BTreeMap<u32, u64>) -> GroupHistory {
        let count = usize::try_from(ends.values().sum::<u64>()).unwrap_or(usize::MAX);
        let is_all = |reads: &[GroupRead]| {
            if reads.len() < count {
                return false;
            }
            let seen: BTreeSet<_> = reads.iter().map(|it| (it.partition, it.offset)).collect();
            let wanted = ends.iter().flat_map(|(at, end)| (0..*end).map(|it| (*at, it)));
            wanted.into_iter().all(|place| seen.contains(&place))
        };
        // The verdict says what is missing.
        let _ = timeout(DONE_TIMEOUT, self.printed.until(is_all)).await;
        for member in &mut self.members {
            // One has ended already.
            let _ = member.start_kill();
        }
        let reads = std::mem::take(&mut *self.printed.reads());
        GroupHistory { reads, killed: self.killed.take() }
    }

    /// The partitions that a member has printed from since others did.
    fn had(&self, member: usize) -> String {
        let reads = self.printed.reads();
        let last: BTreeMap<u32, usize> =
            reads.iter().map(|read| (read.partition, read.member)).collect();
        let had: Vec<String> =
            last.iter().filter(|it| *it.1 == member).map(|it| it.0.to_string()).collect();
        if had.is_empty() {
            "no partition".to_owned()
        } else {
            format!("partition {}", had.join(", "))
        }
    }
}

impl Printed {
    async fn take_down(self: Arc<Self>, member: usize, stdout: ChildStdout) {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Some((partition, offset)) = place_of(&line) else { continue };
            self.reads().push(GroupRead { member, partition, offset });
            self.news.notify_one();
        }
    }

    async fn until(&self, is: impl Fn(&[GroupRead]) -> bool) {
        while !is(&self.reads()) {
            self.news.notified().await;
        }
    }

    fn reads(&self) -> MutexGuard<'_, Vec<GroupRead>> {
        // Whole between statements.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place that a line tells; `None` of one that a killed process could not end.
fn place_of(line: &str) -> Option<(u32, u64)> {
    let (partition, offset) = line.split_once(' ')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_a_place_or_nothing() {
        assert_eq!(place_of("3 17"), Some((3, 17)));
        for line in ["", "3", "3 ", " 17", "3 17 4", "a b"] {
            assert_eq!(place_of(line), None, "{line}");
        }
    }
}
