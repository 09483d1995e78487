//! Snapshots that come when nobody needs them any more.

use futures::StreamExt;
use quipu_proto::peer::v1 as pb;

use super::*;
use crate::peer::{PeerLink, Peers};
use crate::raft::RaftGroup;

/// A leader that the test plays towards one replica.
struct Played {
    link: Arc<PeerLink>,
    target: pb::Target,
    vote: pb::Vote,
}

impl Played {
    /// Sends a blank entry behind `prev` and answers its place, once the replica has it.
    async fn append(&self, prev: pb::LogId) -> pb::LogId {
        let id = pb::LogId { term: self.vote.term, index: prev.index + 1 };
        let blank = pb::Entry { id: Some(id), kind: BLANK, payload: Bytes::new() };
        let request = pb::AppendEntriesRequest {
            target: Some(self.target.clone()),
            vote: Some(self.vote),
            prev: Some(prev),
            commit: None,
            entries: vec![blank],
        };
        let requests = futures::stream::iter([request]);
        let mut answers = self.link.append_entries(requests).await.expect("a stream");
        let answer = answers.next().await.expect("an answer").expect("it is taken");
        assert_eq!(answer.status(), pb::append_entries_response::Status::Matched, "{answer:?}");
        id
    }
}

/// Kind of an entry without a command (docs/formats/storage-keys.md).
const BLANK: u32 = 0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_what_the_log_has_already_takes_nothing_from_it() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 1, TopicConfig::default()).await;
    append(&nodes, "t", 0, "value").await;
    let leading = leader(&nodes, "t", 0).await.member().me();
    let place = nodes.iter().position(|node| node.member().me() != leading).expect("a follower");
    let alone = nodes.swap_remove(place);
    let raft = partition_of(&alone, "t", 0).expect("hosted").raft().clone();
    tokio::join!(nodes[0].node.stop(), nodes[1].node.stop());

    // Nothing that the test sends is ever committed.
    let brief = raft.brief();
    let mut members = raft.status().members.into_keys();
    let other = members.find(|member| *member != raft.replica()).expect("three members");
    let cluster_id = alone.member().cluster_id().0;
    let played = Played {
        link: Peers::new(Env::real(PathBuf::new()).network).link_to(&alone.address),
        target: RaftGroup::target(cluster_id, raft.group(), raft.replica()),
        vote: pb::Vote { term: brief.term + 10, replica: other.0, committed: true },
    };
    let last = raft.log().read_one(brief.last_index.expect("not empty")).await.expect("whole");
    let last = pb::LogId { term: **last.log_id.committed_leader_id(), index: last.log_id.index() };
    let first = played.append(last).await;
    let second = played.append(first).await;

    let late = pb::InstallSnapshotRequest {
        target: Some(played.target.clone()),
        vote: Some(played.vote),
        last: Some(first),
        ..pb::InstallSnapshotRequest::default()
    };
    let answer = played.link.install_snapshot(late, Duration::from_secs(10)).await;

    assert_eq!(answer.expect("it is answered").vote, Some(played.vote));
    let third = played.append(second).await;
    assert_eq!(raft.brief().last_index, Some(third.index));
}
