//! What is replicated in a coordinator's log, and its bytes; see `docs/formats/commands.md`.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{GroupName, TopicName};
use crate::limits::{COMMIT_OFFSETS_MAX, OFFSET_METADATA_BYTES_MAX};
use crate::time::EntryTime;

const VERSION: u8 = 1;
const KIND_COMMIT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_FORGET_TOPIC: u8 = 3;

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
}

/// Offsets that one group commits together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsets {
    /// Whose.
    pub group: GroupName,
    /// At most [`COMMIT_OFFSETS_MAX`]. Of two for one partition the later counts.
    pub offsets: Vec<OffsetCommit>,
    /// An explicit reset: offsets may go back.
    pub reset: bool,
    /// When the leader proposed it.
    pub time: EntryTime,
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
    /// If a commit breaks the limits that [`CommitOffsets::check`] knows: no replica could read
    /// it again.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        if let GroupCommand::Commit(commit) = self {
            assert_eq!(commit.check(), Ok(()));
        }
        let mut writer = Writer::default();
        writer.u8(VERSION);
        match self {
            GroupCommand::Commit(commit) => {
                writer.u8(KIND_COMMIT);
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
        }
        writer.finish()
    }

    /// Reads a payload. Where the error [needs a newer build](DecodeError::needs_newer_build), the
    /// replica must stop, not skip.
    pub fn decode(payload: Bytes) -> Result<GroupCommand, DecodeError> {
        let mut reader = Reader::new("group command", payload);
        reader.version(VERSION)?;
        let command = match reader.u8()? {
            KIND_COMMIT => GroupCommand::Commit(CommitOffsets::read(&mut reader)?),
            KIND_DELETE => GroupCommand::Delete { group: GroupName::read(&mut reader)? },
            KIND_FORGET_TOPIC => GroupCommand::ForgetTopic { topic: TopicName::read(&mut reader)? },
            kind => return Err(reader.unknown_kind(kind)),
        };
        reader.finish()?;
        Ok(command)
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
        19 + self.group.as_str().len() + offset_bytes
    }

    fn write(&self, writer: &mut Writer) {
        writer.u64(self.time.0);
        writer.bool(self.reset);
        self.group.write(writer);
        writer.count(self.offsets.len());
        for commit in &self.offsets {
            commit.topic.write(writer);
            writer.u32(commit.partition);
            writer.u64(commit.offset);
            writer.option(commit.metadata.as_deref(), Writer::text);
        }
    }

    fn read(reader: &mut Reader) -> Result<CommitOffsets, DecodeError> {
        let time = EntryTime(reader.u64()?);
        let reset = reader.bool()?;
        let group = GroupName::read(reader)?;
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
        Ok(CommitOffsets { group, offsets, reset, time })
    }
}
