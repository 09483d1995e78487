//! Storms of retries: many clients give up before an answer can come and send the same again.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use crate::plan::Draw;
use crate::workload::Storm;

/// Many clients with deadlines far shorter than an answer takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryStorm {
    /// How they behave.
    pub storm: Storm,
    /// How long, in milliseconds.
    pub lasts_ms: u64,
}

impl Kind for RetryStorm {
    const NAME: &'static str = "retry-storm";
    const PAUSE_MS: (u64, u64) = (6_000, 60_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let patience_ms = draw.log_uniform(1, 60);
        let storm = Storm { patience_ms, numbered: draw.rng.u8(0..4) > 0 };
        Self { storm, lasts_ms: draw.log_uniform(200, 2_500) }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        if scene.clients.storm().is_some() {
            return Struck::Skipped("there is a storm already");
        }
        let clients = scene.clients.clone();
        clients.set_storm(Some(self.storm));
        scene.undo_after(self.lasts_ms, move |_world| {
            clients.set_storm(None);
            "the storm is over".to_owned()
        });
        Struck::Installed(format!("for {} ms: {:?}", self.lasts_ms, self.storm))
    }
}
