//! Disks that damage what they hold, fill up, or take seconds for a sync.
//!
//! Damage is dealt out by the atlas, so that a whole copy is left and nobody but the node itself
//! may notice. It strikes while the node is down: what a node has in memory it does not read.

use std::collections::{BTreeMap, BTreeSet};

use node::probe::{self, LiveReplica};
use node::storage::memory::{Damage, Effects, FaultKind};
use node::storage::{Engine, Space, keys};
use node_core::ids::GroupId;
use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{FaultCounts, Scene, Struck};
use super::target::Target;
use crate::atlas::Atlas;
use crate::plan::Draw;
use crate::world::NodeHost;

/// A node loses its disk: it comes back under its label with nothing, and the others take it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostDisk {
    /// Who.
    pub target: Target,
    /// How long it stays down, in milliseconds.
    pub down_ms: u64,
}

/// What a full disk still has: below the reserve that a node keeps.
const LEFT_BYTES: u64 = 8 << 20;

/// A node goes down, and some entries on its disk are not what they were when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedEntries {
    /// Who.
    pub target: Target,
    /// Entries at most.
    pub entries: usize,
    /// What becomes of them.
    pub harm: HarmPlan,
    /// Which, among those that may be harmed.
    pub choice: u64,
    /// How long it stays down, in milliseconds.
    pub down_ms: u64,
}

/// What becomes of a stored entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HarmPlan {
    /// A bit turns.
    FlipBit(usize),
    /// Only its first bytes are left.
    Truncate(usize),
    /// Its block can't be read.
    Unreadable,
    /// Another entry stands there, and its own place can't be read.
    Misdirect,
}

/// A node's disk has less left than its reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullDisk {
    /// Who.
    pub target: Target,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

/// Each sync of a node's disk takes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowDisk {
    /// Who.
    pub target: Target,
    /// A sync takes so much longer, in milliseconds.
    pub sync_ms: u64,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for DamagedEntries {
    const NAME: &'static str = "damaged-entries";
    const PAUSE_MS: (u64, u64) = (4_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let harm = match draw.rng.u8(0..4) {
            0 => HarmPlan::FlipBit(draw.rng.usize(..100_000)),
            1 => HarmPlan::Truncate(draw.rng.usize(..40)),
            2 => HarmPlan::Unreadable,
            _ => HarmPlan::Misdirect,
        };
        Self {
            target: Target::draw(draw),
            entries: draw.rng.usize(1..=8),
            harm,
            choice: draw.rng.u64(..),
            down_ms: draw.log_uniform(50, 3_000),
        }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        if scene.world.nodes().iter().any(NodeHost::was_lost) {
            return Struck::Skipped("a disk was lost, and what it had is not all there again");
        }
        let mut atlas = survey(scene.world.nodes());
        let mut targets = atlas.targets(label);
        if targets.len() < 2 {
            return Struck::Skipped("it holds nothing that may be damaged");
        }
        scene.world.kill(label);
        let hosts = scene.world.nodes().iter();
        let disk =
            hosts.filter(|host| host.label() == label).map(|host| host.disk().clone()).next();
        let disk = disk.expect("the target was found among the nodes");
        let mut rng = fastrand::Rng::with_seed(self.choice);
        rng.shuffle(&mut targets);
        let mut harmed = Vec::new();
        for place in targets.iter().take(self.entries) {
            let key = keys::log_entry(place.0, place.1);
            let other = targets.iter().rev().find(|it| *it != place);
            let done = match (self.harm, other) {
                (HarmPlan::FlipBit(bit), _) => {
                    disk.damage(Space::Log, &key, Damage::FlipBit { bit })
                }
                (HarmPlan::Truncate(len), _) => {
                    disk.damage(Space::Log, &key, Damage::Truncate { len })
                }
                (HarmPlan::Misdirect, Some(other)) if !harmed.contains(&other) => {
                    harmed.push(other);
                    atlas.harm(label, *other);
                    disk.misdirect(Space::Log, &keys::log_entry(other.0, other.1), &key)
                }
                (HarmPlan::Unreadable | HarmPlan::Misdirect, _) => {
                    disk.damage(Space::Log, &key, Damage::Unreadable)
                }
            };
            if done {
                atlas.harm(label, *place);
                harmed.push(place);
            }
        }
        scene.undo_after(self.down_ms, move |world| {
            world.restart(label);
            format!("node {label} starts again on a damaged disk")
        });
        Struck::Installed(format!("node {label}: {:?} of entries {harmed:?}", self.harm))
    }
}

impl Kind for LostDisk {
    const NAME: &'static str = "lost-disk";
    const PAUSE_MS: (u64, u64) = (4_000, 60_000);
    const ON_REQUEST: bool = true;

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { target: Target::draw(draw), down_ms: draw.log_uniform(50, 10_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        let hosts = scene.world.nodes();
        // What was committed may be on two of three disks, and the other one must keep it.
        if hosts.iter().any(|host| host.was_lost()) {
            return Struck::Skipped("a disk was lost before");
        }
        if hosts.iter().any(|host| !host.disk().harmed_keys().is_empty()) {
            return Struck::Skipped("another disk is damaged");
        }
        scene.world.lose_disk(label);
        scene.undo_after(self.down_ms, move |world| {
            world.restart(label);
            format!("node {label} starts again with nothing")
        });
        Struck::Installed(format!("node {label}"))
    }
}

fn survey(nodes: &[NodeHost]) -> Atlas {
    let mut atlas = Atlas::survey(nodes.iter().map(|host| (host.label(), host.disk())));
    atlas.keep_voters(&voters(nodes));
    atlas
}

/// Which nodes vote in each group, in all configurations that are in force, as the leaders know
/// it; nothing of a group that nobody leads.
fn voters(nodes: &[NodeHost]) -> BTreeMap<GroupId, BTreeSet<u64>> {
    let live: Vec<(u64, LiveReplica)> = nodes
        .iter()
        .flat_map(|host| host.live().into_iter().map(|live| (host.label(), live)))
        .collect();
    let mut leaders: BTreeMap<u32, &LiveReplica> = BTreeMap::new();
    for (_, replica) in live.iter().filter(|(_, replica)| replica.leads) {
        let known = leaders.entry(replica.group).or_insert(replica);
        if known.term < replica.term {
            *known = replica;
        }
    }
    let on_disk = nodes.iter().filter(|host| !host.is_away()).flat_map(|host| {
        let held = probe::replicas(host.disk()).unwrap_or_default();
        held.into_iter().map(|held| (host.label(), held.group, held.replica))
    });
    let mut voters: BTreeMap<GroupId, BTreeSet<u64>> = BTreeMap::new();
    for (label, group, replica) in on_disk {
        let votes = |leader: &&LiveReplica| leader.voters.iter().any(|set| set.contains(&replica));
        if leaders.get(&group).is_some_and(votes) {
            voters.entry(GroupId(group)).or_default().insert(label);
        }
    }
    voters
}

impl Kind for FullDisk {
    const NAME: &'static str = "full-disk";
    const PAUSE_MS: (u64, u64) = (8_000, 40_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { target: Target::draw(draw), lasts_ms: draw.log_uniform(500, 8_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        set_capacity(scene.world.nodes(), label, Some(LEFT_BYTES));
        scene.undo_after(self.lasts_ms, move |world| {
            set_capacity(world.nodes(), label, None);
            format!("node {label} has space again")
        });
        Struck::Installed(format!("node {label}"))
    }
}

/// Leaves a disk `left` bytes, or more than it can ever need.
fn set_capacity(nodes: &[NodeHost], label: u64, left: Option<u64>) {
    for host in nodes.iter().filter(|host| host.label() == label) {
        let used = host.disk().bytes_used().unwrap_or(0);
        host.disk().set_capacity(Some(left.map_or(u64::MAX, |left| used + left)));
    }
}

impl Kind for SlowDisk {
    const NAME: &'static str = "slow-disk";
    const PAUSE_MS: (u64, u64) = (5_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self {
            target: Target::draw(draw),
            sync_ms: draw.log_uniform(50, 3_000),
            lasts_ms: draw.log_uniform(500, 8_000),
        }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        set_sync_delay(scene.world.nodes(), label, self.sync_ms);
        scene.undo_after(self.lasts_ms, move |world| {
            set_sync_delay(world.nodes(), label, 0);
            format!("node {label} syncs as before")
        });
        Struck::Installed(format!("node {label}: a sync takes {} ms more", self.sync_ms))
    }
}

fn set_sync_delay(nodes: &[NodeHost], label: u64, ms: u64) {
    for host in nodes.iter().filter(|host| host.label() == label) {
        host.disk().set_sync_delay(std::time::Duration::from_millis(ms));
    }
}

/// What became of the damage, as the disks saw it. Called at the end of a run.
pub fn count_effects(counts: &mut FaultCounts, nodes: &[NodeHost]) {
    for kind in [FaultKind::WriteError, FaultKind::SyncError, FaultKind::Full] {
        let all = nodes.iter().filter_map(|host| host.disk().effects().get(&kind).copied());
        counts.count(&format!("{}: answered", kind.name()), all.map(|it| it.met).sum());
    }
    let kinds =
        [FaultKind::BitRot, FaultKind::CutShort, FaultKind::Misdirected, FaultKind::Unreadable];
    for kind in kinds {
        let all = nodes.iter().map(|host| host.disk().effects());
        let all: Vec<Effects> = all.filter_map(|effects| effects.get(&kind).copied()).collect();
        let sum = |of: fn(&Effects) -> u64| all.iter().map(of).sum::<u64>();
        let name = kind.name();
        counts.count(&format!("{name}: injected"), sum(|it| it.injected));
        counts.count(&format!("{name}: read"), sum(|it| it.met));
        counts.count(&format!("{name}: seen by its reader"), sum(|it| it.detected));
        counts.count(&format!("{name}: repaired"), sum(|it| it.repaired));
        counts.count(&format!("{name}: written over"), sum(|it| it.written_over));
    }
}
