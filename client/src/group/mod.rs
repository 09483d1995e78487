//! Consuming in a group: records of the partitions that the group's coordinator gives this member.
//!
//! Heartbeats have a task of their own ([`heart`]); what they say and learn is decided in one pure
//! place ([`membership`]); how far the member has come is in [`commits`], and [`process`] handles
//! partitions side by side. What the coordinator has to be asked meanwhile are errands
//! ([`errands`]). What the application sees of it happens inside its own calls:
//! partitions come and go only while it waits for a record, when it is done with those it had
//! before.

mod commits;
mod config;
mod errands;
mod error;
mod heart;
mod membership;
mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use quipu_proto::v1;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::commits::Commits;
use self::errands::{Beginning, Done, Errands};
use self::heart::Heart;
use self::membership::{Assigned, Membership};
use self::process::AtWork;
use crate::client::{Client, millis_u32};
use crate::consumer::Consumer;
use crate::error::{CallError, Code, ConnectError, ConsumeError, ErrorCode};
use crate::record::{ConsumedRecord, TopicPartition};

pub use config::{CommitMode, GroupConfig, Listener, PartitionEvent, ResetPolicy};
pub use error::GroupConsumeError;
pub use process::ProcessError;

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
    commits: Arc<Commits>,
    commit_at: Instant,
    errands: Errands,
    /// What the application paused.
    paused: BTreeSet<TopicPartition>,
    /// What [`GroupConsumer::process`] is at work on.
    at_work: AtWork,
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
        let group = config.group.clone();
        let commits = Arc::new(Commits::new(client.clone(), group, Arc::clone(&heart)));
        if let CommitMode::Auto(interval) = config.commit {
            task.spawn(Arc::clone(&commits).commit_every(interval));
        }
        Ok(GroupConsumer {
            client,
            heart,
            task,
            consumer,
            current: Assigned::new(),
            incarnation: 0,
            commits,
            commit_at: Instant::now() + commit_interval(config.commit),
            errands: Errands::default(),
            paused: BTreeSet::new(),
            at_work: AtWork::new(),
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
            self.keep_up()?;
            tokio::select! {
                biased;
                () = self.heart.news.notified() => {}
                () = sleep_until(self.commit_at) => {}
                () = self.errands.ended() => {}
                record = next(&mut self.consumer) => {
                    let record = record?;
                    self.given(&record);
                    return Ok(record);
                }
            }
        }
    }

    /// As [`GroupConsumer::next`]: the next records of one partition, at least one, as many as were
    /// fetched together.
    ///
    /// # Errors
    /// As [`GroupConsumer::next`].
    pub async fn next_batch(&mut self) -> Result<Vec<ConsumedRecord>, GroupConsumeError> {
        loop {
            self.keep_up()?;
            tokio::select! {
                biased;
                () = self.heart.news.notified() => {}
                () = sleep_until(self.commit_at) => {}
                () = self.errands.ended() => {}
                records = next_batch(&mut self.consumer) => {
                    let records = records?;
                    records.last().into_iter().for_each(|last| self.given(last));
                    return Ok(records);
                }
            }
        }
    }

    /// What happens between two records: the assignment is followed, what is due is committed. It
    /// waits for nobody.
    fn keep_up(&mut self) -> Result<(), GroupConsumeError> {
        if let Some(error) = self.heart.ended() {
            self.lose();
            return Err(error.into());
        }
        if self.is_another_membership() {
            self.lose();
        }
        self.take_errands_in()?;
        self.follow_assignment();
        self.commit_what_is_due();
        Ok(())
    }

    fn take_errands_in(&mut self) -> Result<(), GroupConsumeError> {
        while let Some(done) = self.errands.take() {
            match done {
                Done::Found(_, found) => self.begin(found?),
                // Of a lost session the heartbeat tells; what it had is repeated by others.
                Done::Committed(Err(error)) if !is_lost(&error) => return Err(error.into()),
                Done::Committed(_) | Done::GivenUp(_) => {}
            }
        }
        Ok(())
    }

    /// The record was given out.
    fn given(&self, record: &ConsumedRecord) {
        if let CommitMode::Auto(_) = self.config.commit {
            let place = TopicPartition::new(record.topic.clone(), record.partition);
            self.commits.done(&place, record.offset + 1);
        }
    }

    /// The records as a stream; as [`GroupConsumer::next`], asked again and again. After an error
    /// that is not retriable it ends. Dropping it loses no record.
    ///
    /// What the stream is asked for ahead of being handled (`buffered` and the like) counts as
    /// handled: commit with [`CommitMode::Manual`] then, or use [`GroupConsumer::process`].
    ///
    /// ```no_run
    /// # use futures::TryStreamExt as _;
    /// # async fn example(
    /// #     mut consumer: quipu_client::GroupConsumer,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut records = consumer.records();
    /// while let Some(record) = records.try_next().await? {
    ///     println!("{}/{}", record.partition, record.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn records(&mut self) -> BoxStream<'_, Result<ConsumedRecord, GroupConsumeError>> {
        let records = futures::stream::unfold(Some(self), |consumer| async move {
            let consumer = consumer?;
            let next = consumer.next().await;
            let goes_on = next.as_ref().map_or_else(GroupConsumeError::retriable, |_| true);
            Some((next, goes_on.then_some(consumer)))
        });
        Box::pin(records)
    }

    /// Commits everything given out by [`GroupConsumer::next`], the last record included.
    ///
    /// # Errors
    /// The coordinator's refusal: `UNKNOWN_MEMBER` and the like if the session has ended.
    pub async fn commit(&mut self) -> Result<(), GroupConsumeError> {
        self.note_positions();
        Ok(self.commits.commit(None).await?)
    }

    /// What [`GroupConsumer::commit`] would commit now.
    #[must_use]
    pub fn uncommitted(&self) -> Vec<crate::GroupOffset> {
        self.note_positions();
        self.commits.uncommitted()
    }

    /// Member id and generation, as the coordinator knows them. `None`: it is no member yet, or not
    /// any more.
    #[must_use]
    pub fn member(&self) -> Option<(String, i64)> {
        self.heart.membership().committer()
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
        self.consumer.pause(topic, partition)?;
        self.paused.insert(TopicPartition::new(topic, partition));
        Ok(())
    }

    /// Undoes [`GroupConsumer::pause`].
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn resume(&mut self, topic: &str, partition: u32) -> Result<(), ConsumeError> {
        let place = TopicPartition::new(topic, partition);
        self.paused.remove(&place);
        if self.at_work.contains_key(&place) {
            return Ok(());
        }
        self.consumer.resume(topic, partition)
    }

    fn is_paused(&self, topic: &str, partition: u32) -> bool {
        self.paused.iter().any(|it| it.topic == topic && it.partition == partition)
    }

    /// Commits what is processed, unless commits are manual, and leaves: the others have its
    /// partitions at once. With an instance id they stay its own until its session would have
    /// ended. Dropped instead, it leaves them when its session ends.
    ///
    /// # Errors
    /// That of the commit; it leaves nevertheless.
    pub async fn close(mut self) -> Result<(), GroupConsumeError> {
        let committed = if self.commits_itself() { self.commit().await } else { Ok(()) };
        self.leave().await;
        committed
    }

    /// As [`GroupConsumer::close`], without a commit: what is not committed yet is given to others.
    pub async fn leave(mut self) {
        self.task.shutdown().await;
        let farewell = self.heart.membership().farewell();
        if self.heart.membership().committer().is_some() {
            // Whether it arrives or not: the session ends.
            if let Err(error) = self.heart.send(&self.client.shared, farewell).await {
                tracing::debug!(%error, "leaving the group failed; its session will end");
            }
        }
    }

    /// What is consumed belongs to an earlier membership.
    fn is_another_membership(&self) -> bool {
        self.heart.membership().incarnation() != self.incarnation
    }

    /// What is consumed and should not be any more.
    fn revoked(&self) -> Vec<TopicPartition> {
        let membership = self.heart.membership();
        let assigned = membership.assigned();
        let goes = |(place, id): &(&TopicPartition, &Bytes)| assigned.get(*place) != Some(*id);
        self.current.iter().filter(goes).map(|(place, _)| place.clone()).collect()
    }

    /// Makes what is consumed what should be, as far as that needs nobody else, and asks for the
    /// rest. The partitions that stay go on as they were.
    fn follow_assignment(&mut self) {
        let revoked = self.revoked();
        if !revoked.is_empty() {
            self.give_up(revoked);
        }
        let is_new = |place: &TopicPartition| {
            !self.current.contains_key(place) && !self.errands.is_under_way(place)
        };
        let membership = self.heart.membership();
        // Taken away before it was begun.
        let unused: Vec<TopicPartition> =
            membership.going().filter(|place| is_new(place)).cloned().collect();
        let assigned = membership.assigned().iter().filter(|(place, _)| is_new(place));
        let added: Vec<(TopicPartition, Bytes)> =
            assigned.map(|(place, id)| (place.clone(), id.clone())).collect();
        drop(membership);
        if !unused.is_empty() {
            self.commits.hand_over(&unused);
        }
        if !added.is_empty() {
            let (client, group) = (self.client.clone(), self.config.group.clone());
            self.errands.look_for_beginnings(client, group, self.config.start, added);
        }
    }

    /// Ends work on partitions that go to others.
    fn give_up(&mut self, revoked: Vec<TopicPartition>) {
        self.tell(PartitionEvent::Revoked(&revoked));
        self.note_positions();
        self.consumer.remove(&revoked);
        self.paused.retain(|place| !revoked.contains(place));
        self.current.retain(|place, _| !revoked.contains(place));
        if self.commits_itself() {
            self.errands.give_up(Arc::clone(&self.commits), revoked);
        } else {
            self.commits.hand_over(&revoked);
        }
    }

    /// Begins with partitions that are this member's now.
    fn begin(&mut self, beginnings: Vec<Beginning>) {
        let place = |it: &Beginning| it.place.clone();
        let places: Vec<TopicPartition> = beginnings.iter().map(place).collect();
        let offsets = beginnings.iter().map(|it| (it.place.clone(), it.offset)).collect();
        self.consumer.add_found(offsets);
        let is_first = beginnings.iter().any(|it| it.committed.is_none());
        for Beginning { place, topic_id, committed, .. } in beginnings {
            self.commits.begin(place.clone(), topic_id.clone(), committed);
            self.current.insert(place, topic_id);
        }
        if self.commits_itself() && is_first {
            // Or who follows would look for the start anew, perhaps behind what was appended since.
            self.commit_at = self.commit_at.min(Instant::now() + FIRST_COMMIT_WITHIN);
        }
        self.tell(PartitionEvent::Assigned(&places));
    }

    /// Everything is lost; others may be at work on it.
    fn lose(&mut self) {
        let lost: Vec<TopicPartition> = self.current.keys().cloned().collect();
        if !lost.is_empty() {
            self.tell(PartitionEvent::Lost(&lost));
        }
        self.consumer.unassign();
        self.errands = Errands::default();
        self.current.clear();
        self.paused.clear();
        self.at_work.clear();
        self.incarnation = self.heart.membership().incarnation();
        self.commits.begin_anew(self.incarnation);
    }

    /// Takes down what the application is done with.
    fn note_positions(&self) {
        for place in self.current.keys() {
            let offset = match self.at_work.get(place) {
                Some(work) => Some(work.done()),
                None => self.consumer.position(&place.topic, place.partition),
            };
            if let Some(offset) = offset {
                self.commits.done(place, offset);
            }
        }
    }

    fn commits_itself(&self) -> bool {
        self.config.commit != CommitMode::Manual
    }

    fn commit_what_is_due(&mut self) {
        if Instant::now() < self.commit_at {
            return;
        }
        self.commit_at = Instant::now() + commit_interval(self.config.commit);
        if self.commits_itself() {
            self.note_positions();
            self.errands.commit(Arc::clone(&self.commits));
        }
    }

    fn tell(&self, event: PartitionEvent<'_>) {
        if let Some(listener) = &self.config.listener {
            listener.tell(event);
        }
    }
}

async fn next(consumer: &mut Consumer) -> Result<ConsumedRecord, ConsumeError> {
    match consumer.next().await {
        Some(record) => record,
        // Nothing is assigned, or all of it is at work, paused or stopped.
        None => std::future::pending().await,
    }
}

/// As [`next`], of several records.
async fn next_batch(consumer: &mut Consumer) -> Result<Vec<ConsumedRecord>, ConsumeError> {
    match consumer.next_batch().await {
        Some(records) => records,
        None => std::future::pending().await,
    }
}

/// The coordinator says that the partitions are others' now.
fn is_lost(error: &CallError) -> bool {
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
        CommitMode::AfterProcessing(interval) | CommitMode::Auto(interval) => interval,
        CommitMode::Manual => Duration::from_secs(365 * 24 * 60 * 60),
    }
}
