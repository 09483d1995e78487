//! Exchanges one node after the other, and halts by itself where the next one must not go.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use super::binary::Binary;
use super::facts::Look;
use super::progress::{NodeStep, Progress};
use crate::local::layout::ClusterDir;
use crate::local::ports;
use crate::local::processes::{ProcessId, ProcessState};
use crate::local::start::LocalCluster;
use crate::output::print_line;

/// A node that was asked to stop hands its leaderships over first.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at the cluster.
const POLL: Duration = Duration::from_millis(250);

/// How nodes are exchanged.
#[derive(Debug, Clone)]
pub(crate) enum Means {
    /// Processes of the local cluster in this folder.
    Local(ClusterDir),
    /// A command of the user's for each node.
    Command(String),
}

/// What an upgrade is driven with.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    /// Addresses to ask.
    pub(crate) nodes: Vec<String>,
    /// Where the progress is kept.
    pub(crate) folder: PathBuf,
    pub(crate) means: Means,
    /// Each exchanged node is watched for so long before the next.
    pub(crate) soak: Duration,
    /// A check may fail for so long before the upgrade halts.
    pub(crate) patience: Duration,
    /// Print what is done.
    pub(crate) tells: bool,
    /// Stop after so many nodes.
    pub(crate) nodes_max: usize,
}

impl Driver {
    /// Goes on in the direction of `progress` until no node is left, or halts with the reason.
    pub(crate) async fn run(&self, progress: &mut Progress) -> anyhow::Result<()> {
        for _ in 0..self.nodes_max {
            let Some(step) = progress.next().cloned() else { break };
            let goal = progress
                .goal()
                .cloned()
                .context("which binary the nodes ran before is not known; name it with --from")?;
            if let Err(error) = self.exchange(progress, &step, &goal).await {
                progress.halted = Some(format!("{error:#}"));
                progress.save(&self.folder)?;
                return Err(error.context(format!(
                    "halted at node {}. `quipu upgrade run` goes on when it is mended, `quipu \
                     upgrade rollback` goes back; meanwhile the cluster serves with both versions",
                    step.node_id
                )));
            }
        }
        Ok(())
    }

    async fn exchange(
        &self,
        progress: &mut Progress,
        step: &NodeStep,
        goal: &Binary,
    ) -> anyhow::Result<()> {
        let node_id = step.node_id;
        for note in self.wait_until_it_may_stop(node_id, goal).await? {
            self.tell(&note)?;
        }
        progress.begin(node_id);
        progress.save(&self.folder)?;
        self.tell(&format!("node {node_id}: stops, then runs {}", goal.version))?;
        let started = Instant::now();
        match &self.means {
            Means::Local(dir) => exchange_process(dir, node_id, goal).await?,
            Means::Command(command) => run_command(command, progress, step, goal).await?,
        }
        self.wait_until_settled(node_id, goal).await?;
        self.soak().await?;
        progress.finish(node_id);
        progress.save(&self.folder)?;
        let seconds = started.elapsed().as_secs_f64();
        self.tell(&format!("node {node_id}: runs {} ({seconds:.1} s)", goal.version))
    }

    /// Waits until the gate opens. Answers what will be missing while the node is down.
    async fn wait_until_it_may_stop(
        &self,
        node_id: u64,
        goal: &Binary,
    ) -> anyhow::Result<Vec<String>> {
        self.wait_for(|look| {
            let level = look.features.level;
            let mut verdict = look.facts.may_stop(node_id);
            if !goal.speaks(level) {
                verdict.reasons.push(format!(
                    "feature level {level} is finalized, and {} does not speak it",
                    goal.version
                ));
            }
            match verdict.reasons.is_empty() {
                true => Ok(verdict.notes),
                false => Err(verdict.reasons),
            }
        })
        .await
        .with_context(|| format!("node {node_id} must not be stopped now"))
    }

    async fn wait_until_settled(&self, node_id: u64, goal: &Binary) -> anyhow::Result<()> {
        self.wait_for(|look| {
            let mut reasons = look.facts.not_settled();
            let runs = look.facts.nodes.get(&node_id).and_then(Option::as_ref);
            let runs = runs.map_or("nothing", |report| report.version.as_str());
            if runs != goal.version {
                reasons.push(format!("node {node_id} runs {runs}, not {}", goal.version));
            }
            match reasons.is_empty() {
                true => Ok(()),
                false => Err(reasons),
            }
        })
        .await
        .with_context(|| format!("node {node_id} was exchanged and does not settle"))
    }

    /// Looks on for a while: a version that fails after a minute should not get to the next node.
    async fn soak(&self) -> anyhow::Result<()> {
        let until = Instant::now() + self.soak;
        while Instant::now() < until {
            tokio::time::sleep(POLL).await;
            self.wait_for(|look| match look.facts.not_settled() {
                reasons if reasons.is_empty() => Ok(()),
                reasons => Err(reasons),
            })
            .await
            .context("something went wrong after the exchange")?;
        }
        Ok(())
    }

    /// Looks at the cluster until `judge` is content, or has not been for the patience.
    async fn wait_for<T>(
        &self,
        judge: impl Fn(&Look) -> Result<T, Vec<String>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            let reasons = match Look::at(&self.nodes).await {
                Ok(look) => match judge(&look) {
                    Ok(answer) => return Ok(answer),
                    Err(reasons) => reasons,
                },
                Err(error) => vec![format!("{error:#}")],
            };
            if Instant::now() >= deadline {
                bail!("{}", reasons.join("; "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn tell(&self, what: &str) -> anyhow::Result<()> {
        match self.tells {
            true => print_line(what),
            false => Ok(()),
        }
    }
}

/// Stops the node's process, which hands its leaderships over, and starts the other binary.
async fn exchange_process(dir: &ClusterDir, node_id: u64, goal: &Binary) -> anyhow::Result<()> {
    let layout = dir.load_existing()?;
    let _lock = dir.lock()?;
    let mut cluster = LocalCluster { dir: dir.clone(), layout, quipud: goal.path.clone() };
    let node = cluster.layout.node(node_id)?;
    let process = node.process.as_ref().filter(|it| it.state() != ProcessState::Down);
    if let Some(process) = process {
        stop(process).await.with_context(|| format!("node {node_id}"))?;
    }
    let node = cluster.layout.node(node_id)?;
    ports::check_free([node.listen_port, node.http_port])?;
    cluster.start(node_id)?;
    cluster.wait_reachable(node_id).await?;
    Ok(())
}

async fn stop(process: &ProcessId) -> anyhow::Result<()> {
    process.signal(Signal::TERM)?;
    if process.state() == ProcessState::Paused {
        process.signal(Signal::CONT)?;
    }
    match process.wait_down(STOP_WITHIN).await {
        true => Ok(()),
        false => bail!("it does not stop within {} s", STOP_WITHIN.as_secs()),
    }
}

async fn run_command(
    template: &str,
    progress: &Progress,
    step: &NodeStep,
    goal: &Binary,
) -> anyhow::Result<()> {
    let text = filled(template, step, goal);
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &text]).stdin(Stdio::null());
    let status = command.status().await.with_context(|| format!("can't run {text:?}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{text:?} ({:?}) ended with {status}", progress.direction),
    }
}

/// `{host}`, `{node}`, `{address}` and `{binary}` replaced.
fn filled(template: &str, step: &NodeStep, goal: &Binary) -> String {
    let host = step.address.rsplit_once(':').map_or(step.address.as_str(), |(host, _)| host);
    template
        .replace("{host}", host)
        .replace("{node}", &step.node_id.to_string())
        .replace("{address}", &step.address)
        .replace("{binary}", &goal.path.display().to_string())
        .replace("{version}", &goal.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::progress::NodeState;

    #[test]
    fn a_command_is_filled_in_for_each_node() {
        let address = "node-2.example:9400".to_owned();
        let step = NodeStep { node_id: 2, address, state: NodeState::Old };
        let path = "/opt/new/quipud".into();
        let goal = Binary { path, version: "0.2.0".to_owned(), level_min: 1, level_max: 2 };
        let filled = filled("ssh {host} 'upgrade {node} {binary} {version}'", &step, &goal);
        assert_eq!(filled, "ssh node-2.example 'upgrade 2 /opt/new/quipud 0.2.0'");
    }
}
