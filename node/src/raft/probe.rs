//! What can be seen of consensus from outside: what open replicas say of themselves, and what a
//! disk holds of a group. Read-only, for simulations that check Raft's promises; no node uses it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};

use node_core::ids::GroupId;
use node_core::position::RaftPosition;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::group::{RaftGroup, Role};
use super::types::{LogId, term_of};
use super::wire;
use crate::member::Hosted;
use crate::storage::{Engine, Space, StorageError, entry, keys, manifest, row};

/// What an open replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveReplica {
    /// Its group.
    pub group: u32,
    /// Its id, unique in the group for ever.
    pub replica: u64,
    /// It leads, as far as it knows.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Index of its log's last entry, on disk or not.
    pub last_index: Option<u64>,
    /// The last entry it knows to be committed.
    pub committed: Option<RaftPosition>,
    /// The configuration in force; two sets, the old one first, while members change.
    pub voters: Vec<BTreeSet<u64>>,
    /// Index of the entry that says so.
    pub voters_since: u64,
    /// Its node has writes queued, or written and not yet synced: its disk may be behind what it
    /// says.
    pub disk_is_behind: bool,
}

/// What a disk holds of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskReplica {
    /// The group.
    pub group: u32,
    /// The replica that this disk holds of it.
    pub replica: u64,
    /// Its vote, unless the row can't be read.
    pub vote: Result<Option<DiskVote>, StorageError>,
    /// The first index that is not purged.
    pub log_start: u64,
    /// The index after the last entry.
    pub log_end: u64,
}

/// A vote on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskVote {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub replica: u64,
    /// A majority is known to have voted so.
    pub committed: bool,
}

/// An entry on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskEntry {
    /// Its term.
    pub term: u64,
    /// A hash of all that is stored of it, the same in every process of one build.
    pub hash: u64,
}

pub(crate) fn look(raft: &RaftGroup) -> LiveReplica {
    let metrics = raft.raft().metrics();
    let metrics = metrics.borrow_watched();
    let position = |id: LogId| RaftPosition { term: term_of(&id), index: id.index() };
    let membership = &metrics.membership_config;
    LiveReplica {
        group: raft.group().0,
        replica: raft.replica().0,
        leads: super::group::role_of(&metrics) == Role::Leader,
        term: metrics.current_term,
        last_index: metrics.last_log_index,
        committed: metrics.local_committed.map(position),
        voters: membership.membership().get_joint_config().clone(),
        voters_since: membership.log_id().as_ref().map_or(0, LogId::index),
        disk_is_behind: raft.log().has_writes_under_way(),
    }
}

/// The replicas that a disk holds.
///
/// # Errors
/// If the manifest can't be read.
pub fn replicas(disk: &dyn Engine) -> Result<Vec<DiskReplica>, StorageError> {
    let mut replicas = Vec::new();
    for record in manifest::list(disk)? {
        let Ok(hosted) = Hosted::of_manifest(&record) else { continue };
        let group = record.group;
        let purged = row::get(disk, &keys::last_purged(group))?;
        let purged = purged.and_then(|bytes| wire::log_id_from_bytes(&bytes).ok());
        let log_start = purged.map_or(0, |purged| purged.index() + 1);
        let last = disk.last_before(Space::Log, &keys::log(group))?;
        let last = last.and_then(|(key, _)| keys::parse_log_entry(&key));
        let log_end = last.map_or(log_start, |(_, index)| index + 1).max(log_start);
        let replica = hosted.replica.0;
        let vote = vote(disk, group);
        replicas.push(DiskReplica { group: group.0, replica, vote, log_start, log_end });
    }
    Ok(replicas)
}

fn vote(disk: &dyn Engine, group: GroupId) -> Result<Option<DiskVote>, StorageError> {
    let bytes = row::get(disk, &keys::vote(group))?;
    let vote = bytes.and_then(|bytes| wire::vote_from_bytes(&bytes).ok());
    Ok(vote.map(|vote| DiskVote {
        term: vote.leader_id.term,
        replica: vote.leader_id.voted_for,
        committed: vote.committed,
    }))
}

/// An entry of a group's log; `None` if it is not there or damaged.
///
/// # Errors
/// If the disk can't be read.
pub fn entry(disk: &dyn Engine, group: u32, index: u64) -> Result<Option<DiskEntry>, StorageError> {
    let group = GroupId(group);
    let Some(value) = disk.get(Space::Log, &keys::log_entry(group, index))? else {
        return Ok(None);
    };
    let mut hasher = DefaultHasher::new();
    hasher.write(&value);
    let hash = hasher.finish();
    let stored = entry::decode(group, index, value).ok();
    Ok(stored.map(|stored| DiskEntry { term: stored.term, hash }))
}
