//! Leaders that are moved by an operator while everything else goes on.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Order, Scene, Struck};
use crate::plan::Draw;

/// An operator moves a leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveLeader {
    /// Of which partition.
    pub partition: u32,
    /// Label of the node that shall lead. It may be down, or have no replica.
    pub to: u64,
}

impl Kind for MoveLeader {
    const NAME: &'static str = "move-leader";
    const PAUSE_MS: (u64, u64) = (1_000, 20_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        Self { partition: draw.partition(), to: draw.label() }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        if scene.leaders.leader(self.partition) == Some(self.to) {
            return Struck::Skipped("it leads already");
        }
        Struck::Ordered(Order::MoveLeader { partition: self.partition, to: self.to })
    }
}
