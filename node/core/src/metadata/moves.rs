//! Which replicas leave a node that is being removed next, and where they go.
//!
//! Pure: whoever leads the metadata asks this after every change, proposes what it says, and so
//! does the next leader if this one dies in the middle.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupRecord, MetadataState, NodeRecord, PlaceGroup, Standing};
use crate::ids::{GroupId, NodeUuid, RackName};

/// A replica's way from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// As it is to be proposed.
    pub place: PlaceGroup,
    /// From here.
    pub from: NodeUuid,
    /// To there.
    pub to: NodeUuid,
}

impl MetadataState {
    /// The moves that come next, at most `limit` of them: one for each group of which a node that
    /// is being removed holds a replica, and that is not being moved already. `serves` says which
    /// nodes can take a replica now; a group for which there is none is left for later.
    #[must_use]
    pub fn next_moves(&self, limit: usize, serves: impl Fn(NodeUuid) -> bool) -> Vec<Move> {
        let leaving: BTreeSet<NodeUuid> = self.leaving().map(|(uuid, _)| uuid).collect();
        self.moves_from(&leaving, limit, serves)
    }

    /// The moves that removing `node` takes, as things are now.
    #[must_use]
    pub fn moves_of_removal(&self, node: NodeUuid, serves: impl Fn(NodeUuid) -> bool) -> Vec<Move> {
        self.moves_from(&BTreeSet::from([node]), usize::MAX, serves)
    }

    /// Members that are being removed.
    pub fn leaving(&self) -> impl Iterator<Item = (NodeUuid, &NodeRecord)> {
        self.members().filter(|(_, node)| node.standing == Standing::Removing)
    }

    /// Groups of which a replica is on its way from a node that is being removed.
    #[must_use]
    pub fn moves_under_way(&self) -> usize {
        let leaves = |node: NodeUuid| {
            self.nodes.get(&node).is_some_and(|node| node.standing == Standing::Removing)
        };
        let moving = |group: &&GroupRecord| group.retiring.iter().any(|old| leaves(old.node));
        self.groups.values().filter(moving).count()
    }

    fn moves_from(
        &self,
        leaving: &BTreeSet<NodeUuid>,
        limit: usize,
        serves: impl Fn(NodeUuid) -> bool,
    ) -> Vec<Move> {
        let mut held: BTreeMap<NodeUuid, u32> =
            self.loads().into_iter().map(|load| (load.node, load.replicas)).collect();
        let mut moves = Vec::new();
        for (id, group) in &self.groups {
            let movable = *id != GroupId::METADATA && group.retiring.is_empty();
            if !movable || moves.len() >= limit {
                continue;
            }
            let from = group.replicas.iter().find(|replica| leaving.contains(&replica.node));
            let Some(from) = from.map(|replica| replica.node) else { continue };
            let may = |node: NodeUuid| !leaving.contains(&node) && serves(node);
            let Some(to) = self.place_for(group, from, &held, may) else { continue };
            *held.entry(to).or_default() += 1;
            let expected: Vec<NodeUuid> = group.replicas.iter().map(|it| it.node).collect();
            let nodes = moved(&expected, from, to);
            let place = PlaceGroup { group: *id, expected, nodes, removal_of: Some(from) };
            moves.push(Move { place, from, to });
        }
        moves
    }

    /// Where a replica goes: to a rack that the group's others are not in, and there to the node
    /// that holds least.
    fn place_for(
        &self,
        group: &GroupRecord,
        from: NodeUuid,
        held: &BTreeMap<NodeUuid, u32>,
        may: impl Fn(NodeUuid) -> bool,
    ) -> Option<NodeUuid> {
        let others = group.replicas.iter().filter(|replica| replica.node != from);
        let racks: Vec<&RackName> =
            others.filter_map(|replica| self.nodes.get(&replica.node)?.rack.as_ref()).collect();
        let free = self.members().filter(|(node, record)| {
            record.standing != Standing::Removing
                && !group.replicas.iter().any(|replica| replica.node == *node)
                && may(*node)
        });
        let rank = |(node, record): &(NodeUuid, &NodeRecord)| {
            let shared = racks.iter().filter(|rack| record.rack.as_ref() == Some(**rack)).count();
            let drained = record.standing == Standing::Drained;
            (shared, drained, held.get(node).copied().unwrap_or(0), record.label)
        };
        free.min_by_key(rank).map(|(node, _)| node)
    }
}

/// `to` in the place of `from`; but who just comes does not lead at once.
fn moved(nodes: &[NodeUuid], from: NodeUuid, to: NodeUuid) -> Vec<NodeUuid> {
    let mut nodes: Vec<NodeUuid> =
        nodes.iter().map(|node| if *node == from { to } else { *node }).collect();
    if nodes.len() > 1 && nodes.first() == Some(&to) {
        nodes.swap(0, 1);
    }
    nodes
}
