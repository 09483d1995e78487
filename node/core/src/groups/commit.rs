//! Group offsets: how far groups have consumed, who may say so, and that it never goes back.

use std::collections::BTreeMap;

use super::{CommitOffsets, GroupOutcome, GroupTable, OffsetCommit};
use crate::ids::TopicName;
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_OFFSETS_MAX, GROUP_TABLE_BYTES_MAX, OFFSET_METADATA_BYTES_MAX,
};
use crate::time::EntryTime;
use crate::zoo::{self, Bug};

/// What one offset takes in the table's account beside its texts.
const OFFSET_BYTES: usize = 64;

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
    pub(super) fn commit(&mut self, commit: &CommitOffsets) -> GroupOutcome {
        if let Err(refused) = self.may_commit(commit) {
            return refused;
        }
        let known = self.groups.get(&commit.group);
        let current = known.map(|group| &group.offsets);
        let mut staged: BTreeMap<(TopicName, u32), GroupOffset> = BTreeMap::new();
        for wanted in &commit.offsets {
            let place = (wanted.topic.clone(), wanted.partition);
            let in_force = staged.get(&place).or_else(|| current?.get(&place));
            if let Some(in_force) = in_force
                && wanted.offset < in_force.offset
                && !commit.reset
                && !zoo::is(Bug::OffsetsOverwritten)
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
        let name_bytes = if known.is_none() { commit.group.as_str().len() } else { 0 };
        let bytes = self.bytes - freed + added + name_bytes;
        if bytes > GROUP_TABLE_BYTES_MAX && bytes > self.bytes {
            return GroupOutcome::TableFull { limit_bytes: GROUP_TABLE_BYTES_MAX };
        }
        if !staged.is_empty() {
            self.bytes = bytes;
            self.groups.entry(commit.group.clone()).or_default().offsets.extend(staged);
        }
        GroupOutcome::Committed
    }

    /// Who commits: the owner of each partition, or anybody while the group has no members.
    fn may_commit(&self, commit: &CommitOffsets) -> Result<(), GroupOutcome> {
        let roster = self.roster(&commit.group);
        let Some(committer) = &commit.committer else {
            return match roster {
                None => Ok(()),
                Some(roster) => Err(GroupOutcome::NotEmpty { members: roster.members.len() }),
            };
        };
        let unknown = || self.unknown_member(&commit.group);
        let roster = roster.ok_or_else(unknown)?;
        let (joined, member) = roster.member(&committer.member).ok_or_else(unknown)?;
        let current = member.generation;
        if zoo::is(Bug::OldGenerationCommits) {
            return Ok(());
        }
        if committer.generation < joined || committer.generation > current {
            return Err(GroupOutcome::MemberFenced { current });
        }
        for offset in &commit.offsets {
            // One that got the partition later than it knew of is not the one that has it now.
            let owns = roster
                .owner(&offset.topic, offset.partition)
                .is_some_and(|owner| owner.member == joined && owner.since <= committer.generation);
            if !owns && !zoo::is(Bug::TwoOwners) {
                let (topic, partition) = (offset.topic.clone(), offset.partition);
                return Err(GroupOutcome::NotOwner { topic, partition });
            }
        }
        Ok(())
    }
}

/// What one offset counts for in the table's size.
pub(super) fn account(place: &(TopicName, u32), offset: &GroupOffset) -> usize {
    OFFSET_BYTES + place.0.as_str().len() + offset.metadata.as_ref().map_or(0, String::len)
}
