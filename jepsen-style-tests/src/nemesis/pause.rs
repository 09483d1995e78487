//! A node that stands still while its sockets stay open, as under SIGSTOP, and then goes on.
//!
//! turmoil can't stop a host's timers. What can be had: nothing that the node sends leaves it and
//! nothing reaches it, until all of it arrives at once; its disk ends no sync; its wall clock
//! stands. So others see what they would see of a stopped process, and it gets old messages in a
//! burst when it wakes; but its own timers fire meanwhile. `quipu-live linearizable --pause` stops
//! real processes.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use super::target::Target;
use crate::plan::Draw;

/// A node stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who.
    pub target: Target,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for Pause {
    const NAME: &'static str = "pause";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { target: Target::draw(draw), lasts_ms: draw.log_uniform(100, 12_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        let paused = scene.world.pause(label, self.lasts_ms);
        scene.undo_after(self.lasts_ms, move |world| {
            world.resume(paused);
            format!("node {label} goes on")
        });
        Struck::Installed(format!("node {label} for {} ms", self.lasts_ms))
    }
}
