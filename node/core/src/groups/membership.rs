//! Joining, heartbeats, leaving, expiry and news of topics: how a table's groups change.
//!
//! A heartbeat is judged by one function, which the coordinator's leader asks first (most change
//! nothing and need no log entry) and apply asks again. A change is made on copies of the rosters
//! it concerns, and counts as a whole once the table's size is known to allow it.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::{GroupMember, Roster, TopicPartitions};
use super::{
    ExpireMembers, GroupOutcome, GroupTable, Heartbeat, LeaveGroup, TopicFact, TopicNews, account,
};
use crate::ids::{Generation, GroupName, TopicName};
use crate::limits::{GROUP_MEMBERS_MAX, GROUP_TABLE_BYTES_MAX};

/// What a topic that is known takes in the table's account beside its name.
const TOPIC_FACT_BYTES: usize = 64;

/// What a heartbeat means for the table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// It is refused; nothing changes.
    Refused(GroupOutcome),
    /// It changes nothing. The member joined in `joined`, and is in `generation`.
    AsBefore {
        /// Tells this membership from others of the same member id.
        joined: Generation,
        /// What the member is told.
        generation: Generation,
    },
    /// It must be logged to have its effect.
    Changes(HeartbeatChange),
}

/// What a heartbeat changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatChange {
    /// A new member.
    Join,
    /// A new member in the place of the one that joined in this generation, whose instance id it
    /// has.
    TakeOver(Generation),
    /// The member that joined in this generation has another profile, gave something up, or is
    /// back.
    Update(Generation),
}

/// A change that is not in force yet.
struct Draft {
    generation: Generation,
    metadata_index: u64,
    /// News of topics; `None`: there is no such topic.
    topics: BTreeMap<TopicName, Option<TopicFact>>,
    rosters: BTreeMap<GroupName, Roster>,
}

impl GroupTable {
    /// What a heartbeat would do.
    #[must_use]
    pub fn hear(&self, heartbeat: &Heartbeat) -> Hearing {
        let instance = heartbeat.profile.instance.as_ref();
        let roster = self.roster(&heartbeat.group);
        let joins = heartbeat.generation == Generation(0);
        let other = roster.zip(instance).and_then(|(roster, instance)| {
            let (joined, member) = roster.with_instance(instance)?;
            (member.id != heartbeat.member).then_some(joined)
        });
        let Some((joined, member)) = roster.and_then(|it| it.member(&heartbeat.member)) else {
            return match (joins, other) {
                (true, Some(old)) => Hearing::Changes(HeartbeatChange::TakeOver(old)),
                (true, None) if roster.is_some_and(|it| it.members.len() >= GROUP_MEMBERS_MAX) => {
                    Hearing::Refused(GroupOutcome::GroupFull { limit: GROUP_MEMBERS_MAX })
                }
                (true, None) => Hearing::Changes(HeartbeatChange::Join),
                (false, Some(_)) => Hearing::Refused(GroupOutcome::InstanceFenced),
                (false, None) => Hearing::Refused(self.unknown_member(&heartbeat.group)),
            };
        };
        let current = member.generation;
        if !joins && (heartbeat.generation < joined || heartbeat.generation > current) {
            return Hearing::Refused(GroupOutcome::MemberFenced { current });
        }
        if other.is_some() || (!joins && member.profile.instance.as_ref() != instance) {
            // A member keeps the instance id it joined with.
            return Hearing::Refused(GroupOutcome::InstanceFenced);
        }
        let gave_up = || roster.is_some_and(|it| it.gave_up(joined, &heartbeat.owned));
        let is_current = heartbeat.generation == current;
        if member.away || (is_current && (member.profile != heartbeat.profile || gave_up())) {
            return Hearing::Changes(HeartbeatChange::Update(joined));
        }
        Hearing::AsBefore { joined, generation: current }
    }

    pub(super) fn unknown_member(&self, group: &GroupName) -> GroupOutcome {
        match self.groups.contains_key(group) {
            true => GroupOutcome::UnknownMember,
            false => GroupOutcome::UnknownGroup,
        }
    }

    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat) -> GroupOutcome {
        let change = match self.hear(heartbeat) {
            Hearing::Refused(outcome) => return outcome,
            Hearing::AsBefore { generation, .. } => return GroupOutcome::Heard { generation },
            Hearing::Changes(change) => change,
        };
        let mut draft = self.draft();
        let generation = draft.generation;
        draft.learn(self, &heartbeat.topics);
        let newcomer = || GroupMember {
            id: heartbeat.member.clone(),
            profile: heartbeat.profile.clone(),
            generation,
            joined_at: self.time_last,
            away: false,
        };
        let roster = draft.roster(self, &heartbeat.group);
        match change {
            HeartbeatChange::Join => roster.add(generation, newcomer()),
            HeartbeatChange::TakeOver(old) => roster.replace(old, generation, newcomer()),
            HeartbeatChange::Update(joined) => update(roster, joined, generation, heartbeat),
        }
        draft.retarget(self, &heartbeat.group);
        if let Err(refused) = self.install(draft) {
            return refused;
        }
        let member = self.roster(&heartbeat.group).and_then(|it| it.member(&heartbeat.member));
        let (_, member) = member.expect("it joined or was there before");
        GroupOutcome::Heard { generation: member.generation }
    }

    pub(super) fn leave(&mut self, leave: &LeaveGroup) -> GroupOutcome {
        let member = self.roster(&leave.group).and_then(|roster| roster.member(&leave.member));
        let Some((joined, member)) = member else { return self.unknown_member(&leave.group) };
        let stays = leave.stays && member.profile.instance.is_some();
        let mut draft = self.draft();
        let roster = draft.roster(self, &leave.group);
        if stays {
            roster.release(joined, &TopicPartitions::new());
            roster.members.get_mut(&joined).expect("found above").away = true;
        } else {
            roster.remove(joined);
            draft.retarget(self, &leave.group);
        }
        self.install(draft).map_or_else(|refused| refused, |()| GroupOutcome::Left)
    }

    pub(super) fn expire(&mut self, expire: &ExpireMembers) -> GroupOutcome {
        let Some(roster) = self.roster(&expire.group) else { return GroupOutcome::UnknownGroup };
        let same = |(id, joined): &&(_, Generation)| {
            roster.member(id).is_some_and(|(since, _)| since == *joined)
        };
        let gone: Vec<Generation> =
            expire.members.iter().filter(same).map(|(_, joined)| *joined).collect();
        if gone.is_empty() {
            return GroupOutcome::Expired { members: 0 };
        }
        let mut draft = self.draft();
        let roster = draft.roster(self, &expire.group);
        for joined in &gone {
            roster.remove(*joined);
        }
        draft.retarget(self, &expire.group);
        let members = gone.len();
        self.install(draft).map_or_else(|refused| refused, |()| GroupOutcome::Expired { members })
    }

    pub(super) fn topics_changed(&mut self, news: &TopicNews) -> GroupOutcome {
        let mut draft = self.draft();
        draft.learn(self, news);
        let groups = draft.rosters.len();
        if let Err(refused) = self.install(draft) {
            return refused;
        }
        // Invariant: what somebody has partitions of stays known, or one made again under its name
        // would be taken for it.
        let rosters = self.groups.values().map(|group| &group.roster);
        let needed: BTreeSet<&TopicName> = rosters
            .flat_map(|roster| {
                let members = roster.members.values();
                members.flat_map(|member| &member.profile.topics).chain(roster.seats.keys())
            })
            .collect();
        self.topics.retain(|topic, _| needed.contains(topic));
        self.bytes = self.account();
        GroupOutcome::TopicsLearned { groups }
    }

    /// Takes a topic that was deleted from whoever has partitions of it.
    pub(super) fn withdraw_topic(&mut self, topic: &TopicName) {
        let mut draft = self.draft();
        draft.topics.insert(topic.clone(), None);
        draft.restage(self);
        self.install(draft).expect("what is taken away needs no room");
    }

    /// Begins a change of the groups, in the next generation.
    fn draft(&self) -> Draft {
        Draft {
            generation: Generation(self.generation_last.0 + 1),
            metadata_index: self.metadata_index,
            topics: BTreeMap::new(),
            rosters: BTreeMap::new(),
        }
    }

    /// Puts a change in force, if the table has room for it.
    fn install(&mut self, mut draft: Draft) -> Result<(), GroupOutcome> {
        let (mut freed, mut added) = (0, 0);
        for (name, roster) in &mut draft.rosters {
            let group = self.groups.get(name);
            if roster.members.is_empty() {
                *roster = Roster::default();
            } else {
                roster.settle(draft.generation, group.map(|group| &group.roster));
            }
            added += roster.bytes() + if group.is_none() { name.as_str().len() } else { 0 };
            freed += group.map_or(0, |group| group.roster.bytes());
        }
        for (topic, fact) in &draft.topics {
            added += if fact.is_some() { topic_account(topic) } else { 0 };
            freed += self.topics.get(topic).map_or(0, |_| topic_account(topic));
        }
        if added > freed && self.bytes + added - freed > GROUP_TABLE_BYTES_MAX {
            return Err(GroupOutcome::TableFull { limit_bytes: GROUP_TABLE_BYTES_MAX });
        }
        self.bytes = self.bytes + added - freed;
        self.metadata_index = draft.metadata_index;
        if !draft.rosters.is_empty() {
            self.generation_last = draft.generation;
        }
        for (topic, fact) in draft.topics {
            let id = fact.map(|fact| fact.id);
            let before = match fact {
                Some(fact) => self.topics.insert(topic.clone(), fact),
                None => self.topics.remove(&topic),
            };
            if id.is_some() && before.is_some_and(|before| Some(before.id) != id) {
                self.forget_shared(&topic);
            }
        }
        for (name, roster) in draft.rosters {
            self.groups.entry(name.clone()).or_default().roster = roster;
            self.drop_if_empty(&name);
        }
        Ok(())
    }

    /// A topic was made again under its name: forgets the offsets that groups with members have
    /// for the one before.
    fn forget_shared(&mut self, topic: &TopicName) {
        for group in self.groups.values_mut().filter(|group| group.roster.seats.contains_key(topic))
        {
            group.offsets.retain(|place, offset| {
                let keep = place.0 != *topic;
                self.bytes -= if keep { 0 } else { account(place, offset) };
                keep
            });
        }
    }
}

impl Draft {
    /// A group's roster, to be changed.
    fn roster(&mut self, table: &GroupTable, group: &GroupName) -> &mut Roster {
        let now = || table.roster(group).cloned().unwrap_or_default();
        self.rosters.entry(group.clone()).or_insert_with(now)
    }

    /// Decides anew who should have what in a group.
    fn retarget(&mut self, table: &GroupTable, group: &GroupName) {
        let news = &self.topics;
        let partitions = |topic: &TopicName| {
            let known = || table.topics.get(topic).copied();
            Some(news.get(topic).copied().unwrap_or_else(known)?.partitions)
        };
        if let Some(roster) = self.rosters.get_mut(group) {
            roster.retarget(partitions);
        }
    }

    /// Takes news of topics in, unless the table has newer ones.
    fn learn(&mut self, table: &GroupTable, news: &TopicNews) {
        if news.metadata_index < table.metadata_index {
            return;
        }
        self.metadata_index = news.metadata_index;
        for (topic, fact) in &news.topics {
            if table.topics.get(topic) != fact.as_ref() {
                self.topics.insert(topic.clone(), *fact);
            }
        }
        self.restage(table);
    }

    /// Lets every group know that shares one of the topics that changed.
    fn restage(&mut self, table: &GroupTable) {
        let mut changed: Vec<(TopicName, bool)> = Vec::with_capacity(self.topics.len());
        for (topic, fact) in &self.topics {
            let before = table.topics.get(topic);
            let goes_on = fact.is_some_and(|fact| {
                before.is_none_or(|it| it.id == fact.id && it.partitions <= fact.partitions)
            });
            changed.push((topic.clone(), goes_on));
        }
        for (name, group) in &table.groups {
            let shares = |topic: &TopicName| {
                group.roster.seats.contains_key(topic) || group.roster.subscribes(topic)
            };
            if !changed.iter().any(|(topic, _)| shares(topic)) {
                continue;
            }
            let roster = self.roster(table, name);
            for (topic, _) in changed.iter().filter(|(_, goes_on)| !goes_on) {
                roster.withdraw(topic);
            }
            self.retarget(table, name);
        }
    }
}

/// Applies a heartbeat to the member that joined in `joined`.
fn update(roster: &mut Roster, joined: Generation, generation: Generation, said: &Heartbeat) {
    let member = roster.members.get_mut(&joined).expect("it was judged to be there");
    member.away = false;
    if member.generation != said.generation {
        return;
    }
    if member.profile != said.profile {
        member.profile = said.profile.clone();
        // The next heartbeat must know of it, or an older subscription could come late and win.
        member.generation = generation;
    }
    roster.release(joined, &said.owned);
}

/// What a topic that is known counts for in the table's size.
pub(super) fn topic_account(topic: &TopicName) -> usize {
    TOPIC_FACT_BYTES + topic.as_str().len()
}
