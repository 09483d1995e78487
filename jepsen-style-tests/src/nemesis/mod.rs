//! What breaks the world, when, and what that did.
//!
//! Faults strike at the times of the plan and are taken back some time later; several may be in
//! force at once. Whether each took hold is written into the history and counted, and so is what
//! came of it: a run whose faults found nothing to break has shown nothing.
//!
//! - `kinds`: the list of kinds, and what a kind must be able to do;
//! - `scene`: what a fault finds when it strikes and what it may leave behind;
//! - `target`: whom a fault is aimed at;
//! - one file for each family of kinds.

mod clients;
mod clocks;
mod disk;
mod failing_disk;
mod kinds;
mod leaders;
mod links;
mod membership;
mod partition;
mod pause;
mod power;
mod retention;
mod scene;
mod storm;
mod target;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::history::{FaultResult, Recorder};
use crate::workload::Controls;
use crate::world::World;

pub use disk::count_effects as count_disk_effects;
pub use kinds::{Fault, FaultPlan, KINDS, Kind, KindEntry};
pub use membership::pick;
pub use power::Cut;
pub use scene::{Carried, FaultCounts, LeaderBoard, Order, Orders, Scene, Struck, add_all};
pub use target::Target;

/// The faults of a run.
pub struct Nemesis {
    /// By time.
    to_come: VecDeque<FaultPlan>,
    /// Times of the plan count from here.
    from: Duration,
    in_force: scene::InForce,
    reach: Reach,
    recorder: Recorder,
    counts: FaultCounts,
}

/// What a nemesis reaches beside the world. Clones share it.
#[derive(Clone, Default)]
pub struct Reach {
    /// Who leads.
    pub leaders: LeaderBoard,
    /// What a client does for it.
    pub orders: Orders,
    /// What it does to clients.
    pub clients: Controls,
}

impl Nemesis {
    /// The faults of a plan, whose times count from `from`.
    pub fn new(faults: Vec<FaultPlan>, from: Duration, reach: Reach, recorder: Recorder) -> Self {
        let (in_force, counts) = (scene::InForce::default(), FaultCounts::default());
        Self { to_come: faults.into(), from, in_force, reach, recorder, counts }
    }

    /// Does what is due. Called after every step of the world.
    pub fn act(&mut self, world: &mut World) {
        let now = world.now();
        self.take_back(world, Some(now));
        self.look_at_orders();
        while let Some(next) = self.to_come.front()
            && self.from + Duration::from_millis(next.at_ms) <= now
        {
            if let Some(planned) = self.to_come.pop_front() {
                self.strike(world, &planned.fault);
            }
        }
    }

    /// Takes everything back at once and strikes no more; only these nodes lose their power and
    /// stay dead.
    pub fn heal(&mut self, world: &mut World, stay_dead: &BTreeSet<u64>) {
        self.to_come.clear();
        self.take_back(world, None);
        self.look_at_orders();
        for host in world.nodes().iter().filter(|host| !host.is_away()) {
            assert!(host.is_up(), "whoever stops a node plans its return");
        }
        for label in stay_dead {
            world.cut_power(*label, Cut { keep_percent: 0, silent: false });
        }
        let but = format!("everything; nodes {stay_dead:?} stay dead");
        self.recorder.fault("heal", FaultResult::Installed, but);
    }

    /// What the faults did so far.
    pub fn counts(&self) -> &FaultCounts {
        &self.counts
    }

    fn strike(&mut self, world: &mut World, fault: &Fault) {
        let name = fault.name();
        let mut scene = Scene {
            world,
            leaders: &self.reach.leaders,
            orders: &self.reach.orders,
            clients: &self.reach.clients,
            counts: &mut self.counts,
            name,
            in_force: &mut self.in_force,
        };
        match fault.strike(&mut scene) {
            Struck::Installed(detail) => self.count(name, Carried::Out, detail),
            Struck::Skipped(reason) => self.count(name, Carried::Refused, reason.to_owned()),
            Struck::Ordered(order) => self.reach.orders.give(name, order),
        }
    }

    fn count(&mut self, name: &'static str, carried: Carried, detail: String) {
        let (counter, result) = match carried {
            Carried::Out => (&mut self.counts.installed, FaultResult::Installed),
            Carried::Refused => (&mut self.counts.skipped, FaultResult::Skipped),
            Carried::Unknown => (&mut self.counts.indeterminate, FaultResult::Installed),
        };
        *counter.entry(name.to_owned()).or_default() += 1;
        self.recorder.fault(name, result, detail);
    }

    fn look_at_orders(&mut self) {
        for (name, carried, detail) in self.reach.orders.take_done() {
            self.count(name, carried, detail);
        }
    }

    fn take_back(&mut self, world: &mut World, now: Option<Duration>) {
        for (name, undo) in self.in_force.due(now) {
            let detail = undo(world);
            self.recorder.fault(name, FaultResult::Removed, detail);
        }
    }
}
