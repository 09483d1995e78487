//! Clients that die, or that all want too much at once.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use crate::plan::Draw;

/// A client dies in the middle of its work; another one with its task begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCrash {
    /// Which of those that can die; counted round.
    pub number: u32,
}

/// Clients send far more than usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overload {
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for ClientCrash {
    const NAME: &'static str = "client-crash";
    const PAUSE_MS: (u64, u64) = (3_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { number: draw.rng.u32(..) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        match scene.clients.kill(self.number) {
            Some(process) => Struck::Installed(process),
            None => Struck::Skipped("nobody can die"),
        }
    }
}

impl Kind for Overload {
    const NAME: &'static str = "overload";
    const PAUSE_MS: (u64, u64) = (6_000, 60_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { lasts_ms: draw.log_uniform(200, 3_000) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let clients = scene.clients.clone();
        clients.begin_rush();
        scene.undo_after(self.lasts_ms, move |_world| {
            clients.end_rush();
            "the usual load".to_owned()
        });
        Struck::Installed(format!("for {} ms", self.lasts_ms))
    }
}
