//! One group's members, and who has which partition.
//!
//! Each partition of a subscribed topic is a seat with a target (who should have it) and an owner
//! (who has it). Invariant: a seat has at most one owner, since there is room for one only. An
//! owner that is not the target is giving the partition up; it may commit until it has.
//!
//! Members are told apart by the generation they joined in: a member id that comes back after its
//! expiry is another member. Not here: which requests may change what; see `membership.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{self, Plan};
use crate::ids::{Generation, InstanceId, MemberId, TopicName};
use crate::time::EntryTime;
use crate::zoo::{self, Bug};

/// What a member takes in the table's account beside its texts.
const MEMBER_BYTES: usize = 192;
/// What one topic of a subscription, or with seats, takes beside its name.
const TOPIC_BYTES: usize = 48;
/// What one seat takes.
const SEAT_BYTES: usize = 32;

/// Partitions by topic.
pub type TopicPartitions = BTreeMap<TopicName, BTreeSet<u32>>;

/// The members of one group and the partitions they share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    pub(super) generation: Generation,
    /// By the generation each joined in.
    pub(super) members: BTreeMap<Generation, GroupMember>,
    /// Follows from `members`.
    pub(super) ids: BTreeMap<MemberId, Generation>,
    pub(super) seats: BTreeMap<TopicName, Vec<Seat>>,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// What its process calls itself.
    pub id: MemberId,
    /// What it said of itself.
    pub profile: MemberProfile,
    /// Of the last change of its assignment or subscription.
    pub generation: Generation,
    /// The coordinator's time when it joined.
    pub joined_at: EntryTime,
    /// It left for a moment and keeps its partitions until its session ends.
    pub away: bool,
}

/// What a member says of itself with each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProfile {
    /// The name that it keeps over restarts.
    pub instance: Option<InstanceId>,
    /// For people: which program, where.
    pub client: String,
    /// Silence after which it is expired, within [`crate::limits::SESSION_MS`].
    pub session_ms: u32,
    /// Time it may take to give up a partition, within [`crate::limits::REBALANCE_MS`].
    pub rebalance_ms: u32,
    /// What it subscribes to; never empty.
    pub topics: BTreeSet<TopicName>,
}

/// One partition, as the group shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seat {
    /// The member that should have it, by the generation it joined in.
    pub target: Option<Generation>,
    /// The member that has it.
    pub owner: Option<Hold>,
}

/// That a member has a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The member, by the generation it joined in.
    pub member: Generation,
    /// The generation in which it got the partition.
    pub since: Generation,
}

impl Seat {
    /// The owner, where it is to keep the partition.
    fn kept(&self) -> Option<Hold> {
        self.owner.filter(|owner| self.target == Some(owner.member))
    }

    fn is_given_up_by(&self, member: Generation) -> bool {
        self.target != Some(member) && self.owner.is_some_and(|owner| owner.member == member)
    }
}

impl Roster {
    /// Of the last change of the group.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The members by the generation each joined in.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<Generation, GroupMember> {
        &self.members
    }

    /// Who has and who should have each partition, by topic and partition number.
    #[must_use]
    pub fn seats(&self) -> &BTreeMap<TopicName, Vec<Seat>> {
        &self.seats
    }

    /// Every partition is with the member that should have it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.seats.values().flatten().all(|seat| seat.kept().is_some())
    }

    /// A member by its id, with the generation it joined in.
    #[must_use]
    pub fn member(&self, id: &MemberId) -> Option<(Generation, &GroupMember)> {
        let joined = *self.ids.get(id)?;
        Some((joined, self.members.get(&joined)?))
    }

    pub(super) fn with_instance(
        &self,
        instance: &InstanceId,
    ) -> Option<(Generation, &GroupMember)> {
        let mut members = self.members.iter();
        let found = members.find(|(_, member)| member.profile.instance.as_ref() == Some(instance));
        found.map(|(joined, member)| (*joined, member))
    }

    /// The partitions that a member has and is to keep.
    #[must_use]
    pub fn assigned(&self, member: Generation) -> TopicPartitions {
        self.partitions(|seat| seat.kept().is_some_and(|hold| hold.member == member))
    }

    /// The partitions that a member still has and is to give up.
    #[must_use]
    pub fn giving_up(&self, member: Generation) -> TopicPartitions {
        self.partitions(|seat| seat.is_given_up_by(member))
    }

    /// The partitions that a member will get when their owners have given them up.
    #[must_use]
    pub fn waiting_for(&self, member: Generation) -> TopicPartitions {
        self.partitions(|seat| seat.target == Some(member) && seat.kept().is_none())
    }

    fn partitions(&self, wanted: impl Fn(&Seat) -> bool) -> TopicPartitions {
        let mut found = TopicPartitions::new();
        for (topic, seats) in &self.seats {
            let numbers: BTreeSet<u32> = (0..)
                .zip(seats)
                .filter(|(_, seat)| wanted(seat))
                .map(|(number, _)| number)
                .collect();
            if !numbers.is_empty() {
                found.insert(topic.clone(), numbers);
            }
        }
        found
    }

    /// Who has a partition.
    #[must_use]
    pub fn owner(&self, topic: &TopicName, partition: u32) -> Option<Hold> {
        let place = usize::try_from(partition).ok()?;
        self.seats.get(topic)?.get(place)?.owner
    }

    pub(super) fn subscribes(&self, topic: &TopicName) -> bool {
        self.members.values().any(|member| member.profile.topics.contains(topic))
    }

    pub(super) fn add(&mut self, joined: Generation, member: GroupMember) {
        self.ids.insert(member.id.clone(), joined);
        self.members.insert(joined, member);
    }

    /// Ends a membership: all it had is free.
    pub(super) fn remove(&mut self, joined: Generation) {
        if let Some(member) = self.members.remove(&joined) {
            self.ids.remove(&member.id);
        }
        for seat in self.seats.values_mut().flatten() {
            if seat.owner.is_some_and(|owner| owner.member == joined) {
                seat.owner = None;
            }
            if seat.target == Some(joined) {
                seat.target = None;
            }
        }
    }

    /// Puts a new member in the place of an old one, with the partitions that the old one was to
    /// keep. What it was giving up is free: its process has ended, or may not commit any more.
    pub(super) fn replace(&mut self, old: Generation, joined: Generation, member: GroupMember) {
        for seat in self.seats.values_mut().flatten() {
            if let Some(hold) = seat.owner.filter(|owner| owner.member == old) {
                let keeps = seat.target == Some(hold.member);
                seat.owner = keeps.then_some(Hold { member: joined, since: joined });
            }
            if seat.target == Some(old) {
                seat.target = Some(joined);
            }
        }
        self.remove(old);
        self.add(joined, member);
    }

    /// Whether a member that owns only `owned` has given something up.
    pub(super) fn gave_up(&self, member: Generation, owned: &TopicPartitions) -> bool {
        self.seats.iter().any(|(topic, seats)| {
            let owned = owned.get(topic);
            (0..).zip(seats).any(|(number, seat): (u32, _)| {
                seat.is_given_up_by(member) && !owned.is_some_and(|owned| owned.contains(&number))
            })
        })
    }

    /// Frees what a member had to give up and does not own any more.
    pub(super) fn release(&mut self, member: Generation, owned: &TopicPartitions) {
        for (topic, seats) in &mut self.seats {
            let owned = owned.get(topic);
            for (number, seat) in (0_u32..).zip(seats) {
                if seat.is_given_up_by(member) && !owned.is_some_and(|it| it.contains(&number)) {
                    seat.owner = None;
                }
            }
        }
    }

    /// A topic is no more: its partitions are nobody's, at once.
    pub(super) fn withdraw(&mut self, topic: &TopicName) {
        self.seats.remove(topic);
    }

    /// Decides anew who should have what, keeping as much as possible.
    /// `partitions`: how many a topic has, if there is one.
    pub(super) fn retarget(&mut self, partitions: impl Fn(&TopicName) -> Option<u32>) {
        let mut now = Plan::new();
        for topic in self.members.values().flat_map(|member| &member.profile.topics) {
            let Some(count) = partitions(topic) else { continue };
            if now.contains_key(topic) {
                continue;
            }
            let seats = self.seats.entry(topic.clone()).or_default();
            let count = usize::try_from(count).expect("below TOPIC_PARTITIONS_MAX");
            seats.resize(count.max(seats.len()), Seat::default());
            let subscribes = |member: &Generation| {
                let member = self.members.get(member);
                member.is_some_and(|member| member.profile.topics.contains(topic))
            };
            let holder = |seat: &Seat| {
                // Where the target is gone, the owner may keep what it was about to give up.
                let owner = || seat.owner.map(|owner| owner.member).filter(subscribes);
                seat.target.filter(subscribes).or_else(owner)
            };
            now.insert(topic.clone(), seats.iter().map(holder).collect());
        }
        let members = self.members.iter();
        let members = members.map(|(joined, member)| (*joined, &member.profile.topics)).collect();
        let mut plan = assignor::assign(&members, &now);
        for (topic, seats) in &mut self.seats {
            let targets = plan.remove(topic).unwrap_or_else(|| vec![None; seats.len()]);
            for (seat, target) in seats.iter_mut().zip(targets) {
                seat.target = target;
            }
        }
    }

    /// Ends a change: gives free partitions to their targets, and takes `generation` for the group
    /// and for each member whose assignment is another than in `before`.
    pub(super) fn settle(&mut self, generation: Generation, before: Option<&Roster>) {
        for seat in self.seats.values_mut().flatten() {
            let unasked = zoo::is(Bug::TwoOwners) && seat.kept().is_none();
            if seat.owner.is_none() || unasked {
                seat.owner = seat.target.map(|member| Hold { member, since: generation });
            }
        }
        self.seats.retain(|_, seats| seats.iter().any(|seat| seat.owner.is_some()));
        let mut changed: BTreeSet<Generation> = BTreeSet::new();
        let none = BTreeMap::new();
        let before = before.map_or(&none, |before| &before.seats);
        for topic in before.keys().chain(self.seats.keys()) {
            let was = before.get(topic).map_or(&[][..], Vec::as_slice);
            let is = self.seats.get(topic).map_or(&[][..], Vec::as_slice);
            for place in 0..was.len().max(is.len()) {
                let kept = |seats: &[Seat]| seats.get(place).and_then(Seat::kept);
                let (was, is) = (kept(was), kept(is));
                if was != is {
                    changed.extend([was, is].into_iter().flatten().map(|hold| hold.member));
                }
            }
        }
        self.generation = generation;
        for (joined, member) in &mut self.members {
            if changed.contains(joined) {
                member.generation = generation;
            }
        }
    }

    /// Size in the table's account.
    pub(super) fn bytes(&self) -> usize {
        let members: usize = self.members.values().map(GroupMember::bytes).sum();
        let topic_bytes = |(topic, seats): (&TopicName, &Vec<Seat>)| {
            TOPIC_BYTES + topic.as_str().len() + seats.len() * SEAT_BYTES
        };
        members + self.seats.iter().map(topic_bytes).sum::<usize>()
    }
}

impl GroupMember {
    fn bytes(&self) -> usize {
        let profile = &self.profile;
        let instance_bytes = profile.instance.as_ref().map_or(0, |it| it.as_str().len());
        let topic_bytes = profile.topics.iter().map(|topic| TOPIC_BYTES + topic.as_str().len());
        // Its id stands in the index too.
        let texts = 2 * self.id.as_str().len() + instance_bytes + profile.client.len();
        MEMBER_BYTES + texts + topic_bytes.sum::<usize>()
    }
}
