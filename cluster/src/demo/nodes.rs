//! The nodes of a demo: in a folder of their own, on free ports, and gone when the demo is.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::local::layout::{ClusterDir, Layout};
use crate::local::ports;
use crate::local::processes::ProcessId;
use crate::local::start::LocalCluster;

const NODES: u16 = 3;

/// After SIGKILL only the kernel has something left to do.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Three nodes. Dropping them kills their processes and deletes their data.
#[derive(Debug)]
pub(super) struct DemoNodes {
    cluster: LocalCluster,
    /// Every process that was started, to be waited for so that none stays as a zombie.
    children: Vec<Child>,
    // Dropped last: the nodes write into it.
    _folder: TempDir,
}

impl DemoNodes {
    /// Starts and forms a cluster in a new folder below `dir`, or below the system's folder for
    /// temporary files.
    pub(super) async fn start(quipud: PathBuf, dir: Option<&Path>) -> anyhow::Result<DemoNodes> {
        let below = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        std::fs::create_dir_all(&below)
            .with_context(|| format!("can't make the folder {}", below.display()))?;
        let folder = tempfile::Builder::new()
            .prefix("quipu-demo-")
            .tempdir_in(&below)
            .with_context(|| format!("can't make a folder in {}", below.display()))?;
        let cluster = LocalCluster {
            dir: ClusterDir::new(folder.path()),
            layout: Layout::new(&ports::free(NODES)?),
            quipud,
        };
        let mut nodes = DemoNodes { cluster, children: Vec::new(), _folder: folder };
        for node_id in nodes.ids() {
            nodes.launch(node_id)?;
        }
        for node_id in nodes.ids() {
            nodes.cluster.wait_reachable(node_id).await?;
        }
        nodes.cluster.form().await?;
        nodes.wait_healthy().await?;
        Ok(nodes)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.cluster.layout.nodes.iter().map(|node| node.node_id).collect()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.cluster.layout.addresses()
    }

    pub(super) async fn wait_healthy(&self) -> anyhow::Result<()> {
        self.cluster.wait_healthy().await
    }

    fn launch(&mut self, node_id: u64) -> anyhow::Result<()> {
        let child = self.cluster.start(node_id)?;
        self.children.push(child);
        Ok(())
    }

    /// Sends SIGKILL. Returns at once; [`DemoNodes::wait_killed`] waits for the end.
    pub(super) fn kill(&self, node_id: u64) -> anyhow::Result<()> {
        self.process(node_id)?.signal(Signal::KILL)
    }

    pub(super) async fn wait_killed(&self, node_id: u64) -> anyhow::Result<()> {
        if !self.process(node_id)?.wait_down(KILL_TIMEOUT).await {
            bail!("node {node_id} is still there after SIGKILL");
        }
        Ok(())
    }

    /// Starts a node again that was killed, on the same data.
    pub(super) async fn restart(&mut self, node_id: u64) -> anyhow::Result<()> {
        self.launch(node_id)?;
        self.cluster.wait_reachable(node_id).await?;
        Ok(())
    }

    fn process(&self, node_id: u64) -> anyhow::Result<&ProcessId> {
        let node = self.cluster.layout.node(node_id)?;
        node.process.as_ref().context("every node of the demo was started")
    }
}

impl Drop for DemoNodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Those that have ended already can't be killed, and shall not be.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn nodes_that_do_not_start_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let quipud = folder.path().join("quipud");
        fs::write(&quipud, "#!/bin/sh\necho 'no such flag' >&2\nexit 2\n").unwrap();
        fs::set_permissions(&quipud, fs::Permissions::from_mode(0o755)).unwrap();
        let below = folder.path().join("demo");
        let error = DemoNodes::start(quipud, Some(&below)).await.unwrap_err().to_string();
        assert!(error.contains("ended while starting"), "{error}");
        assert!(error.contains("no such flag"), "{error}");
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0);
    }
}
