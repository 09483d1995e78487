//! Disks that say no: a write or a sync fails, or there is no space left, once or for a while.
//!
//! A node must end then and acknowledge nothing after it: of a sync that failed nobody knows what
//! it kept, and on many systems the next one succeeds although the data are gone. Somebody starts
//! the node again, also while its disk still fails; it goes on with what the disk has.

use std::time::Duration;

use node::storage::Engine as _;
use node::storage::memory::{FaultKind, MemoryEngine, MemoryFault};
use serde::{Deserialize, Serialize};

use super::kinds::Kind;
use super::scene::{Scene, Struck};
use super::target::Target;
use crate::plan::Draw;
use crate::world::World;

/// A node's disk fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingDisk {
    /// Who.
    pub target: Target,
    /// What fails.
    pub trouble: Trouble,
    /// How long, in milliseconds; then the disk is well, and the node is started.
    pub lasts_ms: u64,
    /// The node is started again and again meanwhile, after so many milliseconds; the disk fails
    /// each time.
    pub retry_ms: Option<u64>,
}

/// What fails on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A write, with EIO.
    Write,
    /// A sync, with EIO; later ones are answered, and nothing becomes durable.
    Sync,
    /// A write, with ENOSPC, once so many more bytes are on the disk.
    NoSpace {
        /// Bytes that there is still space for.
        left: u64,
    },
}

impl Kind for FailingDisk {
    const NAME: &'static str = "failing-disk";
    const PAUSE_MS: (u64, u64) = (4_000, 30_000);

    fn draw(draw: &mut Draw<'_>) -> Self {
        let target = Target::draw(draw);
        let trouble = match draw.rng.u8(0..4) {
            0 => Trouble::Write,
            1 | 2 => Trouble::Sync,
            _ => Trouble::NoSpace { left: draw.log_uniform(1, 65_536) },
        };
        let again = draw.rng.bool();
        let retry_ms = again.then(|| draw.log_uniform(100, 3_000));
        Self { target, trouble, lasts_ms: draw.log_uniform(200, 10_000), retry_ms }
    }

    fn strike(&self, scene: &mut Scene<'_>) -> Struck {
        let label = match self.target.find(scene) {
            Ok(label) => label,
            Err(reason) => return Struck::Skipped(reason),
        };
        if scene.world.host(label).disk_fails() {
            return Struck::Skipped("its disk fails already");
        }
        scene.world.set_disk_fails(label, true);
        self.trouble.befall(scene.world.host(label).disk());
        let trouble = self.trouble;
        if let Some(retry_ms) = self.retry_ms {
            for at_ms in (1..).map(|time| time * retry_ms).take_while(|at| *at < self.lasts_ms) {
                scene.undo_after(at_ms, move |world| start_again(world, label, Some(trouble)));
            }
        }
        let before = refusals(scene.world.host(label).disk());
        scene.undo_after(self.lasts_ms, move |world| {
            let disk = world.host(label).disk();
            disk.forget_faults();
            disk.set_capacity(Some(u64::MAX));
            // Refused a moment ago, it has perhaps not ended yet.
            if refusals(disk) > before && world.host(label).is_up() {
                world.kill(label);
                world.set_disk_fails(label, false);
                world.restart(label);
                return format!("node {label} is started again on a disk that is well");
            }
            world.set_disk_fails(label, false);
            start_again(world, label, None)
        });
        let lasts = Duration::from_millis(self.lasts_ms);
        Struck::Installed(format!("node {label}: {trouble:?} for {lasts:?}"))
    }
}

impl Trouble {
    fn befall(self, disk: &MemoryEngine) {
        match self {
            Self::Write => disk.fail_next_write(MemoryFault::Io),
            Self::Sync => disk.fail_next_sync(MemoryFault::Io),
            Self::NoSpace { left } => {
                let used = disk.bytes_used().unwrap_or(0);
                disk.set_capacity(Some(used.saturating_add(left)));
            }
        }
    }
}

/// Operations that the disk answered with an error.
fn refusals(disk: &MemoryEngine) -> u64 {
    let kinds = [FaultKind::WriteError, FaultKind::SyncError, FaultKind::Full];
    let effects = disk.effects();
    kinds.iter().filter_map(|kind| effects.get(kind)).map(|seen| seen.met).sum()
}

/// Starts a node that ended because of its disk.
fn start_again(world: &mut World, label: u64, trouble: Option<Trouble>) -> String {
    if !world.host(label).has_fallen() {
        return format!("node {label} has not ended");
    }
    if let Some(trouble @ (Trouble::Write | Trouble::Sync)) = trouble {
        trouble.befall(world.host(label).disk());
    }
    world.restart(label);
    format!("node {label} starts again")
}
