//! What a node knows at first hand: its disk, its replicas that do not run, and of each group that
//! it leads how far every voter is.
//!
//! Asked of all nodes it tells whether one of them may be stopped; who asks decides that.

use node_core::ids::ReplicaId;
use node_core::metadata::MetadataState;
use node_core::survey::name_of;
use quipu_proto::v1;

use super::super::status::Refusal;
use super::Door;
use crate::member::Member;
use crate::raft::{GroupStatus, Role};

pub(super) fn inspect(door: &Door) -> Result<v1::InspectNodeResponse, Refusal> {
    let member = door.member()?;
    let metadata = member.metadata();
    let (mut led, mut closed) = (Vec::new(), Vec::new());
    for (group, record, _) in metadata.replicas_on(member.me()) {
        let name = name_of(&metadata, group, record);
        let Some(replica) = member.registry_ref().replica(group) else {
            closed.push(name);
            continue;
        };
        match replica.raft().brief().role {
            Role::Stopped => closed.push(name),
            Role::Leader => {
                let (own, status) = (replica.raft().replica(), replica.raft().status());
                led.push(v1::LedGroup { name, voters: lags(&member, &metadata, own, &status) });
            }
            _ => {}
        }
    }
    Ok(v1::InspectNodeResponse {
        node_id: member.label().0,
        version: member.release().build.clone(),
        disk_free_bytes: door.ground.engine.space_left().ok().flatten(),
        disk_reserve_bytes: door.ground.config.disk_reserve_bytes,
        led,
        closed,
    })
}

/// How far each voter of a group is behind its leader, which is this node's replica.
fn lags(
    member: &Member,
    metadata: &MetadataState,
    own: ReplicaId,
    status: &GroupStatus,
) -> Vec<v1::VoterLag> {
    let end = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let lag = |voter: &ReplicaId| {
        let node = status.members.get(voter)?;
        let matched = status.matched.get(voter).copied().flatten();
        let behind = match *voter == own {
            true => Some(0),
            false => matched.map(|index| end(status.last_index).saturating_sub(index + 1)),
        };
        let label = member.label_of(*node);
        let label = label.or_else(|| metadata.nodes().get(node).map(|record| record.label))?;
        Some(v1::VoterLag { node_id: label.0, behind_entries: behind })
    };
    status.voters.iter().filter_map(lag).collect()
}
