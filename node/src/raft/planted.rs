//! Bugs of the zoo whose code would not fit into a line: see `node_core::zoo`.

use std::time::Duration;

use node_core::position::RaftPosition;
use node_core::zoo::{self, Bug};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{AppendEntriesRequest, ReadPolicy};

use super::group::{RaftFailure, RaftGroup};
use super::log_store::GroupLog;
use super::types::{Types, log_id, term_of};

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

/// [`Bug::PrevTermUnchecked`]: whatever entry is at the index before the append, it will do.
pub(super) fn trusting_the_index(
    log: &GroupLog,
    mut request: AppendEntriesRequest<Types>,
) -> AppendEntriesRequest<Types> {
    if zoo::is(Bug::PrevTermUnchecked)
        && let Some(prev) = request.prev_log_id
        && let Ok(Some(own)) = log.read_whole(prev.index())
    {
        request.prev_log_id = Some(log_id(own.term, prev.index()));
    }
    request
}
