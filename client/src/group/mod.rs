//! Consuming in a group: records of the partitions that the group's coordinator gives this member.
//!
//! Heartbeats have a task of their own ([`heart`]); what they say and learn is decided in one pure
//! place ([`membership`]). What the application sees of it happens inside its own calls: partitions
//! come and go only while it waits for a record, when it is done with those it had before.

mod config;
mod heart;
mod membership;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quipu_proto::v1;
use quipu_proto::v1::groups_client::GroupsClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::heart::Heart;
use self::membership::{Assigned, Membership};
use crate::calls::Target;
use crate::client::{Client, millis_u32};
use crate::consumer::{Consumer, StartAt};
use crate::error::{CallError, Code, ConnectError, ConsumeError, ErrorCode, GroupError, Outcome};
use crate::record::{ConsumedRecord, TopicPartition};

pub use config::{CommitMode, GroupConfig, Listener, PartitionEvent};

/// A first offset is committed so soon.
const FIRST_COMMIT_WITHIN: Duration = Duration::from_millis(100);

/// Consumes topics together with the other members of a group.
///
/// Each partition is with one member at a time. Records are given at least once, from the group's
/// offset on; a member that crashed between handling a record and committing it leaves it to the
/// next owner.
///
/// ```no_run
/// # use quipu_client::{Client, GroupConfig};
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = client.group_consumer(GroupConfig::new("billing", ["orders"]))?;
/// for _ in 0..100 {
///     let record = consumer.next().await?;
///     println!("{}/{}: {:?}", record.partition, record.offset, record.value);
/// }
/// consumer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    heart: Arc<Heart>,
    /// Ends the heartbeats when it is dropped.
    task: JoinSet<()>,
    consumer: Consumer,
    /// What is being consumed, and of which membership.
    current: Assigned,
    incarnation: u64,
    /// Where to go on in what was consumed, and what of it is committed.
    positions: BTreeMap<TopicPartition, u64>,
    committed: BTreeMap<TopicPartition, u64>,
    commit_at: Instant,
    /// The inner consumer does not read what is `current`.
    stale: bool,
}

/// Why no record is given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GroupConsumeError {
    /// A partition can't be read; the others go on.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// The group's coordinator refused, or can't be asked.
    #[error(transparent)]
    Group(#[from] GroupError),
}

impl GroupConsumeError {
    /// What happened.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            GroupConsumeError::Consume(error) => error.code(),
            GroupConsumeError::Group(error) => error.code(),
        }
    }

    /// Whether it may have happened all the same.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            GroupConsumeError::Consume(error) => error.outcome(),
            GroupConsumeError::Group(error) => error.outcome(),
        }
    }

    /// The same call may succeed later without a change.
    #[must_use]
    pub fn retriable(&self) -> bool {
        match self {
            GroupConsumeError::Consume(error) => error.retriable(),
            GroupConsumeError::Group(error) => error.retriable(),
        }
    }
}

impl From<CallError> for GroupConsumeError {
    fn from(error: CallError) -> GroupConsumeError {
        GroupConsumeError::Group(GroupError::Call(error))
    }
}

impl GroupConsumer {
    pub(crate) fn start(
        client: Client,
        config: GroupConfig,
    ) -> Result<GroupConsumer, ConnectError> {
        config.validate()?;
        let consumer = client.consumer(config.consumer.clone())?;
        let said = v1::GroupHeartbeatRequest {
            group: config.group.clone(),
            member_id: format!("{:032x}", client.shared.fork_rng().u128(..)),
            instance_id: config.instance_id.clone().unwrap_or_default(),
            client: config.client.clone(),
            session_timeout_ms: millis_u32(config.session_timeout),
            rebalance_timeout_ms: millis_u32(config.max_processing),
            topics: config.topics.clone(),
            max_wait_ms: millis_u32(config.session_timeout / 3),
            ..v1::GroupHeartbeatRequest::default()
        };
        let heart = Arc::new(Heart::new(&config.group, Membership::new(said)));
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&heart).beat(client.clone()));
        Ok(GroupConsumer {
            client,
            heart,
            task,
            consumer,
            current: Assigned::new(),
            incarnation: 0,
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            commit_at: Instant::now() + commit_interval(config.commit),
            stale: false,
            config,
        })
    }

    /// The next record. Asking for it says that the application is done with those before, so with
    /// [`CommitMode::AfterProcessing`] they may be committed.
    ///
    /// Dropping the future loses no record.
    ///
    /// # Errors
    /// A partition that can't be read, or the coordinator's refusal. After an error that is
    /// [retriable](GroupConsumeError::retriable) asking again goes on. A member that another
    /// process with its instance id has replaced is refused for good.
    pub async fn next(&mut self) -> Result<ConsumedRecord, GroupConsumeError> {
        loop {
            if let Some(error) = self.heart.ended() {
                self.lose();
                return Err(error.into());
            }
            self.follow_assignment().await?;
            if Instant::now() >= self.commit_at {
                self.commit_by_itself().await?;
            }
            let consumer = &mut self.consumer;
            let record = async {
                match consumer.next().await {
                    Some(record) => record,
                    // Nothing is assigned, or all of it is paused or stopped.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.heart.news.notified() => {}
                () = sleep_until(self.commit_at) => {}
                record = record => return Ok(record?),
            }
        }
    }

    /// Commits everything given out by [`GroupConsumer::next`], the last record included.
    ///
    /// # Errors
    /// The coordinator's refusal: `UNKNOWN_MEMBER` and the like if the session has ended.
    pub async fn commit(&mut self) -> Result<(), GroupConsumeError> {
        let places: Vec<TopicPartition> = self.current.keys().cloned().collect();
        self.commit_for(&places).await
    }

    /// What this member consumes, in order.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.current.keys().cloned().collect()
    }

    /// The offset after the last record given out of a partition. `None`: it is not this member's.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.consumer.position(topic, partition)
    }

    /// Gives out nothing of the partition until [`GroupConsumer::resume`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn pause(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        self.consumer.pause(topic, partition)
    }

    /// Undoes [`GroupConsumer::pause`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        self.consumer.resume(topic, partition)
    }

    /// Commits what is processed, unless commits are manual, and leaves: the others have its
    /// partitions at once. With an instance id they stay its own until its session would have
    /// ended. Dropped instead, it leaves them when its session ends.
    ///
    /// # Errors
    /// That of the commit; it leaves nevertheless.
    pub async fn close(mut self) -> Result<(), GroupConsumeError> {
        let committed = match self.config.commit {
            CommitMode::AfterProcessing(_) => self.commit().await,
            CommitMode::Manual => Ok(()),
        };
        self.task.shutdown().await;
        let farewell = self.heart.membership().farewell();
        if self.heart.membership().committer().is_some() {
            // Whether it arrives or not: the session ends.
            if let Err(error) = self.heart.send(&self.client.shared, farewell).await {
                tracing::debug!(%error, "leaving the group failed; its session will end");
            }
        }
        committed
    }

    /// Makes what is consumed what should be.
    async fn follow_assignment(&mut self) -> Result<(), GroupConsumeError> {
        let (incarnation, assigned) = {
            let membership = self.heart.membership();
            (membership.incarnation(), membership.assigned().clone())
        };
        if incarnation != self.incarnation {
            self.lose();
            self.incarnation = incarnation;
        }
        if assigned == self.current && !self.stale {
            return Ok(());
        }
        let is_kept = |(place, id): &(&TopicPartition, &Bytes)| assigned.get(*place) == Some(*id);
        let revoked: Vec<TopicPartition> =
            self.current.iter().filter(|it| !is_kept(it)).map(|(place, _)| place.clone()).collect();
        if !revoked.is_empty() {
            self.give_up(&revoked).await?;
        }
        let added: Vec<TopicPartition> =
            assigned.keys().filter(|place| !self.current.contains_key(*place)).cloned().collect();
        self.begin(&added, assigned).await
    }

    /// Ends work on partitions that go to others.
    async fn give_up(&mut self, revoked: &[TopicPartition]) -> Result<(), GroupConsumeError> {
        self.tell(PartitionEvent::Revoked(revoked));
        if let CommitMode::AfterProcessing(_) = self.config.commit {
            match self.commit_for(revoked).await {
                Ok(()) => {}
                // Its next owner repeats what could not be committed.
                Err(error) => tracing::warn!(%error, "partitions are given up uncommitted"),
            }
        }
        self.note_positions();
        for place in revoked {
            self.current.remove(place);
            self.positions.remove(place);
            self.committed.remove(place);
        }
        self.restart().await?;
        self.heart.membership().gave_up(revoked);
        self.heart.report.notify_one();
        Ok(())
    }

    /// Begins with partitions that are this member's now.
    async fn begin(
        &mut self,
        added: &[TopicPartition],
        assigned: Assigned,
    ) -> Result<(), GroupConsumeError> {
        self.note_positions();
        let offsets = match added {
            [] => Vec::new(),
            added => self.client.groups().fetch(&self.config.group, added).await?,
        };
        for offset in offsets {
            let place = TopicPartition { topic: offset.topic, partition: offset.partition };
            self.positions.insert(place.clone(), offset.offset);
            self.committed.insert(place, offset.offset);
        }
        let before = std::mem::replace(&mut self.current, assigned);
        if let Err(error) = self.restart().await {
            // Tried again by the next call.
            self.current = before;
            return Err(error);
        }
        let commits_itself = self.config.commit != CommitMode::Manual;
        if commits_itself && added.iter().any(|place| !self.committed.contains_key(place)) {
            // Or who follows would look for the start anew, perhaps behind what was appended since.
            self.commit_at = self.commit_at.min(Instant::now() + FIRST_COMMIT_WITHIN);
        }
        if !added.is_empty() {
            self.tell(PartitionEvent::Assigned(added));
        }
        Ok(())
    }

    /// Reads what is consumed, each partition from where it was.
    async fn restart(&mut self) -> Result<(), GroupConsumeError> {
        let start = |place: &TopicPartition| {
            self.positions.get(place).map_or(self.config.start, |at| StartAt::Offset(*at))
        };
        let places = self.current.keys();
        let places = places.map(|it| (it.topic.clone(), it.partition, start(it))).collect();
        self.stale = true;
        self.consumer.assign(places).await?;
        self.stale = false;
        Ok(())
    }

    /// Everything is lost; others may be at work on it.
    fn lose(&mut self) {
        let lost: Vec<TopicPartition> = self.current.keys().cloned().collect();
        if !lost.is_empty() {
            self.tell(PartitionEvent::Lost(&lost));
        }
        self.consumer.unassign();
        self.stale = false;
        self.current.clear();
        self.positions.clear();
        self.committed.clear();
    }

    fn note_positions(&mut self) {
        // What is not read has no position but the one noted before.
        for place in self.current.keys().filter(|_| !self.stale) {
            if let Some(offset) = self.consumer.position(&place.topic, place.partition) {
                self.positions.insert(place.clone(), offset);
            }
        }
    }

    async fn commit_by_itself(&mut self) -> Result<(), GroupConsumeError> {
        self.commit_at = Instant::now() + commit_interval(self.config.commit);
        if self.config.commit == CommitMode::Manual {
            return Ok(());
        }
        match self.commit().await {
            // Of a lost session the heartbeat tells; what it had is repeated by others.
            Err(error) if is_lost(&error) => Ok(()),
            outcome => outcome,
        }
    }

    async fn commit_for(&mut self, places: &[TopicPartition]) -> Result<(), GroupConsumeError> {
        self.note_positions();
        let committer = {
            let membership = self.heart.membership();
            let of_now = membership.incarnation() == self.incarnation;
            membership.committer().filter(|_| of_now).map(|by| (by, membership.assigned().clone()))
        };
        let Some(((member_id, generation), assigned)) = committer else {
            return if self.current.is_empty() { Ok(()) } else { Err(not_a_member().into()) };
        };
        let offsets: Vec<(TopicPartition, u64)> = places
            .iter()
            // A topic that was made again does not take the offsets of the one before.
            .filter(|place| {
                assigned.get(*place).is_none_or(|id| self.current.get(*place) == Some(id))
            })
            .filter(|place| self.committed.get(*place) != self.positions.get(*place))
            .filter_map(|place| Some((place.clone(), *self.positions.get(place)?)))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let request = v1::CommitOffsetsRequest {
            group: self.config.group.clone(),
            offsets: offsets
                .iter()
                .map(|(place, offset)| v1::GroupOffset {
                    topic: place.topic.clone(),
                    partition: place.partition,
                    offset: *offset,
                    ..v1::GroupOffset::default()
                })
                .collect(),
            timeout_ms: self.client.shared.request_timeout_ms(),
            member_id,
            generation,
            ..v1::CommitOffsetsRequest::default()
        };
        let shared = &self.client.shared;
        let target = Target::Coordinator(self.config.group.clone());
        shared
            .call(&target, shared.patience(true), |channel| {
                let request = request.clone();
                async move { GroupsClient::new(channel).commit_offsets(request).await }
            })
            .await?;
        self.committed.extend(offsets);
        Ok(())
    }

    fn tell(&self, event: PartitionEvent<'_>) {
        if let Some(listener) = &self.config.listener {
            listener.tell(event);
        }
    }
}

/// What the coordinator would say, if it were asked under the old member id.
fn not_a_member() -> CallError {
    CallError::of_node(v1::Error {
        code: ErrorCode::UnknownMember.into(),
        outcome: v1::Outcome::Definite.into(),
        message: "the session has ended; what was not committed is given to others".to_owned(),
        ..v1::Error::default()
    })
}

/// The coordinator says that the partitions are others' now.
fn is_lost(error: &GroupConsumeError) -> bool {
    let codes = [
        ErrorCode::UnknownMember,
        ErrorCode::UnknownGroup,
        ErrorCode::GroupMemberFenced,
        ErrorCode::GroupInstanceFenced,
        ErrorCode::PartitionNotOwned,
    ];
    codes.map(Code::Server).contains(&error.code())
}

/// Manual commits are never due.
fn commit_interval(mode: CommitMode) -> Duration {
    match mode {
        CommitMode::AfterProcessing(interval) => interval,
        CommitMode::Manual => Duration::from_secs(365 * 24 * 60 * 60),
    }
}
