//! A cluster from one seed: hosts with real node code, clients, a network, disks, clocks.
//!
//! - `hosts`: a node and its disk; `net`: sockets; `links`: who can talk to whom; `clock`: wall
//!   clocks;
//! - here: time goes on, and what a nemesis may do.
//!
//! One world per process. All randomness of the node's code comes from one generator per thread,
//! and crates below us (the `select!` of futures-util) keep such state too.

mod clock;
mod hosts;
mod links;
mod net;
mod panics;
mod process_clock;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use node::env::Clock as _;
use quipu_client::{ClientConfig, Clock};
use turmoil::Sim;

use crate::checkers::raft_safety::RaftWatch;
use crate::history::Recorder;
use crate::log_lines::LineNotes;
use crate::nemesis::Cut;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::violation::Violation;
pub use clock::SimulatedClock;
pub use hosts::NodeHost;
use links::Links;
pub use links::{Barrier, BarrierId, Loss, Names};
pub(crate) use net::hex;

/// Segments that a connection may have on its way.
const TCP_SEGMENTS: usize = 65_536;
/// Between two looks at what consensus promises.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// Longer than any run: how long a run may take is decided outside.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// A simulated world.
pub struct World {
    sim: Sim<'static>,
    nodes: Vec<NodeHost>,
    clients: Names,
    links: Links,
    trace: Trace,
    seed: u64,
    latency_max: Duration,
    raft: RaftWatch,
    looks_next: Duration,
    census: Census,
    notes: LineNotes,
}

/// Labels of the nodes that run and are not away, as the world last saw it. Clones share it.
#[derive(Clone, Default)]
pub struct Census(Rc<RefCell<BTreeSet<u64>>>);

impl Census {
    /// The labels.
    pub fn labels(&self) -> BTreeSet<u64> {
        self.0.borrow().clone()
    }
}

/// A node that stands still.
#[derive(Debug, Clone, Copy)]
pub struct Paused {
    label: u64,
    barrier: BarrierId,
}

impl World {
    /// The world of a plan, at time zero. Everything random in it, on this thread, follows from
    /// the plan's seed.
    pub fn new(plan: &Plan, trace: Trace, recorder: &Recorder) -> Self {
        panics::remember();
        process_clock::show(Duration::ZERO);
        node::env::seed_this_thread(plan.seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(clock::epoch())
            .simulation_duration(FOR_EVER)
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .min_message_latency(Duration::from_millis(plan.latency_min_ms))
            .max_message_latency(Duration::from_millis(plan.latency_max_ms))
            .tcp_capacity(TCP_SEGMENTS)
            .enable_random_order()
            .build();
        let mut links = Links::default();
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            let host = NodeHost::start(&mut sim, node, &trace, recorder);
            links.add(host.name());
            nodes.push(host);
        }
        for node in &plan.spares {
            let mut host = NodeHost::start(&mut sim, node, &trace, recorder);
            links.add(host.name());
            host.stay_away(&mut sim);
            nodes.push(host);
        }
        let latency_max = Duration::from_millis(plan.latency_max_ms);
        Self {
            sim,
            nodes,
            clients: Names::new(),
            links,
            trace,
            seed: plan.seed,
            latency_max,
            raft: RaftWatch::default(),
            looks_next: Duration::ZERO,
            census: Census::default(),
            notes: recorder.notes().clone(),
        }
    }

    /// Adds a host that runs `client` to its end.
    pub fn add_client(&mut self, name: &str, client: impl Future<Output = ()> + 'static) {
        self.links.add(name);
        self.clients.insert(name.to_owned());
        self.sim.client(name, async move {
            client.await;
            Ok(())
        });
    }

    /// How the `number`th client reaches the cluster.
    pub fn client_config(&self, number: u64) -> ClientConfig {
        let clock = SimulatedClock::new(0, 0);
        let now_ms = move || i64::try_from(clock.now_ms()).unwrap_or(i64::MAX);
        ClientConfig {
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            retry_timeout: Duration::from_secs(8),
            connector: Some(net::connector(&self.trace)),
            seed: Some(self.seed.wrapping_mul(1_000).wrapping_add(number)),
            clock: Some(Clock::new(now_ms)),
            ..ClientConfig::new(self.addresses())
        }
    }

    /// "host:port" of the nodes that form the cluster. Others join it.
    pub fn founders(&self) -> Vec<String> {
        let inside = self.nodes.iter().filter(|host| !host.is_away());
        let founders = inside.filter(|host| host.label() <= hosts::FOUNDERS);
        founders.map(NodeHost::address).collect()
    }

    /// "host:port" of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(NodeHost::address).collect()
    }

    /// Lets one tick pass. Answers whether all clients have ended.
    ///
    /// # Errors
    /// If a node stopped, something panicked or Raft broke a promise: the world can't go on then.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let sim = &mut self.sim;
        let stepped = catch_unwind(AssertUnwindSafe(|| sim.step()));
        self.trace.set_outside_now(self.sim.elapsed());
        process_clock::show(self.sim.elapsed());
        match stepped {
            Ok(Ok(ended)) => {
                for host in &mut self.nodes {
                    host.see_off(&mut self.sim);
                    host.pick_up(&mut self.sim);
                }
                self.look().map(|()| ended)
            }
            Ok(Err(error)) => Err(Violation::NodeStopped { reason: error.to_string() }),
            Err(_) => Err(Violation::Panicked { what: panics::first() }),
        }
    }

    /// Holds Raft's promises against what the nodes say and what their disks keep.
    fn look(&mut self) -> Result<(), Violation> {
        if self.sim.elapsed() < self.looks_next {
            return Ok(());
        }
        self.looks_next = self.sim.elapsed() + LOOKS_EVERY;
        self.take_census();
        let looks: Vec<_> = self.nodes.iter().map(NodeHost::look).collect();
        self.raft.look(&looks).map_err(Violation::Raft)
    }

    fn take_census(&mut self) {
        for host in &mut self.nodes {
            host.note_joined();
        }
        let running = self.nodes.iter().filter(|host| host.is_up() && !host.is_away());
        self.census.0.replace(running.map(NodeHost::label).collect());
    }

    /// From now on Raft's promises are not looked at any more.
    pub fn look_away(&mut self) {
        self.looks_next = Duration::MAX;
    }

    /// Simulated time since the beginning.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The nodes, by label.
    pub fn nodes(&self) -> &[NodeHost] {
        &self.nodes
    }

    /// Names of these nodes in the network.
    pub fn names(&self, labels: &BTreeSet<u64>) -> Names {
        let wanted = self.nodes.iter().filter(|host| labels.contains(&host.label()));
        wanted.map(|host| host.name().to_owned()).collect()
    }

    /// Names of all nodes in the network.
    pub fn node_names(&self) -> Names {
        self.nodes.iter().map(|host| host.name().to_owned()).collect()
    }

    /// Names of all clients in the network.
    pub fn client_names(&self) -> Names {
        self.clients.clone()
    }

    /// Cuts the power of a node that is up. Returns how many of its writes are gone.
    pub fn cut_power(&mut self, label: u64, cut: Cut) -> usize {
        if cut.silent {
            let from = self.names(&[label].into());
            let to = self.node_names().union(&self.clients).cloned().collect();
            let barrier = Barrier { from, to, one_way: false, loss: Loss::Never };
            let silence = self.raise(barrier);
            self.host_mut(label).silence = Some(silence);
        }
        let index = self.index(label);
        self.nodes[index].cut_power(&mut self.sim, cut)
    }

    /// Ends the process of a node that is up.
    pub fn kill(&mut self, label: u64) {
        let index = self.index(label);
        self.nodes[index].kill(&mut self.sim);
    }

    /// Ends the process of a node that is up and empties its disk.
    pub fn lose_disk(&mut self, label: u64) {
        let index = self.index(label);
        let nodes = self.labels_end();
        self.nodes[index].lose_disk(&mut self.sim, nodes);
        self.raft.disk_lost(label);
    }

    /// Starts a node that is away, with an empty disk: it joins.
    pub fn take_in(&mut self, label: u64) {
        let (index, nodes) = (self.index(label), self.labels_end());
        self.raft.disk_lost(label);
        self.nodes[index].come(&mut self.sim, nodes);
    }

    /// A node's disk fails from now on, or not any more: it may end because of that, and say so.
    pub fn set_disk_fails(&mut self, label: u64, fails: bool) {
        let index = self.index(label);
        self.nodes[index].set_disk_fails(fails);
        self.notes.excuse(self.nodes[index].name(), fails);
    }

    /// Labels of the nodes that run and are not away. What it shows is kept up to date.
    pub fn census(&self) -> Census {
        self.census.clone()
    }

    /// Nodes are labelled 1 to this.
    fn labels_end(&self) -> u64 {
        self.nodes.last().map_or(0, NodeHost::label)
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, label: u64) {
        let index = self.index(label);
        if let Some(silence) = self.nodes[index].silence.take() {
            self.lower(silence);
        }
        self.nodes[index].restart(&mut self.sim);
    }

    /// Lets a node stand still, for so long.
    pub fn pause(&mut self, label: u64, lasts_ms: u64) -> Paused {
        let from = self.names(&[label].into());
        let to = self.node_names().union(&self.clients).cloned().collect();
        let barrier = self.raise(Barrier { from, to, one_way: false, loss: Loss::Late });
        let host = self.host_mut(label);
        host.clock().stand(true);
        host.disk().set_sync_delay(Duration::from_millis(lasts_ms));
        Paused { label, barrier }
    }

    /// Lets it go on.
    pub fn resume(&mut self, paused: Paused) {
        let host = self.host_mut(paused.label);
        host.clock().stand(false);
        host.disk().set_sync_delay(Duration::ZERO);
        self.lower(paused.barrier);
    }

    /// Puts up a barrier between hosts.
    pub fn raise(&mut self, barrier: Barrier) -> BarrierId {
        let id = self.links.reserve(barrier);
        self.links.raise(&self.sim, id);
        id
    }

    /// Makes a barrier that is put up later.
    pub fn reserve(&mut self, barrier: Barrier) -> BarrierId {
        self.links.reserve(barrier)
    }

    /// Puts up a barrier that was made, if it was not taken away meanwhile.
    pub fn raise_reserved(&mut self, barrier: BarrierId) {
        self.links.raise(&self.sim, barrier);
    }

    /// Takes a barrier away.
    pub fn lower(&mut self, barrier: BarrierId) {
        self.links.lower(&self.sim, barrier);
    }

    /// Sets the greatest time of a message between two nodes; `None` is that of the plan.
    pub fn set_latency_max(&mut self, one: u64, other: u64, ms: Option<u64>) {
        let latency = ms.map_or(self.latency_max, Duration::from_millis);
        let [one, other] = [one, other].map(|label| self.nodes[self.index(label)].name());
        self.sim.set_link_max_message_latency(one, other, latency);
    }

    /// The wall clock of a node.
    pub fn clock(&self, label: u64) -> &SimulatedClock {
        self.nodes[self.index(label)].clock()
    }

    /// A node.
    pub fn host(&self, label: u64) -> &NodeHost {
        &self.nodes[self.index(label)]
    }

    fn host_mut(&mut self, label: u64) -> &mut NodeHost {
        let index = self.index(label);
        &mut self.nodes[index]
    }

    fn index(&self, label: u64) -> usize {
        let index = self.nodes.iter().position(|host| host.label() == label);
        index.expect("plans and descriptions of the cluster name its nodes")
    }
}
