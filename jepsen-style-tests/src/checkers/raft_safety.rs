//! What Raft promises (Ongaro, dissertation, figure 3.2), seen from inside the nodes: what running
//! replicas say of themselves, and what their disks would keep if the power went now.
//!
//! - one leader: at most one replica leads a group in a term;
//! - elected on disk: when a replica leads, a majority of the voters has on disk a vote for it or
//!   for a later term;
//! - votes: what a disk holds of a vote never goes back, and no voter changes its mind in a term,
//!   but to follow who won it;
//! - log matching: one index and one term is one entry, with one entry before it, on every disk;
//! - committed on disk: an index that a leader reports committed is on the disks of a majority of
//!   the voters at that moment;
//! - committed for good: no replica reports or holds another entry at a committed index;
//! - kept on disk: a committed entry that a disk holds leaves it at the log's beginning only;
//! - complete leaders: who leads has everything that was known to be committed in earlier terms.
//!
//! A simulation looks at all replicas of a group at one moment and hands the probes over together.
//! What is not there to be looked at is given the benefit of the doubt, so a lost disk raises no
//! false alarm; but it must be told ([`RaftSafety::disk_lost`]).

mod ladder;
mod ledger;
mod probe;
#[cfg(test)]
mod tests;
mod violation;
mod watch;

use std::collections::BTreeMap;

pub use ladder::Ladder;
pub use probe::{LiveReplica, LogId, RaftProbe, RaftRole, Rung, Vote, Voters};
pub use violation::RaftViolation;
pub use watch::{NodeLook, RaftWatch};

use ledger::Ledger;

/// Watches the groups of a cluster.
#[derive(Debug, Default)]
pub struct RaftSafety {
    groups: BTreeMap<u32, Group>,
}

#[derive(Debug, Default)]
struct Group {
    /// By term: who leads or led in it.
    leaders: BTreeMap<u64, u64>,
    ledger: Ledger,
    replicas: BTreeMap<u64, Replica>,
    /// Indexes below it were on the disks of a majority when a leader reported them committed.
    seen_durable_end: u64,
}

/// What is remembered of a replica between probes.
#[derive(Debug, Default)]
struct Replica {
    node: u64,
    log: BTreeMap<u64, Rung>,
    log_start: u64,
    log_end: u64,
    vote: Option<Vote>,
    vote_damaged: bool,
    live: Option<LiveReplica>,
}

impl RaftSafety {
    /// Takes in what all replicas of one group look like at one moment.
    ///
    /// # Errors
    /// The first promise that is broken. The history can't be judged any further then.
    pub fn observe(&mut self, group: u32, probes: &[RaftProbe]) -> Result<(), RaftViolation> {
        let state = self.groups.entry(group).or_default();
        for probe in probes {
            state.take_in_disk(group, probe)?;
        }
        for probe in probes {
            state.take_in_life(group, probe)?;
        }
        for probe in probes {
            state.check_leader(group, probe)?;
        }
        Ok(())
    }

    /// A node's disk was lost or set back on purpose: its replicas are not held to what it had.
    pub fn disk_lost(&mut self, node: u64) {
        for group in self.groups.values_mut() {
            group.replicas.retain(|_, replica| replica.node != node);
        }
    }
}

impl Group {
    fn take_in_disk(&mut self, group: u32, probe: &RaftProbe) -> Result<(), RaftViolation> {
        let replica = self.replicas.entry(probe.replica).or_default();
        replica.node = probe.node;
        let (before, now) = (replica.vote, probe.vote);
        if !probe.vote_damaged
            && let Some(before) = before
            && now.is_none_or(|now| !now.may_follow(before))
        {
            return Err(RaftViolation::VoteFell { group, replica: probe.replica, before, now });
        }
        replica.vote_damaged = probe.vote_damaged;
        replica.vote = if probe.vote_damaged { before } else { now };
        let end = probe.log_end.max(probe.log_start);
        self.ledger.keeps(group, probe.replica, &replica.log, end)?;
        replica.log_end = probe.log_end;
        replica.log_start = probe.log_start;
        // Looked at first: splitting a map counts what is in it, and mostly there is nothing to do.
        if replica.log.last_key_value().is_some_and(|(last, _)| *last >= probe.ladder_start) {
            drop(replica.log.split_off(&probe.ladder_start));
        }
        if replica.log.first_key_value().is_some_and(|(first, _)| *first < probe.log_start) {
            replica.log = replica.log.split_off(&probe.log_start);
        }
        let first = replica.log.last_key_value().map(|(_, rung)| *rung);
        let mut before = first.filter(|rung| rung.id.index + 1 == probe.ladder_start);
        for rung in &probe.ladder {
            self.ledger.take_in(group, probe.replica, before.map(|it| it.id), *rung)?;
            before = Some(*rung);
            replica.log.insert(rung.id.index, *rung);
        }
        Ok(())
    }

    fn take_in_life(&mut self, group: u32, probe: &RaftProbe) -> Result<(), RaftViolation> {
        let Some(live) = &probe.live else {
            self.replica(probe).live = None;
            return Ok(());
        };
        let replica = probe.replica;
        if live.role == RaftRole::Leader {
            let leader = *self.leaders.entry(live.term).or_insert(replica);
            if leader != replica {
                let (term, leaders) = (live.term, [leader, replica]);
                return Err(RaftViolation::TwoLeaders { group, term, leaders });
            }
        }
        if let Some(before) = &self.replica(probe).live
            && before.run == live.run
            && (live.term < before.term || live.committed < before.committed)
        {
            return Err(RaftViolation::WentBack {
                group,
                replica,
                terms: [before.term, live.term],
                committed: [before.committed, live.committed],
            });
        }
        if let Some(committed) = live.committed {
            let logs = self.replicas.values().map(|replica| &replica.log);
            self.ledger.committed(group, (replica, live.term), committed, logs)?;
            if let Some(known) = self.replicas.get(&replica) {
                let told = (replica, live.disk_is_behind);
                self.ledger.still_holds(group, told, &known.log, committed.index)?;
            }
        }
        self.replica(probe).live = Some(live.clone());
        Ok(())
    }

    fn replica(&mut self, probe: &RaftProbe) -> &mut Replica {
        self.replicas.entry(probe.replica).or_default()
    }

    fn check_leader(&mut self, group: u32, probe: &RaftProbe) -> Result<(), RaftViolation> {
        let Some(live) = probe.live.as_ref().filter(|live| live.role == RaftRole::Leader) else {
            return Ok(());
        };
        let leader = probe.replica;
        let mine = Vote { term: live.term, replica: leader, committed: false };
        let elects = |voter: u64| match self.replicas.get(&voter) {
            // It is not there to be asked.
            None => true,
            Some(replica) if replica.vote_damaged => true,
            Some(replica) => {
                replica.vote.is_some_and(|vote| vote.term > mine.term || vote.is_for(mine))
            }
        };
        if !live.voters.has_majority(None, elects) {
            let term = live.term;
            return Err(RaftViolation::ElectedWithoutMajority { group, leader, term });
        }
        self.ledger.is_complete(group, leader, live.term, live.last_index)?;
        let Some(committed) = live.committed else { return Ok(()) };
        if committed.index < self.seen_durable_end {
            return Ok(());
        }
        let holds = |voter: u64| match self.replicas.get(&voter) {
            None => true,
            Some(replica) if committed.index < replica.log_start => true,
            Some(replica) => match replica.log.get(&committed.index) {
                Some(rung) => rung.id == committed,
                // It is there and can't be read.
                None => committed.index < replica.log_end,
            },
        };
        if !live.voters.has_majority(Some(committed.index), holds) {
            let voters = live.voters.all();
            let missing = voters.into_iter().filter(|voter| !holds(*voter)).collect();
            return Err(RaftViolation::CommitNotDurable { group, leader, committed, missing });
        }
        self.seen_durable_end = committed.index + 1;
        Ok(())
    }
}
