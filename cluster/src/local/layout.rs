//! The folder of a local cluster, and `cluster.json`, by which it remembers its nodes.
//!
//! ```text
//! .quipu/cluster.json      what this file describes
//! .quipu/lock              held while a command changes the cluster
//! .quipu/node-1/data/      quipud's data directory
//! .quipu/node-1/log        its stdout and stderr, appended to over restarts
//! ```

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::local::ports::NodePorts;
use crate::local::processes::ProcessId;

/// The folder of a local cluster where none is named.
pub(crate) const DIR_DEFAULT: &str = ".quipu";

const FILE_NAME: &str = "cluster.json";
const LOCK_NAME: &str = "lock";
const VERSION: u32 = 1;

/// A local cluster as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    version: u32,
    /// The cluster was formed; its nodes need no second `init`.
    pub(crate) formed: bool,
    pub(crate) nodes: Vec<LocalNode>,
}

/// One node of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalNode {
    pub(crate) node_id: u64,
    pub(crate) listen_port: u16,
    pub(crate) http_port: u16,
    /// The process that was started last. It may be dead, and its number given to another.
    pub(crate) process: Option<ProcessId>,
}

impl LocalNode {
    /// Where clients and the other nodes reach it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listen_port)
    }

    /// Where its metrics and health are served.
    pub(crate) fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }
}

impl Layout {
    /// A cluster that was not started yet. Nodes are numbered from 1.
    pub(crate) fn new(ports: &[NodePorts]) -> Layout {
        let nodes = (1..)
            .zip(ports)
            .map(|(node_id, ports)| LocalNode {
                node_id,
                listen_port: ports.listen,
                http_port: ports.http,
                process: None,
            })
            .collect();
        Layout { version: VERSION, formed: false, nodes }
    }

    /// The addresses of all nodes, in the order of their numbers.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(LocalNode::address).collect()
    }

    /// The node with this number.
    pub(crate) fn node(&self, node_id: u64) -> anyhow::Result<&LocalNode> {
        self.nodes.iter().find(|node| node.node_id == node_id).with_context(|| {
            format!("there is no node {node_id}; the cluster has 1 to {}", self.nodes.len())
        })
    }

    /// The node with this number, to change.
    pub(crate) fn node_mut(&mut self, node_id: u64) -> anyhow::Result<&mut LocalNode> {
        let count = self.nodes.len();
        self.nodes
            .iter_mut()
            .find(|node| node.node_id == node_id)
            .with_context(|| format!("there is no node {node_id}; the cluster has 1 to {count}"))
    }
}

/// The folder of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterDir(PathBuf);

impl ClusterDir {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> ClusterDir {
        ClusterDir(dir.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a node keeps its data.
    pub(crate) fn data_dir(&self, node_id: u64) -> PathBuf {
        self.node_dir(node_id).join("data")
    }

    /// Where a node's stdout and stderr go.
    pub(crate) fn log_file(&self, node_id: u64) -> PathBuf {
        self.node_dir(node_id).join("log")
    }

    fn node_dir(&self, node_id: u64) -> PathBuf {
        self.0.join(format!("node-{node_id}"))
    }

    /// Reads the cluster's file; `None` where no cluster is.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Layout>> {
        let path = self.0.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("can't read {}", path.display())),
        };
        let layout: Layout = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if layout.version != VERSION {
            bail!("{} has version {}, this quipu knows {VERSION}", path.display(), layout.version);
        }
        Ok(Some(layout))
    }

    /// Reads the file of a cluster that has to be there.
    pub(crate) fn load_existing(&self) -> anyhow::Result<Layout> {
        self.load()?.with_context(|| {
            format!(
                "there is no local cluster in {}; start one with `quipu cluster up`, or name its \
                 folder with --dir",
                self.0.display()
            )
        })
    }

    /// Writes the cluster's file, whole or not at all.
    pub(crate) fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let path = self.0.join(FILE_NAME);
        let draft = self.0.join(format!("{FILE_NAME}.new"));
        let text = serde_json::to_string_pretty(layout).context("can't encode the layout")?;
        fs::write(&draft, text + "\n")
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("can't write {}", path.display()))
    }

    /// Makes the folder and takes its lock, so that two commands don't start the same node twice.
    pub(crate) fn lock(&self) -> anyhow::Result<ClusterLock> {
        fs::create_dir_all(&self.0)
            .with_context(|| format!("can't make the folder {}", self.0.display()))?;
        let path = self.0.join(LOCK_NAME);
        let file =
            File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another quipu command is changing the cluster in {}", self.0.display());
        }
        Ok(ClusterLock { _file: file })
    }

    /// Deletes the cluster's folders and files, and its folder if nothing else is in it.
    pub(crate) fn delete(&self, layout: &Layout) -> anyhow::Result<()> {
        for node in &layout.nodes {
            remove(&self.node_dir(node.node_id), |path| fs::remove_dir_all(path))?;
        }
        for name in [FILE_NAME, LOCK_NAME] {
            remove(&self.0.join(name), |path| fs::remove_file(path))?;
        }
        // Files of others stay, and then the folder does.
        let _ = fs::remove_dir(&self.0);
        Ok(())
    }
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> anyhow::Result<()> {
    match how(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(format!("can't delete {}", path.display())),
    }
}

/// The right to change a cluster; given back when dropped.
#[derive(Debug)]
pub(crate) struct ClusterLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(&[
            NodePorts { listen: 9400, http: 9500 },
            NodePorts { listen: 9401, http: 9501 },
        ])
    }

    #[test]
    fn a_cluster_is_remembered_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path());
        assert_eq!(dir.load().unwrap(), None);
        dir.save(&layout()).unwrap();
        assert_eq!(dir.load().unwrap(), Some(layout()));
        assert_eq!(layout().addresses(), ["127.0.0.1:9400", "127.0.0.1:9401"]);
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path());
        fs::write(folder.path().join(FILE_NAME), "{").unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("is damaged"));
        let newer = r#"{"version":2,"formed":true,"nodes":[]}"#;
        fs::write(folder.path().join(FILE_NAME), newer).unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("has version 2"));
    }

    #[test]
    fn a_node_that_is_not_there_is_refused_with_the_range() {
        let error = layout().node(3).unwrap_err().to_string();
        assert_eq!(error, "there is no node 3; the cluster has 1 to 2");
    }

    #[test]
    fn only_one_command_at_a_time_may_change_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path().join("new"));
        let held = dir.lock().unwrap();
        assert!(dir.lock().unwrap_err().to_string().contains("another quipu command"));
        drop(held);
        assert!(dir.lock().is_ok());
    }

    #[test]
    fn deleting_a_cluster_leaves_what_others_put_into_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ClusterDir::new(folder.path());
        dir.save(&layout()).unwrap();
        fs::create_dir_all(dir.data_dir(1)).unwrap();
        fs::write(folder.path().join("notes"), "mine").unwrap();
        dir.delete(&layout()).unwrap();
        assert!(!dir.data_dir(1).exists());
        assert!(folder.path().join("notes").exists());
        assert_eq!(dir.load().unwrap(), None);
    }
}
