//! The hosts of nodes: real node code on a simulated disk, which outlives it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use node::Node;
use node::config::NodeConfig;
use node::env::{Disk, Env};
use node::http::Readiness;
use node::metrics::Metrics;
use node::probe::LiveReplica;
use node::storage::Space;
use node::storage::memory::MemoryEngine;
use tokio::sync::watch;
use turmoil::Sim;
use xxhash_rust::xxh3::Xxh3;

use super::clock::SimulatedClock;
use super::links::BarrierId;
use super::net::SimulatedNetwork;
use crate::checkers::raft_safety::NodeLook;
use crate::history::Recorder;
use crate::nemesis::Cut;
use crate::plan::NodePlan;
use crate::trace::Trace;

/// The port at which every node serves.
const PORT: u16 = 9400;

/// A host that runs a node.
pub struct NodeHost {
    label: u64,
    name: String,
    disk: MemoryEngine,
    /// With which its node starts the next time.
    config: Rc<RefCell<NodeConfig>>,
    clock: SimulatedClock,
    /// What each start of the node counted, the last one last.
    metrics: Rc<RefCell<Vec<Metrics>>>,
    /// Its node, while it runs.
    running: Rc<RefCell<Weak<Node>>>,
    up: bool,
    lost: bool,
    /// It belongs to no cluster: it was never started, or it was removed.
    away: bool,
    /// Its node ended because it was removed from the cluster.
    left: Rc<Cell<bool>>,
    /// Its disk may fail, and its node end because of that.
    disk_fails: Rc<Cell<bool>>,
    /// Its node ended because of its disk, and nobody has stopped the host yet.
    falls_now: Rc<Cell<bool>>,
    /// The same, and it is down.
    fallen: bool,
    falls: u64,
    /// How often it became a member while the cluster ran, and was removed again.
    comings: u64,
    goings: u64,
    /// It was started to join, and is not a member yet.
    joins: bool,
    /// Keeps others from hearing of its end, while it is down silently.
    pub(super) silence: Option<BarrierId>,
}

impl NodeHost {
    /// Adds a host to the simulation; its node starts with the next step.
    pub(super) fn start(
        sim: &mut Sim<'static>,
        plan: &NodePlan,
        trace: &Trace,
        recorder: &Recorder,
    ) -> Self {
        let name = format!("node-{}", plan.label);
        let disk = MemoryEngine::new();
        let clock = SimulatedClock::new(plan.clock_offset_ms, plan.clock_drift_ppm);
        let env = Env {
            network: Arc::new(SimulatedNetwork::new(trace.clone())),
            clock: Arc::new(clock.clone()),
            disk: Disk::Simulated {
                engine: Arc::new(disk.clone()),
                sync: Duration::from_millis(plan.sync_ms),
            },
        };
        let config = Rc::new(RefCell::new(config(plan.label, &name)));
        let starts_with = config.clone();
        let metrics: Rc<RefCell<Vec<Metrics>>> = Rc::default();
        let (label, kept, recorder) = (plan.label, metrics.clone(), recorder.clone());
        let running: Rc<RefCell<Weak<Node>>> = Rc::default();
        let ends = Ends::default();
        let (seat, kept_ends) = (running.clone(), ends.clone());
        sim.host(name.as_str(), move || {
            let counted = Metrics::new();
            kept.borrow_mut().push(counted.clone());
            let node = run(
                starts_with.borrow().clone(),
                env.clone(),
                counted,
                (seat.clone(), kept_ends.clone()),
            );
            let recorder = recorder.clone();
            // In the task: outside of it there is no simulated time.
            async move {
                recorder.started(label);
                node.await
            }
        });
        Self {
            label,
            name,
            disk,
            config,
            clock,
            metrics,
            running,
            up: true,
            lost: false,
            away: false,
            disk_fails: ends.disk_fails,
            falls_now: ends.falls,
            fallen: false,
            falls: 0,
            left: ends.left,
            comings: 0,
            goings: 0,
            joins: false,
            silence: None,
        }
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

    /// Whether it lost its disk.
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    /// Whether it belongs to no cluster: it was never started, or it was removed.
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// Whether its disk may fail.
    pub fn disk_fails(&self) -> bool {
        self.disk_fails.get()
    }

    pub(super) fn set_disk_fails(&self, fails: bool) {
        self.disk_fails.set(fails);
    }

    /// Whether its node ended because of its disk, and was not started since.
    pub fn has_fallen(&self) -> bool {
        self.fallen
    }

    /// How often its node ended because of its disk.
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// Stops the host of a node that ended because of its disk.
    pub(super) fn pick_up(&mut self, sim: &mut Sim<'static>) {
        if self.falls_now.take() && self.up {
            self.kill(sim);
            self.fallen = true;
            self.falls += 1;
        }
    }

    /// How often it became a member while the cluster ran.
    pub fn comings(&self) -> u64 {
        self.comings
    }

    /// How often it was removed from the cluster and ended.
    pub fn goings(&self) -> u64 {
        self.goings
    }

    /// Its disk.
    pub fn disk(&self) -> &MemoryEngine {
        &self.disk
    }

    /// Its wall clock.
    pub fn clock(&self) -> &SimulatedClock {
        &self.clock
    }

    /// What each replica that is open on it says of itself.
    pub fn live(&self) -> Vec<LiveReplica> {
        let node = self.running.borrow().upgrade();
        node.map(|node| node.probe()).unwrap_or_default()
    }

    /// What consensus looks like on it at this moment.
    pub(super) fn look(&self) -> NodeLook<'_> {
        let live = self.live();
        let run = u64::try_from(self.metrics.borrow().len()).expect("a usize fits");
        NodeLook { node: self.label, run, live, disk: &self.disk }
    }

    /// Entries that its node has proposed and that are not committed yet.
    pub fn proposals_in_flight(&self) -> u64 {
        let metrics = self.metrics.borrow();
        metrics.last().map_or(0, |metrics| metrics.raft.proposals_in_flight.get())
    }

    /// The sum over all starts of its node of something that it counts.
    pub fn counted(&self, count: impl Fn(&Metrics) -> u64) -> u64 {
        self.metrics.borrow().iter().map(count).sum()
    }

    /// Stops the node without a word and takes from its disk what was not synced. Returns how many
    /// writes are gone.
    pub(super) fn cut_power(&mut self, sim: &mut Sim<'static>, cut: Cut) -> usize {
        self.stop(sim);
        let pending = self.disk.pending_batches();
        self.disk.power_cut(pending * usize::from(cut.keep_percent) / 100)
    }

    /// Stops the node without a word. What it wrote is in the page cache.
    pub(super) fn kill(&mut self, sim: &mut Sim<'static>) {
        self.stop(sim);
        self.disk.restart_process();
    }

    /// Stops the node without a word and empties its disk. When it starts again it asks the others
    /// to take it in: nodes 1 to `nodes`.
    pub(super) fn lose_disk(&mut self, sim: &mut Sim<'static>, nodes: u64) {
        self.stop(sim);
        self.disk.wipe();
        self.lost = true;
        self.joins_at(nodes);
    }

    /// Never starts until it is to join.
    pub(super) fn stay_away(&mut self, sim: &mut Sim<'static>) {
        self.stop(sim);
        self.away = true;
    }

    /// Ends the host of a node that was removed from its cluster. Answers whether it was.
    pub(super) fn see_off(&mut self, sim: &mut Sim<'static>) -> bool {
        let left = self.left.take() && self.up;
        if left {
            self.kill(sim);
            self.away = true;
            self.goings += 1;
        }
        left
    }

    /// Starts a node that is away, with an empty disk: it asks nodes 1 to `nodes` to take it in.
    pub(super) fn come(&mut self, sim: &mut Sim<'static>, nodes: u64) {
        assert!(self.away, "only a node that is away can come");
        self.disk.wipe();
        self.joins_at(nodes);
        (self.away, self.joins) = (false, true);
        self.restart(sim);
    }

    /// Counts it once it is a member.
    pub(super) fn note_joined(&mut self) {
        if self.joins && !self.live().is_empty() {
            self.joins = false;
            self.comings += 1;
        }
    }

    fn joins_at(&self, nodes: u64) {
        let others = (1..=nodes).filter(|label| *label != self.label);
        self.config.borrow_mut().join = others.map(address).collect();
    }

    fn stop(&mut self, sim: &mut Sim<'static>) {
        assert!(self.up, "a node that is down can't be stopped");
        sim.crash(self.name.as_str());
        self.up = false;
    }

    /// Starts the node again on what its disk has kept.
    pub(super) fn restart(&mut self, sim: &mut Sim<'static>) {
        assert!(!self.up, "only a node that is down can be started");
        sim.bounce(self.name.as_str());
        (self.up, self.fallen) = (true, false);
    }

    /// A hash of all keys and values on its disk.
    pub fn disk_hash(&self) -> u128 {
        let mut hash = Xxh3::new();
        self.disk.for_each_row(|space, key, value| {
            hash.update(&[u8::from(space == Space::Log)]);
            hash.update(key);
            hash.update(value);
        });
        hash.digest128()
    }
}

/// Nodes that form the cluster; those beyond join it.
pub(super) const FOUNDERS: u64 = 5;

fn address<A: std::str::FromStr<Err: std::fmt::Debug>>(label: u64) -> A {
    format!("node-{label}:{PORT}").parse().expect("an address")
}

fn config(label: u64, name: &str) -> NodeConfig {
    let listen = format!("0.0.0.0:{PORT}").parse().expect("an address");
    let advertise = format!("{name}:{PORT}").parse().expect("an address");
    let join = match label {
        ..=FOUNDERS => Vec::new(),
        _ => (1..=FOUNDERS).map(address).collect(),
    };
    let config = NodeConfig { node_id: label, listen, advertise, join, ..NodeConfig::default() };
    config.check().expect("valid like that of a quipud");
    config
}

/// How the node of a host may end without that being the end of the run. Clones share it.
#[derive(Clone, Default)]
struct Ends {
    /// It may end because of its disk.
    disk_fails: Rc<Cell<bool>>,
    /// It did.
    falls: Rc<Cell<bool>>,
    /// It was removed from its cluster.
    left: Rc<Cell<bool>>,
}

impl Ends {
    /// The end of a node for this reason, until the world has seen it; an error where it is none
    /// that may be.
    async fn meet(&self, label: u64, was_removed: bool, reason: String) -> turmoil::Result {
        let end = match (was_removed, self.disk_fails.get()) {
            (true, _) => &self.left,
            (false, true) => &self.falls,
            (false, false) => return Err(format!("node {label}: {reason}").into()),
        };
        tracing::info!(label, reason, "the node has ended as it may; its host ends it");
        end.set(true);
        std::future::pending().await
    }
}

/// What a host runs. Its end is the end of the run: nothing in this world stops a node but a crash,
/// its disk, and that it was removed from its cluster.
async fn run(
    config: NodeConfig,
    env: Env,
    metrics: Metrics,
    (seat, ends): (Rc<RefCell<Weak<Node>>>, Ends),
) -> turmoil::Result {
    let label = config.node_id;
    tracing::info!(label, clock_ms = env.clock.now_ms(), "the host starts its node");
    let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
    let started = Node::start(config, env, metrics, readiness).await;
    let node = match started {
        Ok(node) => Rc::new(node),
        Err(error) => return ends.meet(label, false, error.to_string()).await,
    };
    seat.replace(Rc::downgrade(&node));
    let reason = node.failed().await;
    ends.meet(label, node.was_removed(), reason).await
}
