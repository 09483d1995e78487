//! What consumer groups have consumed: one coordinator's share of all groups.
//!
//! A committed group offset never goes back but by an explicit reset, also across a change of the
//! coordinator's leader: the check is in apply. A commit counts as a whole or not at all.
//!
//! The table is an ordinary replicated state with a full snapshot; its log may be purged behind
//! it. Membership of groups (who consumes which partition) is not here; a group is its offsets.

mod command;
mod snapshot;

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::command::{CommitOffsets, GroupCommand, OffsetCommit};
use crate::ids::{GroupId, GroupName, TopicName};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_OFFSETS_MAX, GROUP_TABLE_BYTES_MAX, MEMBERSHIP_BYTES_MAX,
    OFFSET_METADATA_BYTES_MAX,
};
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;

/// The seed of [`coordinator_of`]. Part of the protocol: with another one, groups would look for
/// their offsets in the wrong place.
const COORDINATOR_SEED: u64 = 0x7175_6970_7567_7270;

/// What one offset takes in the table's account beside its texts.
const OFFSET_BYTES: usize = 64;

/// The coordinator of a group, of `coordinator_count` (at least one) that the cluster has.
///
/// # Panics
/// If there is no coordinator.
#[must_use]
pub fn coordinator_of(group: &GroupName, coordinator_count: u32) -> GroupId {
    assert!(coordinator_count > 0, "a cluster without coordinators");
    let hash = xxh3_64_with_seed(group.as_str().as_bytes(), COORDINATOR_SEED);
    let place = u32::try_from(hash % u64::from(coordinator_count)).expect("below a u32");
    GroupId(GroupId::COORDINATOR_FIRST.0 + place)
}

/// The state of one coordinator group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupTable {
    groups: BTreeMap<GroupName, BTreeMap<(TopicName, u32), GroupOffset>>,
    applied: Option<RaftPosition>,
    membership: Option<Membership>,
    time_last: EntryTime,
    /// Size of the table by its own account; follows from `groups`.
    bytes: usize,
}

/// How far a group has consumed one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The next offset to consume.
    pub offset: u64,
    /// Free text of the committer.
    pub metadata: Option<String>,
    /// The coordinator's time of the commit.
    pub committed_at: EntryTime,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOutcome {
    /// All of the commit's offsets are in force.
    Committed,
    /// Nothing was committed: this offset would have gone back without a reset.
    Regression {
        /// Where.
        topic: TopicName,
        /// Where.
        partition: u32,
        /// The offset in force.
        committed: u64,
    },
    /// Nothing was committed: the coordinator's table is full.
    TableFull {
        /// The limit of its size.
        limit_bytes: usize,
    },
    /// The group is forgotten.
    Deleted,
    /// There is no such group.
    UnknownGroup,
    /// The topic's offsets are forgotten.
    TopicForgotten {
        /// How many there were.
        offsets: usize,
    },
}

/// Why a commit must not even be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommit {
    /// Too many at once.
    #[error("a commit has at most {COMMIT_OFFSETS_MAX} offsets, this one has {count}")]
    TooManyOffsets {
        /// As given.
        count: usize,
    },
    /// Metadata is a note, not a store.
    #[error("metadata of an offset has at most {OFFSET_METADATA_BYTES_MAX} bytes, not {bytes}")]
    MetadataTooLong {
        /// As given.
        bytes: usize,
    },
    /// All of it must fit in one log entry.
    #[error("a commit has at most {COMMIT_BYTES_MAX} bytes in all, this one has {bytes}")]
    TooLarge {
        /// Size of the encoded command.
        bytes: usize,
    },
}

impl CommitOffsets {
    /// Checks the limits. The edge asks this; apply relies on it.
    pub fn check(&self) -> Result<(), InvalidCommit> {
        if self.offsets.len() > COMMIT_OFFSETS_MAX {
            return Err(InvalidCommit::TooManyOffsets { count: self.offsets.len() });
        }
        let metadata_bytes =
            |commit: &OffsetCommit| commit.metadata.as_ref().map_or(0, String::len);
        match self.offsets.iter().map(metadata_bytes).max() {
            Some(bytes) if bytes > OFFSET_METADATA_BYTES_MAX => {
                return Err(InvalidCommit::MetadataTooLong { bytes });
            }
            _ => {}
        }
        let bytes = self.encoded_bytes();
        if bytes > COMMIT_BYTES_MAX { Err(InvalidCommit::TooLarge { bytes }) } else { Ok(()) }
    }
}

impl GroupTable {
    /// Applies one command.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply(&mut self, at: RaftPosition, command: &GroupCommand) -> GroupOutcome {
        self.apply_blank(at);
        match command {
            GroupCommand::Commit(commit) => self.commit(commit),
            GroupCommand::Delete { group } => self.delete(group),
            GroupCommand::ForgetTopic { topic } => self.forget_topic(topic),
        }
    }

    /// Applies an entry without content.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply_blank(&mut self, at: RaftPosition) {
        if let Some(applied) = self.applied {
            assert!(at.follows(applied), "entry {at} applied after {applied}");
        }
        self.applied = Some(at);
    }

    /// Applies a change of the Raft group's members.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry, or over [`MEMBERSHIP_BYTES_MAX`].
    pub fn apply_membership(&mut self, at: RaftPosition, bytes: Bytes) {
        assert!(bytes.len() <= MEMBERSHIP_BYTES_MAX, "a membership of {} bytes", bytes.len());
        self.apply_blank(at);
        self.membership = Some(Membership { position: Some(at), bytes });
    }

    /// The last applied entry.
    #[must_use]
    pub fn applied(&self) -> Option<RaftPosition> {
        self.applied
    }

    /// The Raft group's members as last applied.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Names of all groups, ascending.
    pub fn group_names(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    /// All offsets of a group by topic and partition; `None` where there is no such group.
    #[must_use]
    pub fn offsets(&self, group: &GroupName) -> Option<&BTreeMap<(TopicName, u32), GroupOffset>> {
        self.groups.get(group)
    }

    /// A group's offset for one partition.
    #[must_use]
    pub fn offset(
        &self,
        group: &GroupName,
        topic: &TopicName,
        partition: u32,
    ) -> Option<&GroupOffset> {
        self.groups.get(group)?.get(&(topic.clone(), partition))
    }

    fn commit(&mut self, commit: &CommitOffsets) -> GroupOutcome {
        self.time_last = self.time_last.max(commit.time);
        let current = self.groups.get(&commit.group);
        let mut staged: BTreeMap<(TopicName, u32), GroupOffset> = BTreeMap::new();
        for wanted in &commit.offsets {
            let place = (wanted.topic.clone(), wanted.partition);
            let in_force = staged.get(&place).or_else(|| current?.get(&place));
            if let Some(in_force) = in_force
                && wanted.offset < in_force.offset
                && !commit.reset
            {
                let committed = in_force.offset;
                let (topic, partition) = place;
                return GroupOutcome::Regression { topic, partition, committed };
            }
            let offset = GroupOffset {
                offset: wanted.offset,
                metadata: wanted.metadata.clone(),
                committed_at: self.time_last,
            };
            staged.insert(place, offset);
        }
        let freed = staged.keys().filter_map(|place| Some(account(place, current?.get(place)?)));
        let freed: usize = freed.sum();
        let added: usize = staged.iter().map(|(place, offset)| account(place, offset)).sum();
        let name_bytes = if current.is_none() { commit.group.as_str().len() } else { 0 };
        let bytes = self.bytes - freed + added + name_bytes;
        if bytes > GROUP_TABLE_BYTES_MAX && bytes > self.bytes {
            return GroupOutcome::TableFull { limit_bytes: GROUP_TABLE_BYTES_MAX };
        }
        if !staged.is_empty() {
            self.bytes = bytes;
            self.groups.entry(commit.group.clone()).or_default().extend(staged);
        }
        GroupOutcome::Committed
    }

    fn delete(&mut self, group: &GroupName) -> GroupOutcome {
        match self.groups.remove(group) {
            None => GroupOutcome::UnknownGroup,
            Some(offsets) => {
                let freed: usize =
                    offsets.iter().map(|(place, offset)| account(place, offset)).sum();
                self.bytes -= freed + group.as_str().len();
                GroupOutcome::Deleted
            }
        }
    }

    fn forget_topic(&mut self, topic: &TopicName) -> GroupOutcome {
        let mut forgotten = 0;
        let mut freed = 0;
        self.groups.retain(|group, offsets| {
            offsets.retain(|place, offset| {
                let keep = place.0 != *topic;
                if !keep {
                    forgotten += 1;
                    freed += account(place, offset);
                }
                keep
            });
            if offsets.is_empty() {
                freed += group.as_str().len();
            }
            !offsets.is_empty()
        });
        self.bytes -= freed;
        GroupOutcome::TopicForgotten { offsets: forgotten }
    }
}

/// What one offset counts for in the table's size.
fn account(place: &(TopicName, u32), offset: &GroupOffset) -> usize {
    OFFSET_BYTES + place.0.as_str().len() + offset.metadata.as_ref().map_or(0, String::len)
}
