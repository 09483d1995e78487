//! Remembers who leads what, and which node to ask next.
//!
//! Pure: it is told what nodes answered and when, and opens nothing. What it knows is only a
//! guess; the asked node decides, and its answer corrects the guess. Two rules make failover
//! quick and keep it from going in circles:
//!
//! 1. News of an older leader epoch never replaces news of a newer one.
//! 2. A node that has just failed or refused is not believed to be the leader, whoever says so,
//!    until a newer epoch or a while later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a node that could not be reached is not believed to lead, and asked last. Asked last
/// for twice as long each time it fails again, since a silent node costs a timeout.
const AVOIDED_UNREACHABLE: Duration = Duration::from_millis(500);
/// Asked last no longer than this.
const AVOIDED_MAX: Duration = Duration::from_secs(30);
/// How long a node that says it does not lead is not believed to lead.
const AVOIDED_REFUSED: Duration = Duration::from_millis(100);
/// Groups whose coordinator is remembered. When there are more, all are learned anew.
const COORDINATORS_MAX: usize = 1024;

/// What is known of the cluster.
#[derive(Debug)]
pub(crate) struct Routing {
    /// Given by configuration; asked while the cluster's own list is empty or of no use.
    seeds: Vec<String>,
    /// Label to address, as the cluster says.
    nodes: BTreeMap<u64, String>,
    topics: BTreeMap<String, TopicRoute>,
    /// Group to the address that answered for it last.
    coordinators: BTreeMap<String, String>,
    metadata_leader: Option<String>,
    avoided: BTreeMap<String, Avoided>,
    /// Place in the rotation of nodes.
    turn: usize,
}

/// A node that is asked last.
#[derive(Debug, Clone, Copy)]
struct Avoided {
    until: Instant,
    /// In a row.
    failures: u32,
}

/// What is known of one topic.
#[derive(Debug, Clone)]
struct TopicRoute {
    id: String,
    /// By partition.
    leaders: Vec<Leader>,
    learned_at: Instant,
}

#[derive(Debug, Clone, Default)]
struct Leader {
    address: Option<String>,
    /// Newest epoch heard of.
    epoch: u64,
    /// Not believed to lead under `epoch` or an older one until then.
    avoided: Option<(String, Instant)>,
}

/// One partition as a node describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderNews {
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
    /// `None`: the node knows of none.
    pub(crate) address: Option<String>,
}

/// The answer to "who leads this partition".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    Leader(String),
    /// The partition is there; ask who leads it.
    LeaderUnknown,
    /// The topic has only so many partitions.
    NoSuchPartition(u32),
    /// Never heard of the topic.
    TopicUnknown,
}

impl Routing {
    /// Knows the seeds only. `turn`: which node to ask first.
    pub(crate) fn new(seeds: Vec<String>, turn: usize) -> Routing {
        assert!(!seeds.is_empty(), "a valid configuration names a node");
        Routing {
            seeds,
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            metadata_leader: None,
            avoided: BTreeMap::new(),
            turn,
        }
    }

    /// Takes the cluster's list of nodes, label and address.
    pub(crate) fn learn_nodes(&mut self, nodes: impl IntoIterator<Item = (u64, String)>) {
        let nodes: BTreeMap<u64, String> = nodes.into_iter().collect();
        // A node that is not part of a cluster yet knows of nobody.
        if !nodes.is_empty() {
            self.nodes = nodes;
        }
    }

    /// Takes what a node says of a topic.
    pub(crate) fn learn_topic(
        &mut self,
        topic: &str,
        id: &str,
        partitions: &[LeaderNews],
        now: Instant,
    ) {
        let known = self.topics.entry(topic.to_owned()).or_insert_with(|| TopicRoute {
            id: id.to_owned(),
            leaders: Vec::new(),
            learned_at: now,
        });
        if known.id != id {
            // Deleted and created again: nothing known of the old one holds.
            *known = TopicRoute { id: id.to_owned(), leaders: Vec::new(), learned_at: now };
        }
        known.learned_at = now;
        let count = partitions.iter().filter_map(|news| index_of(news.partition)).max();
        let count = count.map_or(0, |last| last + 1).min(partitions.len());
        if known.leaders.len() < count {
            known.leaders.resize(count, Leader::default());
        }
        for news in partitions {
            let leader = index_of(news.partition).and_then(|index| known.leaders.get_mut(index));
            if let Some(leader) = leader {
                leader.learn(news, now);
            }
        }
    }

    /// The topic is gone, as a node says.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    pub(crate) fn leader(&self, topic: &str, partition: u32) -> Lookup {
        let Some(route) = self.topics.get(topic) else { return Lookup::TopicUnknown };
        match index_of(partition).and_then(|index| route.leaders.get(index)) {
            None => Lookup::NoSuchPartition(self.partition_count(topic).unwrap_or(0)),
            Some(Leader { address: Some(address), .. }) => Lookup::Leader(address.clone()),
            Some(Leader { address: None, .. }) => Lookup::LeaderUnknown,
        }
    }

    /// `None`: the topic is not known.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<u32> {
        let count = self.topics.get(topic)?.leaders.len();
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// When a node was last asked about the topic with success.
    pub(crate) fn learned_at(&self, topic: &str) -> Option<Instant> {
        self.topics.get(topic).map(|route| route.learned_at)
    }

    /// `address` says that it does not lead the partition; `hint` is who does, as far as it knows.
    pub(crate) fn on_refused(
        &mut self,
        (topic, partition): (&str, u32),
        address: &str,
        hint: Option<&str>,
        now: Instant,
    ) {
        let route = self.topics.get_mut(topic);
        let leader = route
            .and_then(|route| index_of(partition).and_then(|index| route.leaders.get_mut(index)));
        if let Some(leader) = leader {
            leader.avoid(address, now + AVOIDED_REFUSED);
            if let Some(hint) = hint.filter(|hint| *hint != address) {
                leader.address = Some(hint.to_owned());
            }
        }
    }

    /// `address` could not be reached, or stopped answering.
    pub(crate) fn on_unreachable(&mut self, address: &str, now: Instant) {
        self.ask_last(address, 1, now);
        let until = now + AVOIDED_UNREACHABLE;
        self.coordinators.retain(|_, coordinator| coordinator != address);
        self.metadata_leader.take_if(|leader| leader == address);
        for leader in self.topics.values_mut().flat_map(|route| &mut route.leaders) {
            leader.avoid_if_leader(address, until);
        }
    }

    /// `address` does not answer. It is asked last, but may still lead.
    pub(crate) fn on_suspected(&mut self, address: &str, now: Instant) {
        self.ask_last(address, 0, now);
    }

    fn ask_last(&mut self, address: &str, failures_more: u32, now: Instant) {
        // Those that failed long ago are forgotten: addresses may change for ever.
        self.avoided.retain(|_, known| known.until + AVOIDED_MAX > now);
        let failures = self.avoided.get(address).map_or(0, |known| known.failures);
        let failures = failures.saturating_add(failures_more);
        let wait = AVOIDED_UNREACHABLE.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let avoided = Avoided { until: now + wait.min(AVOIDED_MAX), failures };
        self.avoided.insert(address.to_owned(), avoided);
    }

    /// `address` answered.
    pub(crate) fn on_reachable(&mut self, address: &str) {
        self.avoided.remove(address);
    }

    /// The address of a node by its label.
    pub(crate) fn node(&self, node: u64) -> Option<String> {
        self.nodes.get(&node).cloned()
    }

    /// All addresses worth asking, the best first; the next call begins with the next one.
    pub(crate) fn nodes_in_turn(&mut self, now: Instant) -> Vec<String> {
        let mut all = self.all_nodes();
        let first = self.turn % all.len();
        self.turn = self.turn.wrapping_add(1);
        all.rotate_left(first);
        // Stable: those that may be asked keep their turn.
        all.sort_by_key(|address| self.avoided.get(address).is_some_and(|known| known.until > now));
        all
    }

    /// How many addresses there are to ask; at least one.
    pub(crate) fn nodes_count(&self) -> usize {
        self.all_nodes().len()
    }

    fn all_nodes(&self) -> Vec<String> {
        let mut all: Vec<String> = self.nodes.values().cloned().collect();
        for seed in &self.seeds {
            if !all.contains(seed) {
                all.push(seed.clone());
            }
        }
        all
    }

    /// Who answered last for this group.
    pub(crate) fn coordinator(&self, group: &str) -> Option<String> {
        self.coordinators.get(group).cloned()
    }

    /// `address` answers for this group, or is said to. `None`: whoever it was does not.
    pub(crate) fn set_coordinator(&mut self, group: &str, address: Option<&str>) {
        let Some(address) = address else {
            self.coordinators.remove(group);
            return;
        };
        if self.coordinators.len() >= COORDINATORS_MAX && !self.coordinators.contains_key(group) {
            self.coordinators.clear();
        }
        self.coordinators.insert(group.to_owned(), address.to_owned());
    }

    /// Who answered the last call that only the metadata group's leader can answer.
    pub(crate) fn metadata_leader(&self) -> Option<String> {
        self.metadata_leader.clone()
    }

    /// As [`Routing::set_coordinator`], for the metadata group.
    pub(crate) fn set_metadata_leader(&mut self, address: Option<&str>) {
        self.metadata_leader = address.map(str::to_owned);
    }
}

impl Leader {
    fn learn(&mut self, news: &LeaderNews, now: Instant) {
        if news.epoch < self.epoch {
            return;
        }
        let is_newer = news.epoch > self.epoch;
        self.epoch = news.epoch;
        let believed = news.address.as_deref().filter(|address| {
            let avoided = self.avoided.as_ref();
            is_newer || !avoided.is_some_and(|(avoid, until)| avoid == address && *until > now)
        });
        match believed {
            Some(address) => self.address = Some(address.to_owned()),
            // A node that knows of no leader does not make us forget one, unless it is ahead.
            None if is_newer => self.address = None,
            None => {}
        }
    }

    fn avoid(&mut self, address: &str, until: Instant) {
        self.avoided = Some((address.to_owned(), until));
        self.address.take_if(|leader| leader == address);
    }

    fn avoid_if_leader(&mut self, address: &str, until: Instant) {
        if self.address.as_deref() == Some(address) {
            self.avoid(address, until);
        }
    }
}

fn index_of(partition: u32) -> Option<usize> {
    usize::try_from(partition).ok()
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
