//! From a layout to a healthy cluster: start what is down, wait, form it once, wait again.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{Admin, Client, ClientConfig};
use tokio::time::Instant;

use crate::local::layout::{ClusterDir, Layout};
use crate::local::processes::{NodeCommand, ProcessId, ProcessState};

/// A node that does not answer so long after its start won't.
const REACHABLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster whose nodes all answer has found its leaders by then.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two questions to a node that is not ready.
const POLL: Duration = Duration::from_millis(50);

/// For one question to a node on this machine.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Lines of a node's log that are shown when it doesn't start.
const LOG_LINES: usize = 15;

/// A cluster of local processes, and what is needed to start them.
#[derive(Debug, Clone)]
pub(crate) struct LocalCluster {
    pub(crate) dir: ClusterDir,
    pub(crate) layout: Layout,
    pub(crate) quipud: PathBuf,
}

impl LocalCluster {
    /// Starts one node and remembers its process. The caller owns the child and may drop it.
    pub(crate) fn start(&mut self, node_id: u64) -> anyhow::Result<Child> {
        let join = self.layout.addresses();
        let node = self.layout.node_mut(node_id)?;
        let command = NodeCommand {
            quipud: self.quipud.clone(),
            node_id,
            listen: node.address(),
            http_listen: node.http_address(),
            data_dir: self.dir.data_dir(node_id),
            log_file: self.dir.log_file(node_id),
            join,
        };
        let (process, child) = command.spawn()?;
        node.process = Some(process);
        self.dir.save(&self.layout)?;
        Ok(child)
    }

    /// Nodes whose process has ended or was never started.
    pub(crate) fn nodes_down(&self) -> Vec<u64> {
        self.nodes_in(ProcessState::Down)
    }

    /// Nodes whose process is stopped by SIGSTOP.
    pub(crate) fn nodes_paused(&self) -> Vec<u64> {
        self.nodes_in(ProcessState::Paused)
    }

    fn nodes_in(&self, state: ProcessState) -> Vec<u64> {
        let is_in = |process: &Option<ProcessId>| {
            process.as_ref().map_or(ProcessState::Down, ProcessId::state) == state
        };
        let nodes = self.layout.nodes.iter().filter(|node| is_in(&node.process));
        nodes.map(|node| node.node_id).collect()
    }

    /// Waits until a node that was started answers.
    pub(crate) async fn wait_reachable(&self, node_id: u64) -> anyhow::Result<Admin> {
        let node = self.layout.node(node_id)?;
        let process = node.process.as_ref().context("the node was not started")?;
        let deadline = Instant::now() + REACHABLE_TIMEOUT;
        loop {
            let error = match admin_at(&node.address()).await {
                Ok(admin) => return Ok(admin),
                Err(error) => error,
            };
            // AFTER the question, so that a node that has just ended is not asked again.
            if process.state() == ProcessState::Down {
                bail!(
                    "node {node_id} ended while starting; its log ends with:\n{}",
                    self.log_end(node_id)
                );
            }
            if Instant::now() >= deadline {
                let seconds = REACHABLE_TIMEOUT.as_secs();
                return Err(error).context(format!(
                    "node {node_id} doesn't answer after {seconds} s; its log is {}",
                    self.dir.log_file(node_id).display()
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Forms the cluster if that was not done yet. All nodes have to be reachable.
    pub(crate) async fn form(&mut self) -> anyhow::Result<()> {
        if self.layout.formed {
            return Ok(());
        }
        let addresses = self.layout.addresses();
        let first = addresses.first().context("a cluster has at least one node")?;
        let admin = admin_at(first).await?;
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        loop {
            match admin.init_cluster(&addresses).await {
                Ok(_) => break,
                Err(error) if error.retriable() && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(error).context("can't form the cluster"),
            }
        }
        self.layout.formed = true;
        self.dir.save(&self.layout)
    }

    /// Waits until every node says that nothing is wrong.
    pub(crate) async fn wait_healthy(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        for node in &self.layout.nodes {
            loop {
                let problems = match problems_at(&node.address()).await {
                    Ok(problems) if problems.is_empty() => break,
                    Ok(problems) => problems,
                    Err(error) => vec![format!("{error:#}")],
                };
                if Instant::now() >= deadline {
                    bail!(
                        "node {} is not healthy after {} s: {}",
                        node.node_id,
                        HEALTHY_TIMEOUT.as_secs(),
                        problems.join("; ")
                    );
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The last lines of a node's log.
    pub(crate) fn log_end(&self, node_id: u64) -> String {
        let text = fs::read(self.dir.log_file(node_id)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// The node at this address and no other.
pub(crate) async fn admin_at(address: &str) -> anyhow::Result<Admin> {
    let config = ClientConfig {
        connect_timeout: ASK_TIMEOUT,
        request_timeout: ASK_TIMEOUT,
        retry_timeout: ASK_TIMEOUT,
        ..ClientConfig::new([address])
    };
    let client = Client::connect(config).await?;
    Ok(client.admin().at_address(address))
}

async fn problems_at(address: &str) -> anyhow::Result<Vec<String>> {
    let health = admin_at(address).await?.health().await?;
    Ok(match (health.healthy, health.problems) {
        (true, _) => Vec::new(),
        (false, problems) if problems.is_empty() => vec!["it doesn't say why".to_owned()],
        (false, problems) => problems,
    })
}
