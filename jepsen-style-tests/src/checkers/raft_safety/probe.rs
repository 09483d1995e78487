//! What a simulation reads off a replica: plain data, filled every so many ticks.

use std::collections::BTreeSet;

/// One replica of one group at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftProbe {
    /// Unique among the replicas of the group, and never used again.
    pub replica: u64,
    /// Label of its node.
    pub node: u64,
    /// What it says of itself; none while its node is down or the replica is not open.
    pub live: Option<LiveReplica>,
    /// Of the disk, as a power cut would leave it: the vote.
    pub vote: Option<Vote>,
    /// Of the disk: the vote is there and can't be read, so nothing is known of it.
    pub vote_damaged: bool,
    /// Of the disk: the first index that is not purged. What is purged was committed.
    pub log_start: u64,
    /// Of the disk: where `ladder` begins. The entries before it are the same as in the probe
    /// before; those from here on are exactly `ladder`.
    pub ladder_start: u64,
    /// Of the disk: entries in order, without gaps. [`super::Ladder`] finds the new ones.
    pub ladder: Vec<Rung>,
    /// Of the disk: the index after the last entry. Entries between the end of the ladder and here
    /// can't be read, so nothing is known of them.
    pub log_end: u64,
}

/// What a running replica says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveReplica {
    /// How often its node had been started.
    pub run: u64,
    /// What it does in its group.
    pub role: RaftRole,
    /// Its term.
    pub term: u64,
    /// Index of the last entry of its log, on disk or not.
    pub last_index: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogId>,
    /// The configuration in force.
    pub voters: Voters,
    /// Its node has writes queued, or written and not yet synced: only then may its disk still
    /// hold what it knows to be overruled.
    pub disk_is_behind: bool,
}

/// What a replica does in its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RaftRole {
    /// It leads.
    Leader,
    /// Anything else.
    #[default]
    Other,
}

/// Place of an entry, and the term in which a leader made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

impl PartialOrd for LogId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LogId {
    /// By index first: how far a log reaches.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.term).cmp(&(other.index, other.term))
    }
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// Whom it is for.
    pub replica: u64,
    /// It is known that a majority voted so.
    pub committed: bool,
}

impl Vote {
    /// Whether a disk that held `before` may hold this one later. A candidate that lost stores
    /// who won in its term: that is no other vote, because a majority has voted already.
    pub fn may_follow(self, before: Self) -> bool {
        match (before.committed, self.committed) {
            _ if self.term != before.term => self.term > before.term,
            (false, true) => true,
            (false, false) | (true, true) => self.is_for(before),
            (true, false) => false,
        }
    }

    /// Whether it is for the same candidate in the same term.
    pub fn is_for(self, other: Self) -> bool {
        (self.term, self.replica) == (other.term, other.replica)
    }
}

/// An entry, as a hash of everything stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Its place.
    pub id: LogId,
    /// The hash.
    pub hash: u64,
}

/// The voters of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voters {
    /// One set, or two while a change of members is under way: the old one first.
    pub sets: Vec<BTreeSet<u64>>,
    /// Index of the entry that says so.
    pub since: u64,
}

impl Voters {
    /// Whether a majority agrees; of each set, but for what stands before the entry that
    /// introduced the second set only the first one is asked.
    pub fn has_majority(&self, index: Option<u64>, agrees: impl Fn(u64) -> bool) -> bool {
        let asked = match index {
            Some(index) if index >= self.since => self.sets.len(),
            _ => 1,
        };
        self.sets.iter().take(asked).all(|set| {
            let agreeing = set.iter().filter(|voter| agrees(**voter)).count();
            agreeing * 2 > set.len() || set.is_empty()
        })
    }

    /// All of them.
    pub fn all(&self) -> BTreeSet<u64> {
        self.sets.iter().flatten().copied().collect()
    }
}
