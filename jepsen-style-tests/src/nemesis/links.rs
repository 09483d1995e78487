//! Links between two nodes that break again and again, or are slow.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use crate::plan::Draw;
use crate::world::{Barrier, Loss, World};

/// A link breaks and heals again and again, losing what is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flapping {
    /// Labels of its ends.
    pub between: (u64, u64),
    /// How long it is broken each time, in milliseconds.
    pub broken_ms: u64,
    /// How long it is whole in between.
    pub whole_ms: u64,
    /// How often.
    pub times: u32,
}

/// Messages between two nodes take long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// Labels of its ends.
    pub between: (u64, u64),
    /// Greatest time of a message, in milliseconds.
    pub latency_max_ms: u64,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for Flapping {
    const NAME: &'static str = "flapping-link";
    const PAUSE_MS: (u64, u64) = (4_000, 40_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let between = draw_ends(draw);
        let (broken_ms, whole_ms) = (draw.log_uniform(50, 1_500), draw.log_uniform(50, 1_500));
        Self { between, broken_ms, whole_ms, times: draw.rng.u32(2..=8) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let (one, other) = self.between;
        let period_ms = self.broken_ms + self.whole_ms;
        for round in 0..u64::from(self.times) {
            let (from, to) = (scene.world.names(&[one].into()), scene.world.names(&[other].into()));
            let barrier = Barrier { from, to, one_way: false, loss: Loss::Never };
            let handle = scene.world.reserve(barrier);
            if round == 0 {
                scene.world.raise_reserved(handle);
            } else {
                scene.undo_after(round * period_ms, move |world: &mut World| {
                    world.raise_reserved(handle);
                    format!("the link of nodes {one} and {other} breaks again")
                });
            }
            scene.undo_after(round * period_ms + self.broken_ms, move |world| {
                world.lower(handle);
                format!("the link of nodes {one} and {other} is whole")
            });
        }
        Struck::Installed(format!("nodes {one} and {other}, {} times", self.times))
    }
}

impl Kind for Slow {
    const NAME: &'static str = "slow-link";
    const PAUSE_MS: (u64, u64) = (4_000, 40_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let between = draw_ends(draw);
        let latency_max_ms = draw.log_uniform(20, 800);
        Self { between, latency_max_ms, lasts_ms: draw.log_uniform(500, 15_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let (one, other) = self.between;
        scene.world.set_latency_max(one, other, Some(self.latency_max_ms));
        scene.undo_after(self.lasts_ms, move |world| {
            world.set_latency_max(one, other, None);
            format!("nodes {one} and {other} as fast as before")
        });
        Struck::Installed(format!("nodes {one} and {other}: up to {} ms", self.latency_max_ms))
    }
}

fn draw_ends(draw: &mut Draw<'_>) -> (u64, u64) {
    let one = draw.label();
    let step = draw.rng.u64(1..draw.nodes);
    (one, (one - 1 + step) % draw.nodes + 1)
}
