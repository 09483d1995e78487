//! What other replicas ask of this one: appends, votes, snapshots, leadership, read index, entries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt};
use node_core::ids::GroupId;
use node_core::zoo::{self, Bug};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use quipu_proto::peer::v1 as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::group::{RaftFailure, RaftGroup, Role};
use super::log_store::{committed_end, purged_end, stored_entry};
use super::types::{LogId, Snapshot, SnapshotMeta, Vote};
use super::wire::{self, Malformed};
use crate::limits;
use crate::storage::Engine;

/// Why a call from another replica is not answered with its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Raft(#[from] RaftFailure),
    #[error("entry {0} is not known to be committed here")]
    NotCommitted(u64),
    /// It went with the log's beginning.
    #[error("entry {0} is not kept any more")]
    Purged(u64),
    #[error("entry {0} can't be read: {1}")]
    Unreadable(u64, String),
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Raft(RaftFailure::Stopped(error.to_string()))
}

/// What a request counts for among the unanswered bytes of its stream.
fn permits_of(request: &pb::AppendEntriesRequest) -> u32 {
    let bytes: usize = request.entries.iter().map(|entry| entry.payload.len()).sum();
    u32::try_from(bytes.clamp(1, limits::APPEND_STREAM_BYTES_MAX)).unwrap_or(u32::MAX)
}

impl RaftGroup {
    /// Answers a stream of appends, in order. A malformed request ends it. No more of it is read
    /// while [`limits::APPEND_STREAM_BYTES_MAX`] are unanswered, or while the log writer has no
    /// room: openraft itself takes all that comes, and a leader that is faster than this disk would
    /// fill the memory.
    pub(crate) fn serve_appends(
        &self,
        requests: impl Stream<Item = pb::AppendEntriesRequest> + Send + 'static,
    ) -> impl Stream<Item = Result<pb::AppendEntriesResponse, Refusal>> + Send + 'static {
        let room = Arc::new(Semaphore::new(limits::APPEND_STREAM_BYTES_MAX));
        let unanswered: Arc<Mutex<VecDeque<OwnedSemaphorePermit>>> = Arc::default();
        let held = unanswered.clone();
        let log = self.log().clone();
        let requests = requests.then(move |request| {
            let (room, held, log) = (room.clone(), held.clone(), log.clone());
            async move {
                if let Ok(permit) = room.acquire_many_owned(permits_of(&request)).await {
                    held.lock().unwrap_or_else(PoisonError::into_inner).push_back(permit);
                }
                // A disk that can't keep up holds back its leaders' streams, never the group's
                // core, in which votes and heartbeats would wait. One that has failed is the end
                // of the process.
                if !request.entries.is_empty()
                    && let Err(error) = log.room().await
                {
                    tracing::debug!(%error, "an append is taken in although nothing is written");
                }
                request
            }
        });
        let requests = requests.map(wire::append_from_pb);
        let requests = requests.take_while(|request| {
            if let Err(malformed) = request {
                tracing::warn!(%malformed, "append stream ended");
            }
            futures::future::ready(request.is_ok())
        });
        let requests = requests.filter_map(|request| futures::future::ready(request.ok()));
        #[cfg(quipu_zoo)]
        let requests = requests.map({
            let log = self.log().clone();
            move |request| super::planted::trusting_the_index(&log, request)
        });
        self.raft().stream_append(requests).map(move |answer| {
            drop(unanswered.lock().unwrap_or_else(PoisonError::into_inner).pop_front());
            match answer {
                Ok(result) => Ok(wire::append_result_to_pb(result)),
                Err(fatal) => Err(stopped(fatal)),
            }
        })
    }

    /// Answers one append, as a heartbeat is.
    pub(crate) async fn serve_append(
        &self,
        request: pb::AppendEntriesRequest,
    ) -> Result<pb::AppendEntriesResponse, Refusal> {
        let requests = futures::stream::iter([request]);
        let mut answers = std::pin::pin!(self.serve_appends(requests));
        answers.next().await.unwrap_or(Err(Refusal::Malformed(Malformed("append"))))
    }

    pub(crate) async fn serve_vote(
        &self,
        request: pb::VoteRequest,
    ) -> Result<pb::VoteResponse, Refusal> {
        let pre_vote = request.pre_vote;
        let request = wire::vote_request_from_pb(request)?;
        let theirs = request.last_log_id;
        let response = if pre_vote {
            self.raft().pre_vote(request).await
        } else {
            self.raft().vote(request).await
        };
        let response = response.map_err(stopped)?;
        if !response.vote_granted && theirs < response.last_log_id {
            let group = self.group();
            tracing::debug!(%group, "a vote is refused: the candidate's log is shorter");
        }
        Ok(wire::vote_response_to_pb(&response))
    }

    pub(crate) async fn serve_transfer(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> Result<(), Refusal> {
        let from = wire::vote_from_pb(request.from)?;
        let last = wire::log_id_from_pb_option(request.last)?;
        let request = TransferLeaderRequest::new(from, request.to_replica, last);
        // A target that is not ready answers so; the leader hears of it by the election that fails.
        drop(self.raft().handle_transfer_leader(request).await.map_err(stopped)?);
        Ok(())
    }

    pub(crate) async fn serve_snapshot(
        &self,
        request: pb::InstallSnapshotRequest,
    ) -> Result<pb::InstallSnapshotResponse, Refusal> {
        let vote = wire::vote_from_pb(request.vote)?;
        let membership_at = wire::log_id_from_pb_option(request.membership_log_id)?;
        let last_log_id = wire::log_id_from_pb_option(request.last)?;
        // openraft panics on a snapshot from beyond its sender's reign; strangers' bytes must not.
        if last_log_id
            .as_ref()
            .is_some_and(|last| super::types::term_of(last) > vote.leader_id.term)
        {
            return Err(Malformed("snapshot: newer than its leader").into());
        }
        if let Some(last) = last_log_id
            && !zoo::is(Bug::LateSnapshotInstalled)
            && self.has_from(&vote, last).await
        {
            return Ok(pb::InstallSnapshotResponse { vote: Some(wire::vote_to_pb(&vote)) });
        }
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id,
                last_membership: wire::stored_membership(membership_at, &request.membership)?,
            },
            snapshot: request.data,
        };
        let response = self.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(pb::InstallSnapshotResponse { vote: Some(wire::vote_to_pb(&response.vote)) })
    }

    /// The sender of a snapshot leads this replica, whose log has the snapshot's last entry. The
    /// snapshot has come late, and the log that follows is kept (Raft paper, figure 13, step 6):
    /// openraft would count what is stored back to the snapshot's end, which its debug builds
    /// refuse by a panic.
    async fn has_from(&self, vote: &Vote, last: LogId) -> bool {
        let leads = self.raft().metrics().borrow_watched().vote == *vote;
        leads && self.log().read_one(last.index()).await.is_ok_and(|entry| entry.log_id == last)
    }

    pub(crate) async fn serve_read_index(&self) -> Result<pb::ReadIndexResponse, Refusal> {
        let position = self.read_index().await?;
        let log_id = pb::LogId { term: position.term, index: position.index };
        Ok(pb::ReadIndexResponse { log_id: Some(log_id) })
    }

    /// Gives a committed entry to a replica whose own copy is damaged.
    pub(crate) fn serve_entry(&self, index: u64) -> Result<pb::ReadEntryResponse, Refusal> {
        // What is not applied here may still be another entry than the asker's.
        if *self.applied_end().borrow() <= index {
            return Err(Refusal::NotCommitted(index));
        }
        if self.log().is_purged(index) {
            return Err(Refusal::Purged(index));
        }
        let unreadable = |why: String| Refusal::Unreadable(index, why);
        let stored = self.log().read_whole(index).map_err(|error| unreadable(error.to_string()))?;
        let stored = stored.ok_or_else(|| unreadable("it is not in the log".to_owned()))?;
        Ok(pb::ReadEntryResponse { entry: Some(wire::stored_to_pb(index, stored)) })
    }

    /// What this node tells the others of a group: set only while this replica leads it.
    pub(crate) fn lead(&self) -> Option<pb::GroupLead> {
        let brief = self.brief();
        if brief.role != Role::Leader {
            return None;
        }
        let age = brief.quorum_age.map(|age| u32::try_from(age.as_millis()).unwrap_or(u32::MAX));
        Some(pb::GroupLead {
            group: self.group().0,
            term: brief.term,
            replica: self.replica().0,
            commit: brief.committed_index.unwrap_or(0),
            quorum_age_ms: match brief.committed_in_term {
                true if brief.sole_voter => Some(0),
                true => age,
                false => None,
            },
        })
    }
}

/// Gives a committed entry out of a log that is not open: two replicas that both wait for a repair
/// would else wait for each other.
pub(crate) fn serve_stored_entry(
    engine: &dyn Engine,
    group: GroupId,
    index: u64,
) -> Result<pb::ReadEntryResponse, Refusal> {
    if committed_end(engine, group) <= index {
        return Err(Refusal::NotCommitted(index));
    }
    if purged_end(engine, group) > index {
        return Err(Refusal::Purged(index));
    }
    let unreadable = |why: String| Refusal::Unreadable(index, why);
    let stored = stored_entry(engine, group, index).map_err(|it| unreadable(it.to_string()))?;
    let stored = stored.ok_or_else(|| unreadable("it is not in the log".to_owned()))?;
    Ok(pb::ReadEntryResponse { entry: Some(wire::stored_to_pb(index, stored)) })
}

/// The entry another replica gave for a repair.
pub(crate) fn entry_for_repair(
    response: pb::ReadEntryResponse,
) -> Result<(u64, crate::storage::entry::StoredEntry), Malformed> {
    let entry = wire::entry_from_pb(response.entry.ok_or(Malformed("entry"))?)?;
    Ok((entry.log_id.index(), wire::entry_to_stored(&entry)))
}
