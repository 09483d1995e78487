//! Raft's types ↔ their sent and stored forms. The encodings are ours (`quipu.peer.v1` and
//! docs/formats/storage-keys.md), because openraft's own layouts change between versions.

use bytes::Bytes;
use node_core::ids::{GroupId, ReplicaId};
use node_core::zoo::{self, Bug};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use prost::Message as _;
use quipu_proto::peer::v1 as pb;
use uuid::Uuid;

use super::types::{
    Command, Entry, LogId, Membership, ReplicaNode, StoredMembership, Types, Vote, log_id, term_of,
};
use crate::storage::entry::{EntryKind, StoredEntry};

/// Bytes that another node sent, or that were stored, make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(super) fn log_id_to_pb(log_id: &LogId) -> pb::LogId {
    pb::LogId { term: term_of(log_id), index: log_id.index() }
}

/// Terms and indexes of no log ever made: counting on from them would overflow.
const NUMBER_END: u64 = 1 << 62;

pub(super) fn log_id_from_pb(id: pb::LogId) -> Result<LogId, Malformed> {
    if id.term < NUMBER_END && id.index < NUMBER_END {
        Ok(log_id(id.term, id.index))
    } else {
        Err(Malformed("log id: out of range"))
    }
}

pub(super) fn log_id_from_pb_option(id: Option<pb::LogId>) -> Result<Option<LogId>, Malformed> {
    id.map(log_id_from_pb).transpose()
}

pub(super) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        replica: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn vote_from_pb(vote: Option<pb::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("vote"))?;
    if vote.term >= NUMBER_END {
        return Err(Malformed("vote: its term is out of range"));
    }
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.replica)
    } else {
        Vote::new(vote.term, vote.replica)
    })
}

/// A vote as it is stored: term, replica, committed.
pub(super) fn vote_to_bytes(vote: &Vote) -> Bytes {
    Bytes::from(vote_to_pb(vote).encode_to_vec())
}

pub(super) fn vote_from_bytes(bytes: &[u8]) -> Result<Vote, Malformed> {
    let vote = pb::Vote::decode(bytes).map_err(|_| Malformed("stored vote"))?;
    vote_from_pb(Some(vote))
}

pub(super) fn log_id_to_bytes(log_id: &LogId) -> Bytes {
    Bytes::from(log_id_to_pb(log_id).encode_to_vec())
}

pub(super) fn log_id_from_bytes(bytes: &[u8]) -> Result<LogId, Malformed> {
    let id = pb::LogId::decode(bytes).map_err(|_| Malformed("stored log id"))?;
    log_id_from_pb(id)
}

pub(super) fn membership_to_bytes(membership: &Membership) -> Bytes {
    let configs = membership.get_joint_config().iter();
    let configs =
        configs.map(|voters| pb::membership::Config { voters: voters.iter().copied().collect() });
    let nodes = membership.nodes().map(|(replica, node)| pb::membership::Node {
        replica: *replica,
        uuid: Bytes::copy_from_slice(node.uuid.as_bytes()),
        address: node.address.clone(),
    });
    let message = pb::Membership { configs: configs.collect(), nodes: nodes.collect() };
    Bytes::from(message.encode_to_vec())
}

pub(super) fn membership_from_bytes(bytes: &[u8]) -> Result<Membership, Malformed> {
    let message = pb::Membership::decode(bytes).map_err(|_| Malformed("membership"))?;
    let configs = message.configs.into_iter().map(|config| config.voters.into_iter().collect());
    let mut nodes = std::collections::BTreeMap::new();
    for node in message.nodes {
        let uuid = Uuid::from_slice(&node.uuid).map_err(|_| Malformed("membership"))?;
        nodes.insert(node.replica, ReplicaNode { uuid, address: node.address });
    }
    Membership::new(configs.collect(), nodes).map_err(|_| Malformed("membership"))
}

pub(super) fn stored_membership(
    position: Option<LogId>,
    bytes: &[u8],
) -> Result<StoredMembership, Malformed> {
    Ok(StoredMembership::new(position, membership_from_bytes(bytes)?))
}

/// An entry's stored form: its kind and payload.
pub(super) fn entry_to_stored(entry: &Entry) -> StoredEntry {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(command) => (EntryKind::Command, command.0.clone()),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, membership_to_bytes(membership))
        }
    };
    StoredEntry { term: term_of(&entry.log_id), kind, payload }
}

pub(super) fn entry_from_stored(index: u64, stored: StoredEntry) -> Result<Entry, Malformed> {
    let payload = match stored.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Command => EntryPayload::Normal(Command(stored.payload)),
        EntryKind::Membership => EntryPayload::Membership(membership_from_bytes(&stored.payload)?),
    };
    Ok(Entry { log_id: log_id(stored.term, index), payload })
}

pub(super) fn stored_to_pb(index: u64, stored: StoredEntry) -> pb::Entry {
    pb::Entry {
        id: Some(pb::LogId { term: stored.term, index }),
        kind: u32::from(stored.kind.number()),
        payload: stored.payload,
    }
}

fn entry_to_pb(entry: &Entry) -> pb::Entry {
    stored_to_pb(entry.log_id.index(), entry_to_stored(entry))
}

pub(super) fn entry_from_pb(entry: pb::Entry) -> Result<Entry, Malformed> {
    let id = entry.id.ok_or(Malformed("entry"))?;
    log_id_from_pb(id)?;
    let kind = u8::try_from(entry.kind).map_err(|_| Malformed("entry kind"))?;
    let kind = EntryKind::try_from(kind).map_err(|_| Malformed("entry kind"))?;
    entry_from_stored(id.index, StoredEntry { term: id.term, kind, payload: entry.payload })
}

pub(super) fn target(cluster_id: Uuid, group: GroupId, replica: ReplicaId) -> pb::Target {
    let cluster_id = Bytes::copy_from_slice(cluster_id.as_bytes());
    pb::Target { cluster_id, group: group.0, replica: replica.0 }
}

pub(super) fn append_to_pb(
    target: pb::Target,
    request: &AppendEntriesRequest<Types>,
) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        target: Some(target),
        vote: Some(vote_to_pb(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to_pb),
        commit: request.leader_commit.as_ref().map(log_id_to_pb),
        entries: request.entries.iter().map(entry_to_pb).collect(),
    }
}

pub(super) fn append_from_pb(
    request: pb::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let mut request = AppendEntriesRequest {
        vote: vote_from_pb(request.vote)?,
        prev_log_id: log_id_from_pb_option(request.prev)?,
        leader_commit: log_id_from_pb_option(request.commit)?,
        entries: request.entries.into_iter().map(entry_from_pb).collect::<Result<_, _>>()?,
    };
    if zoo::is(Bug::UncommittedVisible) {
        let last: Option<LogId> = request.entries.last().map(|entry: &Entry| entry.log_id);
        request.leader_commit = request.leader_commit.max(last);
    }
    let first = request.prev_log_id.as_ref().map_or(0, |prev| prev.index() + 1);
    let mut at = first..;
    let dense = request.entries.iter().all(|entry: &Entry| at.next() == Some(entry.log_id.index()));
    if dense { Ok(request) } else { Err(Malformed("entries: their indexes have a gap")) }
}

pub(super) fn append_result_to_pb(result: StreamAppendResult<Types>) -> pb::AppendEntriesResponse {
    use pb::append_entries_response::Status;
    let (status, log_id, vote) = match result {
        Ok(matched) => (Status::Matched, matched, None),
        Err(StreamAppendError::Conflict(at)) => (Status::Conflict, Some(at), None),
        Err(StreamAppendError::HigherVote(vote)) => (Status::HigherVote, None, Some(vote)),
    };
    pb::AppendEntriesResponse {
        status: status.into(),
        log_id: log_id.as_ref().map(log_id_to_pb),
        vote: vote.as_ref().map(vote_to_pb),
    }
}

pub(super) fn append_result_from_pb(
    response: pb::AppendEntriesResponse,
) -> Result<StreamAppendResult<Types>, Malformed> {
    use pb::append_entries_response::Status;
    let log_id = log_id_from_pb_option(response.log_id)?;
    Ok(match Status::try_from(response.status) {
        Ok(Status::Matched | Status::Partial) => Ok(log_id),
        Ok(Status::Conflict) => {
            Err(StreamAppendError::Conflict(log_id.ok_or(Malformed("append answer"))?))
        }
        Ok(Status::HigherVote) => Err(StreamAppendError::HigherVote(vote_from_pb(response.vote)?)),
        Err(_) => return Err(Malformed("append answer")),
    })
}

pub(super) fn vote_request_to_pb(
    target: pb::Target,
    request: &VoteRequest<Types>,
    pre_vote: bool,
) -> pb::VoteRequest {
    pb::VoteRequest {
        target: Some(target),
        vote: Some(vote_to_pb(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to_pb),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(super) fn vote_request_from_pb(
    request: pb::VoteRequest,
) -> Result<VoteRequest<Types>, Malformed> {
    Ok(VoteRequest {
        vote: vote_from_pb(request.vote)?,
        last_log_id: log_id_from_pb_option(request.last)?,
        leadership_transfer: request.leadership_transfer,
    })
}

pub(super) fn vote_response_to_pb(response: &VoteResponse<Types>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to_pb),
    }
}

pub(super) fn vote_response_from_pb(
    response: pb::VoteResponse,
) -> Result<VoteResponse<Types>, Malformed> {
    let last = log_id_from_pb_option(response.last)?;
    Ok(VoteResponse::new(vote_from_pb(response.vote)?, last, response.granted))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_membership_comes_back_from_its_bytes() {
        let node = |name: u8| ReplicaNode {
            uuid: Uuid::from_bytes([name; 16]),
            address: format!("127.0.0.1:{name}"),
        };
        let nodes = BTreeMap::from([(1, node(1)), (2, node(2)), (9, node(9))]);
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([1])];
        let membership = Membership::new(configs, nodes).expect("all voters are nodes");
        let bytes = membership_to_bytes(&membership);
        assert_eq!(membership_from_bytes(&bytes), Ok(membership));
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let entry = |index| pb::Entry {
            id: Some(pb::LogId { term: 1, index }),
            kind: 0,
            payload: Bytes::new(),
        };
        let request = pb::AppendEntriesRequest {
            vote: Some(pb::Vote { term: 1, replica: 1, committed: true }),
            prev: Some(pb::LogId { term: 1, index: 4 }),
            entries: vec![entry(5), entry(7)],
            ..Default::default()
        };
        let gap = Malformed("entries: their indexes have a gap");
        assert_eq!(append_from_pb(request).err(), Some(gap));
    }

    #[test]
    fn numbers_beyond_any_log_are_refused_wherever_they_stand() {
        let id = |term, index| Some(pb::LogId { term, index });
        let entry = |id| pb::Entry { id, kind: 0, payload: Bytes::new() };
        let vote = |term| Some(pb::Vote { term, replica: 1, committed: true });
        let append = |prev, commit, entries: Vec<pb::Entry>| pb::AppendEntriesRequest {
            vote: vote(1),
            prev,
            commit,
            entries,
            ..Default::default()
        };
        for end in [NUMBER_END, u64::MAX - 1, u64::MAX] {
            let last = entry(id(1, end));
            let requests = [
                append(id(1, end), None, vec![]),
                append(id(1, end - 1), None, vec![last.clone()]),
                append(id(1, end - 1), None, vec![last.clone(), entry(id(1, 0))]),
                append(id(end, 1), None, vec![]),
                append(None, id(1, end), vec![]),
                append(None, None, vec![entry(id(end, 0))]),
                pb::AppendEntriesRequest { vote: vote(end), ..Default::default() },
            ];
            for request in requests {
                assert!(append_from_pb(request.clone()).is_err(), "{request:?}");
            }
            let request = pb::VoteRequest { vote: vote(1), last: id(1, end), ..Default::default() };
            assert!(vote_request_from_pb(request).is_err());
            let response = pb::VoteResponse { vote: vote(end), ..Default::default() };
            assert!(vote_response_from_pb(response).is_err());
            let answer = pb::AppendEntriesResponse { log_id: id(1, end), ..Default::default() };
            assert!(append_result_from_pb(answer).is_err());
        }
        let request = append(id(1, NUMBER_END - 2), None, vec![entry(id(1, NUMBER_END - 1))]);
        assert!(append_from_pb(request).is_ok());
    }
}
