//! Damaged entries, fetched again from the group's other replicas.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use node_core::ids::{ClusterId, GroupId};
use quipu_proto::peer::v1 as pb;

use crate::limits;
use crate::peer::Peers;
use crate::raft::{EntrySource, entry_for_repair};
use crate::storage::entry::StoredEntry;

/// Asks every other node.
struct Repairer {
    cluster_id: ClusterId,
    peers: Arc<Peers>,
}

pub(super) fn repairer(cluster_id: ClusterId, peers: Arc<Peers>) -> Arc<dyn EntrySource> {
    Arc::new(Repairer { cluster_id, peers })
}

impl EntrySource for Repairer {
    fn fetch(&self, group: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        const ANSWER_MAX: Duration = Duration::from_secs(2);
        let cluster_id = bytes::Bytes::copy_from_slice(self.cluster_id.0.as_bytes());
        let peers = self.peers.clone();
        // Any replica of the group will do; which one a node has it knows itself.
        let target = pb::Target { cluster_id, group: group.0, replica: 0 };
        let request = pb::ReadEntryRequest { target: Some(target), index };
        Box::pin(async move {
            // Just started, a node may not know the others yet, nor they it.
            for _ in 0..limits::REPAIR_ROUNDS {
                for link in peers.all() {
                    let answer = link.read_entry(request.clone(), ANSWER_MAX).await;
                    let entry = answer.ok().and_then(|it| entry_for_repair(it).ok());
                    if let Some((found, entry)) = entry
                        && found == index
                    {
                        return Some(entry);
                    }
                }
                tokio::time::sleep(limits::REPAIR_PAUSE).await;
            }
            None
        })
    }
}
