//! Bugs of the zoo whose code would not fit into a line: see `node_core::zoo`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node_core::position::RaftPosition;
use node_core::zoo::{self, Bug};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{AppendEntriesRequest, ReadPolicy, StreamAppendError, StreamAppendResult};

use super::group::{RaftFailure, RaftGroup};
use super::log_store::GroupLog;
use super::types::{LogId, Types, log_id, term_of};
use super::wire;

impl RaftGroup {
    /// The read index as [`Bug::ReadWithoutQuorum`], [`Bug::LongLease`] and
    /// [`Bug::ReadBeforeOwnTerm`] give it.
    pub(super) async fn planted_read_index(&self) -> Option<Result<RaftPosition, RaftFailure>> {
        let known = self.committed_position();
        let heard_within = |lease: Duration| self.brief().quorum_age.is_some_and(|age| age < lease);
        if zoo::is(Bug::ReadWithoutQuorum)
            || zoo::is(Bug::LongLease) && heard_within(Duration::from_secs(5))
        {
            return Some(Ok(known));
        }
        if zoo::is(Bug::ReadBeforeOwnTerm) {
            let confirmed = self.raft().get_read_linearizer(ReadPolicy::ReadIndex).await;
            return Some(confirmed.map(|_| known).map_err(|_| RaftFailure::NoQuorum));
        }
        None
    }

    /// What this replica knows to be committed.
    fn committed_position(&self) -> RaftPosition {
        let metrics = self.raft().metrics();
        let committed = metrics.borrow_watched().local_committed;
        committed.map_or(RaftPosition { term: 0, index: 0 }, |at| RaftPosition {
            term: term_of(&at),
            index: at.index(),
        })
    }
}

/// [`Bug::TermsUncompared`]: whatever entries are at the indexes of an append, they will do.
pub(super) fn trusting_the_index(
    log: &GroupLog,
    mut request: AppendEntriesRequest<Types>,
) -> AppendEntriesRequest<Types> {
    if !zoo::is(Bug::TermsUncompared) {
        return request;
    }
    let own = |index: u64| log.read_whole(index).ok().flatten();
    if let Some(prev) = request.prev_log_id.as_mut()
        && let Some(own) = own(prev.index())
    {
        *prev = log_id(own.term, prev.index());
    }
    for entry in &mut request.entries {
        let index = entry.log_id.index();
        if let Some(Ok(own)) = own(index).map(|own| wire::entry_from_stored(index, own)) {
            *entry = own;
        }
    }
    request
}

/// [`Bug::ConflictCounted`]: what was sent to one follower, to be counted whatever it answers.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Mutex<VecDeque<Option<LogId>>>>);

impl Sent {
    /// A request goes out.
    pub(super) fn note(&self, request: &AppendEntriesRequest<Types>) {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(last);
    }

    /// The answer to the first of them that has none.
    pub(super) fn count(&self, answer: StreamAppendResult<Types>) -> StreamAppendResult<Types> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        match answer {
            Err(StreamAppendError::Conflict(_)) if zoo::is(Bug::ConflictCounted) => Ok(last),
            answer => answer,
        }
    }
}
