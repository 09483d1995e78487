//! Stops of nodes: the power of one or all, or only the process.
//!
//! A process that is killed leaves its writes to the kernel; only a lost power shows what was
//! acknowledged before it was on the disk. If all nodes lose it at once, nobody is left who knows.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use super::target::Target;
use crate::plan::Draw;

/// Effect: a power cut took writes that were not synced.
const LOSSY: &str = "power cuts that lost un-synced writes";
/// Effect: the same on a majority of the nodes at once.
const LOSSY_MAJORITY: &str = "un-synced writes lost on a majority at once";
/// Effect: writes taken.
const WRITES_LOST: &str = "un-synced writes lost";

/// Effect: a node stopped while entries that it had proposed were not committed.
const IN_FLIGHT: &str = "leaders stopped with entries in flight";
/// Effect: a leader stopped while its group had two sets of voters.
const IN_JOINT: &str = "leaders stopped in a joint configuration";

/// How a power cut goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Of the writes that were not synced, so many in a hundred survive: the oldest.
    pub keep_percent: u8,
    /// Nobody is told: peers find out by silence, not by a closed connection.
    pub silent: bool,
}

/// A node loses its power: what it had not synced is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCutOne {
    /// Who.
    pub target: Target,
    /// What is lost, and how its peers hear of it.
    pub cut: Cut,
    /// How long it stays down, in milliseconds.
    pub down_ms: u64,
}

/// All nodes lose their power at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCutAll {
    /// One for each node.
    pub cuts: Vec<Cut>,
    /// How long each stays down, in milliseconds.
    pub down_ms: Vec<u64>,
}

/// A node's process dies; what it wrote is in the page cache of its machine, which goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Who.
    pub target: Target,
    /// How long it stays down, in milliseconds.
    pub down_ms: u64,
}

impl Cut {
    fn draw(draw: &mut Draw<'_>) -> Self {
        // A disk that loses all it may lose finds most; one that keeps a part finds torn order.
        let keep_percent = if draw.rng.bool() { 0 } else { draw.rng.u8(0..=100) };
        Self { keep_percent, silent: draw.rng.bool() }
    }
}

impl Kind for PowerCutOne {
    const NAME: &'static str = "power-cut";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let (target, cut) = (Target::draw(draw), Cut::draw(draw));
        Self { target, cut, down_ms: draw.log_uniform(50, 10_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        let lost = cut(scene, label, self.cut, self.down_ms);
        let silent = if self.cut.silent { ", silently" } else { "" };
        Struck::Installed(format!("node {label}{silent}: {lost} writes lost"))
    }
}

impl Kind for PowerCutAll {
    const NAME: &'static str = "power-cut-all";
    const PAUSE_MS: (u64, u64) = (5_000, 40_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let cuts = (0..draw.nodes).map(|_| Cut::draw(draw)).collect();
        let down_ms = (0..draw.nodes).map(|_| draw.log_uniform(50, 2_000)).collect();
        Self { cuts, down_ms }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let hosts = scene.world.nodes().iter();
        let up: Vec<u64> = hosts.filter(|host| host.is_up()).map(|host| host.label()).collect();
        let mut losses = Vec::new();
        for ((label, planned), down_ms) in up.iter().zip(&self.cuts).zip(&self.down_ms) {
            losses.push(cut(scene, *label, *planned, *down_ms));
        }
        let lossy = losses.iter().filter(|lost| **lost > 0).count();
        let majority = 2 * lossy > scene.world.nodes().len();
        scene.count(LOSSY_MAJORITY, u64::from(majority));
        Struck::Installed(format!("nodes {up:?}: {losses:?} writes lost"))
    }
}

impl Kind for Crash {
    const NAME: &'static str = "crash";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { target: Target::draw(draw), down_ms: draw.log_uniform(50, 10_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        count_in_flight(scene, label);
        scene.world.kill(label);
        restart_after(scene, label, self.down_ms);
        Struck::Installed(format!("node {label}"))
    }
}

fn cut(scene: &mut Scene<'_>, label: u64, cut: Cut, down_ms: u64) -> usize {
    count_in_flight(scene, label);
    let lost = scene.world.cut_power(label, cut);
    restart_after(scene, label, down_ms);
    scene.count(LOSSY, u64::from(lost > 0));
    scene.count(WRITES_LOST, u64::try_from(lost).expect("a usize fits"));
    lost
}

fn count_in_flight(scene: &mut Scene<'_>, label: u64) {
    let host = scene.world.host(label);
    let under_way = host.proposals_in_flight();
    let joint = host.live().iter().any(|replica| replica.leads && replica.voters.len() > 1);
    scene.count(IN_FLIGHT, u64::from(under_way > 0));
    scene.count(IN_JOINT, u64::from(joint));
}

fn restart_after(scene: &mut Scene<'_>, label: u64, down_ms: u64) {
    scene.undo_after(down_ms, move |world| {
        world.restart(label);
        format!("node {label} starts again")
    });
}
