//! A node's survey as it travels.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use node_core::survey::{LeadSurvey, MemberSurvey, NodeSurvey, ReplicaSurvey};
use quipu_proto::peer::v1 as pb;
use uuid::Uuid;

/// What this node says.
pub(crate) fn write(survey: &NodeSurvey) -> pb::SurveyResponse {
    let replicas = survey.replicas.iter().map(|(group, replica)| pb::ReplicaSurvey {
        group: group.0,
        replica: replica.replica.0,
        runs: replica.runs,
        bytes: replica.bytes,
        leads: replica.leads.as_ref().map(write_lead),
    });
    pb::SurveyResponse {
        disk_free_bytes: survey.disk_free_bytes,
        disk_reserve_bytes: survey.disk_reserve_bytes,
        sync_p99_us: survey.sync_p99_us,
        unreachable: survey.unreachable.iter().map(|node| Bytes::from(*node)).collect(),
        replicas: replicas.collect(),
    }
}

fn write_lead(lead: &LeadSurvey) -> pb::LeadSurvey {
    let members = lead.members.iter().map(|(replica, member)| pb::MemberSurvey {
        replica: replica.0,
        node: Bytes::from(member.node),
        voter: member.voter,
        matched_index: member.matched,
    });
    pb::LeadSurvey { term: lead.term, last_index: lead.last_index, members: members.collect() }
}

/// What another node said; `None` where it makes no sense.
pub(crate) fn read(answer: pb::SurveyResponse) -> Option<NodeSurvey> {
    let unreachable: Option<BTreeSet<NodeUuid>> =
        answer.unreachable.iter().map(|uuid| node_of(uuid)).collect();
    let mut replicas = BTreeMap::new();
    for replica in answer.replicas {
        let leads = match replica.leads {
            Some(lead) => Some(read_lead(&lead)?),
            None => None,
        };
        let read = ReplicaSurvey {
            replica: ReplicaId(replica.replica),
            runs: replica.runs,
            bytes: replica.bytes,
            leads,
        };
        replicas.insert(GroupId(replica.group), read);
    }
    Some(NodeSurvey {
        disk_free_bytes: answer.disk_free_bytes,
        disk_reserve_bytes: answer.disk_reserve_bytes,
        sync_p99_us: answer.sync_p99_us,
        clock_skew_ms: None,
        unreachable: unreachable?,
        replicas,
    })
}

fn read_lead(lead: &pb::LeadSurvey) -> Option<LeadSurvey> {
    let members: Option<BTreeMap<ReplicaId, MemberSurvey>> = lead
        .members
        .iter()
        .map(|member| {
            let (node, matched) = (node_of(&member.node)?, member.matched_index);
            Some((ReplicaId(member.replica), MemberSurvey { node, voter: member.voter, matched }))
        })
        .collect();
    Some(LeadSurvey { term: lead.term, last_index: lead.last_index, members: members? })
}

fn node_of(uuid: &[u8]) -> Option<NodeUuid> {
    Uuid::from_slice(uuid).ok().map(NodeUuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let node = NodeUuid(Uuid::from_u128(7));
        let member = MemberSurvey { node, voter: true, matched: None };
        let lead = LeadSurvey { term: 3, last_index: 9, members: [(ReplicaId(4), member)].into() };
        let replica =
            ReplicaSurvey { replica: ReplicaId(4), runs: true, bytes: 77, leads: Some(lead) };
        let survey = NodeSurvey {
            disk_free_bytes: Some(1),
            disk_reserve_bytes: 2,
            sync_p99_us: None,
            clock_skew_ms: None,
            unreachable: [node].into(),
            replicas: [(GroupId(1_000), replica)].into(),
        };
        assert_eq!(read(write(&survey)), Some(survey));
        let bad = pb::SurveyResponse {
            unreachable: vec![Bytes::from_static(b"no uuid")],
            ..pb::SurveyResponse::default()
        };
        assert_eq!(read(bad), None);
    }
}
