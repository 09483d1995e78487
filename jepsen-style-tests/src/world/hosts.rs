//! The hosts of nodes: real node code on a simulated disk, which outlives it.

use std::sync::Arc;
use std::time::Duration;

use node::config::NodeConfig;
use node::env::{Disk, Env};
use node::http::Readiness;
use node::metrics::Metrics;
use node::storage::memory::MemoryEngine;
use node::storage::{Engine, KeyRange, ScanLimit, Space};
use node::{Node, StartError};
use tokio::sync::watch;
use turmoil::Sim;
use xxhash_rust::xxh3::Xxh3;

use super::clock::SimulatedClock;
use super::net::SimulatedNetwork;
use crate::plan::{NodePlan, PowerCut};
use crate::trace::Trace;

/// The port at which every node serves.
const PORT: u16 = 9400;

/// A host that runs a node.
pub struct NodeHost {
    label: u64,
    name: String,
    disk: MemoryEngine,
    up: bool,
}

impl NodeHost {
    /// Adds a host to the simulation; its node starts with the next step.
    pub(super) fn start(sim: &mut Sim<'static>, plan: &NodePlan, trace: &Trace) -> Self {
        let name = format!("node-{}", plan.label);
        let disk = MemoryEngine::new();
        let env = Env {
            network: Arc::new(SimulatedNetwork::new(trace.clone())),
            clock: Arc::new(SimulatedClock::new(plan.clock_offset_ms)),
            disk: Disk::Simulated {
                engine: Arc::new(disk.clone()),
                sync: Duration::from_millis(plan.sync_ms),
            },
        };
        let config = config(plan.label, &name);
        sim.host(name.as_str(), move || run(config.clone(), env.clone()));
        Self { label: plan.label, name, disk, up: true }
    }

    /// Its label.
    pub fn label(&self) -> u64 {
        self.label
    }

    /// Its name in the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// "host:port" of its node.
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.name)
    }

    /// Whether its node runs.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Stops the node without a word and takes from its disk what was not synced. Returns how many
    /// writes are gone.
    pub(super) fn crash(&mut self, sim: &mut Sim<'static>, cut: PowerCut) -> usize {
        assert!(self.up, "a host without power can't lose it");
        sim.crash(self.name.as_str());
        self.up = false;
        let pending = self.disk.pending_batches();
        self.disk.power_cut(pending * usize::from(cut.keep_percent) / 100)
    }

    /// Starts the node again on what its disk has kept.
    pub(super) fn restart(&mut self, sim: &mut Sim<'static>) {
        assert!(!self.up, "only a host without power can be started");
        sim.bounce(self.name.as_str());
        self.up = true;
    }

    /// A hash of all keys and values on its disk.
    pub fn disk_hash(&self) -> u128 {
        let mut hash = Xxh3::new();
        // No key is that long and all of these bytes.
        let range = KeyRange { start: Vec::new().into(), end: vec![0xff; 64].into() };
        for space in [Space::Log, Space::State] {
            let rows = self.disk.scan(space, &range, ScanLimit::items(usize::MAX));
            for (key, value) in rows.expect("nothing damages the disks of this simulation") {
                hash.update(&key);
                hash.update(&value);
            }
        }
        hash.digest128()
    }
}

fn config(label: u64, name: &str) -> NodeConfig {
    let listen = format!("0.0.0.0:{PORT}").parse().expect("an address");
    let advertise = format!("{name}:{PORT}").parse().expect("an address");
    let config = NodeConfig { node_id: label, listen, advertise, ..NodeConfig::default() };
    config.check().expect("valid like that of a quipud");
    config
}

/// What a host runs. Its end is the end of the run: nothing in this world stops a node but a crash.
async fn run(config: NodeConfig, env: Env) -> turmoil::Result {
    let label = config.node_id;
    tracing::info!(label, clock_ms = env.clock.now_ms(), "the host starts its node");
    let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
    let started = Node::start(config, env, Metrics::new(), readiness).await;
    let node = started.map_err(|error: StartError| format!("node {label}: {error}"))?;
    let reason = node.failed().await;
    Err(format!("node {label}: {reason}").into())
}
