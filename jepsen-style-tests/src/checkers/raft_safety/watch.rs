//! Looks at the nodes of a simulation and hands what it sees to [`RaftSafety`].
//!
//! To be called between two steps of the world, every so many of them: all nodes are looked at in
//! one moment. Of each log only what is new is read.

use std::collections::BTreeMap;

use node::probe;
use node::storage::memory::MemoryEngine;
use node::storage::{Engine, StorageError};

use super::{
    Ladder, LiveReplica, LogId, RaftProbe, RaftRole, RaftSafety, RaftViolation, Rung, Vote, Voters,
};

/// One node at one moment.
pub struct NodeLook<'a> {
    /// Its label.
    pub node: u64,
    /// How often it had been started.
    pub run: u64,
    /// What `node::Node::probe` says; empty while the node is down.
    pub live: Vec<probe::LiveReplica>,
    /// Its disk.
    pub disk: &'a MemoryEngine,
}

/// Remembers what it saw.
#[derive(Debug, Default)]
pub struct RaftWatch {
    safety: RaftSafety,
    /// By node, group and replica.
    ladders: BTreeMap<(u64, u32, u64), Ladder>,
}

impl RaftWatch {
    /// Looks at all nodes.
    ///
    /// # Errors
    /// The first promise of Raft that is broken.
    pub fn look(&mut self, nodes: &[NodeLook<'_>]) -> Result<(), RaftViolation> {
        let mut groups: BTreeMap<u32, Vec<RaftProbe>> = BTreeMap::new();
        for node in nodes {
            // A disk whose list of replicas is damaged shows nothing.
            let _damaged = self.probe(node, &mut groups);
        }
        for (group, probes) in groups {
            self.safety.observe(group, &probes)?;
        }
        Ok(())
    }

    /// A node's disk was lost or set back on purpose.
    pub fn disk_lost(&mut self, node: u64) {
        self.ladders.retain(|(of, ..), _| *of != node);
        self.safety.disk_lost(node);
    }

    fn probe(
        &mut self,
        node: &NodeLook<'_>,
        groups: &mut BTreeMap<u32, Vec<RaftProbe>>,
    ) -> Result<(), StorageError> {
        let disk = node.disk.durable();
        for held in probe::replicas(&disk)? {
            let (group, replica) = (held.group, held.replica);
            let ladder = self.ladders.entry((node.node, group, replica)).or_default();
            let (ladder_start, ladder) =
                ladder.follow((held.log_start, held.log_end), |index| rung(&disk, group, index));
            let open = node.live.iter().find(|it| (it.group, it.replica) == (group, replica));
            let vote_damaged = held.vote.is_err();
            let vote = held.vote.ok().flatten().map(|vote| Vote {
                term: vote.term,
                replica: vote.replica,
                committed: vote.committed,
            });
            groups.entry(group).or_default().push(RaftProbe {
                replica,
                node: node.node,
                live: open.map(|open| live(open, node.run)),
                vote,
                vote_damaged,
                log_start: held.log_start,
                ladder_start,
                ladder,
                log_end: held.log_end,
            });
        }
        Ok(())
    }
}

fn rung(disk: &dyn Engine, group: u32, index: u64) -> Option<Rung> {
    let entry = probe::entry(disk, group, index).ok()??;
    Some(Rung { id: LogId { term: entry.term, index }, hash: entry.hash })
}

fn live(open: &probe::LiveReplica, run: u64) -> LiveReplica {
    LiveReplica {
        run,
        role: if open.leads { RaftRole::Leader } else { RaftRole::Other },
        term: open.term,
        last_index: open.last_index,
        committed: open.committed.map(|at| LogId { term: at.term, index: at.index }),
        voters: Voters { sets: open.voters.clone(), since: open.voters_since },
        disk_is_behind: open.disk_is_behind,
    }
}
