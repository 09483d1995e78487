//! How a promise of Raft was broken.

use std::fmt;

use super::probe::{LogId, Vote};

/// A promise of Raft that was broken. Replicas are named by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaftViolation {
    /// Two replicas lead in one term.
    TwoLeaders {
        /// The group.
        group: u32,
        /// The term.
        term: u64,
        /// Who leads.
        leaders: [u64; 2],
    },
    /// A replica leads without votes of a majority on disk.
    ElectedWithoutMajority {
        /// The group.
        group: u32,
        /// Who leads.
        leader: u64,
        /// The term.
        term: u64,
    },
    /// What a disk holds of a vote went back, or to another candidate of the same term.
    VoteFell {
        /// The group.
        group: u32,
        /// Whose vote.
        replica: u64,
        /// What the disk held.
        before: Vote,
        /// What it holds now.
        now: Option<Vote>,
    },
    /// While it ran, a replica's term or what it knows to be committed went back.
    WentBack {
        /// The group.
        group: u32,
        /// Whose.
        replica: u64,
        /// Before and after.
        terms: [u64; 2],
        /// Before and after.
        committed: [Option<LogId>; 2],
    },
    /// Two disks hold different entries of one index and term, or different ones before it.
    LogsDiffer {
        /// The group.
        group: u32,
        /// Which entry.
        id: LogId,
        /// Whose logs.
        replicas: [u64; 2],
    },
    /// A leader reports an entry committed that is not on the disks of a majority.
    CommitNotDurable {
        /// The group.
        group: u32,
        /// Who leads.
        leader: u64,
        /// The entry.
        committed: LogId,
        /// Voters whose disks don't hold it.
        missing: Vec<u64>,
    },
    /// Two entries are committed at one index, or a committed one was overwritten.
    CommittedChanged {
        /// The group.
        group: u32,
        /// The entry that was committed.
        committed: LogId,
        /// The other one.
        other: LogId,
        /// Who showed the one and the other.
        replicas: [u64; 2],
    },
    /// A replica's log ends before a committed entry that it had.
    CommittedCutOff {
        /// The group.
        group: u32,
        /// Whose log.
        replica: u64,
        /// The entry.
        committed: LogId,
    },
    /// A leader lacks an entry that was committed in an earlier term.
    LeaderIncomplete {
        /// The group.
        group: u32,
        /// Who leads.
        leader: u64,
        /// In which term.
        term: u64,
        /// The entry.
        committed: LogId,
    },
}

impl RaftViolation {
    /// A short name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TwoLeaders { .. } => "two-leaders",
            Self::ElectedWithoutMajority { .. } => "elected-without-majority",
            Self::VoteFell { .. } => "vote-fell",
            Self::WentBack { .. } => "raft-went-back",
            Self::LogsDiffer { .. } => "logs-differ",
            Self::CommitNotDurable { .. } => "commit-not-durable",
            Self::CommittedChanged { .. } => "committed-changed",
            Self::CommittedCutOff { .. } => "committed-cut-off",
            Self::LeaderIncomplete { .. } => "leader-incomplete",
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {}", self.index, self.term)
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a vote for replica {} in term {}", self.replica, self.term)
    }
}

impl fmt::Display for RaftViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoLeaders { group, term, leaders: [a, b] } => {
                write!(
                    f,
                    "two leaders: group {group}: replicas {a} and {b} both lead in term {term}"
                )
            }
            Self::ElectedWithoutMajority { group, leader, term } => write!(
                f,
                "elected without majority: group {group}: replica {leader} leads in term {term}, \
                 and the disks of most voters hold no vote for it"
            ),
            Self::VoteFell { group, replica, before, now } => {
                write!(f, "vote fell: group {group}: the disk of replica {replica} held {before}")?;
                match now {
                    Some(now) => write!(f, " and holds {now}"),
                    None => write!(f, " and holds none"),
                }
            }
            Self::WentBack { group, replica, terms: [before, now], committed: [was, is] } => {
                let index = |id: &Option<LogId>| match id {
                    Some(id) => id.to_string(),
                    None => "nothing".to_owned(),
                };
                write!(
                    f,
                    "went back: group {group}: replica {replica} was in term {before} and knew {} \
                     to be committed, and is in term {now} and knows {}",
                    index(was),
                    index(is)
                )
            }
            Self::LogsDiffer { group, id, replicas: [a, b] } => write!(
                f,
                "logs differ: group {group}: {id} is not the same, or not behind the same, for \
                 replicas {a} and {b}"
            ),
            Self::CommitNotDurable { group, leader, committed, missing } => write!(
                f,
                "commit not durable: group {group}: leader {leader} reports {committed} \
                 committed, and the disks of replicas {missing:?} don't hold it"
            ),
            Self::CommittedChanged { group, committed, other, replicas: [a, b] } => write!(
                f,
                "committed entry changed: group {group}: {committed} was committed (replica {a}), \
                 and replica {b} has {other} instead"
            ),
            Self::CommittedCutOff { group, replica, committed } => write!(
                f,
                "committed entry cut off: group {group}: replica {replica} had {committed}, which \
                 was committed, and its log ends before it"
            ),
            Self::LeaderIncomplete { group, leader, term, committed } => write!(
                f,
                "incomplete leader: group {group}: replica {leader} leads in term {term} and \
                 lacks {committed}, which was committed before"
            ),
        }
    }
}
