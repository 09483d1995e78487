//! Members of groups: their heartbeats in, their assignments out, and why one is refused.

use std::time::Duration;

use futures::FutureExt as _;
use node_core::groups::{
    Committer, GroupOutcome, Heartbeat, LeaveGroup, MemberProfile, Roster, TopicNews,
    TopicPartitions,
};
use node_core::ids::{Generation, GroupName, InstanceId, InvalidName, MemberId};
use node_core::time::EntryTime;
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;
use tokio::time::Instant;

use super::groups::refused;
use super::status::Refusal;
use super::{Door, convert};
use crate::limits;
use crate::member::{Member, Standing};

/// Sent as a generation by a member that leaves.
const LEAVES: i64 = -1;
/// Sent by one with an instance id that will be back.
const LEAVES_FOR_A_MOMENT: i64 = -2;

/// A member is heard, or leaves.
pub(super) async fn heartbeat(
    door: &Door,
    request: v1::GroupHeartbeatRequest,
) -> Result<v1::GroupHeartbeatResponse, Refusal> {
    let member = door.member()?;
    let now_ms = member.clock().now_ms();
    let deadline = Instant::now() + limits::CALL_WITHIN;
    if [LEAVES, LEAVES_FOR_A_MOMENT].contains(&request.generation) {
        return leave(&member, &request, now_ms, deadline).await;
    }
    let wait = Duration::from_millis(request.max_wait_ms.into());
    let heartbeat = heartbeat_of(request, now_ms)?;
    let session = Duration::from_millis(heartbeat.profile.session_ms.into());
    let wait = wait.min(session / 3).min(limits::GROUP_HEARTBEAT_WAIT_MAX);
    let outcome = member.hear_member(heartbeat.clone(), deadline).boxed().await;
    let outcome =
        outcome.map_err(|failure| refused(&member, &heartbeat.group, failure, deadline))?;
    let GroupOutcome::Heard { .. } = outcome else {
        return Err(of_outcome(&heartbeat.group, &outcome));
    };
    let standing = news(&member, &heartbeat, Instant::now() + wait).await?;
    let told = standing.generation != heartbeat.generation;
    // Who let the answer wait comes again at once, so that there is always one to answer.
    let pause = match wait.is_zero() || (!told && lacks(&heartbeat, &standing)) {
        true => (session / 3).min(limits::GROUP_HEARTBEAT_INTERVAL_MAX),
        false => Duration::ZERO,
    };
    Ok(v1::GroupHeartbeatResponse {
        generation: generation_out(standing.generation),
        heartbeat_interval_ms: convert::ms_rounded_up(pause),
        assignment: (told || heartbeat.owned != standing.assigned).then(|| assignment(&standing)),
    })
}

/// Where the member stands, once that is news to it or `until` has come.
async fn news(member: &Member, heartbeat: &Heartbeat, until: Instant) -> Result<Standing, Refusal> {
    let Heartbeat { group, member: id, .. } = heartbeat;
    let failed = |failure| refused(member, group, failure, until);
    let mut changes = member.group_changes(group).map_err(failed)?;
    loop {
        changes.mark_unchanged();
        // Also asks whether this node still leads.
        let standing = member.standing(group, id).map_err(failed)?;
        let unknown = || of_outcome(group, &GroupOutcome::UnknownMember);
        let standing = standing.ok_or_else(unknown)?;
        let now = Instant::now();
        let told = standing.generation != heartbeat.generation;
        if told || lacks(heartbeat, &standing) || now >= until {
            return Ok(standing);
        }
        let look_again = until.min(now + limits::GROUP_HEARTBEAT_LOOK);
        // An error means that the replica is closed, which the next look finds out.
        if let Ok(Err(_)) = tokio::time::timeout_at(look_again, changes.changed()).await {
            tokio::time::sleep_until(look_again).await;
        }
    }
}

/// The member should have something that it does not have.
fn lacks(heartbeat: &Heartbeat, standing: &Standing) -> bool {
    standing.assigned.iter().any(|(topic, partitions)| {
        heartbeat.owned.get(topic).is_none_or(|owned| !partitions.is_subset(owned))
    })
}

async fn leave(
    member: &Member,
    request: &v1::GroupHeartbeatRequest,
    now_ms: u64,
    deadline: Instant,
) -> Result<v1::GroupHeartbeatResponse, Refusal> {
    let group = convert::group_name(&request.group)?;
    let stays = request.generation == LEAVES_FOR_A_MOMENT;
    let (id, time) = (member_id(&request.member_id)?, EntryTime::from_ms(now_ms));
    if stays && request.instance_id.is_empty() {
        let message = "generation: only a member with an instance_id leaves for a moment (-2)";
        return Err(Refusal::invalid(message));
    }
    let leave = LeaveGroup { group: group.clone(), member: id, stays, time };
    let outcome = member.leave_group(leave, deadline).boxed().await;
    match outcome.map_err(|failure| refused(member, &group, failure, deadline))? {
        GroupOutcome::Left => Ok(v1::GroupHeartbeatResponse {
            generation: request.generation,
            ..v1::GroupHeartbeatResponse::default()
        }),
        other => Err(of_outcome(&group, &other)),
    }
}

fn heartbeat_of(request: v1::GroupHeartbeatRequest, now_ms: u64) -> Result<Heartbeat, Refusal> {
    let instance = (!request.instance_id.is_empty())
        .then(|| InstanceId::new(request.instance_id).map_err(invalid("instance_id")));
    let or = |ms: u32, otherwise| if ms == 0 { otherwise } else { ms };
    let topics = request.topics.iter().map(|topic| convert::topic_name(topic));
    let mut owned = TopicPartitions::new();
    for part in &request.owned {
        let topic = convert::topic_name(&part.topic)?;
        owned.entry(topic).or_default().extend(&part.partitions);
    }
    owned.retain(|_, partitions| !partitions.is_empty());
    let heartbeat = Heartbeat {
        group: convert::group_name(&request.group)?,
        member: member_id(&request.member_id)?,
        generation: generation(request.generation)?,
        profile: MemberProfile {
            instance: instance.transpose()?,
            client: request.client,
            session_ms: or(request.session_timeout_ms, limits::GROUP_SESSION_DEFAULT_MS),
            rebalance_ms: or(request.rebalance_timeout_ms, limits::GROUP_REBALANCE_DEFAULT_MS),
            topics: topics.collect::<Result<_, _>>()?,
        },
        owned,
        topics: TopicNews::default(),
        time: EntryTime::from_ms(now_ms),
    };
    heartbeat.check().map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(heartbeat)
}

/// Who commits; an empty member id is somebody from outside of the group.
pub(super) fn committer(id: &str, last: i64) -> Result<Option<Committer>, Refusal> {
    if id.is_empty() {
        return Ok(None);
    }
    Ok(Some(Committer { member: member_id(id)?, generation: generation(last)? }))
}

fn member_id(id: &str) -> Result<MemberId, Refusal> {
    MemberId::new(id).map_err(invalid("member_id"))
}

fn invalid(field: &'static str) -> impl Fn(InvalidName) -> Refusal {
    move |error| Refusal::invalid(format!("{field}: {error}"))
}

fn generation(number: i64) -> Result<Generation, Refusal> {
    u64::try_from(number).map(Generation).map_err(|_| {
        Refusal::invalid(format!("generation: {number} is neither -2, -1, 0 nor one that was told"))
    })
}

fn generation_out(generation: Generation) -> i64 {
    i64::try_from(generation.0).unwrap_or(i64::MAX)
}

fn assignment(standing: &Standing) -> v1::GroupAssignment {
    let mut partitions = topics_out(&standing.assigned);
    for part in &mut partitions {
        if let Some(id) = standing.topic_ids.get(part.topic.as_str()) {
            part.topic_id = bytes::Bytes::copy_from_slice(id.0.as_bytes());
        }
    }
    v1::GroupAssignment { partitions }
}

fn topics_out(partitions: &TopicPartitions) -> Vec<v1::TopicPartitions> {
    let out = partitions.iter().map(|(topic, numbers)| v1::TopicPartitions {
        topic: topic.to_string(),
        partitions: numbers.iter().copied().collect(),
        topic_id: bytes::Bytes::new(),
    });
    out.collect()
}

/// The members of a group, for its description.
pub(super) fn describe(roster: Option<&Roster>, into: &mut v1::DescribeGroupResponse) {
    let Some(roster) = roster else {
        into.settled = true;
        return;
    };
    into.generation = generation_out(roster.generation());
    into.settled = roster.is_settled();
    let members = roster.members().iter().map(|(joined, member)| v1::GroupMember {
        member_id: member.id.to_string(),
        instance_id: member.profile.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        client: member.profile.client.clone(),
        generation: generation_out(member.generation),
        session_timeout_ms: member.profile.session_ms,
        rebalance_timeout_ms: member.profile.rebalance_ms,
        joined_at_ms: member.joined_at.ms(),
        away: member.away,
        topics: member.profile.topics.iter().map(ToString::to_string).collect(),
        assigned: topics_out(&roster.assigned(*joined)),
        giving_up: topics_out(&roster.giving_up(*joined)),
        waiting_for: topics_out(&roster.waiting_for(*joined)),
    });
    into.members = members.collect();
}

/// Why the coordinator did not do what was asked.
pub(super) fn of_outcome(group: &GroupName, outcome: &GroupOutcome) -> Refusal {
    match outcome {
        GroupOutcome::UnknownGroup => Refusal::unknown_group(group.as_str()),
        GroupOutcome::UnknownMember => {
            let message = format!(
                "group {group} has no such member: it left, was expired, or another process took \
                 its place; drop its partitions and join again under a new member id"
            );
            Refusal::new(ErrorCode::UnknownMember, message)
        }
        GroupOutcome::MemberFenced { current } => {
            let message = format!(
                "this member id is in group {group} with generation {current}, and was not in \
                 it with the one that was sent; drop its partitions and join under a new member id"
            );
            Refusal::member_fenced(message, generation_out(*current))
        }
        GroupOutcome::InstanceFenced => {
            let message = format!(
                "another process has joined group {group} with this instance id; this one must \
                 stop, or have an id of its own"
            );
            Refusal::new(ErrorCode::GroupInstanceFenced, message)
        }
        GroupOutcome::NotOwner { topic, partition } => {
            let message = format!(
                "the member does not own {topic}/{partition} of group {group} any more, or got it \
                 anew since; its owner goes on from the group offset"
            );
            Refusal::new(ErrorCode::PartitionNotOwned, message)
        }
        GroupOutcome::NotEmpty { members } => {
            let message = format!(
                "group {group} has {members} members; stop them first, or commit as one of them"
            );
            Refusal::new(ErrorCode::GroupNotEmpty, message)
        }
        GroupOutcome::GroupFull { limit } => {
            let message = format!(
                "group {group} has {limit} members, and no group has more; use fewer consumers, \
                 or several groups"
            );
            Refusal::new(ErrorCode::GroupFull, message)
        }
        GroupOutcome::Regression { topic, partition, committed } => {
            let message = format!(
                "group {group} has committed offset {committed} of {topic}/{partition}; to go \
                 back on purpose reset it (`quipu group seek`)"
            );
            Refusal::regression(message, *committed)
        }
        GroupOutcome::TableFull { limit_bytes } => Refusal::overloaded(format!(
            "the coordinator's table of groups is full ({limit_bytes} bytes); delete groups that \
             are not used any more"
        )),
        GroupOutcome::Committed
        | GroupOutcome::Deleted
        | GroupOutcome::TopicForgotten { .. }
        | GroupOutcome::Heard { .. }
        | GroupOutcome::Left
        | GroupOutcome::Expired { .. }
        | GroupOutcome::TopicsLearned { .. } => {
            Refusal::internal(&format!("the coordinator answered {outcome:?}"))
        }
    }
}
