//! Ends a stream of entries to a replica that can't be given them any more.
//!
//! openraft lets a leader purge what a replica still needs once a stream to that replica has
//! failed. A stream that was begun since may then read where nothing is any more: it sends a
//! request without entries every 10 ms for ever, never looks whether there is something else to
//! send, and the replica stays behind (openraft 0.10.0-alpha.37, `replication/stream_state.rs`;
//! found by the simulator, plan `stream-behind-the-purged-log.json`). An error ends it, and
//! openraft begins anew with a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;

use super::types::{LogId, Types};

type Request = AppendEntriesRequest<Types>;

/// Whether a stream ended because the replica has fallen behind the log's beginning.
#[derive(Debug, Clone, Default)]
pub(super) struct Fallen(Arc<AtomicBool>);

impl Fallen {
    /// Passes requests on, up to the first one that carries nothing because what it should carry
    /// is purged.
    pub(super) fn watch<S, P>(self, requests: S, is_purged: P) -> impl Stream<Item = Request> + Send
    where
        S: Stream<Item = Request> + Send + Unpin,
        P: Fn(u64) -> bool + Send,
    {
        futures::stream::unfold(
            (requests, is_purged, self),
            async |(mut requests, is_purged, it)| {
                let request: Request = requests.next().await?;
                let next = request.prev_log_id.as_ref().map_or(0, |prev: &LogId| prev.index() + 1);
                if request.entries.is_empty() && is_purged(next) {
                    it.0.store(true, Ordering::Relaxed);
                    return None;
                }
                Some((request, (requests, is_purged, it)))
            },
        )
    }

    /// It ended for that.
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::raft::types::{Vote, log_id};
    use crate::raft::wire;
    use crate::storage::entry::{EntryKind, StoredEntry};

    fn request(prev: u64, entries: u64) -> Request {
        let stored = || StoredEntry { term: 1, kind: EntryKind::Blank, payload: Bytes::new() };
        let entry = |index| wire::entry_from_stored(index, stored()).expect("an entry");
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(1, prev)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
            leader_commit: None,
        }
    }

    async fn passed(requests: Vec<Request>, purged: u64) -> (usize, bool) {
        let fallen = Fallen::default();
        let requests = futures::stream::iter(requests);
        let passed = fallen.clone().watch(requests, |index| index <= purged).count().await;
        (passed, fallen.is_so())
    }

    #[tokio::test]
    async fn a_stream_whose_entries_are_purged_ends_for_that() {
        let stuck = || vec![request(3, 2), request(5, 0), request(5, 0)];
        assert_eq!(passed(stuck(), 9).await, (1, true));
        assert_eq!(passed(stuck(), 6).await, (1, true));
    }

    #[tokio::test]
    async fn one_that_has_sent_all_there_is_goes_on() {
        // What it sends is the commit index, and the whole log is purged.
        assert_eq!(passed(vec![request(3, 2), request(5, 0), request(5, 0)], 5).await, (3, false));
        // Read before it was purged.
        assert_eq!(passed(vec![request(3, 2)], 9).await, (1, false));
    }
}
