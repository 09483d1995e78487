//! Which nodes are alive, who leads which group, and when a group's timers run.
//!
//! One beat per pair of nodes, ten times a second, carries what the groups they share need: who
//! leads them and how far they are committed. So a group in which nothing happens is parked: it has
//! no timers and sends nothing. When a node dies the others know it within a beat (its connections
//! are refused) or after 1.2 s (it hangs), and its groups elect new leaders at once.
//!
//! - `beats`: asks every other node, and answers.
//! - `directory`: what the others say of the groups they lead.
//! - `pulse`: one hosted group's timers, and whether it is parked.
//! - `tend`: parks, wakes, and takes over groups whose leader is dead.

mod beats;
mod directory;
mod pulse;
mod tend;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use node_core::ids::{GroupId, NodeUuid};
use node_core::liveness::{Liveness as Opinion, LivenessConfig, PeerLiveness};
use quipu_proto::peer::v1 as pb;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use directory::Directory;
pub(crate) use pulse::Pulse;

use crate::env::Clock;
use crate::limits;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::raft::{Place, RaftGroup};

/// What this node knows of the others, and does about its groups' leaders.
pub(crate) struct Liveness {
    me: NodeUuid,
    cluster_id: uuid::Uuid,
    /// Where this node says that it is.
    address: String,
    incarnation: u64,
    started: Instant,
    clock: Arc<dyn Clock>,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
    watched: Mutex<BTreeMap<NodeUuid, Watched>>,
    /// Nodes that ask this one and that it does not watch, with where they say they are.
    strangers: Mutex<BTreeMap<NodeUuid, String>>,
    directory: Mutex<Directory>,
    pulses: Mutex<BTreeMap<GroupId, Arc<Pulse>>>,
    leads: Mutex<Leads>,
    parked_version: Arc<AtomicU64>,
    disk_low: AtomicBool,
    any_disk_low: AtomicBool,
    /// Nodes that should lead nothing while others can.
    aside: Mutex<BTreeSet<NodeUuid>>,
    /// The others say that this node was removed from the cluster.
    removed: watch::Sender<bool>,
    /// Something happened that `tend` should look at now.
    look_now: Notify,
}

/// One other node.
struct Watched {
    opinion: PeerLiveness,
    was_dead: bool,
    dead_since: Option<Instant>,
    incarnation: Option<u64>,
    /// Nodes that it says it can't reach.
    unreachable: BTreeSet<NodeUuid>,
    disk_low: bool,
    /// How far its clock is from ours, in milliseconds.
    clock_skew_ms: Option<i64>,
    parked_version_seen: u64,
    beat_now: Arc<Notify>,
}

/// What this node tells of the groups it leads, made anew by `tend`.
struct Leads {
    made: Instant,
    active: Vec<pb::GroupLead>,
    parked_version: u64,
    parked: Vec<pb::GroupLead>,
}

/// What a node's liveness needs.
pub(crate) struct LivenessParts {
    pub(crate) me: NodeUuid,
    pub(crate) cluster_id: uuid::Uuid,
    pub(crate) address: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Liveness {
    pub(crate) fn new(parts: LivenessParts) -> Arc<Self> {
        let LivenessParts { me, cluster_id, address, clock, peers, metrics } = parts;
        let started = Instant::now();
        // Not from 1: the others remember the version of the process that was here before, and
        // must never take its list for this one's.
        let parked_version = (crate::env::random_u64() >> 1) | 1;
        let leads = Leads { made: started, active: Vec::new(), parked_version, parked: Vec::new() };
        Arc::new(Self {
            me,
            cluster_id,
            address,
            incarnation: crate::env::random_u64() | 1,
            started,
            clock,
            peers,
            metrics,
            watched: Mutex::default(),
            strangers: Mutex::default(),
            directory: Mutex::default(),
            pulses: Mutex::default(),
            leads: Mutex::new(leads),
            parked_version: Arc::new(AtomicU64::new(parked_version)),
            disk_low: AtomicBool::new(false),
            any_disk_low: AtomicBool::new(false),
            aside: Mutex::default(),
            removed: watch::Sender::new(false),
            look_now: Notify::new(),
        })
    }

    /// Takes a hosted group into care.
    pub(crate) fn watch_group(&self, raft: Arc<RaftGroup>) -> Arc<Pulse> {
        let group = raft.group();
        let pulse = Arc::new(Pulse::new(raft, self.parked_version.clone()));
        lock(&self.pulses).insert(group, pulse.clone());
        pulse
    }

    pub(crate) fn forget_group(&self, group: GroupId) {
        lock(&self.pulses).remove(&group);
        lock(&self.directory).forget_group(group);
    }

    /// Nodes of this cluster that ask this one and that it does not watch: whom a node knows that
    /// can't read who its members are.
    pub(crate) fn strangers(&self) -> BTreeMap<NodeUuid, String> {
        lock(&self.strangers).clone()
    }

    /// Who leads a group, as far as this node knows.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<Place> {
        lock(&self.directory).claim(group).map(|claim| claim.place)
    }

    /// Who leads a group, and in which term.
    pub(crate) fn lead_of(&self, group: GroupId) -> Option<(Place, u64)> {
        lock(&self.directory).claim(group).map(|claim| (claim.place, claim.term))
    }

    /// How old the state of a replica that has applied everything below `applied_end` may be.
    /// `None` where that can't be known.
    pub(crate) fn lag(&self, group: GroupId, applied_end: u64) -> Option<Duration> {
        lock(&self.directory).lag(group, applied_end, Instant::now())
    }

    /// Whether a node is heard of. This node is.
    pub(crate) fn is_alive(&self, node: NodeUuid) -> bool {
        node == self.me || self.opinion_of(node) != Opinion::Dead
    }

    /// This node has asked for it, and has had no answer for long enough. A node that nobody asked
    /// for yet is neither alive nor found dead.
    pub(crate) fn was_found_dead(&self, node: NodeUuid) -> bool {
        lock(&self.watched).get(&node).is_some_and(|peer| peer.was_dead)
    }

    /// Nodes that this one has found dead.
    pub(crate) fn found_dead(&self) -> BTreeSet<NodeUuid> {
        let watched = lock(&self.watched);
        watched.iter().filter(|(_, peer)| peer.was_dead).map(|(node, _)| *node).collect()
    }

    /// Nodes that come last when leaders are to be elected: drained ones.
    pub(crate) fn set_aside(&self, aside: BTreeSet<NodeUuid>) {
        *lock(&self.aside) = aside;
    }

    /// Another node said that this one was removed from the cluster.
    pub(crate) fn is_removed(&self) -> bool {
        *self.removed.borrow()
    }

    /// Resolves when another node says that this one was removed from the cluster.
    pub(crate) async fn was_removed(&self) {
        if self.removed.subscribe().wait_for(|removed| *removed).await.is_err() {
            std::future::pending().await
        }
    }

    /// How far the clocks of the others are from this node's, in milliseconds.
    pub(crate) fn clock_skews(&self) -> BTreeMap<NodeUuid, i64> {
        let watched = lock(&self.watched);
        watched.iter().filter_map(|(node, peer)| Some((*node, peer.clock_skew_ms?))).collect()
    }

    /// Other nodes that are alive.
    pub(crate) fn alive_peers(&self) -> usize {
        let now = self.now_ms();
        let watched = lock(&self.watched);
        watched.values().filter(|peer| peer.opinion.state(now) != Opinion::Dead).count()
    }

    fn opinion_of(&self, node: NodeUuid) -> Opinion {
        let now = self.now_ms();
        let watched = lock(&self.watched);
        watched.get(&node).map_or(Opinion::Dead, |peer| peer.opinion.state(now))
    }

    /// Some node's disk is nearly full; the quick look before the exact one.
    pub(crate) fn any_disk_low(&self) -> bool {
        self.any_disk_low.load(Ordering::Relaxed)
    }

    /// One of `nodes` has a disk that is nearly full.
    pub(crate) fn disk_low(&self, nodes: impl Iterator<Item = NodeUuid>) -> bool {
        let own = self.disk_low.load(Ordering::Relaxed);
        let watched = lock(&self.watched);
        let low = |node: NodeUuid| {
            if node == self.me { own } else { watched.get(&node).is_some_and(|it| it.disk_low) }
        };
        nodes.into_iter().any(low)
    }

    /// Says whether this node's own disk is nearly full.
    pub(crate) fn set_disk_low(&self, low: bool) {
        if self.disk_low.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(low, "this node's disk is nearly full, or is so no longer");
        }
        self.note_disks();
    }

    fn note_disks(&self) {
        let low = self.disk_low.load(Ordering::Relaxed)
            || lock(&self.watched).values().any(|peer| peer.disk_low);
        self.any_disk_low.store(low, Ordering::Relaxed);
    }

    /// This node's clock is near those of a majority, so that retention may go by it.
    pub(crate) fn clock_is_trusted(&self) -> bool {
        let watched = lock(&self.watched);
        let near = |peer: &&Watched| {
            peer.clock_skew_ms.is_some_and(|ms| ms.unsigned_abs() <= limits::CLOCK_SKEW_MAX_MS)
        };
        let near = watched.values().filter(near).count();
        (near + 1) * 2 > watched.len() + 1
    }

    /// Wakes the groups that have a replica on `node`: it has just come (back), and may need
    /// what its leader has.
    fn wake_groups_of(&self, node: NodeUuid) {
        let pulses: Vec<_> = lock(&self.pulses).values().cloned().collect();
        for pulse in pulses {
            if pulse.raft().status().members.values().any(|member| *member == node) {
                pulse.touch();
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Watched {
    fn new(now_ms: u64) -> Self {
        Self {
            opinion: PeerLiveness::new(now_ms, LivenessConfig::default()),
            was_dead: false,
            dead_since: None,
            incarnation: None,
            unreachable: BTreeSet::new(),
            disk_low: false,
            clock_skew_ms: None,
            parked_version_seen: 0,
            beat_now: Arc::new(Notify::new()),
        }
    }
}

/// Locks, also after a panic elsewhere: that ends the process, and these are whole between
/// statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
