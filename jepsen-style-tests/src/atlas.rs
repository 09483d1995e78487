//! Which stored entries may be damaged so that a cluster must still recover from it.
//!
//! Damage dealt out at random soon hits every copy of something, and then a failed run shows
//! nothing. The atlas knows, of every entry, who holds it whole: of a group with 2f + 1 replicas at
//! most f copies of one entry may be harmed, only of an entry that a majority holds, and one whole
//! copy must be left beside them. Whatever is harmed within these bounds must be repaired and
//! nobody may notice; beyond them a read must be refused, and nothing be passed over in silence.

use std::collections::{BTreeMap, BTreeSet};

use node::storage::memory::MemoryEngine;
use node::storage::{Space, entry, keys};
use node_core::ids::GroupId;

/// A place in a group's log.
pub type Place = (GroupId, u64);

/// Who holds what, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Atlas {
    /// Labels of the nodes with a replica of each group.
    replicas: BTreeMap<GroupId, BTreeSet<u64>>,
    /// By place, then by node: the term of a whole copy, `None` of a harmed one.
    copies: BTreeMap<Place, BTreeMap<u64, Option<u64>>>,
}

impl Atlas {
    /// Looks at the disks of nodes, by label.
    pub fn survey<'a>(disks: impl IntoIterator<Item = (u64, &'a MemoryEngine)>) -> Self {
        let mut atlas = Self::default();
        for (node, disk) in disks {
            let harmed = disk.harmed_keys();
            disk.for_each_row(|space, key, value| match space {
                Space::Log => {
                    let Some((group, index)) = keys::parse_log_entry(key) else { return };
                    let whole = !harmed.contains(&(space, key.clone()));
                    let stored = entry::decode(group, index, value.clone()).ok();
                    let term = stored.filter(|_| whole).map(|stored| stored.term);
                    atlas.add_copy(node, (group, index), term);
                }
                Space::State => {
                    let parsed = keys::parse_state(key);
                    let hosted = parsed.filter(|it| it.kind == keys::KeyKind::Replica);
                    if let Some(group) = hosted.and_then(|it| it.group) {
                        atlas.add_replica(node, group);
                    }
                }
            });
        }
        atlas
    }

    /// Only replicas that vote count: by group, the nodes that have one. What others hold may be
    /// on its way to or from there, and groups that are not named are left alone.
    pub fn keep_voters(&mut self, voters: &BTreeMap<GroupId, BTreeSet<u64>>) {
        let votes =
            |group: &GroupId, node: &u64| voters.get(group).is_some_and(|it| it.contains(node));
        for (group, nodes) in &mut self.replicas {
            nodes.retain(|node| votes(group, node));
        }
        for ((group, _), copies) in &mut self.copies {
            copies.retain(|node, _| votes(group, node));
        }
    }

    /// `node` has a replica of `group`.
    pub fn add_replica(&mut self, node: u64, group: GroupId) {
        self.replicas.entry(group).or_default().insert(node);
    }

    /// `node` has a copy of an entry: with the term of a whole one, without of a harmed one.
    pub fn add_copy(&mut self, node: u64, place: Place, term: Option<u64>) {
        self.copies.entry(place).or_default().insert(node, term);
    }

    /// Whether harming this copy leaves the entry recoverable.
    pub fn may_harm(&self, node: u64, place: Place) -> bool {
        let Some(copies) = self.copies.get(&place) else { return false };
        let Some(Some(term)) = copies.get(&node).copied() else { return false };
        let replicas = self.replicas.get(&place.0).map_or(0, BTreeSet::len);
        let tolerated = replicas.saturating_sub(1) / 2;
        let harmed = copies.values().filter(|term| term.is_none()).count();
        let same = |copy: &&Option<u64>| **copy == Some(term);
        let whole = copies.values().filter(same).count();
        // Harmed copies count as held: they were, and their holder has acknowledged them.
        let is_held = 2 * (whole + harmed) > replicas;
        is_held && harmed < tolerated && whole >= 2
    }

    /// Remembers that a copy was harmed.
    pub fn harm(&mut self, node: u64, place: Place) {
        self.add_copy(node, place, None);
    }

    /// All copies of `node` that may be harmed, each for itself, in order.
    pub fn targets(&self, node: u64) -> Vec<Place> {
        let places = self.copies.keys().filter(|place| self.may_harm(node, **place));
        places.copied().collect()
    }

    /// All places of a group that some replica holds, whole or not: for damage that goes beyond
    /// the bounds on purpose.
    pub fn places(&self, group: GroupId) -> Vec<Place> {
        self.copies.keys().filter(|(of, _)| *of == group).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1_000);

    /// Replicas 1 to `replicas`; of entry 5 the copies with these terms, from node 1 on.
    fn atlas(replicas: u64, terms: &[Option<u64>]) -> Atlas {
        let mut atlas = Atlas::default();
        (1..=replicas).for_each(|node| atlas.add_replica(node, GROUP));
        for (node, term) in (1..).zip(terms) {
            atlas.add_copy(node, (GROUP, 5), *term);
        }
        atlas
    }

    fn harmed_at_most(mut atlas: Atlas, replicas: u64) -> usize {
        let mut harmed = 0;
        for node in 1..=replicas {
            if atlas.may_harm(node, (GROUP, 5)) {
                atlas.harm(node, (GROUP, 5));
                harmed += 1;
            }
        }
        harmed
    }

    #[test]
    fn of_an_entry_that_all_hold_a_minority_may_be_harmed() {
        for (replicas, tolerated) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (7, 3)] {
            let terms = vec![Some(2); usize::try_from(replicas).expect("small")];
            assert_eq!(harmed_at_most(atlas(replicas, &terms), replicas), tolerated);
        }
    }

    #[test]
    fn a_whole_copy_is_left_whatever_is_harmed() {
        // A bare majority of five holds it: two may be harmed, the third has it still.
        assert_eq!(harmed_at_most(atlas(5, &[Some(2), Some(2), Some(2)]), 5), 2);
        assert_eq!(harmed_at_most(atlas(3, &[Some(2), None, Some(2)]), 3), 0);
    }

    #[test]
    fn an_entry_that_no_majority_holds_is_left_alone() {
        assert_eq!(harmed_at_most(atlas(5, &[Some(2), Some(2)]), 5), 0);
        // Nor one that others hold in another term: one of them was overruled.
        assert_eq!(harmed_at_most(atlas(3, &[Some(1), Some(2)]), 3), 0);
    }

    #[test]
    fn what_does_not_vote_is_no_whole_copy() {
        let mut atlas = atlas(5, &[Some(2), Some(2), None, Some(2)]);
        assert!(atlas.may_harm(1, (GROUP, 5)));
        atlas.keep_voters(&BTreeMap::from([(GROUP, BTreeSet::from([1, 2, 3]))]));
        assert!(!atlas.may_harm(1, (GROUP, 5)), "one of three is harmed already");
        atlas.keep_voters(&BTreeMap::new());
        assert_eq!(atlas.targets(1), []);
    }

    #[test]
    fn what_nobody_holds_can_not_be_harmed() {
        let atlas = atlas(3, &[Some(2), Some(2), Some(2)]);
        assert!(!atlas.may_harm(4, (GROUP, 5)) && !atlas.may_harm(1, (GROUP, 6)));
        assert_eq!(atlas.targets(1), [(GROUP, 5)]);
    }
}
