//! What is replicated in a coordinator's log, and its bytes; see `docs/formats/commands.md`.

use bytes::Bytes;

use super::heartbeat::{Heartbeat, TopicNews};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Generation, GroupName, MemberId, TopicName};
use crate::limits::{COMMIT_OFFSETS_MAX, GROUP_MEMBERS_MAX, OFFSET_METADATA_BYTES_MAX};
use crate::time::EntryTime;

const VERSION: u8 = 1;
const KIND_COMMIT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_FORGET_TOPIC: u8 = 3;
const KIND_COMMIT_BY_MEMBER: u8 = 4;
const KIND_HEARTBEAT: u8 = 5;
const KIND_LEAVE: u8 = 6;
const KIND_EXPIRE: u8 = 7;
const KIND_TOPICS_CHANGED: u8 = 8;

/// An offset without metadata, of a topic with a name of one letter.
const OFFSET_BYTES_MIN: usize = 4 + 1 + 4 + 8 + 1;

/// A command of a coordinator group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupCommand {
    /// Commits offsets of one group, all or none.
    Commit(CommitOffsets),
    /// Forgets a group and all its offsets.
    Delete {
        /// Which.
        group: GroupName,
    },
    /// Forgets the offsets of all groups for a topic that was deleted, so that they are not taken
    /// for those of a new topic of the same name.
    ForgetTopic {
        /// Which.
        topic: TopicName,
    },
    /// A member joins, gives partitions up, or subscribes to something else.
    Heartbeat(Heartbeat),
    /// A member leaves.
    Leave(LeaveGroup),
    /// Ends the sessions of members that were silent or did not give up what they should.
    Expire(ExpireMembers),
    /// Topics came, went or grew.
    TopicsChanged {
        /// What is known of them.
        news: TopicNews,
        /// When the leader proposed it.
        time: EntryTime,
    },
}

/// A member leaves its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroup {
    /// The group.
    pub group: GroupName,
    /// Who leaves.
    pub member: MemberId,
    /// For a moment: with an instance id it keeps its partitions until its session ends. Without
    /// one it leaves for good.
    pub stays: bool,
    /// When the leader proposed it.
    pub time: EntryTime,
}

/// Members of one group whose sessions have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpireMembers {
    /// The group.
    pub group: GroupName,
    /// Who, and the generation each joined in: one that has joined anew stays. At most
    /// [`GROUP_MEMBERS_MAX`].
    pub members: Vec<(MemberId, Generation)>,
    /// When the leader proposed it.
    pub time: EntryTime,
}

/// Offsets that one group commits together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsets {
    /// Whose.
    pub group: GroupName,
    /// At most [`COMMIT_OFFSETS_MAX`]. Of two for one partition the later counts.
    pub offsets: Vec<OffsetCommit>,
    /// The member that commits; `None` in a group that has no members.
    pub committer: Option<Committer>,
    /// An explicit reset: offsets may go back.
    pub reset: bool,
    /// When the leader proposed it.
    pub time: EntryTime,
}

/// A member, as it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committer {
    /// Who.
    pub member: MemberId,
    /// The last generation it was told.
    pub generation: Generation,
}

/// How far a group has consumed one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: u32,
    /// The next offset to consume.
    pub offset: u64,
    /// Free text of the committer, at most [`OFFSET_METADATA_BYTES_MAX`].
    pub metadata: Option<String>,
}

impl GroupCommand {
    /// The payload of the Raft entry.
    ///
    /// # Panics
    /// If it breaks the limits that [`CommitOffsets::check`] and [`Heartbeat::check`] know: no
    /// replica could read it again.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        match self {
            GroupCommand::Commit(commit) => {
                assert_eq!(commit.check(), Ok(()));
                commit.write(&mut writer);
            }
            GroupCommand::Delete { group } => {
                writer.u8(KIND_DELETE);
                group.write(&mut writer);
            }
            GroupCommand::ForgetTopic { topic } => {
                writer.u8(KIND_FORGET_TOPIC);
                topic.write(&mut writer);
            }
            GroupCommand::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.check(), Ok(()));
                writer.u8(KIND_HEARTBEAT);
                heartbeat.write(&mut writer);
            }
            GroupCommand::Leave(leave) => {
                writer.u8(KIND_LEAVE);
                leave.write(&mut writer);
            }
            GroupCommand::Expire(expire) => {
                writer.u8(KIND_EXPIRE);
                expire.write(&mut writer);
            }
            GroupCommand::TopicsChanged { news, time } => {
                writer.u8(KIND_TOPICS_CHANGED);
                writer.u64(time.0);
                news.write(&mut writer);
            }
        }
        writer.finish()
    }

    /// Reads a payload. Where the error [needs a newer build](DecodeError::needs_newer_build), the
    /// replica must stop, not skip.
    pub fn decode(payload: Bytes) -> Result<GroupCommand, DecodeError> {
        let mut reader = Reader::new("group command", payload);
        reader.version(VERSION)?;
        let command = match reader.u8()? {
            KIND_COMMIT => GroupCommand::Commit(CommitOffsets::read(&mut reader, false)?),
            KIND_DELETE => GroupCommand::Delete { group: GroupName::read(&mut reader)? },
            KIND_FORGET_TOPIC => GroupCommand::ForgetTopic { topic: TopicName::read(&mut reader)? },
            KIND_COMMIT_BY_MEMBER => GroupCommand::Commit(CommitOffsets::read(&mut reader, true)?),
            KIND_HEARTBEAT => GroupCommand::Heartbeat(Heartbeat::read(&mut reader)?),
            KIND_LEAVE => GroupCommand::Leave(LeaveGroup::read(&mut reader)?),
            KIND_EXPIRE => GroupCommand::Expire(ExpireMembers::read(&mut reader)?),
            KIND_TOPICS_CHANGED => GroupCommand::TopicsChanged {
                time: EntryTime(reader.u64()?),
                news: TopicNews::read(&mut reader)?,
            },
            kind => return Err(reader.unknown_kind(kind)),
        };
        reader.finish()?;
        Ok(command)
    }

    /// When the leader proposed it; the beginning of time for those that do not say.
    pub(super) fn time(&self) -> EntryTime {
        match self {
            GroupCommand::Commit(commit) => commit.time,
            GroupCommand::Delete { .. } | GroupCommand::ForgetTopic { .. } => EntryTime::default(),
            GroupCommand::Heartbeat(heartbeat) => heartbeat.time,
            GroupCommand::Leave(leave) => leave.time,
            GroupCommand::Expire(expire) => expire.time,
            GroupCommand::TopicsChanged { time, .. } => *time,
        }
    }
}

impl LeaveGroup {
    fn write(&self, writer: &mut Writer) {
        writer.u64(self.time.0);
        self.group.write(writer);
        self.member.write(writer);
        writer.bool(self.stays);
    }

    fn read(reader: &mut Reader) -> Result<LeaveGroup, DecodeError> {
        Ok(LeaveGroup {
            time: EntryTime(reader.u64()?),
            group: GroupName::read(reader)?,
            member: MemberId::read(reader)?,
            stays: reader.bool()?,
        })
    }
}

impl ExpireMembers {
    fn write(&self, writer: &mut Writer) {
        writer.u64(self.time.0);
        self.group.write(writer);
        writer.list(&self.members, GROUP_MEMBERS_MAX, |writer, (member, joined)| {
            member.write(writer);
            joined.write(writer);
        });
    }

    fn read(reader: &mut Reader) -> Result<ExpireMembers, DecodeError> {
        Ok(ExpireMembers {
            time: EntryTime(reader.u64()?),
            group: GroupName::read(reader)?,
            members: reader.list(GROUP_MEMBERS_MAX, 4 + 1 + 8, |reader| {
                Ok((MemberId::read(reader)?, Generation::read(reader)?))
            })?,
        })
    }
}

impl CommitOffsets {
    /// Size of the encoded command, or a little more.
    pub(super) fn encoded_bytes(&self) -> usize {
        let commit_bytes = |commit: &OffsetCommit| {
            let metadata_bytes = commit.metadata.as_ref().map_or(0, String::len);
            OFFSET_BYTES_MIN + 4 + commit.topic.as_str().len() + metadata_bytes
        };
        let offset_bytes: usize = self.offsets.iter().map(commit_bytes).sum();
        let committer = self.committer.as_ref();
        let committer_bytes = committer.map_or(0, |it| 4 + it.member.as_str().len() + 8);
        19 + self.group.as_str().len() + committer_bytes + offset_bytes
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(self.committer.as_ref().map_or(KIND_COMMIT, |_| KIND_COMMIT_BY_MEMBER));
        writer.u64(self.time.0);
        writer.bool(self.reset);
        self.group.write(writer);
        if let Some(Committer { member, generation }) = &self.committer {
            member.write(writer);
            generation.write(writer);
        }
        writer.count(self.offsets.len());
        for commit in &self.offsets {
            commit.topic.write(writer);
            writer.u32(commit.partition);
            writer.u64(commit.offset);
            writer.option(commit.metadata.as_deref(), Writer::text);
        }
    }

    fn read(reader: &mut Reader, by_member: bool) -> Result<CommitOffsets, DecodeError> {
        let time = EntryTime(reader.u64()?);
        let reset = reader.bool()?;
        let group = GroupName::read(reader)?;
        let committer = match by_member {
            false => None,
            true => Some(Committer {
                member: MemberId::read(reader)?,
                generation: Generation::read(reader)?,
            }),
        };
        let count = reader.count(COMMIT_OFFSETS_MAX, OFFSET_BYTES_MIN)?;
        let mut offsets = Vec::with_capacity(count);
        for _ in 0..count {
            offsets.push(OffsetCommit {
                topic: TopicName::read(reader)?,
                partition: reader.u32()?,
                offset: reader.u64()?,
                metadata: reader.option(|reader| reader.text(OFFSET_METADATA_BYTES_MAX))?,
            });
        }
        Ok(CommitOffsets { group, offsets, committer, reset, time })
    }
}
