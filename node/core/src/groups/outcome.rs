//! What became of a command of a coordinator.

use crate::ids::{Generation, TopicName};

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
    /// The heartbeat is in force, or changed nothing.
    Heard {
        /// The member's.
        generation: Generation,
    },
    /// The member has left.
    Left,
    /// Those that were still the same members are expired.
    Expired {
        /// How many they were.
        members: usize,
    },
    /// What is known of topics is up to date.
    TopicsLearned {
        /// How many groups it concerned.
        groups: usize,
    },
    /// Not without being a member, and not while there are others: somebody consumes.
    NotEmpty {
        /// How many.
        members: usize,
    },
    /// The group has no such member: it left, was expired, or never joined.
    UnknownMember,
    /// The member is another one by now than the sender was.
    MemberFenced {
        /// Its generation.
        current: Generation,
    },
    /// Another process has the instance id.
    InstanceFenced,
    /// Nothing was committed: the member does not own this partition, or was given it anew since.
    NotOwner {
        /// Where.
        topic: TopicName,
        /// Where.
        partition: u32,
    },
    /// No more members.
    GroupFull {
        /// How many a group may have.
        limit: usize,
    },
}
