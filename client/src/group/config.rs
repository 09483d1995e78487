//! How a member of a group behaves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::{ConsumerConfig, StartAt};
use crate::error::ConnectError;
use crate::record::TopicPartition;

/// How a [`GroupConsumer`](crate::GroupConsumer) behaves.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group.
    pub group: String,
    /// What it consumes: at least one topic. One that does not exist yet is consumed once it does.
    pub topics: Vec<String>,
    /// A name that this consumer keeps over restarts. A restart within `session_timeout` then
    /// finds its partitions as they were; the newest process of a name takes over from an older
    /// one. Default: none.
    pub instance_id: Option<String>,
    /// For people: which program, where. Default: empty.
    pub client: String,
    /// Silence after which the others get its partitions, 1 s to 30 min. Default: 10 s.
    pub session_timeout: Duration,
    /// Longest time that the application may take for what one call gave it. Beyond it, partitions
    /// that should go to others are taken from it. 1 s to 24 h. Default: 5 min.
    pub max_processing: Duration,
    /// Who commits, and when. Default: by itself, at least every 5 s.
    pub commit: CommitMode,
    /// Where to begin in a partition for which the group has no offset. Default: earliest.
    pub start: ResetPolicy,
    /// What is told of partitions that come and go. Default: nobody.
    pub listener: Option<Listener>,
    /// How it reads.
    pub consumer: ConsumerConfig,
}

/// When the group's offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// By itself, for records that the application is done with: it has asked for the next one.
    /// When a partition is given up, when the consumer is closed, and else in such intervals.
    AfterProcessing(Duration),
    /// By itself, in the background in such intervals, for all records given out, also those that
    /// the application is still at work on: a crash may leave those out.
    Auto(Duration),
    /// Only when [`GroupConsumer::commit`](crate::GroupConsumer::commit) is called.
    Manual,
}

/// Where a group begins in a partition for which it has no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetPolicy {
    /// The first record kept.
    Earliest,
    /// The next record appended.
    Latest,
    /// The first record that the leader stamped at or after this time, milliseconds since 1970.
    EntryTime(u64),
    /// The first record whose own timestamp is at or after this time, milliseconds since 1970.
    EventTime(i64),
    /// Nowhere: [`GroupConsumeError::NoOffset`](crate::GroupConsumeError::NoOffset).
    None,
}

impl ResetPolicy {
    pub(super) fn start(self) -> Option<StartAt> {
        match self {
            ResetPolicy::Earliest => Some(StartAt::Earliest),
            ResetPolicy::Latest => Some(StartAt::Latest),
            ResetPolicy::EntryTime(ms) => Some(StartAt::EntryTime(ms)),
            ResetPolicy::EventTime(ms) => Some(StartAt::EventTime(ms)),
            ResetPolicy::None => None,
        }
    }
}

/// What happens to partitions of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionEvent<'a> {
    /// Its own from now on; their first records come after this.
    Assigned(&'a [TopicPartition]),
    /// Going to others. Everything given out before is counted as processed and is committed after
    /// this, unless commits are manual.
    Revoked(&'a [TopicPartition]),
    /// Taken away: the session had ended. Others may be at work on them already.
    Lost(&'a [TopicPartition]),
}

/// Is called from within [`GroupConsumer::next`](crate::GroupConsumer::next).
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(PartitionEvent<'_>) + Send + Sync>);

impl Listener {
    /// Calls `listen` for each event.
    pub fn new(listen: impl Fn(PartitionEvent<'_>) + Send + Sync + 'static) -> Listener {
        Listener(Arc::new(listen))
    }

    pub(super) fn tell(&self, event: PartitionEvent<'_>) {
        (self.0)(event);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl GroupConfig {
    /// The defaults, for a group and its topics.
    pub fn new<T: Into<String>>(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = T>,
    ) -> GroupConfig {
        GroupConfig {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance_id: None,
            client: String::new(),
            session_timeout: Duration::from_secs(10),
            max_processing: Duration::from_secs(5 * 60),
            commit: CommitMode::AfterProcessing(Duration::from_secs(5)),
            start: ResetPolicy::Earliest,
            listener: None,
            consumer: ConsumerConfig::default(),
        }
    }

    /// Checks that the configuration makes sense. What else is wrong with it the cluster says.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`] names the first field that does not.
    pub fn validate(&self) -> Result<(), ConnectError> {
        self.consumer.validate()?;
        let wrong = [
            ("group: empty", self.group.is_empty()),
            ("topics: none", self.topics.is_empty()),
            ("instance_id: empty", self.instance_id.as_ref().is_some_and(String::is_empty)),
            ("session_timeout: below a second", self.session_timeout < Duration::from_secs(1)),
            ("max_processing: below a second", self.max_processing < Duration::from_secs(1)),
            ("commit: zero", self.commit == CommitMode::AfterProcessing(Duration::ZERO)),
            ("commit: zero", self.commit == CommitMode::Auto(Duration::ZERO)),
        ];
        match wrong.iter().find(|(_, is_wrong)| *is_wrong) {
            Some((what, _)) => Err(ConnectError::InvalidConfig((*what).to_owned())),
            None => Ok(()),
        }
    }
}
