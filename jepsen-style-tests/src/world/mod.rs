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

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use node::env::Clock as _;
use quipu_client::{ClientConfig, Clock};
use turmoil::Sim;

use crate::plan::{Plan, PowerCut};
use crate::trace::Trace;
use crate::violation::Violation;
use clock::SimulatedClock;
pub use hosts::NodeHost;
pub use links::Isolation;
use links::Links;
pub(crate) use net::hex;

/// One step of simulated time. Messages arrive between steps.
const TICK: Duration = Duration::from_millis(1);
/// Segments that a connection may have on its way.
const TCP_SEGMENTS: usize = 65_536;
/// Longer than any run: how long a run may take is decided outside.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// A simulated world.
pub struct World {
    sim: Sim<'static>,
    nodes: Vec<NodeHost>,
    links: Links,
    trace: Trace,
    seed: u64,
}

impl World {
    /// The world of a plan, at time zero. Everything random in it, on this thread, follows from
    /// the plan's seed.
    pub fn new(plan: &Plan, trace: Trace) -> Self {
        panics::remember();
        node::env::seed_this_thread(plan.seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(clock::epoch())
            .simulation_duration(FOR_EVER)
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(plan.latency_min_ms))
            .max_message_latency(Duration::from_millis(plan.latency_max_ms))
            .tcp_capacity(TCP_SEGMENTS)
            .enable_random_order()
            .build();
        let mut links = Links::default();
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            let host = NodeHost::start(&mut sim, node, &trace);
            links.add_node(host.name());
            nodes.push(host);
        }
        Self { sim, nodes, links, trace, seed: plan.seed }
    }

    /// Adds a host that runs `client` to its end.
    pub fn add_client(&mut self, name: &str, client: impl Future<Output = ()> + 'static) {
        self.links.add_client(name);
        self.sim.client(name, async move {
            client.await;
            Ok(())
        });
    }

    /// How the `number`th client reaches the cluster.
    pub fn client_config(&self, number: u64) -> ClientConfig {
        let clock = SimulatedClock::new(0);
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

    /// "host:port" of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(NodeHost::address).collect()
    }

    /// Lets one tick pass. Answers whether all clients have ended.
    ///
    /// # Errors
    /// If a node stopped or something panicked: the world can't go on then.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let sim = &mut self.sim;
        let stepped = catch_unwind(AssertUnwindSafe(|| sim.step()));
        self.trace.set_outside_now(self.sim.elapsed());
        match stepped {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(Violation::NodeStopped { reason: error.to_string() }),
            Err(_) => Err(Violation::Panicked { what: panics::first() }),
        }
    }

    /// Simulated time since the beginning.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The nodes, by label.
    pub fn nodes(&self) -> &[NodeHost] {
        &self.nodes
    }

    /// Cuts the power of a node that is up. Returns how many of its writes are gone.
    pub fn crash(&mut self, label: u64, cut: PowerCut) -> usize {
        let index = self.index(label);
        let host = &mut self.nodes[index];
        if cut.silent {
            self.links.silence(&self.sim, host.name());
        }
        host.crash(&mut self.sim, cut)
    }

    /// Gives a node its power back.
    pub fn restart(&mut self, label: u64) {
        let index = self.index(label);
        let host = &mut self.nodes[index];
        self.links.unsilence(&self.sim, host.name());
        host.restart(&mut self.sim);
    }

    /// Cuts a node off from the others.
    pub fn isolate(&mut self, label: u64, isolation: Isolation) {
        let index = self.index(label);
        self.links.isolate(&self.sim, self.nodes[index].name(), isolation);
    }

    /// Takes that back.
    pub fn reconnect(&mut self, label: u64) {
        let index = self.index(label);
        self.links.reconnect(&self.sim, self.nodes[index].name());
    }

    fn index(&self, label: u64) -> usize {
        let index = self.nodes.iter().position(|host| host.label() == label);
        index.expect("plans and descriptions of the cluster name its nodes")
    }
}
