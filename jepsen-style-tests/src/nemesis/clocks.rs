//! Wall clocks that jump or run at the wrong speed.
//!
//! Only wall clocks: monotonic time is tokio's, one for the whole simulation, and can't be bent for
//! one host. Nothing but the stamps of entries, retention and bounded reads goes by a wall clock.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use crate::plan::Draw;

/// A wall clock jumps, and later jumps back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Whose, by label.
    pub node: u64,
    /// How far, in milliseconds.
    pub by_ms: i64,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

/// A wall clock runs too fast or too slow, and later jumps to where it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Whose, by label.
    pub node: u64,
    /// Millionths that it is too fast.
    pub ppm: i64,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for Step {
    const NAME: &'static str = "clock-step";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let size = i64::try_from(draw.log_uniform(50, 3_600_000)).unwrap_or(i64::MAX);
        let by_ms = if draw.rng.bool() { size } else { -size };
        Self { node: draw.label(), by_ms, lasts_ms: draw.log_uniform(200, 20_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let (node, by_ms) = (self.node, self.by_ms);
        scene.world.clock(node).step(by_ms);
        scene.undo_after(self.lasts_ms, move |world| {
            world.clock(node).step(-by_ms);
            format!("node {node} back by {by_ms} ms")
        });
        Struck::Installed(format!("node {node} by {by_ms} ms"))
    }
}

impl Kind for Drift {
    const NAME: &'static str = "clock-drift";
    const PAUSE_MS: (u64, u64) = (5_000, 40_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let size = i64::try_from(draw.log_uniform(100, 50_000)).unwrap_or(i64::MAX);
        let ppm = if draw.rng.bool() { size } else { -size };
        Self { node: draw.label(), ppm, lasts_ms: draw.log_uniform(1_000, 60_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let (node, ppm) = (self.node, self.ppm);
        scene.world.clock(node).drift(ppm);
        scene.undo_after(self.lasts_ms, move |world| {
            world.clock(node).drift(-ppm);
            format!("node {node} runs as before")
        });
        Struck::Installed(format!("node {node} by {ppm} millionths"))
    }
}
