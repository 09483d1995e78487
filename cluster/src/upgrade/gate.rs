//! May this node be stopped now? Decided from what the nodes said, and from nothing else.
//!
//! A node may go when every group keeps a majority of voters that have (nearly) everything the
//! leader has, no other node is missing, and its disk has room for what it will write while it
//! catches up. A topic with one replica can't be kept up by anybody: it is named, and no reason to
//! halt.

use std::collections::BTreeMap;

use quipu_client::{LedGroup, NodeReport};

/// A voter so many entries behind its leader, or fewer, counts as caught up: under load entries are
/// always on their way, and each was asked for already.
const BEHIND_ENTRIES_MAX: u64 = 512;

/// Free space on a node's disk must be so many times the reserve below which it refuses appends.
const DISK_RESERVES: u64 = 2;

/// Groups named in one line; the rest are counted.
const NAMED_MAX: usize = 4;

/// What is known of the cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// By label; `None` for a member that does not answer.
    pub(crate) nodes: BTreeMap<u64, Option<NodeReport>>,
    /// Raft groups there are.
    pub(crate) groups: u32,
}

/// What follows for one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Why it must not be stopped; empty: it may be.
    pub(crate) reasons: Vec<String>,
    /// What will be missing while it is down.
    pub(crate) notes: Vec<String>,
}

impl Facts {
    /// Whether `node` may be stopped.
    pub(crate) fn may_stop(&self, node: u64) -> Verdict {
        let mut verdict = Verdict::default();
        self.look_at_nodes(Some(node), &mut verdict.reasons);
        let mut single = Vec::new();
        let mut short = Vec::new();
        for group in self.led() {
            let is_on = group.voters.iter().any(|voter| voter.node_id == node);
            if is_on && group.voters.len() == 1 {
                single.push(group.name.clone());
            } else if !keeps_majority(group, Some(node)) {
                short.push(group.name.clone());
            }
        }
        if !short.is_empty() {
            verdict.reasons.push(format!(
                "without node {node} no caught-up majority would be left of {}",
                named(&short)
            ));
        }
        if !single.is_empty() {
            verdict.notes.push(format!(
                "has one replica and can't be used while node {node} restarts: {}",
                named(&single)
            ));
        }
        verdict
    }

    /// What is not as it should be once a node is back: empty when all have caught up.
    pub(crate) fn not_settled(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        self.look_at_nodes(None, &mut reasons);
        let behind = self.led().filter(|group| group.voters.iter().any(|voter| !is_close(voter)));
        let behind: Vec<String> = behind.map(|group| group.name.clone()).collect();
        if !behind.is_empty() {
            reasons.push(format!("a replica is behind in {}", named(&behind)));
        }
        reasons
    }

    /// Partitions, coordinators and metadata that a node leads.
    pub(crate) fn leads(&self, node: u64) -> usize {
        self.nodes.get(&node).and_then(Option::as_ref).map_or(0, |report| report.led.len())
    }

    fn look_at_nodes(&self, stopping: Option<u64>, reasons: &mut Vec<String>) {
        for (label, report) in &self.nodes {
            let Some(report) = report else {
                // One that is to be exchanged may be down already.
                if stopping != Some(*label) {
                    reasons.push(format!("node {label} does not answer"));
                }
                continue;
            };
            if !report.closed.is_empty() && stopping != Some(*label) {
                let closed = named(&report.closed);
                reasons.push(format!("node {label} has replicas that do not run: {closed}"));
            }
            if let Some(free) = report.disk_free_bytes
                && free < report.disk_reserve_bytes.saturating_mul(DISK_RESERVES)
            {
                reasons.push(format!(
                    "the disk of node {label} has {} MiB left, less than {DISK_RESERVES} times \
                     its reserve",
                    free >> 20
                ));
            }
        }
        let led = u32::try_from(self.led().count()).unwrap_or(u32::MAX);
        if led < self.groups {
            reasons.push(format!("{} of {} groups have no leader", self.groups - led, self.groups));
        }
    }

    fn led(&self) -> impl Iterator<Item = &LedGroup> {
        self.nodes.values().flatten().flat_map(|report| &report.led)
    }
}

fn is_close(voter: &quipu_client::VoterLag) -> bool {
    voter.behind_entries.is_some_and(|behind| behind <= BEHIND_ENTRIES_MAX)
}

fn keeps_majority(group: &LedGroup, without: Option<u64>) -> bool {
    let close =
        group.voters.iter().filter(|voter| Some(voter.node_id) != without && is_close(voter));
    close.count() > group.voters.len() / 2
}

fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use quipu_client::VoterLag;

    use super::*;

    fn group(name: &str, voters: &[(u64, Option<u64>)]) -> LedGroup {
        let voter = |(node_id, behind_entries): &(u64, Option<u64>)| VoterLag {
            node_id: *node_id,
            behind_entries: *behind_entries,
        };
        LedGroup { name: name.to_owned(), voters: voters.iter().map(voter).collect() }
    }

    fn report(node_id: u64, led: Vec<LedGroup>) -> Option<NodeReport> {
        Some(NodeReport {
            node_id,
            version: "0.1.0".to_owned(),
            disk_free_bytes: Some(10 << 30),
            disk_reserve_bytes: 512 << 20,
            led,
            closed: Vec::new(),
        })
    }

    /// Node 1 leads the metadata, node 2 a topic; all have caught up.
    fn healthy() -> Facts {
        let all = [(1, Some(0)), (2, Some(3)), (3, Some(0))];
        let nodes = [
            (1, report(1, vec![group("metadata", &all)])),
            (2, report(2, vec![group("orders/0", &all)])),
            (3, report(3, Vec::new())),
        ];
        Facts { nodes: nodes.into(), groups: 2 }
    }

    #[test]
    fn a_node_of_a_healthy_cluster_may_be_stopped() {
        for node in [1, 2, 3] {
            assert_eq!(healthy().may_stop(node), Verdict::default());
        }
        assert!(healthy().not_settled().is_empty());
    }

    #[test]
    fn no_node_is_stopped_while_another_is_down() {
        let mut facts = healthy();
        facts.nodes.insert(3, None);
        assert_eq!(facts.may_stop(1).reasons, ["node 3 does not answer"]);
        assert_eq!(facts.may_stop(3).reasons, [""; 0], "it is down, and may be started anew");
    }

    #[test]
    fn a_group_must_keep_a_caught_up_majority_without_the_node() {
        let mut facts = healthy();
        let lags = [(1, Some(100_000)), (2, Some(0)), (3, Some(0))];
        facts.nodes.insert(2, report(2, vec![group("orders/0", &lags)]));
        assert_eq!(facts.may_stop(1).reasons, [""; 0], "it is the one behind");
        let short = "without node 3 no caught-up majority would be left of orders/0";
        assert_eq!(facts.may_stop(3).reasons, [short]);
        assert_eq!(facts.not_settled(), ["a replica is behind in orders/0"]);
    }

    #[test]
    fn a_replica_of_which_nothing_is_known_is_not_caught_up() {
        let mut facts = healthy();
        let lags = [(1, None), (2, Some(0)), (3, Some(0))];
        facts.nodes.insert(2, report(2, vec![group("orders/0", &lags)]));
        assert_eq!(facts.may_stop(2).reasons.len(), 1);
    }

    #[test]
    fn a_topic_with_one_replica_is_named_and_does_not_halt() {
        let mut facts = healthy();
        facts.nodes.insert(3, report(3, vec![group("scratch/0", &[(3, Some(0))])]));
        facts.groups = 3;
        let verdict = facts.may_stop(3);
        assert!(verdict.reasons.is_empty());
        assert!(verdict.notes[0].contains("scratch/0"), "{verdict:?}");
        assert_eq!(facts.may_stop(1), Verdict::default());
    }

    #[test]
    fn leaderless_groups_closed_replicas_and_full_disks_halt() {
        let mut facts = healthy();
        facts.groups = 5;
        assert_eq!(facts.may_stop(1).reasons, ["3 of 5 groups have no leader"]);

        let mut facts = healthy();
        let node = facts.nodes.get_mut(&2).unwrap().as_mut().unwrap();
        node.closed.push("orders/1".to_owned());
        node.disk_free_bytes = Some(600 << 20);
        let reasons = facts.may_stop(1).reasons;
        assert_eq!(reasons[0], "node 2 has replicas that do not run: orders/1");
        assert!(reasons[1].starts_with("the disk of node 2 has 600 MiB left"), "{reasons:?}");
    }
}
