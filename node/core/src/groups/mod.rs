//! Consumer groups: one coordinator's share of them. Who belongs to each group, who has which
//! partition, and what the group has consumed; `docs/consumer-groups.md` says what is promised.
//!
//! A committed group offset never goes back but by an explicit reset, and in a group with members
//! only the owner of a partition commits for it, also across a change of the coordinator's leader:
//! the checks are in apply. A commit counts as a whole or not at all.
//!
//! The table is an ordinary replicated state with a full snapshot; its log may be purged behind
//! it. Heartbeats that change nothing are not in the log; when a member was heard last is known
//! only to the coordinator's leader ([`sessions`]).
//!
//! - here: the table, what is asked of it, deleting;
//! - `commit`: group offsets; `membership`: joining, heartbeats, leaving, expiry, topics;
//! - `heartbeat`: what members say; `roster`: one group's members and partitions;
//! - [`assignor`]: who should have what;
//! - `command`, `snapshot`: the bytes; `outcome`: the answers.

pub mod assignor;
mod command;
mod commit;
mod heartbeat;
mod membership;
mod outcome;
mod roster;
pub mod sessions;
mod snapshot;

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::command::{
    CommitOffsets, Committer, ExpireMembers, GroupCommand, LeaveGroup, OffsetCommit,
};
use self::commit::account;
pub use self::commit::{GroupOffset, InvalidCommit};
pub use self::heartbeat::{Heartbeat, InvalidHeartbeat, TopicFact, TopicNews};
use self::membership::topic_account;
pub use self::membership::{Hearing, HeartbeatChange};
pub use self::outcome::GroupOutcome;
pub use self::roster::{GroupMember, Hold, MemberProfile, Roster, Seat, TopicPartitions};
use crate::ids::{Generation, GroupId, GroupName, TopicName};
use crate::limits::MEMBERSHIP_BYTES_MAX;
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;

/// The seed of [`coordinator_of`]. Part of the protocol: with another one, groups would look for
/// their offsets in the wrong place.
const COORDINATOR_SEED: u64 = 0x7175_6970_7567_7270;

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
    groups: BTreeMap<GroupName, Group>,
    applied: Option<RaftPosition>,
    membership: Option<Membership>,
    time_last: EntryTime,
    /// The last generation given out, to whichever group.
    generation_last: Generation,
    /// The metadata's Raft index that `topics` are of.
    metadata_index: u64,
    /// What is known of topics that members subscribe to.
    topics: BTreeMap<TopicName, TopicFact>,
    /// Size of the table by its own account; follows from `groups` and `topics`.
    bytes: usize,
}

/// One group. Invariant: it has offsets or members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Group {
    offsets: BTreeMap<(TopicName, u32), GroupOffset>,
    /// Empty, as by default, where there are no members.
    roster: Roster,
}

impl GroupTable {
    /// Applies one command.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply(&mut self, at: RaftPosition, command: &GroupCommand) -> GroupOutcome {
        self.apply_blank(at);
        self.time_last = self.time_last.max(command.time());
        match command {
            GroupCommand::Commit(commit) => self.commit(commit),
            GroupCommand::Delete { group } => self.delete(group),
            GroupCommand::ForgetTopic { topic } => self.forget_topic(topic),
            GroupCommand::Heartbeat(heartbeat) => self.heartbeat(heartbeat),
            GroupCommand::Leave(leave) => self.leave(leave),
            GroupCommand::Expire(expire) => self.expire(expire),
            GroupCommand::TopicsChanged { news, .. } => self.topics_changed(news),
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

    /// Names of the groups after this one, ascending; of all without one.
    pub fn group_names_after(&self, after: Option<&GroupName>) -> impl Iterator<Item = &GroupName> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.groups.range::<GroupName, _>((start, Bound::Unbounded)).map(|(name, _)| name)
    }

    /// All offsets of a group by topic and partition; `None` where there is no such group.
    #[must_use]
    pub fn offsets(&self, group: &GroupName) -> Option<&BTreeMap<(TopicName, u32), GroupOffset>> {
        self.groups.get(group).map(|group| &group.offsets)
    }

    /// A group's offset for one partition.
    #[must_use]
    pub fn offset(
        &self,
        group: &GroupName,
        topic: &TopicName,
        partition: u32,
    ) -> Option<&GroupOffset> {
        self.groups.get(group)?.offsets.get(&(topic.clone(), partition))
    }

    /// The members of a group and their partitions; `None` where it has no members.
    #[must_use]
    pub fn roster(&self, group: &GroupName) -> Option<&Roster> {
        let roster = &self.groups.get(group)?.roster;
        (!roster.members().is_empty()).then_some(roster)
    }

    /// All groups that have members.
    pub fn rosters(&self) -> impl Iterator<Item = (&GroupName, &Roster)> {
        let rosters = self.groups.iter().map(|(name, group)| (name, &group.roster));
        rosters.filter(|(_, roster)| !roster.members().is_empty())
    }

    /// The last generation given out; grows with each change of the members of any group.
    #[must_use]
    pub fn generation_last(&self) -> Generation {
        self.generation_last
    }

    /// What is known of topics that members subscribe to; a topic that is not there is not known
    /// to exist.
    #[must_use]
    pub fn topics(&self) -> &BTreeMap<TopicName, TopicFact> {
        &self.topics
    }

    /// The metadata's Raft index that [`GroupTable::topics`] are of.
    #[must_use]
    pub fn metadata_index(&self) -> u64 {
        self.metadata_index
    }

    fn delete(&mut self, group: &GroupName) -> GroupOutcome {
        let Some(found) = self.groups.get(group) else { return GroupOutcome::UnknownGroup };
        if !found.roster.members.is_empty() {
            return GroupOutcome::NotEmpty { members: found.roster.members.len() };
        }
        let freed: usize = found.offsets.iter().map(|(place, offset)| account(place, offset)).sum();
        self.bytes -= freed + group.as_str().len();
        self.groups.remove(group);
        GroupOutcome::Deleted
    }

    fn forget_topic(&mut self, topic: &TopicName) -> GroupOutcome {
        self.withdraw_topic(topic);
        let mut offsets = 0;
        let mut freed = 0;
        for group in self.groups.values_mut() {
            group.offsets.retain(|place, offset| {
                let keep = place.0 != *topic;
                if !keep {
                    offsets += 1;
                    freed += account(place, offset);
                }
                keep
            });
        }
        self.bytes -= freed;
        let empty: Vec<GroupName> = self
            .groups
            .iter()
            .filter(|(_, group)| group.is_empty())
            .map(|(it, _)| it.clone())
            .collect();
        for group in &empty {
            self.drop_if_empty(group);
        }
        GroupOutcome::TopicForgotten { offsets }
    }

    fn drop_if_empty(&mut self, name: &GroupName) {
        if self.groups.get(name).is_some_and(Group::is_empty) {
            self.groups.remove(name);
            self.bytes -= name.as_str().len();
        }
    }

    /// The table's size, added up.
    fn account(&self) -> usize {
        let topics: usize = self.topics.keys().map(topic_account).sum();
        let group_bytes = |(name, group): (&GroupName, &Group)| name.as_str().len() + group.bytes();
        topics + self.groups.iter().map(group_bytes).sum::<usize>()
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.roster.members.is_empty()
    }

    /// Size in the table's account, without the name.
    fn bytes(&self) -> usize {
        let offsets = self.offsets.iter().map(|(place, offset)| account(place, offset));
        offsets.sum::<usize>() + self.roster.bytes()
    }
}
