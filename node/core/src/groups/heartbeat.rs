//! What a member says with each heartbeat, and what is known of topics; with their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::roster::{MemberProfile, TopicPartitions};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Generation, GroupName, InstanceId, MemberId, TopicId, TopicName};
use crate::limits::{
    GROUP_MEMBER_NAME_BYTES_MAX, GROUPS_MAX, REBALANCE_MS, SESSION_MS, SUBSCRIPTION_TOPICS_MAX,
    TOPIC_NEWS_MAX, TOPIC_PARTITIONS_MAX,
};
use crate::time::EntryTime;

/// A topic's name of one letter.
const NAME_BYTES_MIN: usize = 4 + 1;
/// What it subscribes to, and what it has not given up yet of the subscription before.
const OWNED_TOPICS_MAX: usize = 2 * SUBSCRIPTION_TOPICS_MAX;

/// A member joins, or says that it is there, what it wants and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group: GroupName,
    /// What the member's process calls itself.
    pub member: MemberId,
    /// The last that it was told; 0 joins.
    pub generation: Generation,
    /// What it says of itself.
    pub profile: MemberProfile,
    /// Every partition that it was assigned and has not given up.
    pub owned: TopicPartitions,
    /// The topics of its subscription, as the coordinator's leader knows them.
    pub topics: TopicNews,
    /// When the leader proposed it.
    pub time: EntryTime,
}

/// What the metadata says of some topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicNews {
    /// The metadata's Raft index. A table that has later news does not listen.
    pub metadata_index: u64,
    /// At most [`TOPIC_NEWS_MAX`]. `None`: there is no such topic.
    pub topics: BTreeMap<TopicName, Option<TopicFact>>,
}

/// What is known of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFact {
    /// Tells it from an earlier topic of the same name.
    pub id: TopicId,
    /// At most [`TOPIC_PARTITIONS_MAX`].
    pub partitions: u32,
}

/// Why a heartbeat must not even be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeartbeat {
    /// A member that wants nothing is none.
    #[error("the subscription is empty; name at least one topic")]
    EmptySubscription,
    /// Too many topics.
    #[error("a subscription has at most {SUBSCRIPTION_TOPICS_MAX} topics, this one has {count}")]
    TooManyTopics {
        /// As given.
        count: usize,
    },
    /// More than can have been assigned.
    #[error("{topics} topics with {partitions} partitions are more than a member can own")]
    OwnsTooMuch {
        /// As given.
        topics: usize,
        /// As given, in all.
        partitions: usize,
    },
    /// The client's name is a name, not a store.
    #[error("a client's name has at most {GROUP_MEMBER_NAME_BYTES_MAX} bytes, not {bytes}")]
    ClientTooLong {
        /// As given.
        bytes: usize,
    },
    /// Too soon or too late.
    #[error("a {which} time-out is {} to {} ms, not {ms}", .limits.start(), .limits.end())]
    TimeOut {
        /// Session or rebalance.
        which: &'static str,
        /// As given.
        ms: u32,
        /// What is accepted.
        limits: RangeInclusive<u32>,
    },
}

impl MemberProfile {
    /// Checks the limits. The edge asks this; the log can't hold what breaks them.
    pub fn check(&self) -> Result<(), InvalidHeartbeat> {
        let count = self.topics.len();
        if count == 0 {
            return Err(InvalidHeartbeat::EmptySubscription);
        }
        if count > SUBSCRIPTION_TOPICS_MAX {
            return Err(InvalidHeartbeat::TooManyTopics { count });
        }
        let bytes = self.client.len();
        if bytes > GROUP_MEMBER_NAME_BYTES_MAX {
            return Err(InvalidHeartbeat::ClientTooLong { bytes });
        }
        let time_outs = [
            ("session", self.session_ms, SESSION_MS),
            ("rebalance", self.rebalance_ms, REBALANCE_MS),
        ];
        match time_outs.into_iter().find(|(_, ms, limits)| !limits.contains(ms)) {
            Some((which, ms, limits)) => Err(InvalidHeartbeat::TimeOut { which, ms, limits }),
            None => Ok(()),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.option(self.instance.as_ref(), |writer, instance| instance.write(writer));
        writer.text(&self.client);
        writer.u32(self.session_ms);
        writer.u32(self.rebalance_ms);
        writer.count(self.topics.len());
        for topic in &self.topics {
            topic.write(writer);
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<MemberProfile, DecodeError> {
        let profile = MemberProfile {
            instance: reader.option(InstanceId::read)?,
            client: reader.text(GROUP_MEMBER_NAME_BYTES_MAX)?,
            session_ms: reader.u32()?,
            rebalance_ms: reader.u32()?,
            topics: ascending(
                reader.list(SUBSCRIPTION_TOPICS_MAX, NAME_BYTES_MIN, TopicName::read)?,
                reader,
            )?,
        };
        profile.check().map_err(|_| reader.invalid("a member's profile breaks its limits"))?;
        Ok(profile)
    }
}

impl Heartbeat {
    /// Checks the limits. The edge asks this; the log can't hold what breaks them.
    pub fn check(&self) -> Result<(), InvalidHeartbeat> {
        self.profile.check()?;
        let (topics, partitions) = (self.owned.len(), self.owned.values().map(BTreeSet::len).sum());
        if topics > OWNED_TOPICS_MAX || partitions > GROUPS_MAX {
            return Err(InvalidHeartbeat::OwnsTooMuch { topics, partitions });
        }
        Ok(())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.time.0);
        self.group.write(writer);
        self.member.write(writer);
        self.generation.write(writer);
        self.profile.write(writer);
        writer.count(self.owned.len());
        for (topic, partitions) in &self.owned {
            topic.write(writer);
            writer.count(partitions.len());
            for partition in partitions {
                writer.u32(*partition);
            }
        }
        self.topics.write(writer);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Heartbeat, DecodeError> {
        Ok(Heartbeat {
            time: EntryTime(reader.u64()?),
            group: GroupName::read(reader)?,
            member: MemberId::read(reader)?,
            generation: Generation::read(reader)?,
            profile: MemberProfile::read(reader)?,
            owned: read_owned(reader)?,
            topics: TopicNews::read(reader)?,
        })
    }
}

fn read_owned(reader: &mut Reader) -> Result<TopicPartitions, DecodeError> {
    let mut owned = TopicPartitions::new();
    for _ in 0..reader.count(OWNED_TOPICS_MAX, NAME_BYTES_MIN + 4)? {
        let topic = TopicName::read(reader)?;
        let partitions = reader.list(GROUPS_MAX, 4, Reader::u32)?;
        let partitions = ascending(partitions, reader)?;
        if owned.last_key_value().is_some_and(|(last, _)| *last >= topic) {
            return Err(reader.invalid("topics are not in ascending order"));
        }
        owned.insert(topic, partitions);
    }
    if owned.values().map(BTreeSet::len).sum::<usize>() > GROUPS_MAX {
        return Err(reader.invalid("more partitions than a cluster has"));
    }
    Ok(owned)
}

/// The set of `items`, which must be in order and each there once: one value, one encoding.
pub(super) fn ascending<T: Ord>(
    items: Vec<T>,
    reader: &Reader,
) -> Result<BTreeSet<T>, DecodeError> {
    if items.is_sorted_by(|a, b| a < b) {
        Ok(items.into_iter().collect())
    } else {
        Err(reader.invalid("a set is not in ascending order"))
    }
}

impl TopicNews {
    /// # Panics
    /// Over [`TOPIC_NEWS_MAX`] topics, or for a topic with more than [`TOPIC_PARTITIONS_MAX`]
    /// partitions: they could not be read again.
    pub(super) fn write(&self, writer: &mut Writer) {
        assert!(self.topics.len() <= TOPIC_NEWS_MAX, "news of {} topics", self.topics.len());
        writer.u64(self.metadata_index);
        writer.count(self.topics.len());
        for (topic, fact) in &self.topics {
            topic.write(writer);
            writer.option(fact.as_ref(), |writer, fact| fact.write(writer));
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<TopicNews, DecodeError> {
        let metadata_index = reader.u64()?;
        let mut topics = BTreeMap::new();
        for _ in 0..reader.count(TOPIC_NEWS_MAX, NAME_BYTES_MIN + 1)? {
            let topic = TopicName::read(reader)?;
            if topics.last_key_value().is_some_and(|(last, _)| *last >= topic) {
                return Err(reader.invalid("topics are not in ascending order"));
            }
            topics.insert(topic, reader.option(TopicFact::read)?);
        }
        Ok(TopicNews { metadata_index, topics })
    }
}

impl TopicFact {
    pub(super) fn write(&self, writer: &mut Writer) {
        assert!(self.partitions <= TOPIC_PARTITIONS_MAX, "{} partitions", self.partitions);
        self.id.write(writer);
        writer.u32(self.partitions);
    }

    pub(super) fn read(reader: &mut Reader) -> Result<TopicFact, DecodeError> {
        let fact = TopicFact { id: TopicId::read(reader)?, partitions: reader.u32()? };
        if fact.partitions > TOPIC_PARTITIONS_MAX {
            return Err(reader.invalid("a topic with too many partitions"));
        }
        Ok(fact)
    }
}
