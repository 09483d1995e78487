//! Members that change while everything else strikes, by the calls that an operator has.
//!
//! Nodes are drained and resumed, removed, and removals are cancelled or left to end; nodes with
//! an empty disk join, first the spare ones of the plan and then those that were removed; single
//! replicas are moved, and the cluster is evened out. The cluster itself refuses what would leave
//! it too few nodes; then the strike was skipped. A change that was begun when the faults end must
//! come to its end by itself.

use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Order, Scene, Struck};
use super::target::Target;
use crate::plan::Draw;
use crate::world::NodeHost;

/// An operator changes who belongs to the cluster, or who holds what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// What.
    pub change: Change,
}

/// What an operator does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A node shall lead nothing for a while.
    Drain {
        /// Who.
        who: Target,
        /// How long, in milliseconds.
        lasts_ms: u64,
    },
    /// A node leaves for good, its replicas first.
    Remove {
        /// Who.
        who: Target,
        /// The operator thinks better of it after so many milliseconds, if the node is still there.
        cancel_after_ms: Option<u64>,
    },
    /// A node that is away starts with an empty disk and joins.
    Join {
        /// Which of those that are away; counted round.
        choice: u64,
    },
    /// A replica of a partition goes from one node to another.
    Move {
        /// Whose.
        partition: u32,
        /// From whom to whom.
        choice: u64,
    },
    /// One of the changes that would even the cluster out.
    Rebalance {
        /// Which; counted round.
        choice: u64,
    },
}

impl Kind for Membership {
    const NAME: &'static str = "membership";
    const PAUSE_MS: (u64, u64) = (1_500, 15_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let who = Target::draw(draw);
        let choice = draw.rng.u64(..);
        let change = match draw.rng.u8(0..10) {
            0 => Change::Drain { who, lasts_ms: draw.log_uniform(200, 10_000) },
            1..=3 => {
                let cancels = draw.rng.u8(0..3) == 0;
                let cancel_after_ms = cancels.then(|| draw.log_uniform(50, 4_000));
                Change::Remove { who, cancel_after_ms }
            }
            4..=6 => Change::Join { choice },
            7 | 8 => Change::Move { partition: draw.partition(), choice },
            _ => Change::Rebalance { choice },
        };
        Self { change }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        match &self.change {
            Change::Drain { who, lasts_ms } => {
                let node = match find(*who, scene) {
                    Ok(node) => node,
                    Err(reason) => return Struck::Skipped(reason),
                };
                scene.order_after(*lasts_ms, Order::Resume { node });
                Struck::Ordered(Order::Drain { node })
            }
            Change::Remove { who, cancel_after_ms } => {
                let node = match find(*who, scene) {
                    Ok(node) => node,
                    Err(reason) => return Struck::Skipped(reason),
                };
                if let Some(ms) = cancel_after_ms {
                    scene.order_after(*ms, Order::CancelRemoval { node });
                }
                Struck::Ordered(Order::Remove { node })
            }
            Change::Join { choice } => {
                let away = scene.world.nodes().iter().filter(|host| host.is_away());
                let away: Vec<u64> = away.map(NodeHost::label).collect();
                let Some(label) = pick(&away, *choice).copied() else {
                    return Struck::Skipped("no node is away");
                };
                scene.world.take_in(label);
                Struck::Installed(format!("node {label} starts with an empty disk and joins"))
            }
            Change::Move { partition, choice } => {
                Struck::Ordered(Order::MoveReplica { partition: *partition, choice: *choice })
            }
            Change::Rebalance { choice } => Struck::Ordered(Order::Rebalance { choice: *choice }),
        }
    }
}

/// A node of the cluster, up or down: operators also remove nodes that are dead.
fn find(who: Target, scene: &Scene<'_>) -> Result<u64, &'static str> {
    let label = match who {
        Target::LeaderOf(partition) => scene.leaders.leader(partition),
        Target::Node(label) => Some(label),
    };
    let label = label.ok_or("no leader is known")?;
    match scene.world.host(label).is_away() {
        true => Err("the node is away"),
        false => Ok(label),
    }
}

/// One of them, counted round.
pub fn pick<T>(all: &[T], choice: u64) -> Option<&T> {
    let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
    all.get(usize::try_from(choice % count).ok()?)
}
