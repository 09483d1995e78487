//! What a seed decides before a run begins: the cluster, the clients, the faults.
//!
//! The plan is drawn whole and written beside the history, so that a person sees what a run was
//! about, and so that a failure can be kept although a change of the code maps its seed to another
//! plan. What is decided while the run goes on (which node leads when a fault strikes, how long a
//! message takes) follows from the same seed by other generators.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nodes of a cluster.
const NODES: u64 = 3;

/// A run. Times are in milliseconds of simulated time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// How long clients work under faults.
    pub until_ms: u64,
    /// Partitions of the one topic.
    pub partitions: u32,
    /// The cluster.
    pub nodes: Vec<NodePlan>,
    /// Least time of a message between two hosts.
    pub latency_min_ms: u64,
    /// Greatest time of a message between two hosts.
    pub latency_max_ms: u64,
    /// Clients that append.
    pub producers: Vec<ProducerPlan>,
    /// Members that commit group offsets, each for a group of its own.
    pub committers: u32,
    /// In the order in which they strike.
    pub faults: Vec<FaultPlan>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Its label, from 1.
    pub label: u64,
    /// How long each sync of its disk takes.
    pub sync_ms: u64,
    /// How far its wall clock is off.
    pub clock_offset_ms: i64,
}

/// How a client appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProducerPlan {
    /// One batch after the other, each numbered by the client.
    OneShot,
    /// Through the library's producer: many records under way, retried in order.
    Pipelined,
}

/// One fault and the pause before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// After the one before it is over.
    pub after_ms: u64,
    /// What happens.
    pub fault: Fault,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The leader of a partition loses its power: what it had not synced is gone.
    CrashLeader {
        /// Whose leader.
        partition: u32,
        /// What is lost, and how its peers hear of it.
        cut: PowerCut,
        /// How long it stays down.
        down_ms: u64,
    },
    /// All nodes lose their power at once.
    CrashAll {
        /// One for each node.
        cuts: Vec<PowerCut>,
        /// How long each stays down.
        down_ms: Vec<u64>,
    },
    /// The leader of a partition is cut off from its peers.
    PartitionLeader {
        /// Whose leader.
        partition: u32,
        /// From its clients too.
        clients_too: bool,
        /// What becomes of the messages.
        loss: Loss,
        /// How long.
        lasts_ms: u64,
    },
}

/// How a power cut goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCut {
    /// Of the writes that were not synced, so many in a hundred survive: the oldest.
    pub keep_percent: u8,
    /// Nobody is told: peers find out by silence, not by a closed connection.
    pub silent: bool,
}

/// What becomes of messages between hosts that are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// They arrive when the link is whole again, as TCP sends again what was lost.
    Late,
    /// They are gone, and so is every connection that carried one, though nobody says so: as when
    /// a box in between forgot the connection.
    Never,
}

impl Plan {
    /// Draws a run of `until`, from the time when the cluster serves.
    pub fn draw(seed: u64, until: Duration) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7175_6970_755f_706c);
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        let partitions = rng.u32(1..=3);
        let nodes = (1..=NODES).map(|label| NodePlan::draw(label, &mut rng)).collect();
        let latency_max_ms = rng.u64(2..=30);
        let producers = (0..rng.usize(2..=3)).map(|_| ProducerPlan::draw(&mut rng)).collect();
        let committers = rng.u32(1..=2);
        let faults = draw_faults(until_ms, partitions, &mut rng);
        Self {
            seed,
            until_ms,
            partitions,
            nodes,
            latency_min_ms: 1,
            latency_max_ms,
            producers,
            committers,
            faults,
        }
    }
}

impl NodePlan {
    fn draw(label: u64, rng: &mut fastrand::Rng) -> Self {
        let slow = rng.u8(0..10) == 0;
        let sync_ms = if slow { rng.u64(20..=60) } else { rng.u64(1..=8) };
        Self { label, sync_ms, clock_offset_ms: rng.i64(-500..=500) }
    }
}

impl ProducerPlan {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        if rng.bool() { Self::OneShot } else { Self::Pipelined }
    }
}

impl PowerCut {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        // A disk that loses all it may lose finds most; one that keeps a part finds torn order.
        let keep_percent = if rng.bool() { 0 } else { rng.u8(0..=100) };
        Self { keep_percent, silent: rng.bool() }
    }
}

impl Fault {
    /// How long until everything is up again, at least.
    fn lasts_ms(&self) -> u64 {
        match self {
            Self::CrashLeader { down_ms, .. } => *down_ms,
            Self::CrashAll { down_ms, .. } => down_ms.iter().copied().max().unwrap_or(0),
            Self::PartitionLeader { lasts_ms, .. } => *lasts_ms,
        }
    }

    /// The name under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CrashLeader { .. } => "crash-leader",
            Self::CrashAll { .. } => "crash-all",
            Self::PartitionLeader { .. } => "partition-leader",
        }
    }
}

/// Deals the kinds of faults like cards, so that a short run meets each kind too.
fn draw_faults(until_ms: u64, partitions: u32, rng: &mut fastrand::Rng) -> Vec<FaultPlan> {
    let mut faults: Vec<FaultPlan> = Vec::new();
    let mut at_ms = 0;
    loop {
        let mut kinds = [0, 1, 2];
        rng.shuffle(&mut kinds);
        for kind in kinds {
            let fault = draw_fault(kind, partitions, rng);
            let after_ms = rng.u64(500..=2_500);
            at_ms += after_ms;
            if at_ms >= until_ms {
                return faults;
            }
            at_ms += fault.lasts_ms();
            faults.push(FaultPlan { after_ms, fault });
        }
    }
}

fn draw_fault(kind: u8, partitions: u32, rng: &mut fastrand::Rng) -> Fault {
    let partition = rng.u32(..partitions);
    match kind {
        0 => {
            let cut = PowerCut::draw(rng);
            Fault::CrashLeader { partition, cut, down_ms: rng.u64(100..=3_000) }
        }
        1 => {
            let cuts = (0..NODES).map(|_| PowerCut::draw(rng)).collect();
            let down_ms = (0..NODES).map(|_| rng.u64(50..=1_000)).collect();
            Fault::CrashAll { cuts, down_ms }
        }
        _ => {
            let clients_too = rng.bool();
            let loss = if rng.bool() { Loss::Late } else { Loss::Never };
            let lasts_ms = rng.u64(300..=4_000);
            Fault::PartitionLeader { partition, clients_too, loss, lasts_ms }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        let until = Duration::from_secs(30);
        assert_eq!(Plan::draw(7, until), Plan::draw(7, until));
        assert_ne!(Plan::draw(7, until), Plan::draw(8, until));
    }

    #[test]
    fn a_run_of_half_a_minute_meets_every_kind_of_fault() {
        for seed in 0..100 {
            let plan = Plan::draw(seed, Duration::from_secs(30));
            for kind in ["crash-leader", "crash-all", "partition-leader"] {
                let met = plan.faults.iter().any(|it| it.fault.name() == kind);
                assert!(met, "seed {seed} has no {kind}");
            }
        }
    }

    #[test]
    fn a_plan_is_the_same_after_it_was_written_and_read() {
        let plan = Plan::draw(7, Duration::from_secs(30));
        let text = serde_json::to_string(&plan).expect("plain data");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("as written"), plan);
    }
}
