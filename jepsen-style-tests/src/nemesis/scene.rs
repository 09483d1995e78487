//! What a fault finds when it strikes: the world, who leads, what is in force, what it may leave.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::workload::Controls;
use crate::world::World;

/// Who leads which partition of the standing topic and who holds it, as a client last heard.
#[derive(Debug, Clone, Default)]
pub struct LeaderBoard(Rc<RefCell<BTreeMap<u32, Holders>>>);

#[derive(Debug, Default)]
struct Holders {
    leader: Option<u64>,
    replicas: Vec<u64>,
}

/// What only a client can do for the nemesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Move the leadership of a partition of the standing topic.
    MoveLeader {
        /// Which.
        partition: u32,
        /// Label of the node that shall lead.
        to: u64,
    },
    /// Let a node lead nothing.
    Drain {
        /// Its label.
        node: u64,
    },
    /// Let it lead again.
    Resume {
        /// Its label.
        node: u64,
    },
    /// Remove a node from the cluster.
    Remove {
        /// Its label.
        node: u64,
    },
    /// Take that back.
    CancelRemoval {
        /// Its label.
        node: u64,
    },
    /// Move a replica of a partition of the standing topic.
    MoveReplica {
        /// Which.
        partition: u32,
        /// From whom to whom.
        choice: u64,
    },
    /// Carry out one of the changes that would even the cluster out.
    Rebalance {
        /// Which.
        choice: u64,
    },
    /// Set `retention.bytes` of the standing topic; -1 is no limit.
    Retention {
        /// How much stays.
        bytes: i64,
    },
}

/// Orders that no client has taken yet, and what became of the others. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Orders(Rc<RefCell<OrderBook>>);

#[derive(Debug, Default)]
struct OrderBook {
    open: VecDeque<(&'static str, Order)>,
    done: Vec<(&'static str, Carried, String)>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// It was done.
    Out,
    /// It was refused.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What the faults of a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCounts {
    /// By kind: how often it took hold.
    pub installed: BTreeMap<String, u64>,
    /// By kind: how often there was nothing to break.
    pub skipped: BTreeMap<String, u64>,
    /// By kind: how often nobody knows whether it took hold.
    #[serde(default)]
    pub indeterminate: BTreeMap<String, u64>,
    /// What came of it, by what it is.
    #[serde(default)]
    pub effects: BTreeMap<String, u64>,
}

/// What came of a strike.
pub enum Struck {
    /// It took hold; this is what was done, for people.
    Installed(String),
    /// There was nothing to do it to.
    Skipped(&'static str),
    /// A client is told to do it; what came of that is counted when it is known.
    Ordered(Order),
}

/// Takes something back and says what, for people.
pub(super) type Undo = Box<dyn FnOnce(&mut World) -> String>;

/// What is in force and when it ends.
#[derive(Default)]
pub(super) struct InForce(Vec<(Duration, &'static str, Undo)>);

/// What a fault finds when it strikes.
pub struct Scene<'a> {
    /// Everything.
    pub world: &'a mut World,
    /// Who leads.
    pub leaders: &'a LeaderBoard,
    /// What a client does for it.
    pub orders: &'a Orders,
    /// What can be done to clients.
    pub clients: &'a Controls,
    /// Effects to be counted.
    pub counts: &'a mut FaultCounts,
    pub(super) name: &'static str,
    pub(super) in_force: &'a mut InForce,
}

impl Scene<'_> {
    /// Lets `undo` happen after so long, or when everything is healed if that is sooner.
    pub fn undo_after(&mut self, ms: u64, undo: impl FnOnce(&mut World) -> String + 'static) {
        let at = self.world.now() + Duration::from_millis(ms);
        self.in_force.0.push((at, self.name, Box::new(undo)));
    }

    /// Gives an order after so long. What came of it is counted as a strike of this kind.
    pub fn order_after(&mut self, ms: u64, order: Order) {
        let (orders, name) = (self.orders.clone(), self.name);
        self.undo_after(ms, move |_world| {
            let told = format!("{order:?}");
            orders.give(name, order);
            told
        });
    }

    /// Counts an effect, by what it is.
    pub fn count(&mut self, effect: &str, times: u64) {
        self.counts.count(effect, times);
    }
}

impl FaultCounts {
    /// Counts an effect, by what it is. Kept at 0 too, so that a table shows what never happened.
    pub fn count(&mut self, effect: &str, times: u64) {
        *self.effects.entry(effect.to_owned()).or_default() += times;
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &Self) {
        let sums = [&mut self.installed, &mut self.skipped, &mut self.indeterminate];
        let others = [&other.installed, &other.skipped, &other.indeterminate];
        for (sum, other) in sums.into_iter().zip(others) {
            add_all(sum, other);
        }
        add_all(&mut self.effects, &other.effects);
    }
}

/// Adds counts by name.
pub fn add_all(sum: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (name, count) in other {
        *sum.entry(name.clone()).or_default() += count;
    }
}

impl InForce {
    /// Takes out what is due, in the order in which it began.
    pub(super) fn due(&mut self, now: Option<Duration>) -> Vec<(&'static str, Undo)> {
        let (due, later) =
            self.0.drain(..).partition(|(at, _, _)| now.is_none_or(|now| *at <= now));
        self.0 = later;
        let due: Vec<(Duration, &'static str, Undo)> = due;
        due.into_iter().map(|(_, name, undo)| (name, undo)).collect()
    }
}

impl LeaderBoard {
    /// A client heard of a leader, or that there is none, and of the nodes with a replica.
    pub fn set(&self, partition: u32, leader: Option<u64>, replicas: Vec<u64>) {
        self.0.borrow_mut().insert(partition, Holders { leader, replicas });
    }

    /// Label of the node that leads a partition.
    pub fn leader(&self, partition: u32) -> Option<u64> {
        self.0.borrow().get(&partition).and_then(|holders| holders.leader)
    }

    /// Labels of the nodes that hold a partition.
    pub fn replicas(&self, partition: u32) -> Vec<u64> {
        let holders = self.0.borrow();
        holders.get(&partition).map(|holders| holders.replicas.clone()).unwrap_or_default()
    }
}

impl Orders {
    pub(super) fn give(&self, kind: &'static str, order: Order) {
        self.0.borrow_mut().open.push_back((kind, order));
    }

    /// The next order, for the client that carries them out.
    pub fn take(&self) -> Option<(&'static str, Order)> {
        self.0.borrow_mut().open.pop_front()
    }

    /// What became of one.
    pub fn done(&self, kind: &'static str, carried: Carried, detail: String) {
        self.0.borrow_mut().done.push((kind, carried, detail));
    }

    pub(super) fn take_done(&self) -> Vec<(&'static str, Carried, String)> {
        std::mem::take(&mut self.0.borrow_mut().done)
    }
}
