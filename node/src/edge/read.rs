//! Reading: once, on and on, and looking up offsets.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use quipu_proto::v1;
use tokio::time::Instant;
use tonic::Status;

use super::convert::{FollowWish, PartitionName};
use super::status::Refusal;
use super::{Door, convert, route};
use crate::limits;
use crate::member::Member;
use crate::partition::{FetchQuery, Level, Partition, ReadFailure};

/// The messages of a follow.
pub(super) type Following = BoxStream<'static, Result<v1::FetchResponse, Status>>;

/// Reads once.
pub(super) async fn fetch(
    door: &Door,
    request: &v1::FetchRequest,
) -> Result<v1::FetchResponse, Refusal> {
    let fetched = async {
        let member = door.member()?;
        let wish = convert::fetch(request)?;
        let now = Instant::now();
        let deadline = now + limits::CALL_WITHIN;
        let partition = route::partition(&member, &wish.partition, deadline).await?;
        let query = FetchQuery {
            offset: wish.offset,
            bytes_max: wish.bytes_max,
            bytes_min: wish.bytes_min,
            wait_until: now + wish.wait,
            level: wish.level,
            deadline,
        };
        read(&member, &partition, &wish.partition, query).await
    };
    counted(door, door.unless_stopped(fetched).await)
}

/// Begins to read on and on.
pub(super) async fn follow(
    door: &Arc<Door>,
    request: &v1::FollowRequest,
) -> Result<Following, Refusal> {
    let begun = async {
        let member = door.member()?;
        let wish = convert::follow(request)?;
        let room = door.stream_room()?;
        let deadline = Instant::now() + limits::CALL_WITHIN;
        let partition = route::partition(&member, &wish.partition, deadline).await?;
        let offset = wish.offset;
        let follower = Follower { door: door.clone(), member, partition, wish, offset, told: None };
        Ok((follower, room))
    };
    let (follower, room) = counted(door, begun.await)?;
    // Pulled by HTTP/2: what the client does not take is not read from the log either. An error
    // is the last message.
    let messages = futures::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(message) => Some((Ok(message), Some(follower))),
            Err(refusal) => Some((Err(refusal.into_status()), None)),
        }
    });
    let messages = messages.inspect(move |_| {
        let _kept = &room;
    });
    Ok(messages.boxed())
}

/// Finds an offset by position or time.
pub(super) async fn list_offsets(
    door: &Door,
    request: &v1::ListOffsetsRequest,
) -> Result<v1::ListOffsetsResponse, Refusal> {
    let found = async {
        let member = door.member()?;
        let (name, position, level) = convert::list_offsets(request)?;
        let deadline = Instant::now() + limits::CALL_WITHIN;
        let partition = route::partition(&member, &name, deadline).await?;
        let found = partition.find_offset(position, level, deadline).boxed().await;
        let found = found.map_err(|failure| refused(&member, &partition, &name, &failure))?;
        Ok(convert::offsets_found(found))
    };
    counted(door, door.unless_stopped(found).await)
}

/// One follow.
struct Follower {
    door: Arc<Door>,
    member: Arc<Member>,
    partition: Arc<Partition>,
    wish: FollowWish,
    /// The next offset to send.
    offset: u64,
    /// When the last message went; `None` before the first.
    told: Option<Instant>,
}

impl Follower {
    /// The next message. The first comes at once, also where it is empty: it says that the level
    /// is met. Later ones come with data, or now and then, so that a dead client is found out.
    async fn next(&mut self) -> Result<v1::FetchResponse, Refusal> {
        let message = self.door.clone().unless_stopped(self.read()).await;
        counted(&self.door, message)
    }

    async fn read(&mut self) -> Result<v1::FetchResponse, Refusal> {
        loop {
            let now = Instant::now();
            let (level, wait) = match self.told {
                None => (self.wish.level, Duration::ZERO),
                Some(_) => self.later_level(),
            };
            let query = FetchQuery {
                offset: self.offset,
                bytes_max: self.wish.bytes_max,
                bytes_min: 1,
                wait_until: now + wait,
                level,
                deadline: now + limits::CALL_WITHIN,
            };
            let message = read(&self.member, &self.partition, &self.wish.partition, query).await?;
            let is_due = self.told.is_none_or(|at| at.elapsed() >= limits::FETCH_WAIT_MAX);
            if is_due || !message.record_set.is_empty() {
                self.offset = message.next_offset;
                self.told = Some(Instant::now());
                return Ok(message);
            }
        }
    }

    /// The level of all messages after the first, and how long to wait for one. A bounded follow
    /// looks often whether its bound still holds.
    fn later_level(&self) -> (Level, Duration) {
        match self.wish.level {
            Level::Linearizable | Level::Committed => (Level::Committed, limits::FETCH_WAIT_MAX),
            Level::Bounded(lag) => {
                let often = lag.clamp(limits::FOLLOW_LOOK_MIN, limits::FETCH_WAIT_MAX);
                (self.wish.level, often)
            }
        }
    }
}

async fn read(
    member: &Member,
    partition: &Partition,
    name: &PartitionName,
    query: FetchQuery,
) -> Result<v1::FetchResponse, Refusal> {
    let fetched = partition.fetch(query).boxed().await;
    let fetched = fetched.map_err(|failure| refused(member, partition, name, &failure))?;
    let level = convert::counted(query.level);
    let metrics = &member.metrics().fetch;
    metrics.requests.at(level).inc();
    let bytes = u64::try_from(fetched.record_set.len()).unwrap_or(u64::MAX);
    metrics.bytes.at(level).inc_by(bytes);
    Ok(convert::fetched(fetched, member.label().0))
}

fn refused(
    member: &Member,
    partition: &Partition,
    name: &PartitionName,
    failure: &ReadFailure,
) -> Refusal {
    let leader = match failure {
        ReadFailure::NoLeader { leader } => {
            route::leader_address(member, partition.group(), *leader)
        }
        _ => None,
    };
    Refusal::of_read(failure, &name.to_string(), leader)
}

/// Counts a read that failed.
fn counted<T>(door: &Door, read: Result<T, Refusal>) -> Result<T, Refusal> {
    if let Err(refusal) = &read {
        door.ground.metrics.fetch.errors.at(refusal.code()).inc();
    }
    read
}
