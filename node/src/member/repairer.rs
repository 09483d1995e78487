//! Damaged entries, fetched again from the group's other replicas.
//!
//! All other nodes are asked at once and each again and again, so that one that hangs holds up
//! nothing. An entry that went with the log's beginning elsewhere will not come back: then the
//! answer is soon that nobody has it, and the replica is given up for one that begins behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use node_core::ids::{ClusterId, GroupId};
use quipu_proto::peer::v1 as pb;
use tokio::time::Instant;

use crate::limits;
use crate::peer::{PURGED, PeerError, PeerLink, Peers};
use crate::raft::{EntrySource, entry_for_repair};
use crate::storage::entry::StoredEntry;

/// Asks every other node.
struct Repairer {
    cluster_id: ClusterId,
    peers: Arc<Peers>,
}

/// What a node that knows has said.
enum Said {
    Given(StoredEntry),
    Purged,
}

pub(super) fn repairer(cluster_id: ClusterId, peers: Arc<Peers>) -> Arc<dyn EntrySource> {
    Arc::new(Repairer { cluster_id, peers })
}

impl EntrySource for Repairer {
    fn fetch(&self, group: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        let cluster_id = bytes::Bytes::copy_from_slice(self.cluster_id.0.as_bytes());
        // Any replica of the group will do; which one a node has it knows itself.
        let target = pb::Target { cluster_id, group: group.0, replica: 0 };
        let request = pb::ReadEntryRequest { target: Some(target), index };
        let peers = self.peers.clone();
        let ask = move |link| ask(link, request.clone());
        Box::pin(ask_all(move || peers.all(), ask, limits::REPAIR_WITHIN))
    }
}

/// The first entry that somebody gives.
async fn ask_all<F: Future<Output = Said>>(
    nodes: impl Fn() -> Vec<Arc<PeerLink>>,
    ask: impl Fn(Arc<PeerLink>) -> F,
    within: Duration,
) -> Option<StoredEntry> {
    let mut until = Instant::now() + within;
    let mut asked = BTreeSet::new();
    let mut asking = FuturesUnordered::new();
    while Instant::now() < until {
        // Just started, a node may not know the others yet.
        for link in nodes() {
            if asked.insert(link.address().to_owned()) {
                asking.push(ask(link));
            }
        }
        let look_again = until.min(Instant::now() + limits::REPAIR_PAUSE);
        match tokio::time::timeout_at(look_again, asking.next()).await {
            Ok(Some(Said::Given(entry))) => return Some(entry),
            Ok(Some(Said::Purged)) => {
                until = until.min(Instant::now() + limits::REPAIR_OF_PURGED_WITHIN);
            }
            Ok(None) => tokio::time::sleep_until(look_again).await,
            Err(_) => {}
        }
    }
    None
}

/// Asks one node until it knows. That it has not committed the entry, can't read it or does not
/// answer may change.
async fn ask(link: Arc<PeerLink>, request: pb::ReadEntryRequest) -> Said {
    loop {
        match link.read_entry(request.clone(), limits::REPAIR_ANSWER_MAX).await {
            Ok(answer) => {
                if let Ok((found, entry)) = entry_for_repair(answer)
                    && found == request.index
                {
                    return Said::Given(entry);
                }
            }
            Err(PeerError::Refused { code, .. }) if code == PURGED => return Said::Purged,
            Err(_) => {}
        }
        tokio::time::sleep(limits::REPAIR_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::*;
    use crate::env::Env;
    use crate::storage::entry::EntryKind;

    /// More than any test takes.
    const FOR_EVER: Duration = Duration::from_secs(86_400);

    /// The term of what came of asking three nodes that do this for so long.
    async fn asked(within: Duration, does: impl Fn(&str) -> Option<Said>) -> Option<u64> {
        let peers = Peers::new(Env::real(PathBuf::new()).network);
        let nodes = || ["n1:1", "n2:1", "n3:1"].map(|address| peers.link_to(address)).to_vec();
        let ask = |link: Arc<PeerLink>| {
            let said = does(link.address());
            async move {
                match said {
                    Some(said) => said,
                    None => std::future::pending().await,
                }
            }
        };
        let given = ask_all(nodes, ask, within);
        let given = tokio::time::timeout(Duration::from_secs(30), given).await;
        given.expect("it ends").map(|entry| entry.term)
    }

    fn entry() -> StoredEntry {
        StoredEntry { term: 7, kind: EntryKind::Command, payload: Bytes::new() }
    }

    #[tokio::test]
    async fn whoever_has_the_entry_gives_it_while_others_hang_or_have_let_go_of_it() {
        let given = asked(FOR_EVER, |node| match node {
            "n1:1" => None,
            "n2:1" => Some(Said::Purged),
            _ => Some(Said::Given(entry())),
        });
        assert_eq!(given.await, Some(7));
    }

    #[tokio::test]
    async fn an_entry_that_went_with_the_log_s_beginning_is_not_waited_for_at_hung_nodes() {
        let given = asked(FOR_EVER, |node| (node == "n2:1").then_some(Said::Purged));
        assert_eq!(given.await, None);
    }

    #[tokio::test]
    async fn nodes_that_all_hang_are_given_up() {
        assert_eq!(asked(limits::REPAIR_PAUSE * 3, |_| None).await, None);
    }
}
