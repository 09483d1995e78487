//! What a member asks of others while it goes on giving out records: where to begin in partitions
//! that are its now, commits of those that it gives up, commits that are due.
//!
//! Each is a task of its own, so that a coordinator that takes long holds up no partition that
//! stays. What comes of one is taken in by [`GroupConsumer`](super::GroupConsumer) between two
//! records.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use super::commits::Commits;
use super::config::ResetPolicy;
use super::error::GroupConsumeError;
use crate::client::Client;
use crate::consumer::{self, StartAt};
use crate::error::CallError;
use crate::groups::GroupOffset;
use crate::record::TopicPartition;

/// Where a member begins in a partition.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) place: TopicPartition,
    pub(super) topic_id: Bytes,
    /// The group's offset, if it has one.
    pub(super) committed: Option<u64>,
    /// The first record to give out.
    pub(super) offset: u64,
}

/// An errand has ended.
#[derive(Debug)]
pub(super) enum Done {
    /// Where to begin in these.
    Found(Vec<TopicPartition>, Result<Vec<Beginning>, GroupConsumeError>),
    /// Others may have these.
    GivenUp(Vec<TopicPartition>),
    /// What was done of all was committed, or not.
    Committed(Result<(), CallError>),
}

/// The errands of one membership.
#[derive(Debug, Default)]
pub(super) struct Errands {
    tasks: JoinSet<Done>,
    /// Has ended and was not taken in yet.
    ended: Option<Done>,
    /// Partitions that a beginning is looked for, or that are given up.
    under_way: BTreeSet<TopicPartition>,
    is_committing: bool,
}

impl Errands {
    /// Nothing new may be begun with the partition yet.
    pub(super) fn is_under_way(&self, place: &TopicPartition) -> bool {
        self.under_way.contains(place)
    }

    /// Looks for the group's offsets, and where there are none for what `start` says.
    pub(super) fn look_for_beginnings(
        &mut self,
        client: Client,
        group: String,
        start: ResetPolicy,
        added: Vec<(TopicPartition, Bytes)>,
    ) {
        let places: Vec<TopicPartition> = added.iter().map(|(place, _)| place.clone()).collect();
        self.under_way.extend(places.iter().cloned());
        self.tasks.spawn(async move {
            let found = beginnings(&client, &group, start, added).await;
            Done::Found(places, found)
        });
    }

    /// Commits what is done of `places` and lets others have them, also while the application is at
    /// work on something else.
    pub(super) fn give_up(&mut self, commits: Arc<Commits>, places: Vec<TopicPartition>) {
        self.under_way.extend(places.iter().cloned());
        self.tasks.spawn(async move {
            // Their next owner repeats what could not be committed.
            if let Err(error) = commits.commit(Some(&places)).await {
                tracing::warn!(%error, "partitions are given up uncommitted");
            }
            commits.hand_over(&places);
            Done::GivenUp(places)
        });
    }

    /// Commits what is done of all partitions, unless that is under way.
    pub(super) fn commit(&mut self, commits: Arc<Commits>) {
        if !self.is_committing {
            self.is_committing = true;
            self.tasks.spawn(async move { Done::Committed(commits.commit(None).await) });
        }
    }

    /// Returns when there is something to take; never while there is no errand.
    pub(super) async fn ended(&mut self) {
        if self.ended.is_some() {
            return;
        }
        match self.tasks.join_next().await {
            Some(joined) => self.ended = Some(done(joined)),
            None => std::future::pending().await,
        }
    }

    /// What has ended, in no order.
    pub(super) fn take(&mut self) -> Option<Done> {
        let ended = self.ended.take().or_else(|| self.tasks.try_join_next().map(done))?;
        match &ended {
            Done::Found(places, _) | Done::GivenUp(places) => {
                self.under_way.retain(|place| !places.contains(place));
            }
            Done::Committed(_) => self.is_committing = false,
        }
        Some(ended)
    }
}

fn done(joined: Result<Done, JoinError>) -> Done {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => unreachable!("nobody ends an errand but by dropping all: {error}"),
    })
}

async fn beginnings(
    client: &Client,
    group: &str,
    start: ResetPolicy,
    added: Vec<(TopicPartition, Bytes)>,
) -> Result<Vec<Beginning>, GroupConsumeError> {
    let places: Vec<TopicPartition> = added.iter().map(|(place, _)| place.clone()).collect();
    let offsets = client.groups().fetch(group, &places).await?;
    let committed = |place: &TopicPartition| {
        let is_it = |it: &&GroupOffset| it.topic == place.topic && it.partition == place.partition;
        offsets.iter().find(is_it).map(|it| it.offset)
    };
    let mut starts = Vec::with_capacity(places.len());
    for place in places {
        let Some(at) = committed(&place).map(StartAt::Offset).or_else(|| start.start()) else {
            let TopicPartition { topic, partition } = place;
            return Err(GroupConsumeError::NoOffset { group: group.to_owned(), topic, partition });
        };
        starts.push((place, at));
    }
    let found = consumer::find_all(client, starts).await?;
    let offsets = found.into_iter().zip(added);
    let beginning = |((place, offset), (_, topic_id))| {
        let committed = committed(&place);
        Beginning { place, topic_id, committed, offset }
    };
    Ok(offsets.map(beginning).collect())
}
