//! The kinds of faults there are: one line each, and what every kind must be able to do.
//!
//! A kind is one file beside this one. It has a plan type (what a seed decides of one such fault),
//! draws it, strikes with it, says how it is taken back and counts its effects. Whoever adds a kind
//! adds a line to the list at the end of this file.

use serde::{Deserialize, Serialize};

use super::scene::{Scene, Struck};
use super::{
    clients, clocks, disk, failing_disk, leaders, links, membership, partition, pause, power,
    retention, storm,
};
use crate::plan::Draw;

/// A kind of fault.
pub trait Kind: Sized {
    /// Its name on the command line, in plans and in tables.
    const NAME: &'static str;
    /// A seed that has this kind draws its mean pause between two strikes from here, log-uniformly,
    /// in milliseconds.
    const PAUSE_MS: (u64, u64);

    /// Only runs that name it have it.
    const ON_REQUEST: bool = false;

    /// Draws one such fault.
    fn draw(draw: &mut Draw<'_>) -> Self;

    /// Lets it happen. What is to be taken back later is left with the scene.
    fn strike(&self, scene: &mut Scene<'_>) -> Struck;
}

/// One fault and when it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// After the clients began to work, in milliseconds.
    pub at_ms: u64,
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A kind in the list.
pub struct KindEntry {
    /// [`Kind::NAME`].
    pub name: &'static str,
    /// [`Kind::PAUSE_MS`].
    pub pause_ms: (u64, u64),
    /// [`Kind::ON_REQUEST`].
    pub on_request: bool,
    /// [`Kind::draw`].
    pub draw: fn(&mut Draw<'_>) -> Fault,
}

macro_rules! kinds {
    ($($variant:ident: $plan:ty, $doc:literal;)+) => {
        /// What happens.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Fault {
            $(#[doc = $doc] $variant($plan),)+
        }

        /// Every kind.
        pub const KINDS: &[KindEntry] = &[
            $(KindEntry {
                name: <$plan as Kind>::NAME,
                pause_ms: <$plan as Kind>::PAUSE_MS,
                on_request: <$plan as Kind>::ON_REQUEST,
                draw: |draw| Fault::$variant(<$plan as Kind>::draw(draw)),
            },)+
        ];

        impl Fault {
            /// The name of its kind.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$plan as Kind>::NAME,)+
                }
            }

            pub(super) fn strike(&self, scene: &mut Scene<'_>) -> Struck {
                match self {
                    $(Self::$variant(plan) => plan.strike(scene),)+
                }
            }
        }
    };
}

kinds! {
    PowerCut: power::PowerCutOne, "A node loses its power.";
    PowerCutAll: power::PowerCutAll, "All nodes lose their power at once.";
    Crash: power::Crash, "A node's process dies; its machine goes on.";
    Pause: pause::Pause, "A node stands still.";
    IsolateLeader: partition::IsolateLeader, "A leader is cut off from the others.";
    Partition: partition::Split, "The nodes fall into two parts.";
    OneWay: partition::OneWay, "A node is not heard, or hears nothing.";
    FlappingLink: links::Flapping, "A link breaks again and again.";
    SlowLink: links::Slow, "Messages between two nodes take long.";
    ClockStep: clocks::Step, "A wall clock jumps.";
    ClockDrift: clocks::Drift, "A wall clock runs too fast or too slow.";
    MoveLeader: leaders::MoveLeader, "An operator moves a leader.";
    Retention: retention::Retention, "Almost everything may go.";
    ClientCrash: clients::ClientCrash, "A client dies in the middle of its work.";
    Overload: clients::Overload, "Clients send far more than usual.";
    DamagedEntries: disk::DamagedEntries, "Stored entries are damaged while their node is down.";
    FullDisk: disk::FullDisk, "A disk has less left than its reserve.";
    SlowDisk: disk::SlowDisk, "Syncs of a disk take long.";
    LostDisk: disk::LostDisk, "A node loses all that its disk has.";
    FailingDisk: failing_disk::FailingDisk, "Writes or syncs of a disk fail.";
    RetryStorm: storm::RetryStorm, "Clients give up early and send the same again.";
    Membership: membership::Membership, "An operator changes who belongs to the cluster.";
}
