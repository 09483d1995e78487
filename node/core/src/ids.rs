//! The names and numbers by which things are told apart.
//!
//! Two identities of different meaning are two types, so that a replica id can't be taken for a
//! node's label. Names are checked when they are made: whoever holds a [`TopicName`] need not
//! look at it again.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{
    GROUP_MEMBER_NAME_BYTES_MAX, GROUP_NAME_BYTES_MAX, NODE_ADDRESS_BYTES_MAX,
    NODE_VERSION_BYTES_MAX, RACK_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX,
};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($number:ty), $write:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        impl $name {
            /// Appends the number.
            pub fn write(self, writer: &mut Writer) {
                writer.$write(self.0);
            }

            /// Reads what `write` wrote.
            pub fn read(reader: &mut Reader) -> Result<$name, DecodeError> {
                reader.$write().map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Appends 16 bytes.
            pub fn write(self, writer: &mut Writer) {
                writer.raw(self.0.as_bytes());
            }

            /// Reads what `write` wrote.
            pub fn read(reader: &mut Reader) -> Result<$name, DecodeError> {
                Ok($name(Uuid::from_bytes(reader.array()?)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A Raft group. Given out by the metadata, never used again.
    GroupId(u32), u32
}

number_id! {
    /// One copy of a Raft group on one disk; openraft's node id. One counter for all groups,
    /// never used again: an empty disk in an old place gets new replica ids.
    ReplicaId(u64), u64
}

number_id! {
    /// What people call a node (`--node-id`), 1 or more. A name only: the identity of a node is
    /// its [`NodeUuid`].
    NodeLabel(u64), u64
}

number_id! {
    /// One producer session's id, given out by the metadata, never used again.
    ProducerId(u64), u64
}

number_id! {
    /// Fences earlier sessions of the same producer: a higher epoch silences every lower one.
    ProducerEpoch(u16), u16
}

number_id! {
    /// One state of consumer groups; grows with each change of one, and is never given out twice
    /// by a coordinator.
    Generation(u64), u64
}

uuid_id! {
    /// A node's identity, made with its data directory and kept in it.
    NodeUuid
}

uuid_id! {
    /// A cluster's identity, made by its bootstrap.
    ClusterId
}

uuid_id! {
    /// A topic's identity. A topic deleted and made again under its name is another topic.
    TopicId
}

impl Default for Generation {
    /// Before the first: that of nobody.
    fn default() -> Generation {
        Generation(0)
    }
}

impl GroupId {
    /// Nodes, topics, placement.
    pub const METADATA: GroupId = GroupId(1);
    /// Coordinators of consumer groups are numbered from here.
    pub const COORDINATOR_FIRST: GroupId = GroupId(2);
    /// Partitions are numbered from here, in the order they are made.
    pub const PARTITION_FIRST: GroupId = GroupId(1_000);
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing, or too much.
    #[error("a {what} has 1 to {limit_bytes} bytes, this one has {length_bytes}")]
    Length {
        /// Which kind of name.
        what: &'static str,
        /// What it has.
        length_bytes: usize,
        /// What it may have.
        limit_bytes: usize,
    },
    /// A character that is not allowed.
    #[error("a {what} can't contain {character:?}; it may have {allowed}")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The first that is not allowed.
        character: char,
        /// Which are.
        allowed: &'static str,
    },
    /// "." and ".." are paths, not names.
    #[error("a {what} can't be \".\" or \"..\"")]
    Dots {
        /// Which kind of name.
        what: &'static str,
    },
}

/// A topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, not "." or "..", as in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// Checks the rules.
    pub fn new(name: impl Into<String>) -> Result<TopicName, InvalidName> {
        let name = name.into();
        let what = "topic name";
        check_length(what, &name, TOPIC_NAME_BYTES_MAX)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = name.chars().find(|&c| !allowed(c)) {
            let allowed = "letters, digits, '.', '_' and '-'";
            return Err(InvalidName::Character { what, character, allowed });
        }
        if name == "." || name == ".." {
            return Err(InvalidName::Dots { what });
        }
        Ok(TopicName(name))
    }
}

/// A consumer group's name: 1 to 255 bytes of UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// Checks the rules.
    pub fn new(name: impl Into<String>) -> Result<GroupName, InvalidName> {
        let name = name.into();
        let what = "group name";
        check_length(what, &name, GROUP_NAME_BYTES_MAX)?;
        if let Some(character) = name.chars().find(|c| c.is_control()) {
            let allowed = "anything but control characters";
            return Err(InvalidName::Character { what, character, allowed });
        }
        Ok(GroupName(name))
    }
}

macro_rules! group_member_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the rules.
            pub fn new(name: impl Into<String>) -> Result<$name, InvalidName> {
                let name = name.into();
                check_length($what, &name, GROUP_MEMBER_NAME_BYTES_MAX)?;
                check_no_blanks($what, &name)?;
                Ok($name(name))
            }
        }
    };
}

group_member_name! {
    /// What the process of a group's member calls itself, drawn anew each time it starts: 1 to 255
    /// bytes without blanks.
    MemberId, "member id"
}

group_member_name! {
    /// What an operator calls a group's member, kept over restarts: 1 to 255 bytes without blanks.
    InstanceId, "instance id"
}

/// Where a node is reached: `host:port`, 1 to 255 bytes without blanks. Not resolved here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress(String);

impl NodeAddress {
    /// Checks the rules.
    pub fn new(address: impl Into<String>) -> Result<NodeAddress, InvalidName> {
        let address = address.into();
        let what = "node address";
        check_length(what, &address, NODE_ADDRESS_BYTES_MAX)?;
        check_no_blanks(what, &address)?;
        Ok(NodeAddress(address))
    }
}

/// Which build a node runs: 1 to 64 bytes without blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeVersion(String);

impl NodeVersion {
    /// Checks the rules.
    pub fn new(version: impl Into<String>) -> Result<NodeVersion, InvalidName> {
        let version = version.into();
        let what = "node version";
        check_length(what, &version, NODE_VERSION_BYTES_MAX)?;
        check_no_blanks(what, &version)?;
        Ok(NodeVersion(version))
    }
}

/// What may fail with a node at once, its rack, room or zone: 1 to 64 bytes without blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RackName(String);

impl RackName {
    /// Checks the rules.
    pub fn new(rack: impl Into<String>) -> Result<RackName, InvalidName> {
        let rack = rack.into();
        let what = "rack name";
        check_length(what, &rack, RACK_NAME_BYTES_MAX)?;
        check_no_blanks(what, &rack)?;
        Ok(RackName(rack))
    }
}

macro_rules! name_traits {
    ($name:ident, $limit:expr) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Appends length and text.
            pub fn write(&self, writer: &mut Writer) {
                writer.text(&self.0);
            }

            /// Reads what `write` wrote, and checks the rules.
            pub fn read(reader: &mut Reader) -> Result<$name, DecodeError> {
                let name = reader.text($limit)?;
                $name::new(name).map_err(|_| reader.invalid("a name breaks the rules for names"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<$name, InvalidName> {
                $name::new(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_traits!(TopicName, TOPIC_NAME_BYTES_MAX);
name_traits!(GroupName, GROUP_NAME_BYTES_MAX);
name_traits!(MemberId, GROUP_MEMBER_NAME_BYTES_MAX);
name_traits!(InstanceId, GROUP_MEMBER_NAME_BYTES_MAX);
name_traits!(NodeAddress, NODE_ADDRESS_BYTES_MAX);
name_traits!(NodeVersion, NODE_VERSION_BYTES_MAX);
name_traits!(RackName, RACK_NAME_BYTES_MAX);

fn check_length(what: &'static str, name: &str, limit_bytes: usize) -> Result<(), InvalidName> {
    if (1..=limit_bytes).contains(&name.len()) {
        Ok(())
    } else {
        Err(InvalidName::Length { what, length_bytes: name.len(), limit_bytes })
    }
}

fn check_no_blanks(what: &'static str, text: &str) -> Result<(), InvalidName> {
    match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        None => Ok(()),
        Some(character) => {
            let allowed = "anything but blanks and control characters";
            Err(InvalidName::Character { what, character, allowed })
        }
    }
}

impl From<ClusterId> for Bytes {
    fn from(id: ClusterId) -> Bytes {
        Bytes::copy_from_slice(id.0.as_bytes())
    }
}

impl From<NodeUuid> for Bytes {
    fn from(id: NodeUuid) -> Bytes {
        Bytes::copy_from_slice(id.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        assert!(TopicName::new("orders.eu-1_a").is_ok());
        assert!(TopicName::new("a".repeat(249)).is_ok());
        assert!(TopicName::new("a".repeat(250)).is_err());
        assert!(TopicName::new("").is_err());
        assert!(TopicName::new(".").is_err());
        assert!(TopicName::new("..").is_err());
        assert!(TopicName::new("...").is_ok());
        assert!(TopicName::new("a/b").is_err());
        assert!(TopicName::new("größe").is_err());
    }

    #[test]
    fn a_refused_topic_name_says_which_character_is_wrong() {
        let error = TopicName::new("a b").expect_err("a blank is not allowed");
        let text = "a topic name can't contain ' '; it may have letters, digits, '.', '_' and '-'";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn group_names_take_any_text_without_control_characters() {
        assert!(GroupName::new("Rechnung prüfen").is_ok());
        assert!(GroupName::new("ä".repeat(127)).is_ok());
        assert!(GroupName::new("ä".repeat(128)).is_err());
        assert!(GroupName::new("").is_err());
        assert!(GroupName::new("a\nb").is_err());
    }
}
