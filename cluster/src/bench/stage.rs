//! The cluster that is measured: one of its own, a local one that was named, or one elsewhere.
//!
//! **Invariant:** however a bench ends, the nodes it started are gone with their data, and a local
//! cluster that was named has no node left that the bench paused.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{Client, ClientConfig};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::args::{GlobalArgs, StageArgs};
use crate::failure::usage;
use crate::local::layout::{ClusterDir, Layout, LocalNode};
use crate::local::processes::ProcessId;
use crate::local::start::LocalCluster;
use crate::local::{ports, quipud};

/// Nodes of a cluster that is started for a bench.
const NODES: u16 = 3;

/// After SIGKILL only the kernel has something left to do.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster to measure.
#[derive(Debug)]
pub(super) struct Stage {
    cluster: Cluster,
    /// Nodes that the bench has paused.
    paused: Vec<u64>,
    /// Processes that the bench has started; waited for, so that none stays as a zombie.
    children: Vec<Child>,
    // Dropped last: the nodes write into it.
    folder: Option<TempDir>,
}

#[derive(Debug)]
enum Cluster {
    Local(LocalCluster),
    /// Addresses of a cluster whose processes can't be seen from here.
    Elsewhere(Vec<String>),
}

impl Stage {
    /// The cluster that the command line means: that of --nodes, else that of --dir, else one that
    /// is started here.
    pub(super) async fn open(global: &GlobalArgs, args: &StageArgs) -> anyhow::Result<Stage> {
        if !global.nodes.is_empty() {
            if args.below.is_some() || args.quipud.is_some() {
                return usage("--below and --quipud make sense only where the bench starts nodes");
            }
            return Ok(Stage::of(Cluster::Elsewhere(global.nodes.clone()), None));
        }
        let quipud = quipud::find(args.quipud.as_deref())?;
        if let Some(dir) = &global.dir {
            let dir = ClusterDir::new(dir.clone());
            let layout = dir.load_existing()?;
            return Ok(Stage::of(Cluster::Local(LocalCluster { dir, layout, quipud }), None));
        }
        let below = args.below.clone().unwrap_or_else(std::env::temp_dir);
        let folder = temporary_folder(&below)?;
        let dir = ClusterDir::new(folder.path());
        let layout = Layout::new(&ports::free(NODES)?);
        let cluster = LocalCluster { dir, layout, quipud };
        let mut stage = Stage::of(Cluster::Local(cluster), Some(folder));
        stage.start_all().await?;
        Ok(stage)
    }

    fn of(cluster: Cluster, folder: Option<TempDir>) -> Stage {
        Stage { cluster, paused: Vec::new(), children: Vec::new(), folder }
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        let ids: Vec<u64> = self.nodes().iter().map(|node| node.node_id).collect();
        for node_id in &ids {
            self.launch(*node_id)?;
        }
        let cluster = self.local_mut()?;
        for node_id in ids {
            cluster.wait_reachable(node_id).await?;
        }
        cluster.form().await?;
        cluster.wait_healthy().await
    }

    fn launch(&mut self, node_id: u64) -> anyhow::Result<()> {
        let child = self.local_mut()?.start(node_id)?;
        self.children.push(child);
        Ok(())
    }

    /// Whether the bench has started the cluster, and nothing else uses it.
    pub(super) fn is_own(&self) -> bool {
        self.folder.is_some()
    }

    /// The nodes whose processes can be seen; none of a cluster elsewhere.
    pub(super) fn nodes(&self) -> &[LocalNode] {
        match &self.cluster {
            Cluster::Local(cluster) => &cluster.layout.nodes,
            Cluster::Elsewhere(_) => &[],
        }
    }

    /// A client with connections of its own.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let addresses = match &self.cluster {
            Cluster::Local(cluster) => cluster.layout.addresses(),
            Cluster::Elsewhere(addresses) => addresses.clone(),
        };
        Client::connect(ClientConfig::new(addresses)).await.context("can't reach the cluster")
    }

    /// Refuses a cluster whose nodes can't be broken from here.
    pub(super) fn check_breakable(&self) -> anyhow::Result<()> {
        match &self.cluster {
            Cluster::Local(_) => Ok(()),
            Cluster::Elsewhere(_) => usage(
                "failover kills nodes, so it needs a local cluster: one of its own, or one that \
                 `quipu cluster up` started, named by --dir",
            ),
        }
    }

    /// Sends SIGKILL and returns at once.
    pub(super) fn kill(&mut self, node_id: u64) -> anyhow::Result<()> {
        self.process(node_id)?.signal(Signal::KILL)
    }

    /// Sends SIGSTOP and returns at once.
    pub(super) fn pause(&mut self, node_id: u64) -> anyhow::Result<()> {
        self.paused.push(node_id);
        self.process(node_id)?.signal(Signal::STOP)
    }

    /// Lets a paused node go on.
    pub(super) fn resume(&mut self, node_id: u64) -> anyhow::Result<()> {
        self.process(node_id)?.signal(Signal::CONT)?;
        self.paused.retain(|paused| *paused != node_id);
        Ok(())
    }

    /// Starts a node again that was killed, on the same data.
    pub(super) async fn restart(&mut self, node_id: u64) -> anyhow::Result<()> {
        if !self.process(node_id)?.wait_down(KILL_TIMEOUT).await {
            bail!("node {node_id} is still there after SIGKILL");
        }
        self.launch(node_id)?;
        self.local_mut()?.wait_reachable(node_id).await?;
        Ok(())
    }

    /// Waits until every node says that nothing is wrong.
    pub(super) async fn wait_healthy(&self) -> anyhow::Result<()> {
        match &self.cluster {
            Cluster::Local(cluster) => cluster.wait_healthy().await,
            Cluster::Elsewhere(_) => Ok(()),
        }
    }

    fn local_mut(&mut self) -> anyhow::Result<&mut LocalCluster> {
        match &mut self.cluster {
            Cluster::Local(cluster) => Ok(cluster),
            Cluster::Elsewhere(_) => bail!("the processes of this cluster can't be seen from here"),
        }
    }

    fn process(&self, node_id: u64) -> anyhow::Result<&ProcessId> {
        let node = self.nodes().iter().find(|node| node.node_id == node_id);
        let node = node.with_context(|| format!("there is no node {node_id} here"))?;
        node.process.as_ref().with_context(|| format!("node {node_id} was never started"))
    }
}

fn temporary_folder(below: &Path) -> anyhow::Result<TempDir> {
    std::fs::create_dir_all(below)
        .and_then(|()| tempfile::Builder::new().prefix("quipu-bench-").tempdir_in(below))
        .with_context(|| format!("can't make a folder in {}", below.display()))
}

impl Drop for Stage {
    fn drop(&mut self) {
        for node_id in std::mem::take(&mut self.paused) {
            // One that has ended needs no waking.
            let _ = self.process(node_id).and_then(|process| process.signal(Signal::CONT));
        }
        if self.folder.is_none() {
            // A node of a cluster that was named goes on after the bench that restarted it.
            return;
        }
        for child in &mut self.children {
            // Those that have ended already can't be killed, and shall not be.
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::args::OutputForm;

    fn global(nodes: &[&str], dir: Option<PathBuf>) -> GlobalArgs {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        GlobalArgs { nodes, dir, output: OutputForm::Table }
    }

    fn args(below: Option<PathBuf>, quipud: Option<PathBuf>) -> StageArgs {
        StageArgs { repeat: 1, svg: None, below, quipud }
    }

    #[tokio::test]
    async fn nodes_that_do_not_start_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let quipud = folder.path().join("quipud");
        fs::write(&quipud, "#!/bin/sh\necho 'no such flag' >&2\nexit 2\n").unwrap();
        fs::set_permissions(&quipud, fs::Permissions::from_mode(0o755)).unwrap();
        let below = folder.path().join("below");
        let args = args(Some(below.clone()), Some(quipud));
        let error = Stage::open(&global(&[], None), &args).await.unwrap_err().to_string();
        assert!(error.contains("ended while starting"), "{error}");
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_cluster_elsewhere_can_be_measured_and_not_broken() {
        let stage = Stage::open(&global(&["127.0.0.1:1"], None), &args(None, None)).await.unwrap();
        assert!(stage.nodes().is_empty());
        assert!(!stage.is_own());
        let error = stage.check_breakable().unwrap_err().to_string();
        assert!(error.contains("needs a local cluster"), "{error}");
        let below = args(Some("x".into()), None);
        assert!(Stage::open(&global(&["127.0.0.1:1"], None), &below).await.is_err());
    }

    #[tokio::test]
    async fn a_folder_that_is_named_has_to_hold_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let quipud = folder.path().join("quipud");
        fs::write(&quipud, "").unwrap();
        let global = global(&[], Some(folder.path().join("none")));
        let error = Stage::open(&global, &args(None, Some(quipud))).await.unwrap_err().to_string();
        assert!(error.starts_with("there is no local cluster in "), "{error}");
    }
}
