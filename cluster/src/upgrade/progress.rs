//! How far an upgrade is, as a file: so that another command, or the same after an interrupt, goes
//! on, goes back, or tells.
//!
//! A step is written down before it is done. What is found half-done is done again: stopping a node
//! that is stopped, and starting one that runs the right binary, change nothing.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::binary::Binary;

const FILE_NAME: &str = "upgrade.json";
const VERSION: u32 = 1;

/// An upgrade under way, or over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    version: u32,
    /// What the nodes ran before.
    pub(crate) from: Option<Binary>,
    /// What they shall run.
    pub(crate) to: Binary,
    pub(crate) direction: Direction,
    /// In the order of the upgrade.
    pub(crate) nodes: Vec<NodeStep>,
    /// Why it stopped by itself.
    pub(crate) halted: Option<String>,
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Forward,
    Back,
}

/// One node of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeStep {
    pub(crate) node_id: u64,
    pub(crate) address: String,
    pub(crate) state: NodeState,
}

/// What a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeState {
    Old,
    /// It is being exchanged, one way or the other.
    Changing,
    New,
}

impl Progress {
    /// An upgrade of which nothing is done.
    pub(crate) fn new(from: Option<Binary>, to: Binary, order: Vec<(u64, String)>) -> Progress {
        let step = |(node_id, address)| NodeStep { node_id, address, state: NodeState::Old };
        let nodes = order.into_iter().map(step).collect();
        Progress { version: VERSION, from, to, direction: Direction::Forward, nodes, halted: None }
    }

    /// The node to exchange next: one that was begun, else in the order, or backwards in it.
    pub(crate) fn next(&self) -> Option<&NodeStep> {
        let begun = self.nodes.iter().find(|node| node.state == NodeState::Changing);
        begun.or_else(|| match self.direction {
            Direction::Forward => self.nodes.iter().find(|node| node.state == NodeState::Old),
            Direction::Back => self.nodes.iter().rfind(|node| node.state == NodeState::New),
        })
    }

    /// What nodes are given in this direction; `None` where the old binary is not known.
    pub(crate) fn goal(&self) -> Option<&Binary> {
        match self.direction {
            Direction::Forward => Some(&self.to),
            Direction::Back => self.from.as_ref(),
        }
    }

    /// A node is about to be exchanged.
    pub(crate) fn begin(&mut self, node_id: u64) {
        self.halted = None;
        self.set(node_id, NodeState::Changing);
    }

    /// A node runs what it should, and has caught up.
    pub(crate) fn finish(&mut self, node_id: u64) {
        let state = match self.direction {
            Direction::Forward => NodeState::New,
            Direction::Back => NodeState::Old,
        };
        self.set(node_id, state);
    }

    /// From now on backwards, or forwards again.
    pub(crate) fn turn(&mut self, direction: Direction) {
        self.direction = direction;
        self.halted = None;
    }

    /// Nodes that run the new binary.
    pub(crate) fn done(&self) -> usize {
        self.nodes.iter().filter(|node| node.state == NodeState::New).count()
    }

    fn set(&mut self, node_id: u64, state: NodeState) {
        for node in self.nodes.iter_mut().filter(|node| node.node_id == node_id) {
            node.state = state;
        }
    }

    /// The file of an upgrade in a folder.
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(FILE_NAME)
    }

    /// Reads the file; `None` where no upgrade was begun.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Option<Progress>> {
        let path = Progress::path(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("can't read {}", path.display())),
        };
        let progress: Progress = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if progress.version != VERSION {
            let (path, found) = (path.display(), progress.version);
            bail!("{path} has version {found}, this quipu knows {VERSION}");
        }
        Ok(Some(progress))
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let path = Progress::path(folder);
        let draft = folder.join(format!("{FILE_NAME}.new"));
        let text = serde_json::to_string_pretty(self).context("can't encode the progress")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&draft, text + "\n"))
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("can't write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(version: &str) -> Binary {
        let path = PathBuf::from(format!("/opt/{version}/quipud"));
        Binary { path, version: version.to_owned(), level_min: 1, level_max: 2 }
    }

    fn upgrade() -> Progress {
        let order = [3, 1, 2].map(|node| (node, format!("127.0.0.1:940{node}")));
        Progress::new(Some(binary("0.1.0")), binary("0.2.0"), order.into())
    }

    fn exchange(progress: &mut Progress) -> Option<u64> {
        let node = progress.next()?.node_id;
        progress.begin(node);
        assert_eq!(progress.next().map(|next| next.node_id), Some(node), "what is begun is next");
        progress.finish(node);
        Some(node)
    }

    #[test]
    fn nodes_are_exchanged_in_order_and_taken_back_in_the_reverse() {
        let mut progress = upgrade();
        assert_eq!(exchange(&mut progress), Some(3));
        assert_eq!(exchange(&mut progress), Some(1));
        progress.turn(Direction::Back);
        assert_eq!(exchange(&mut progress), Some(1));
        assert_eq!(exchange(&mut progress), Some(3));
        assert_eq!(exchange(&mut progress), None);
        progress.turn(Direction::Forward);
        let order: Vec<u64> = std::iter::from_fn(|| exchange(&mut progress)).collect();
        assert_eq!((order, progress.done()), (vec![3, 1, 2], 3));
    }

    #[test]
    fn a_node_that_was_begun_is_the_first_to_be_taken_back() {
        let mut progress = upgrade();
        exchange(&mut progress);
        progress.begin(1);
        progress.turn(Direction::Back);
        assert_eq!(progress.goal().unwrap().version, "0.1.0");
        assert_eq!(exchange(&mut progress), Some(1));
        assert_eq!(exchange(&mut progress), Some(3));
        assert_eq!(progress.done(), 0);
    }

    #[test]
    fn what_was_saved_is_loaded_and_a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Progress::load(folder.path()).unwrap(), None);
        let mut progress = upgrade();
        progress.begin(3);
        progress.halted = Some("node 1 does not answer".to_owned());
        progress.save(folder.path()).unwrap();
        assert_eq!(Progress::load(folder.path()).unwrap(), Some(progress));
        fs::write(Progress::path(folder.path()), "{").unwrap();
        assert!(Progress::load(folder.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
