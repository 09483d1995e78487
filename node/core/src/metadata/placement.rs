//! Which nodes hold the replicas of a new group, and which of them should lead it.
//!
//! Even first within the topic, so that its load spreads over all nodes from the first day, and
//! then over the whole cluster, so that many topics of one partition do not meet on one node. A
//! node that joined empty therefore gets its fair share of each new topic, not all of it.
//!
//! Pure and deterministic: every replica of the metadata group places alike.

use super::Standing;
use crate::ids::{NodeLabel, NodeUuid};

/// Replicas that a group can have: odd, because an even one more survives no loss more.
const REPLICATION_FACTORS: [u32; 3] = [1, 3, 5];

/// What a node holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLoad {
    /// Which.
    pub node: NodeUuid,
    /// Breaks ties.
    pub label: NodeLabel,
    /// Replicas of all groups.
    pub replicas: u32,
    /// Groups for which it is the preferred leader.
    pub leaders: u32,
    /// A node that is being removed gets nothing, a drained one leads nothing, as far as there are
    /// others.
    pub standing: Standing,
}

/// A number of replicas that the nodes can't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidReplication {
    /// As given.
    pub wanted: u32,
    /// Nodes there are.
    pub nodes: u32,
}

/// The replicas a group will have: 1, 3 or 5; 0 stands for 3 where there are so many nodes,
/// else 1.
pub fn replication_factor(wanted: u32, nodes: u32) -> Result<u32, InvalidReplication> {
    match wanted {
        0 if nodes >= 3 => Ok(3),
        0 if nodes >= 1 => Ok(1),
        _ if REPLICATION_FACTORS.contains(&wanted) && wanted <= nodes => Ok(wanted),
        _ => Err(InvalidReplication { wanted, nodes }),
    }
}

/// Places the groups of one topic (or the coordinators), one after the other.
#[derive(Debug)]
pub struct Placement {
    nodes: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    load: NodeLoad,
    /// Of the groups placed here.
    replicas_placed: u32,
    leaders_placed: u32,
}

impl Placement {
    /// Begins with what the nodes hold.
    #[must_use]
    pub fn new(loads: impl IntoIterator<Item = NodeLoad>) -> Placement {
        let candidate = |load| Candidate { load, replicas_placed: 0, leaders_placed: 0 };
        Placement { nodes: loads.into_iter().map(candidate).collect() }
    }

    /// The nodes of the next group, the preferred leader first; as many as there are where that
    /// is less than `replication_factor`.
    pub fn place(&mut self, replication_factor: u32) -> Vec<NodeUuid> {
        let mut chosen: Vec<usize> = Vec::new();
        for _ in 0..replication_factor {
            let free = (0..self.nodes.len()).filter(|place| {
                !chosen.contains(place) && self.nodes[*place].load.standing != Standing::Removing
            });
            let next = if chosen.is_empty() {
                free.min_by_key(|place| self.nodes[*place].leader_rank())
            } else {
                free.min_by_key(|place| self.nodes[*place].follower_rank())
            };
            let Some(place) = next else { break };
            let node = &mut self.nodes[place];
            node.leaders_placed += u32::from(chosen.is_empty());
            node.replicas_placed += 1;
            chosen.push(place);
        }
        chosen.into_iter().map(|place| self.nodes[place].load.node).collect()
    }
}

impl Candidate {
    /// The lowest rank leads.
    fn leader_rank(&self) -> impl Ord + use<> {
        let leaders = self.load.leaders + self.leaders_placed;
        let replicas = self.load.replicas + self.replicas_placed;
        let shuns = !self.load.standing.takes_leaderships();
        (shuns, self.leaders_placed, leaders, self.replicas_placed, replicas, self.load.label)
    }

    /// The lowest ranks follow.
    fn follower_rank(&self) -> impl Ord + use<> {
        let replicas = self.load.replicas + self.replicas_placed;
        (self.replicas_placed, replicas, self.load.label)
    }
}
