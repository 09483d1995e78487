//! How far a member has come in its partitions, and committing it.
//!
//! One commit at a time: an older one that is repeated must not arrive behind a newer one, which
//! would be refused as going back. All partitions go in one call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quipu_proto::v1;
use quipu_proto::v1::groups_client::GroupsClient;
use tokio::time::sleep;

use super::heart::Heart;
use crate::calls::Target;
use crate::client::Client;
use crate::error::{CallError, ErrorCode};
use crate::groups::GroupOffset;
use crate::record::TopicPartition;

/// What is known of the partitions of one membership.
pub(super) struct Commits {
    client: Client,
    group: String,
    heart: Arc<Heart>,
    ledger: Mutex<Ledger>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Ledger {
    incarnation: u64,
    marks: BTreeMap<TopicPartition, Mark>,
}

/// One partition. Offsets are those of the next record.
#[derive(Debug)]
struct Mark {
    topic_id: Bytes,
    /// What may be committed.
    done: Option<u64>,
    committed: Option<u64>,
}

impl std::fmt::Debug for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commits").field("ledger", &self.ledger()).finish_non_exhaustive()
    }
}

impl Commits {
    pub(super) fn new(client: Client, group: String, heart: Arc<Heart>) -> Commits {
        let turn = tokio::sync::Mutex::new(());
        Commits { client, group, heart, ledger: Mutex::default(), turn }
    }

    /// The partition is this member's, and was committed so far.
    pub(super) fn begin(&self, place: TopicPartition, topic_id: Bytes, committed: Option<u64>) {
        self.ledger().marks.insert(place, Mark { topic_id, done: committed, committed });
    }

    /// Everything before `offset` may be committed.
    pub(super) fn done(&self, place: &TopicPartition, offset: u64) {
        if let Some(mark) = self.ledger().marks.get_mut(place) {
            #[cfg(quipu_zoo)]
            let offset = offset + u64::from(commits_ahead());
            mark.done = Some(offset);
        }
    }

    /// What a commit would send.
    pub(super) fn uncommitted(&self) -> Vec<GroupOffset> {
        let offsets = self.request(None).ok().flatten().map(|(_, offsets)| offsets);
        let offset = |(place, offset): (TopicPartition, u64)| {
            GroupOffset::new(place.topic, place.partition, offset)
        };
        offsets.unwrap_or_default().into_iter().map(offset).collect()
    }

    /// From now on others may have them.
    pub(super) fn hand_over(&self, places: &[TopicPartition]) {
        self.ledger().marks.retain(|place, _| !places.contains(place));
        self.heart.membership().gave_up(places);
        self.heart.report.notify_one();
    }

    /// Another membership begins, without partitions.
    pub(super) fn begin_anew(&self, incarnation: u64) {
        *self.ledger() = Ledger { incarnation, marks: BTreeMap::new() };
    }

    /// Commits what is done of `places`; of all without them.
    pub(super) async fn commit(&self, places: Option<&[TopicPartition]>) -> Result<(), CallError> {
        let _turn = self.turn.lock().await;
        let Some((request, offsets)) = self.request(places)? else { return Ok(()) };
        let target = Target::Coordinator(self.group.clone());
        let shared = &self.client.shared;
        shared
            .call(&target, shared.patience(true), |channel| {
                let request = request.clone();
                async move { GroupsClient::new(channel).commit_offsets(request).await }
            })
            .await?;
        let mut ledger = self.ledger();
        for (place, offset) in offsets {
            if let Some(mark) = ledger.marks.get_mut(&place) {
                mark.committed = Some(offset);
            }
        }
        Ok(())
    }

    /// Commits by itself what is done, again and again. Of a lost session the heartbeats tell.
    pub(super) async fn commit_every(self: Arc<Self>, interval: Duration) {
        loop {
            sleep(interval).await;
            if let Err(error) = self.commit(None).await {
                tracing::debug!(%error, "committed again later");
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "a request and what it is about")]
    fn request(
        &self,
        places: Option<&[TopicPartition]>,
    ) -> Result<Option<(v1::CommitOffsetsRequest, Vec<(TopicPartition, u64)>)>, CallError> {
        let ledger = self.ledger();
        let committer = {
            let membership = self.heart.membership();
            let of_now = membership.incarnation() == ledger.incarnation;
            membership.committer().filter(|_| of_now).map(|by| (by, membership.assigned().clone()))
        };
        let Some(((member_id, generation), assigned)) = committer else {
            return if ledger.marks.is_empty() { Ok(None) } else { Err(not_a_member()) };
        };
        let offsets: Vec<(TopicPartition, u64)> = ledger
            .marks
            .iter()
            .filter(|(place, _)| places.is_none_or(|places| places.contains(place)))
            // A topic that was made again does not take the offsets of the one before.
            .filter(|(place, mark)| assigned.get(*place).is_none_or(|id| *id == mark.topic_id))
            .filter(|(_, mark)| mark.committed != mark.done)
            .filter_map(|(place, mark)| Some((place.clone(), mark.done?)))
            .collect();
        if offsets.is_empty() {
            return Ok(None);
        }
        let request = v1::CommitOffsetsRequest {
            group: self.group.clone(),
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
        Ok(Some((request, offsets)))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Each change leaves it whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
/// Whether this process has the zoo's bug `commits-ahead`.
#[cfg(quipu_zoo)]
fn commits_ahead() -> bool {
    std::env::var("QUIPU_ZOO").is_ok_and(|bug| bug == "commits-ahead")
}
