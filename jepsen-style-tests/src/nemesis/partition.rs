//! Parts of the cluster that can't talk to each other, both ways or one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use super::target::Target;
use crate::plan::Draw;
use crate::world::{Barrier, Loss};

/// A leader is cut off from the other nodes, so that it leads nobody and may not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolateLeader {
    /// Whose leader.
    pub partition: u32,
    /// From its clients too.
    pub clients_too: bool,
    /// What becomes of the messages.
    pub loss: Loss,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

/// The nodes fall into two parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// One part, by label; the others are the other part.
    pub part: BTreeSet<u64>,
    /// What becomes of the messages.
    pub loss: Loss,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

/// A node is not heard by the others, or hears nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneWay {
    /// Who.
    pub target: Target,
    /// It hears nothing; else it is not heard.
    pub deaf: bool,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for IsolateLeader {
    const NAME: &'static str = "isolate-leader";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let (partition, clients_too) = (draw.partition(), draw.rng.bool());
        Self { partition, clients_too, loss: draw_loss(draw), lasts_ms: draw_lasts(draw) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let leader = match Target::LeaderOf(self.partition).find(scene) {
            Ok(leader) => leader,
            Err(reason) => return Struck::Skipped(reason),
        };
        let alone = scene.world.names(&[leader].into());
        let mut others = scene.world.node_names();
        if self.clients_too {
            others.extend(scene.world.client_names());
        }
        raise(scene, Barrier { from: alone, to: others, one_way: false, loss: self.loss }, self);
        let clients = if self.clients_too { " and clients" } else { "" };
        Struck::Installed(format!("node {leader} from its peers{clients}: {:?}", self.loss))
    }
}

impl Kind for Split {
    const NAME: &'static str = "partition";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let mut labels: Vec<u64> = (1..=draw.nodes).collect();
        draw.rng.shuffle(&mut labels);
        let size = draw.rng.usize(1..labels.len());
        let part = labels.into_iter().take(size).collect();
        Self { part, loss: draw_loss(draw), lasts_ms: draw_lasts(draw) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let from = scene.world.names(&self.part);
        let to = scene.world.node_names().difference(&from).cloned().collect();
        raise(scene, Barrier { from, to, one_way: false, loss: self.loss }, self);
        Struck::Installed(format!("nodes {:?} from the others: {:?}", self.part, self.loss))
    }
}

impl Kind for OneWay {
    const NAME: &'static str = "one-way-partition";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let (target, deaf) = (Target::draw(draw), draw.rng.bool());
        Self { target, deaf, lasts_ms: draw_lasts(draw) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        let (one, others) = (scene.world.names(&[label].into()), scene.world.node_names());
        let (from, to) = if self.deaf { (others, one) } else { (one, others) };
        raise(scene, Barrier { from, to, one_way: true, loss: Loss::Never }, self);
        let how = if self.deaf { "hears no other node" } else { "is not heard by other nodes" };
        Struck::Installed(format!("node {label} {how}"))
    }
}

/// A fault that ends.
trait Lasting {
    fn lasts_ms(&self) -> u64;
}

impl Lasting for IsolateLeader {
    fn lasts_ms(&self) -> u64 {
        self.lasts_ms
    }
}

impl Lasting for Split {
    fn lasts_ms(&self) -> u64 {
        self.lasts_ms
    }
}

impl Lasting for OneWay {
    fn lasts_ms(&self) -> u64 {
        self.lasts_ms
    }
}

fn raise(scene: &mut Scene<'_>, barrier: Barrier, fault: &impl Lasting) {
    let barrier = scene.world.raise(barrier);
    scene.undo_after(fault.lasts_ms(), move |world| {
        world.lower(barrier);
        "they can talk again".to_owned()
    });
}

fn draw_loss(draw: &mut Draw<'_>) -> Loss {
    if draw.rng.bool() { Loss::Late } else { Loss::Never }
}

fn draw_lasts(draw: &mut Draw<'_>) -> u64 {
    draw.log_uniform(200, 12_000)
}
