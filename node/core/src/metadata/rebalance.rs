//! Evens out replicas and leaders over the nodes: which replicas to move, and who should lead.
//!
//! Pure: metadata and sizes in, new places out. In this order, each step only as far as needed:
//! 1. more replicas, where they are asked for;
//! 2. replicas of one group into different racks, as far as there are such;
//! 3. as many replicas on one node as on another, but for one; of the groups that could be moved
//!    the one that brings the two nodes' bytes nearest;
//! 4. as many preferred leaders on one node as on another, but for one, by another order only.
//!
//! Never fewer replicas of a group than before. Planned again after it was carried out, it plans
//! nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{MetadataState, PlaceGroup, Standing};
use crate::ids::{GroupId, NodeLabel, NodeUuid, RackName};

/// Where the replicas of one group are, and where they shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it is to be proposed.
    pub place: PlaceGroup,
    /// The size of one replica, in bytes.
    pub bytes: u64,
}

impl Change {
    /// Replicas that must be made for it.
    #[must_use]
    pub fn replicas_made(&self) -> usize {
        self.place.nodes.iter().filter(|node| !self.place.expected.contains(node)).count()
    }
}

/// What a plan knows of a node.
#[derive(Debug)]
struct Seat<'a> {
    label: NodeLabel,
    rack: Option<&'a RackName>,
    leads: bool,
    replicas: i64,
    bytes: u64,
}

struct Planner<'a> {
    seats: BTreeMap<NodeUuid, Seat<'a>>,
    /// Only groups that may be changed now.
    groups: BTreeMap<GroupId, Vec<NodeUuid>>,
    bytes: BTreeMap<GroupId, u64>,
}

/// The changes that even the cluster out; none where it is even. `serves` says which nodes can take
/// a replica now, `bytes` how large a group is, `replication` how many replicas each should have at
/// least, where there are so many nodes.
#[must_use]
pub fn rebalance(
    metadata: &MetadataState,
    replication: usize,
    serves: impl Fn(NodeUuid) -> bool,
    bytes: impl Fn(GroupId) -> u64,
) -> Vec<Change> {
    let mut planner = Planner::new(metadata, serves, bytes);
    planner.raise(replication);
    planner.spread_over_racks();
    planner.even_replicas();
    planner.even_leaders();
    let changes = planner.groups.into_iter().filter_map(|(group, nodes)| {
        let now = metadata.groups().get(&group)?;
        let expected: Vec<NodeUuid> = now.replicas.iter().map(|replica| replica.node).collect();
        let bytes = planner.bytes.get(&group).copied().unwrap_or(0);
        let place = PlaceGroup { group, expected, nodes, removal_of: None };
        (place.expected != place.nodes).then_some(Change { place, bytes })
    });
    changes.collect()
}

impl<'a> Planner<'a> {
    fn new(
        metadata: &'a MetadataState,
        serves: impl Fn(NodeUuid) -> bool,
        bytes: impl Fn(GroupId) -> u64,
    ) -> Planner<'a> {
        let stays = |standing| matches!(standing, Standing::Active | Standing::Drained);
        let seats = metadata.members().filter(|(node, it)| stays(it.standing) && serves(*node));
        let seat = |(node, it): (NodeUuid, &'a super::NodeRecord)| {
            let (rack, leads) = (it.rack.as_ref(), it.standing.takes_leaderships());
            (node, Seat { label: it.label, rack, leads, replicas: 0, bytes: 0 })
        };
        let mut planner = Planner {
            seats: seats.map(seat).collect(),
            groups: BTreeMap::new(),
            bytes: BTreeMap::new(),
        };
        for (id, group) in metadata.groups() {
            if *id == GroupId::METADATA || group.is_deleted() {
                continue;
            }
            let size = bytes(*id);
            planner.bytes.insert(*id, size);
            for replica in &group.replicas {
                if let Some(seat) = planner.seats.get_mut(&replica.node) {
                    seat.replicas += 1;
                    seat.bytes = seat.bytes.saturating_add(size);
                }
            }
            // One that is being moved stays as it is meant until that is over.
            if group.retiring.is_empty() {
                let nodes = group.replicas.iter().map(|replica| replica.node).collect();
                planner.groups.insert(*id, nodes);
            }
        }
        planner
    }

    fn size(&self, group: GroupId) -> u64 {
        self.bytes.get(&group).copied().unwrap_or(0)
    }

    fn seat_taken(&mut self, node: NodeUuid, group: GroupId) {
        let size = self.size(group);
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.replicas += 1;
            seat.bytes = seat.bytes.saturating_add(size);
        }
    }

    fn seat_left(&mut self, node: NodeUuid, group: GroupId) {
        let size = self.size(group);
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.replicas -= 1;
            seat.bytes = seat.bytes.saturating_sub(size);
        }
    }

    fn rack_of(&self, node: NodeUuid) -> Option<&'a RackName> {
        self.seats.get(&node).and_then(|seat| seat.rack)
    }

    /// How many of `nodes` could fail without another: racks, and nodes in none.
    fn spread(&self, nodes: &[NodeUuid]) -> usize {
        let racks: BTreeSet<&RackName> =
            nodes.iter().filter_map(|node| self.rack_of(*node)).collect();
        racks.len() + nodes.iter().filter(|node| self.rack_of(**node).is_none()).count()
    }

    /// The node for one more replica of a group, `without` one of those it has.
    fn best_for(&self, nodes: &[NodeUuid], without: Option<NodeUuid>) -> Option<NodeUuid> {
        let stay: Vec<NodeUuid> =
            nodes.iter().copied().filter(|node| Some(*node) != without).collect();
        let free = self.seats.iter().filter(|(node, _)| !nodes.contains(node));
        let rank = |(node, seat): &(&NodeUuid, &Seat<'_>)| {
            let more = [&stay[..], &[**node]].concat();
            (std::cmp::Reverse(self.spread(&more)), seat.replicas, seat.bytes, seat.label)
        };
        free.min_by_key(rank).map(|(node, _)| *node)
    }

    fn raise(&mut self, replication: usize) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let before = self.groups[&group].len();
            while self.groups[&group].len() < replication.min(self.seats.len()) {
                let Some(node) = self.best_for(&self.groups[&group], None) else { break };
                self.seat_taken(node, group);
                self.groups.entry(group).or_default().push(node);
            }
            // An even number survives no loss more than one less.
            let now = self.groups[&group].len();
            if now > before
                && now.is_multiple_of(2)
                && let Some(node) = self.groups.get_mut(&group).and_then(Vec::pop)
            {
                self.seat_left(node, group);
            }
        }
    }

    fn swap(&mut self, group: GroupId, from: NodeUuid, to: NodeUuid) {
        self.seat_left(from, group);
        self.seat_taken(to, group);
        for node in self.groups.entry(group).or_default() {
            if *node == from {
                *node = to;
            }
        }
    }

    fn spread_over_racks(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            loop {
                let nodes = &self.groups[&group];
                let now = self.spread(nodes);
                let shared = nodes.iter().filter(|node| {
                    let rack = self.rack_of(**node);
                    let same = nodes.iter().filter(|other| self.rack_of(**other) == rack).count();
                    rack.is_some() && same > 1
                });
                // The fullest of those that share a rack goes.
                let from = shared.max_by_key(|node| {
                    self.seats.get(*node).map(|seat| (seat.replicas, seat.bytes, seat.label))
                });
                let Some(from) = from.copied() else { break };
                let Some(to) = self.best_for(nodes, Some(from)) else { break };
                let then: Vec<NodeUuid> =
                    nodes.iter().map(|node| if *node == from { to } else { *node }).collect();
                if self.spread(&then) <= now {
                    break;
                }
                self.swap(group, from, to);
            }
        }
    }

    fn even_replicas(&mut self) {
        while let Some((group, from, to)) = self.next_swap() {
            self.swap(group, from, to);
        }
    }

    /// From the fullest node to the emptiest, as far as racks allow. Each swap brings two nodes
    /// nearer, so there is an end.
    fn next_swap(&self) -> Option<(GroupId, NodeUuid, NodeUuid)> {
        let mut order: Vec<(&NodeUuid, &Seat<'_>)> = self.seats.iter().collect();
        order.sort_by_key(|(_, seat)| (seat.replicas, seat.bytes, seat.label));
        for (from, full) in order.iter().rev() {
            for (to, empty) in &order {
                if full.replicas - empty.replicas <= 1 {
                    break;
                }
                let movable = self.groups.iter().filter(|(_, nodes)| {
                    nodes.contains(from) && !nodes.contains(to) && self.keeps_racks(nodes, from, to)
                });
                // What is left between the two after it.
                let apart = |group: &GroupId| {
                    let size = i128::from(self.size(*group));
                    let gap = i128::from(full.bytes) - i128::from(empty.bytes);
                    (gap - 2 * size).abs()
                };
                let best = movable.min_by_key(|(group, _)| (apart(group), **group));
                if let Some((group, _)) = best {
                    return Some((*group, **from, **to));
                }
            }
        }
        None
    }

    fn keeps_racks(&self, nodes: &[NodeUuid], from: &NodeUuid, to: &NodeUuid) -> bool {
        let then: Vec<NodeUuid> =
            nodes.iter().map(|node| if node == from { *to } else { *node }).collect();
        self.spread(&then) >= self.spread(nodes)
    }

    /// Changes only the order of replicas: along a chain of groups from the node that should lead
    /// most to the one that should lead least.
    fn even_leaders(&mut self) {
        self.no_leaders_where_there_should_be_none();
        while let Some(chain) = self.next_chain() {
            for (group, to) in chain {
                self.lead_by(group, to);
            }
        }
    }

    fn no_leaders_where_there_should_be_none(&mut self) {
        let leads = |planner: &Self, node: &NodeUuid| {
            planner.seats.get(node).is_some_and(|seat| seat.leads)
        };
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            let nodes = &self.groups[&group];
            if nodes.first().is_some_and(|first| !leads(self, first))
                && let Some(to) = nodes.iter().find(|node| leads(self, node)).copied()
            {
                self.lead_by(group, to);
            }
        }
    }

    fn lead_by(&mut self, group: GroupId, to: NodeUuid) {
        let nodes = self.groups.entry(group).or_default();
        if let Some(place) = nodes.iter().position(|node| *node == to) {
            nodes.swap(0, place);
        }
    }

    /// Groups to be led by the next one, so that the one that leads most leads one less, and one
    /// that leads two less or more leads one more.
    fn next_chain(&self) -> Option<Vec<(GroupId, NodeUuid)>> {
        let mut leaders: BTreeMap<NodeUuid, u32> =
            self.seats.iter().filter(|(_, seat)| seat.leads).map(|(node, _)| (*node, 0)).collect();
        for first in self.groups.values().filter_map(|nodes| nodes.first()) {
            if let Some(count) = leaders.get_mut(first) {
                *count += 1;
            }
        }
        let mut order: Vec<(NodeUuid, u32)> =
            leaders.iter().map(|(n, count)| (*n, *count)).collect();
        order.sort_by_key(|(node, count)| (std::cmp::Reverse(*count), *node));
        order.into_iter().find_map(|(from, most)| self.chain_from(from, most, &leaders))
    }

    /// Breadth first, so the shortest.
    fn chain_from(
        &self,
        from: NodeUuid,
        most: u32,
        leaders: &BTreeMap<NodeUuid, u32>,
    ) -> Option<Vec<(GroupId, NodeUuid)>> {
        let mut came: BTreeMap<NodeUuid, (GroupId, NodeUuid)> = BTreeMap::new();
        let mut line = VecDeque::from([from]);
        while let Some(node) = line.pop_front() {
            if leaders[&node] + 2 <= most {
                let mut chain = Vec::new();
                let mut at = node;
                while let Some((group, before)) = came.get(&at) {
                    chain.push((*group, at));
                    at = *before;
                }
                return Some(chain);
            }
            for (group, nodes) in &self.groups {
                if nodes.first() != Some(&node) {
                    continue;
                }
                for next in &nodes[1..] {
                    if *next != from && leaders.contains_key(next) && !came.contains_key(next) {
                        came.insert(*next, (*group, node));
                        line.push_back(*next);
                    }
                }
            }
        }
        None
    }
}
