//! What came of the faults of a run, as its nodes counted and logged it.
//!
//! Injections show nothing by themselves; a sweep is worth what its faults brought about. Effects
//! that only the nemesis can see are counted where it strikes.

use node::metrics::Metrics;
use node::probe;

use crate::log_lines::LineNotes;
use crate::nemesis::{FaultCounts, count_disk_effects};
use crate::world::NodeHost;

type Counted = (&'static str, fn(&Metrics) -> u64);

/// What nodes count.
const COUNTED: [Counted; 8] = [
    ("retries found in the log", |it| it.append.duplicates.get()),
    ("elections called", |it| it.raft.elections.get()),
    ("leader changes seen", |it| it.raft.leader_changes.get()),
    ("read indices asked by followers", |it| it.raft.read_index_asked.get()),
    ("boundary snapshots installed", |it| it.raft.snapshots_installed.get()),
    ("moves begun by removals", |it| it.raft.moves_begun.get()),
    ("damaged entries met", |it| it.repair.corrupt.get()),
    ("damaged entries repaired", |it| it.repair.repaired.get()),
];

/// What nodes only log: the message and what it stands for.
pub(crate) const LOGGED: [(&str, &str); 5] = [
    ("a conflicting suffix is truncated", "conflicting suffixes truncated"),
    (
        "a read index was taken across a change of leader",
        "read indices taken across leader changes",
    ),
    ("the voters of a group were changed", "changes of voters that went through"),
    ("taking over", "take-overs of a dead node's groups"),
    ("a vote is refused: the candidate's log is shorter", "elections with a shorter log refused"),
];

/// By the end of a run, on disks that were lost and came back empty.
const MADE_AGAIN: &str = "replicas made again on lost disks";

/// Adds them to what the nemesis counted.
pub fn count(counts: &mut FaultCounts, nodes: &[NodeHost], notes: &LineNotes) {
    for (effect, of) in COUNTED {
        counts.count(effect, nodes.iter().map(|node| node.counted(of)).sum());
    }
    counts.count("nodes that joined", nodes.iter().map(NodeHost::comings).sum());
    counts.count("removals that ended", nodes.iter().map(NodeHost::goings).sum());
    counts.count("ends of nodes by their disks", nodes.iter().map(NodeHost::falls).sum());
    count_disk_effects(counts, nodes);
    let lost = nodes.iter().filter(|node| node.was_lost());
    let made_again = lost.filter_map(|node| probe::replicas(node.disk()).ok()).map(|it| it.len());
    counts.count(MADE_AGAIN, made_again.map(|count| u64::try_from(count).unwrap_or(0)).sum());
    for (message, effect) in LOGGED {
        counts.count(effect, notes.count(message));
    }
}
