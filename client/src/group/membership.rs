//! What a member of a group was told, and what it still has: the pure part of a group consumer.
//!
//! Invariant: a partition is reported as owned from the moment an answer assigned it until the
//! application is done with it. The coordinator gives nothing on that is reported, so while the
//! session lasts no two members work on one partition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quipu_proto::v1;

use crate::error::ErrorCode;
use crate::record::TopicPartition;

/// Sent as a generation by a member that leaves for good.
const LEAVES: i64 = -1;
/// Sent by one with an instance id that will be back.
const LEAVES_FOR_A_MOMENT: i64 = -2;

/// A partition and the identity of its topic: one deleted and made again is another.
pub(crate) type Assigned = BTreeMap<TopicPartition, Bytes>;

/// One member, as it knows itself.
#[derive(Debug)]
pub(crate) struct Membership {
    /// What every heartbeat says, filled in by [`Membership::heartbeat`].
    said: v1::GroupHeartbeatRequest,
    /// What it should have, by the last answer.
    assigned: Assigned,
    /// What it has not given up yet.
    owned: BTreeSet<TopicPartition>,
    /// Counts the memberships: what is owned is lost when it grows.
    incarnation: u64,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// As before.
    None,
    /// Another assignment.
    Assignment,
    /// Everything is lost; it joins again as somebody new.
    Lost,
    /// Everything is lost, for good.
    Ended,
}

impl Membership {
    /// Not a member yet. `said` holds group, member id, subscription and time-outs.
    pub(crate) fn new(said: v1::GroupHeartbeatRequest) -> Membership {
        Membership { said, assigned: Assigned::new(), owned: BTreeSet::new(), incarnation: 0 }
    }

    /// What to say next.
    pub(crate) fn heartbeat(&self) -> v1::GroupHeartbeatRequest {
        let mut topics: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for place in &self.owned {
            topics.entry(&place.topic).or_default().push(place.partition);
        }
        let owned = topics.into_iter().map(|(topic, partitions)| v1::TopicPartitions {
            topic: topic.to_owned(),
            partitions,
            topic_id: Bytes::new(),
        });
        v1::GroupHeartbeatRequest { owned: owned.collect(), ..self.said.clone() }
    }

    /// What to say when it leaves.
    pub(crate) fn farewell(&self) -> v1::GroupHeartbeatRequest {
        let named = !self.said.instance_id.is_empty();
        let generation = if named { LEAVES_FOR_A_MOMENT } else { LEAVES };
        v1::GroupHeartbeatRequest { generation, max_wait_ms: 0, ..self.said.clone() }
    }

    /// Takes an answer to what [`Membership::heartbeat`] said. Answers to heartbeats that were
    /// given up must not come here: they could assign what was freed since.
    pub(crate) fn on_answer(&mut self, answer: v1::GroupHeartbeatResponse) -> News {
        self.said.generation = answer.generation;
        let Some(assignment) = answer.assignment else { return News::None };
        let mut assigned = Assigned::new();
        for part in assignment.partitions {
            for partition in part.partitions {
                let place = TopicPartition { topic: part.topic.clone(), partition };
                assigned.insert(place, part.topic_id.clone());
            }
        }
        self.owned.extend(assigned.keys().cloned());
        if assigned == self.assigned {
            return News::None;
        }
        self.assigned = assigned;
        News::Assignment
    }

    /// Takes a refusal that no repetition changes. `id`: what it calls itself from now on.
    pub(crate) fn on_refused(&mut self, code: Option<ErrorCode>, id: String) -> News {
        self.assigned.clear();
        self.owned.clear();
        self.incarnation += 1;
        self.said.generation = 0;
        self.said.member_id = id;
        match code {
            Some(
                ErrorCode::UnknownMember | ErrorCode::UnknownGroup | ErrorCode::GroupMemberFenced,
            ) => News::Lost,
            _ => News::Ended,
        }
    }

    /// The application is done with partitions that it should not have any more.
    pub(crate) fn gave_up<'a>(&mut self, places: impl IntoIterator<Item = &'a TopicPartition>) {
        for place in places {
            // Assigned again meanwhile, it is kept.
            if !self.assigned.contains_key(place) {
                self.owned.remove(place);
            }
        }
    }

    /// What it has not given up yet and should not have any more.
    pub(crate) fn going(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.iter().filter(|place| !self.assigned.contains_key(*place))
    }

    /// What it should have.
    pub(crate) fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    /// Member id and generation for a commit; `None`: it is no member.
    pub(crate) fn committer(&self) -> Option<(String, i64)> {
        let Self { said, .. } = self;
        (said.generation > 0).then(|| (said.member_id.clone(), said.generation))
    }

    /// Counts the memberships.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: u32) -> TopicPartition {
        TopicPartition { topic: "t".to_owned(), partition }
    }

    fn answer(generation: i64, partitions: &[u32]) -> v1::GroupHeartbeatResponse {
        let part = v1::TopicPartitions {
            topic: "t".to_owned(),
            partitions: partitions.to_vec(),
            topic_id: Bytes::from_static(b"id"),
        };
        let partitions = if partitions.is_empty() { Vec::new() } else { vec![part] };
        let assignment = Some(v1::GroupAssignment { partitions });
        v1::GroupHeartbeatResponse { generation, assignment, heartbeat_interval_ms: 0 }
    }

    fn owned(membership: &Membership) -> Vec<u32> {
        membership.heartbeat().owned.into_iter().flat_map(|part| part.partitions).collect()
    }

    fn member() -> Membership {
        Membership::new(v1::GroupHeartbeatRequest {
            member_id: "m".to_owned(),
            ..v1::GroupHeartbeatRequest::default()
        })
    }

    #[test]
    fn a_partition_is_reported_until_the_application_is_done_with_it() {
        let mut member = member();
        assert_eq!(member.heartbeat().generation, 0);
        assert_eq!(member.on_answer(answer(3, &[0, 1, 2])), News::Assignment);
        assert_eq!(owned(&member), [0, 1, 2]);
        assert_eq!(member.on_answer(answer(4, &[0])), News::Assignment);
        assert_eq!((owned(&member), member.heartbeat().generation), (vec![0, 1, 2], 4));
        member.gave_up([&place(1)]);
        assert_eq!(owned(&member), [0, 2]);
        // Assigned again while it was at work on it: nothing was given up.
        member.on_answer(answer(5, &[0, 2]));
        member.gave_up([&place(2)]);
        assert_eq!(owned(&member), [0, 2]);
    }

    #[test]
    fn an_answer_without_an_assignment_changes_only_the_generation() {
        let mut member = member();
        member.on_answer(answer(3, &[0]));
        let same = v1::GroupHeartbeatResponse { assignment: None, ..answer(4, &[]) };
        assert_eq!(member.on_answer(same), News::None);
        assert_eq!((owned(&member), member.committer()), (vec![0], Some(("m".to_owned(), 4))));
        assert_eq!(member.on_answer(answer(5, &[])), News::Assignment);
    }

    #[test]
    fn who_was_expired_begins_anew_under_another_id_and_who_was_replaced_ends() {
        let mut member = member();
        member.on_answer(answer(3, &[0]));
        let expired = Some(ErrorCode::UnknownMember);
        assert_eq!(member.on_refused(expired, "n".to_owned()), News::Lost);
        assert_eq!((owned(&member), member.committer(), member.incarnation()), (vec![], None, 1));
        assert_eq!(member.heartbeat().member_id, "n");
        let replaced = Some(ErrorCode::GroupInstanceFenced);
        assert_eq!(member.on_refused(replaced, "o".to_owned()), News::Ended);
    }

    #[test]
    fn a_topic_made_again_is_another_assignment() {
        let mut member = member();
        member.on_answer(answer(3, &[0]));
        let mut other = answer(4, &[0]);
        other.assignment.as_mut().expect("one").partitions[0].topic_id = Bytes::from_static(b"jd");
        assert_eq!(member.on_answer(other), News::Assignment);
    }

    #[test]
    fn with_an_instance_id_it_leaves_for_a_moment() {
        let mut named = member();
        assert_eq!(named.farewell().generation, -1);
        named.said.instance_id = "pod-a".to_owned();
        assert_eq!(named.farewell().generation, -2);
    }
}
