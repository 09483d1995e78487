//! Whom a fault is aimed at: mostly a leader, since leaders are where things go wrong.

use serde::{Deserialize, Serialize};

use super::scene::Scene;
use crate::plan::Draw;

/// A node, as a plan names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Whoever leads this partition when the fault strikes.
    LeaderOf(u32),
    /// This one.
    Node(u64),
}

impl Target {
    /// A leader in two of three cases.
    pub fn draw(draw: &mut Draw<'_>) -> Self {
        if draw.rng.u8(0..3) < 2 { Self::leader(draw) } else { Self::Node(draw.label()) }
    }

    /// The leader of some partition.
    pub fn leader(draw: &mut Draw<'_>) -> Self {
        Self::LeaderOf(draw.partition())
    }

    /// The node, if it is known and runs.
    ///
    /// # Errors
    /// Why there is nobody to be struck.
    pub fn find(self, scene: &Scene<'_>) -> Result<u64, &'static str> {
        let label = match self {
            Self::LeaderOf(partition) => scene.leaders.leader(partition),
            Self::Node(label) => Some(label),
        };
        let label = label.ok_or("no leader is known")?;
        let host = scene.world.nodes().iter().find(|host| host.label() == label);
        match host {
            Some(host) if host.is_up() => Ok(label),
            Some(_) => Err("the node is down already"),
            None => Err("there is no such node"),
        }
    }
}
