//! What a seed decides before a run begins: the cluster, the clients, the faults.
//!
//! The plan is drawn whole and written beside the history, so that a person sees what a run was
//! about, so that a failure can be kept although a change of the code maps its seed to another
//! plan, and so that a smaller plan can be tried. What is decided while the run goes on (which
//! node leads when a fault strikes, how long a message takes) follows from the same seed by other
//! generators.

mod draw;
mod schedule;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::nemesis::{Fault, FaultPlan};
pub use draw::Draw;
pub use schedule::{FaultChoice, UnknownFault};

/// A run. Times are in milliseconds of simulated time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// How long clients work under faults.
    pub until_ms: u64,
    /// One step of time. Messages arrive between steps.
    pub tick_ms: u64,
    /// The cluster.
    pub nodes: Vec<NodePlan>,
    /// Nodes that do not run at first; a fault has them join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<NodePlan>,
    /// The topic that all but a few clients work on.
    pub topic: TopicPlan,
    /// Least time of a message between two hosts.
    pub latency_min_ms: u64,
    /// Greatest time of a message between two hosts.
    pub latency_max_ms: u64,
    /// Clients that append.
    pub producers: Vec<ProducerPlan>,
    /// Clients that read, each at all nodes.
    pub readers: u32,
    /// Clients that follow the log with the library's consumer.
    pub consumers: u32,
    /// Members that commit group offsets, each for a group of its own.
    pub committers: u32,
    /// Groups whose members join, consume, crash and come back, and how many members each has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    /// Somebody creates and deletes topics, and appends to them.
    pub churns_topics: bool,
    /// By time.
    pub faults: Vec<FaultPlan>,
    /// Labels of nodes that stay dead after the faults until the others have shown that they serve.
    pub stay_dead: BTreeSet<u64>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Its label, from 1.
    pub label: u64,
    /// How long each sync of its disk takes.
    pub sync_ms: u64,
    /// How far its wall clock is off at the beginning.
    pub clock_offset_ms: i64,
    /// Millionths that it runs too fast.
    pub clock_drift_ppm: i64,
}

/// The topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPlan {
    /// How many partitions.
    pub partitions: u32,
    /// Replicas of each.
    pub replication_factor: u32,
    /// Its `checkpoint.bytes`: small where replicas shall fall off the log's start.
    pub checkpoint_bytes: u64,
}

/// How a client appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerPlan {
    /// By which calls.
    pub style: ProducerStyle,
    /// Longest pause between two appends or bursts.
    pub pause_ms: u64,
    /// Most records of a batch or burst.
    pub records: u64,
}

/// By which calls a client appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProducerStyle {
    /// One batch after the other, each numbered by the client.
    OneShot,
    /// One batch after the other, without numbers: a retry of the library may be written twice,
    /// so it retries nothing that may have been written.
    Plain,
    /// Each batch on the condition that the log ends where the client thinks.
    Conditional,
    /// Numbered, and each batch sent again and again, also long after, and by a client of which
    /// a newer one has taken over.
    Zombie,
    /// Through the library's producer: many records under way, retried in order.
    Pipelined,
}

/// What a person may ask of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Where everything comes from.
    pub seed: u64,
    /// How long clients work under faults.
    pub until: Duration,
    /// How many nodes; drawn where it is not said.
    pub nodes: Option<u64>,
    /// Which faults.
    pub faults: FaultChoice,
    /// What clients do.
    pub workload: Workload,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Workload {
    /// A little of everything.
    #[default]
    Mixed,
    /// Above all, they consume in groups.
    Groups,
}

impl Plan {
    /// Draws a run.
    pub fn draw(wishes: &Wishes) -> Self {
        let mut rng = fastrand::Rng::with_seed(wishes.seed ^ 0x7175_6970_755f_706c);
        let until_ms = u64::try_from(wishes.until.as_millis()).unwrap_or(u64::MAX);
        let drawn = [3, 3, 3, 3, 3, 5, 5, 5, 5, 4, 6, 7][rng.usize(..12)];
        let count = wishes.nodes.unwrap_or(drawn);
        let nodes = (1..=count).map(|label| NodePlan::draw(label, &mut rng)).collect();
        let topic = TopicPlan::draw(count, &mut rng);
        let latency_max_ms = draw::log_uniform(&mut rng, 1, 40);
        let producers = (0..rng.usize(2..=5)).map(|_| ProducerPlan::draw(&mut rng)).collect();
        let (readers, consumers, committers) = (rng.u32(2..=4), rng.u32(0..=2), rng.u32(1..=2));
        let churns_topics = rng.u8(0..4) == 0;
        let mut stay_dead = draw_dead(count, &mut rng);
        // Coarse steps are cheap, fine ones show more orders of events.
        let tick_ms = [1, 1, 2, 3][rng.usize(..4)];
        let mut draw = Draw { rng: &mut rng, nodes: count, partitions: topic.partitions };
        let faults = schedule::draw(until_ms, &wishes.faults, &mut draw);
        // Who lost its disk may not vote again yet, and then nobody else may be missing for good.
        let has = |fits: fn(&Fault) -> bool| faults.iter().any(|it| fits(&it.fault));
        if has(|fault| matches!(fault, Fault::LostDisk(_))) {
            stay_dead.clear();
        }
        let mut spares = Vec::new();
        if has(|fault| matches!(fault, Fault::Membership(_))) {
            // Where the replicas are is known when all is over, and not which nodes may be missing.
            stay_dead.clear();
            let labels = count + 1..=count + rng.u64(1..=2);
            spares = labels.map(|label| NodePlan::draw(label, &mut rng)).collect();
        }
        let mixed = Self {
            seed: wishes.seed,
            until_ms,
            tick_ms,
            nodes,
            spares,
            topic,
            latency_min_ms: 1,
            latency_max_ms,
            producers,
            readers,
            consumers,
            committers,
            groups: Vec::new(),
            churns_topics,
            faults,
            stay_dead,
        };
        match wishes.workload {
            Workload::Mixed => mixed,
            Workload::Groups => mixed.with_groups(&mut rng),
        }
    }

    /// Some clients lose their patience while it runs.
    pub fn has_storms(&self) -> bool {
        self.faults.iter().any(|it| matches!(it.fault, Fault::RetryStorm(_)))
    }

    /// Nodes come and go while it runs.
    pub fn changes_members(&self) -> bool {
        self.faults.iter().any(|it| matches!(it.fault, Fault::Membership(_)))
    }

    /// The same cluster and faults, with clients that consume in groups. What retention takes
    /// nobody can be given, so it takes nothing.
    fn with_groups(mut self, rng: &mut fastrand::Rng) -> Self {
        self.groups = (0..rng.usize(1..=2)).map(|_| rng.u32(2..=4)).collect();
        self.producers.truncate(2);
        (self.readers, self.consumers, self.committers) = (1, 0, 1);
        self.churns_topics = false;
        self.faults.retain(|it| it.fault.name() != "retention");
        self
    }
}

/// Nodes that may stay dead: no more than a majority can do without, in groups of any size.
fn draw_dead(count: u64, rng: &mut fastrand::Rng) -> BTreeSet<u64> {
    // The metadata has at most five voters, of whichever nodes.
    let most = (count.saturating_sub(1) / 2).min(2);
    let mut labels: Vec<u64> = (1..=count).collect();
    rng.shuffle(&mut labels);
    let dead = usize::try_from(rng.u64(0..=most)).unwrap_or(0);
    labels.into_iter().take(dead).collect()
}

impl NodePlan {
    fn draw(label: u64, rng: &mut fastrand::Rng) -> Self {
        let slow = rng.u8(0..10) == 0;
        let sync_ms = if slow { rng.u64(20..=60) } else { rng.u64(1..=8) };
        let (clock_offset_ms, clock_drift_ppm) = (rng.i64(-500..=500), rng.i64(-200..=200));
        Self { label, sync_ms, clock_offset_ms, clock_drift_ppm }
    }
}

impl TopicPlan {
    fn draw(nodes: u64, rng: &mut fastrand::Rng) -> Self {
        let most = u64::from(rng.bool()) * 28 + 4;
        let partitions = draw::log_uniform(rng, 1, most);
        let replication_factor = if nodes >= 5 && rng.u8(0..3) == 0 { 5 } else { 3 };
        let checkpoint_bytes = draw::log_uniform(rng, 2_000, 400_000);
        let partitions = u32::try_from(partitions).unwrap_or(1);
        Self { partitions, replication_factor, checkpoint_bytes }
    }
}

impl ProducerPlan {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        use ProducerStyle::{Conditional, OneShot, Pipelined, Plain, Zombie};
        let styles = [OneShot, OneShot, Plain, Conditional, Zombie, Pipelined, Pipelined];
        let style = styles[rng.usize(..styles.len())];
        let pause_ms = draw::log_uniform(rng, 2, 200);
        // Several hundred records a second at most, or histories grow without showing more.
        let records = draw::log_uniform(rng, 1, 60).min(1 + pause_ms);
        Self { style, pause_ms, records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::KINDS;

    fn plan(seed: u64) -> Plan {
        let until = Duration::from_secs(60);
        Plan::draw(&Wishes {
            seed,
            until,
            nodes: None,
            faults: FaultChoice::Swarm,
            workload: Workload::Mixed,
        })
    }

    #[test]
    fn a_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn a_hundred_seeds_meet_every_kind_of_fault_and_no_seed_meets_all() {
        let plans: Vec<Plan> = (0..100).map(plan).collect();
        for kind in KINDS.iter().filter(|kind| !kind.on_request) {
            let has = |plan: &&Plan| plan.faults.iter().any(|it| it.fault.name() == kind.name);
            let with = plans.iter().filter(has).count();
            assert!((20..=80).contains(&with), "{}: in {with} of 100 seeds", kind.name);
        }
    }

    #[test]
    fn a_plan_is_the_same_after_it_was_written_and_read() {
        let text = serde_json::to_string(&plan(7)).expect("plain data");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("as written"), plan(7));
    }

    #[test]
    fn members_of_groups_meet_the_same_faults_but_retention() {
        let until = Duration::from_secs(60);
        for seed in 0..50 {
            let workload = Workload::Groups;
            let faults = FaultChoice::Swarm;
            let groups = Plan::draw(&Wishes { seed, until, nodes: None, faults, workload });
            assert!(groups.groups.iter().all(|members| *members >= 2) && !groups.groups.is_empty());
            let mut mixed = plan(seed).faults;
            mixed.retain(|it| it.fault.name() != "retention");
            assert_eq!(groups.faults, mixed);
        }
    }

    #[test]
    fn a_majority_never_stays_dead() {
        for plan in (0..200).map(plan) {
            assert!(2 * plan.stay_dead.len() < plan.nodes.len(), "seed {}", plan.seed);
        }
    }
}
