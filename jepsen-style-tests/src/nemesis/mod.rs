//! What breaks the world, when, and what that did.
//!
//! A nemesis strikes at a time of the plan and is taken back some time later; then the next one
//! comes. Whether it took hold is written into the history and counted: a run whose faults found
//! nothing to break has shown nothing.

mod crash;
mod partition;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::{FaultResult, Recorder};
use crate::plan::{Fault, FaultPlan};
use crate::world::World;

/// Who leads which partition, as a client last heard.
#[derive(Debug, Clone, Default)]
pub struct LeaderBoard(Rc<RefCell<BTreeMap<u32, u64>>>);

impl LeaderBoard {
    /// A client heard of a leader, or that there is none.
    pub fn set(&self, partition: u32, leader: Option<u64>) {
        let mut leaders = self.0.borrow_mut();
        match leader {
            Some(leader) => leaders.insert(partition, leader),
            None => leaders.remove(&partition),
        };
    }

    fn leader(&self, partition: u32) -> Option<u64> {
        self.0.borrow().get(&partition).copied()
    }
}

/// What the faults of a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    /// By name: how often it took hold.
    pub installed: BTreeMap<String, u64>,
    /// By name: how often there was nothing to break.
    pub skipped: BTreeMap<String, u64>,
    /// Power cuts that took writes from a disk.
    pub lossy_cuts: u64,
    /// Cuts of all nodes at once that took writes from the disks of a majority.
    pub lossy_majorities: u64,
    /// Writes that power cuts took.
    pub writes_lost: u64,
}

/// Something to take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    Restart(u64),
    Reconnect(u64),
}

/// The faults of a run, in their order.
pub struct Nemesis {
    to_come: VecDeque<FaultPlan>,
    /// When the next fault strikes; `None` while one is in force.
    next_at: Option<Duration>,
    under_way: Vec<(Duration, Undo)>,
    leaders: LeaderBoard,
    recorder: Recorder,
    counts: FaultCounts,
}

impl Nemesis {
    /// The faults of a plan. The first pause begins at `from`.
    pub fn new(
        faults: Vec<FaultPlan>,
        from: Duration,
        leaders: LeaderBoard,
        recorder: Recorder,
    ) -> Self {
        let to_come: VecDeque<FaultPlan> = faults.into();
        let next_at = to_come.front().map(|fault| from + Duration::from_millis(fault.after_ms));
        let (under_way, counts) = (Vec::new(), FaultCounts::default());
        Self { to_come, next_at, under_way, leaders, recorder, counts }
    }

    /// Does what is due. Called after every step of the world.
    pub fn act(&mut self, world: &mut World) {
        let now = world.now();
        self.take_back(world, |at| at <= now);
        let Some(at) = self.next_at else {
            if self.under_way.is_empty() {
                let next = self.to_come.front();
                self.next_at = next.map(|next| now + Duration::from_millis(next.after_ms));
            }
            return;
        };
        if at <= now {
            self.next_at = None;
            if let Some(planned) = self.to_come.pop_front() {
                self.strike(world, &planned.fault);
            }
        }
    }

    /// Takes everything back at once and strikes no more.
    pub fn heal(&mut self, world: &mut World) {
        self.to_come.clear();
        self.next_at = None;
        self.take_back(world, |_| true);
        for host in world.nodes() {
            assert!(host.is_up(), "whoever cuts a power plans its return");
        }
        self.recorder.fault("heal", FaultResult::Installed, "everything".to_owned());
    }

    /// What the faults did so far.
    pub fn counts(&self) -> &FaultCounts {
        &self.counts
    }

    fn strike(&mut self, world: &mut World, fault: &Fault) {
        let name = fault.name();
        let struck = match fault {
            Fault::CrashLeader { partition, cut, down_ms } => {
                self.crash_leader(world, *partition, *cut, *down_ms)
            }
            Fault::CrashAll { cuts, down_ms } => self.crash_all(world, cuts, down_ms),
            Fault::PartitionLeader { partition, clients_too, loss, lasts_ms } => {
                let isolation = crate::world::Isolation { clients_too: *clients_too, loss: *loss };
                self.partition_leader(world, *partition, isolation, *lasts_ms)
            }
        };
        let (counter, result, detail) = match struck {
            Ok(detail) => (&mut self.counts.installed, FaultResult::Installed, detail),
            Err(reason) => (&mut self.counts.skipped, FaultResult::Skipped, reason.to_owned()),
        };
        *counter.entry(name.to_owned()).or_default() += 1;
        self.recorder.fault(name, result, detail);
    }

    fn undo_at(&mut self, world: &World, after_ms: u64, undo: Undo) {
        self.under_way.push((world.now() + Duration::from_millis(after_ms), undo));
    }

    fn take_back(&mut self, world: &mut World, is_due: impl Fn(Duration) -> bool) {
        let (due, later) = self.under_way.drain(..).partition(|(at, _)| is_due(*at));
        self.under_way = later;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            let (name, label) = match undo {
                Undo::Restart(label) => {
                    world.restart(label);
                    ("restart", label)
                }
                Undo::Reconnect(label) => {
                    world.reconnect(label);
                    ("reconnect", label)
                }
            };
            self.recorder.fault(name, FaultResult::Removed, format!("node {label}"));
        }
    }
}
