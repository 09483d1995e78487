//! A cluster of real processes: start, form, break, wait until it serves again.
//!
//! The harness never guesses: a node counts as up when it says so itself, a cluster as healthy
//! when every node says so, and a process that ends without having been killed is a violation.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{Admin, Client, ClientConfig};
use tokio::time::{Instant, sleep, timeout};

use crate::live::node::{LiveNode, Program};
use crate::live::scrape;
use crate::violation::Violation;

/// A node that was started answers within this time, also after a crash with much to recover.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A cluster whose nodes are all ready has all its leaders within this time.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Between two questions to a node that is not ready.
const POLL: Duration = Duration::from_millis(20);

/// For one question to a node on this machine.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Below the range from which the system gives ports to outgoing connections: one of those could
/// otherwise take the port of a node that is down for a moment.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports that are tried until enough are found to be free.
const PORTS_TRIED_MAX: usize = 1_000;

/// Three or more nodes on this machine. Dropping it kills them.
#[derive(Debug)]
pub(super) struct LiveCluster {
    program: Program,
    nodes: Vec<LiveNode>,
    /// What ended without having been killed.
    stopped: Vec<String>,
}

impl LiveCluster {
    /// Starts `count` fresh nodes with their data and logs below `dir`, and forms a cluster.
    ///
    /// # Errors
    /// If that doesn't succeed in time; says what the log of the node ends with.
    pub(super) async fn start(program: Program, dir: &Path, count: u64) -> anyhow::Result<Self> {
        let mut ports = free_ports(usize::try_from(count)? * 2)?.into_iter();
        let mut nodes = Vec::new();
        for id in 1..=count {
            let ports = [ports.next(), ports.next()].map(|port| port.expect("two for each"));
            nodes.push(LiveNode::new(dir, id, ports));
        }
        let mut cluster = Self { program, nodes, stopped: Vec::new() };
        for id in cluster.ids() {
            cluster.start_node(id)?;
        }
        cluster.form().await?;
        cluster.wait_healthy().await?;
        Ok(cluster)
    }

    async fn form(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let addresses = self.addresses();
        loop {
            let formed = match admin_at(&addresses[0]).await {
                Ok(admin) => admin.init_cluster(&addresses).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            let Err(error) = formed else { return Ok(()) };
            self.take_note_of_ends();
            if let Some(stopped) = self.stopped.first() {
                bail!("the cluster can't be formed: {stopped}");
            }
            if Instant::now() >= deadline {
                return Err(error.context("the cluster can't be formed"));
            }
            sleep(POLL).await;
        }
    }

    /// The labels of the nodes.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// "host:port" of every node, by label.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// The node of this label.
    pub(super) fn node(&self, id: u64) -> &LiveNode {
        self.nodes.iter().find(|node| node.id == id).expect("a label of this cluster")
    }

    fn node_mut(&mut self, id: u64) -> &mut LiveNode {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a label of this cluster")
    }

    /// Starts a node that is down.
    ///
    /// # Errors
    /// If the process can't be started.
    pub(super) fn start_node(&mut self, id: u64) -> anyhow::Result<()> {
        let join = self.addresses().join(",");
        let program = self.program.clone();
        self.node_mut(id).start(&program, &join)
    }

    /// Sends SIGKILL to these nodes, all BEFORE waiting for the end of any.
    ///
    /// # Errors
    /// If one of them is not running.
    pub(super) fn kill(&mut self, ids: &[u64]) -> anyhow::Result<()> {
        self.take_note_of_ends();
        for id in ids.iter().filter(|id| self.node(**id).is_up()).copied().collect::<Vec<_>>() {
            self.node_mut(id).kill()?;
        }
        for id in ids {
            self.node_mut(*id).reap()?;
        }
        Ok(())
    }

    /// Waits until a node that was started is part of the cluster and has opened its groups.
    ///
    /// # Errors
    /// If the process ends, or is not ready in time.
    pub(super) async fn wait_ready(&mut self, id: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let answer = scrape::get(&self.node(id).http, "/readyz").await;
            let why = match answer {
                Ok((200, _)) => return Ok(()),
                Ok((_, reason)) => reason,
                Err(error) => format!("{error:#}"),
            };
            self.take_note_of_ends();
            let log = || self.node(id).log_end();
            if !self.node(id).is_up() {
                bail!("node {id} ended while starting; its log ends with:\n{}", log());
            }
            if Instant::now() >= deadline {
                let seconds = READY_WITHIN.as_secs();
                bail!("node {id} is not ready after {seconds} s: {why}; its log:\n{}", log());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until every node says that nothing is wrong.
    ///
    /// # Errors
    /// If that takes too long; says what was wrong.
    pub(super) async fn wait_healthy(&mut self) -> anyhow::Result<()> {
        for id in self.ids() {
            self.wait_ready(id).await?;
        }
        let deadline = Instant::now() + HEALTHY_WITHIN;
        for id in self.ids() {
            loop {
                let problems = match problems_at(&self.node(id).address).await {
                    Ok(problems) if problems.is_empty() => break,
                    Ok(problems) => problems.join("; "),
                    Err(error) => format!("{error:#}"),
                };
                if Instant::now() >= deadline {
                    let seconds = HEALTHY_WITHIN.as_secs();
                    bail!("node {id} is not healthy after {seconds} s: {problems}");
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// A client of the whole cluster.
    ///
    /// # Errors
    /// If no node answers.
    pub(super) async fn client(&self, config: ClientConfig) -> anyhow::Result<Client> {
        Ok(Client::connect(ClientConfig { nodes: self.addresses(), ..config }).await?)
    }

    /// The metrics of one node.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub(super) async fn metrics(&self, id: u64) -> anyhow::Result<scrape::Metrics> {
        scrape::metrics(&self.node(id).http).await
    }

    /// The metrics of every node, by label.
    ///
    /// # Errors
    /// If one of them doesn't answer.
    pub(super) async fn metrics_of_all(&self) -> anyhow::Result<Vec<(u64, scrape::Metrics)>> {
        let mut all = Vec::new();
        for id in self.ids() {
            all.push((id, self.metrics(id).await.with_context(|| format!("node {id}"))?));
        }
        Ok(all)
    }

    fn take_note_of_ends(&mut self) {
        for node in &mut self.nodes {
            if let Some(status) = node.ended() {
                let (id, log) = (node.id, node.log_end());
                self.stopped.push(format!("node {id}: {status}; its log ends with:\n{log}"));
            }
        }
    }

    /// What no fault explains: processes that ended by themselves, and panics in the logs.
    pub(super) fn violations(&mut self) -> Vec<Violation> {
        self.take_note_of_ends();
        let stopped = self.stopped.iter().cloned();
        let mut violations: Vec<Violation> =
            stopped.map(|reason| Violation::NodeStopped { reason }).collect();
        for node in &self.nodes {
            let log = node.log();
            let panics = log.lines().filter(|line| line.contains("panic: "));
            violations.extend(
                panics
                    .map(|line| Violation::Panicked { what: format!("node {}: {line}", node.id) }),
            );
        }
        violations
    }

    /// Lines of the logs that say ERROR, each kind once with its number: for people, to look into.
    pub(super) fn errors_logged(&self) -> Vec<String> {
        let mut kinds = std::collections::BTreeMap::new();
        for node in &self.nodes {
            for line in node.log().lines() {
                if let Some((_, said)) = line.split_once(" ERROR ") {
                    // Numbers differ from line to line; the kind doesn't.
                    let kind: String = said.chars().filter(|c| !c.is_ascii_digit()).collect();
                    let entry = kinds.entry(kind).or_insert((0_u64, node.id, said.to_owned()));
                    entry.0 += 1;
                }
            }
        }
        let lines = kinds.into_values();
        lines
            .map(|(count, id, said)| format!("{count} × ERROR, first on node {id}: {said}"))
            .collect()
    }
}

/// The node at this address and no other.
async fn admin_at(address: &str) -> anyhow::Result<Admin> {
    let config = ClientConfig {
        connect_timeout: ASK_WITHIN,
        request_timeout: ASK_WITHIN,
        retry_timeout: ASK_WITHIN,
        ..ClientConfig::new([address])
    };
    let client = timeout(ASK_WITHIN, Client::connect(config)).await??;
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

/// Ports on which nothing listens. All are held until the last is found, so that they differ.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..PORTS_TRIED_MAX {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, fastrand::u16(PORTS));
        if let Ok(listener) = TcpListener::bind(address) {
            held.push((listener, address.port()));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(_, port)| port).collect());
        }
    }
    bail!("no {count} free ports between {} and {}", PORTS.start, PORTS.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(6).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
