//! Retention that lets go of nearly everything, so that replicas that lag fall off the log's start.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Order, Scene, Struck};
use crate::plan::Draw;

/// Almost everything may go, until the next such order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How much stays, in bytes; -1 is no limit.
    pub bytes: i64,
}

impl Kind for Retention {
    const NAME: &'static str = "retention";
    const PAUSE_MS: (u64, u64) = (4_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let bytes = match draw.rng.u8(0..4) {
            0 => -1,
            _ => i64::try_from(draw.log_uniform(1, 200_000)).unwrap_or(-1),
        };
        Self { bytes }
    }

    fn strike(&self, _scene: &mut Scene<'_>) -> Struck {
        Struck::Ordered(Order::Retention { bytes: self.bytes })
    }
}
