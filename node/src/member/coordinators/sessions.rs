//! Members of groups, where this node leads their coordinator: hearing them, ending the sessions of
//! those that are silent, and telling the table of topics.
//!
//! A heartbeat that changes nothing is answered from the applied table and is in no log. That is
//! right as long as this node leads, so its leadership is confirmed by a majority at least once in
//! [`limits::GROUPS_LEAD_CONFIRMED`]; a leader that was deposed since can only tell a member what
//! was true a moment ago, and commits are checked in apply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node_core::groups::sessions::Sessions;
use node_core::groups::{
    ExpireMembers, GroupCommand, GroupOutcome, GroupTable, Hearing, Heartbeat, LeaveGroup,
    TopicFact, TopicNews, TopicPartitions,
};
use node_core::ids::{Generation, GroupId, GroupName, MemberId, TopicId, TopicName};
use node_core::limits::TOPIC_NEWS_MAX;
use node_core::metadata::MetadataState;
use node_core::time::EntryTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::CoordinatorFailure;
use crate::limits;
use crate::member::{Member, Replica};
use crate::raft::{RaftFailure, Role};

/// What this node remembers of the members of each coordinator it leads.
pub(crate) struct GroupSessions {
    opened: Instant,
    reigns: Mutex<BTreeMap<GroupId, Reign>>,
}

/// One time of leading a coordinator.
struct Reign {
    term: u64,
    /// A majority agreed that this node leads, at this time or later.
    confirmed: Option<Instant>,
    sessions: Sessions,
}

/// Where a member stands, as applied here.
pub(crate) struct Standing {
    pub(crate) generation: Generation,
    /// What it should have.
    pub(crate) assigned: TopicPartitions,
    /// Identities of the topics in `assigned`.
    pub(crate) topic_ids: BTreeMap<TopicName, TopicId>,
}

impl GroupSessions {
    pub(crate) fn new() -> Self {
        Self { opened: Instant::now(), reigns: Mutex::default() }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does `act` with what is remembered of this reign; of another one all is forgotten.
    fn with<R>(&self, coordinator: GroupId, term: u64, act: impl FnOnce(&mut Reign) -> R) -> R {
        let mut reigns = self.lock();
        let reign = reigns.entry(coordinator).or_insert_with(|| Reign::new(term));
        if reign.term != term {
            *reign = Reign::new(term);
        }
        act(reign)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Reign>> {
        self.reigns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reign {
    fn new(term: u64) -> Self {
        Self { term, confirmed: None, sessions: Sessions::default() }
    }
}

impl Member {
    /// Hears a member of a group, where this node leads its coordinator. What the heartbeat says
    /// of topics is filled in here.
    pub(crate) async fn hear_member(
        &self,
        mut heartbeat: Heartbeat,
        deadline: Instant,
    ) -> Result<GroupOutcome, CoordinatorFailure> {
        let (replica, mut term) = self.leads(&heartbeat.group, false, deadline).await?;
        let mut hearing = self.judge(&replica, &heartbeat);
        if matches!(hearing, Hearing::Refused(_)) {
            // A leader that was deposed may not know a member that joined since.
            term = self.leads(&heartbeat.group, true, deadline).await?.1;
            hearing = self.judge(&replica, &heartbeat);
        }
        let (group, member) = (heartbeat.group.clone(), heartbeat.member.clone());
        let (joined, outcome) = match hearing {
            Hearing::Refused(outcome) => return Ok(outcome),
            Hearing::AsBefore { joined, generation } => {
                (Some(joined), GroupOutcome::Heard { generation })
            }
            Hearing::Changes(_) => {
                heartbeat.topics = news_of(&self.metadata(), &heartbeat.profile.topics);
                let command = GroupCommand::Heartbeat(heartbeat);
                let outcome = self.execute_on(&group, command, deadline).await?;
                (joined_in(&replica, &group, &member), outcome)
            }
        };
        if let Some(joined) = joined {
            let now_ms = self.sessions.now_ms();
            self.sessions.with(replica.hosted().group, term, |reign| {
                reign.sessions.heard(&group, joined, now_ms);
            });
        }
        Ok(outcome)
    }

    /// Has a member leave its group.
    pub(crate) async fn leave_group(
        &self,
        leave: LeaveGroup,
        deadline: Instant,
    ) -> Result<GroupOutcome, CoordinatorFailure> {
        let group = leave.group.clone();
        self.execute_on(&group, GroupCommand::Leave(leave), deadline).await
    }

    /// Where a member stands in a group whose coordinator this node leads; `None`: it is no member.
    pub(crate) fn standing(
        &self,
        group: &GroupName,
        member: &MemberId,
    ) -> Result<Option<Standing>, CoordinatorFailure> {
        let replica = self.led_coordinator(group)?.0;
        Ok(read(&replica, |table| {
            let (joined, found) = table.roster(group)?.member(member)?;
            let assigned = table.roster(group)?.assigned(joined);
            let id = |topic: &TopicName| Some((topic.clone(), table.topics().get(topic)?.id));
            let topic_ids = assigned.keys().filter_map(id).collect();
            Some(Standing { generation: found.generation, assigned, topic_ids })
        })
        .flatten())
    }

    /// Tells of each change of the members of a coordinator's groups.
    pub(crate) fn group_changes(
        &self,
        group: &GroupName,
    ) -> Result<watch::Receiver<Generation>, CoordinatorFailure> {
        let (replica, _) = self.led_coordinator(group)?;
        let coordinator = replica.hosted().group;
        replica.group_changes().ok_or(CoordinatorFailure::NotHere { coordinator })
    }

    fn led_coordinator(
        &self,
        group: &GroupName,
    ) -> Result<(Arc<Replica>, u64), CoordinatorFailure> {
        let unknown = RaftFailure::NotLeader { leader: None };
        let coordinator = self.coordinator_of(group).ok_or(unknown)?;
        let replica = self.registry.replica(coordinator);
        let replica = replica.ok_or(CoordinatorFailure::NotHere { coordinator })?;
        let brief = replica.raft().brief();
        if brief.role == Role::Leader {
            return Ok((replica, brief.term));
        }
        Err(RaftFailure::NotLeader { leader: replica.raft().status().leader }.into())
    }

    /// The replica of a group's coordinator, and its term, if this node leads it by the word of a
    /// majority: a word asked for now, or one that is not old.
    async fn leads(
        &self,
        group: &GroupName,
        now: bool,
        deadline: Instant,
    ) -> Result<(Arc<Replica>, u64), CoordinatorFailure> {
        let (replica, term) = self.led_coordinator(group)?;
        let coordinator = replica.hosted().group;
        let confirmed = self.sessions.with(coordinator, term, |reign| reign.confirmed);
        let fresh = confirmed.is_some_and(|at| at.elapsed() < limits::GROUPS_LEAD_CONFIRMED);
        if now || !fresh {
            let asked = Instant::now();
            self.linearizer.linearize(replica.raft(), deadline).await?;
            // Deposed meanwhile, it was another node that answered.
            if self.led_coordinator(group)?.1 != term {
                return Err(RaftFailure::NotLeader { leader: None }.into());
            }
            self.sessions.with(coordinator, term, |reign| reign.confirmed = Some(asked));
        }
        Ok((replica, term))
    }

    fn judge(&self, replica: &Replica, heartbeat: &Heartbeat) -> Hearing {
        let hearing = read(replica, |table| table.hear(heartbeat));
        hearing.unwrap_or(Hearing::Refused(GroupOutcome::UnknownGroup))
    }

    /// Ends sessions and tells of topics, as long as the node runs.
    pub(in crate::member) async fn tend_groups(self: Arc<Self>) {
        loop {
            for replica in self.registry.all().iter().filter(|it| it.groups().is_some()) {
                let brief = replica.raft().brief();
                if brief.role == Role::Leader && brief.committed_in_term {
                    self.tend_coordinator(replica, brief.term).await;
                } else {
                    self.sessions.lock().remove(&replica.hosted().group);
                }
            }
            tokio::time::sleep(limits::GROUPS_LOOK).await;
        }
    }

    async fn tend_coordinator(&self, replica: &Replica, term: u64) {
        let coordinator = replica.hosted().group;
        let time = EntryTime::from_ms(self.ground.clock.now_ms());
        let due = read(replica, |table| {
            let now_ms = self.sessions.now_ms();
            self.sessions.with(coordinator, term, |reign| reign.sessions.look(table, now_ms))
        });
        let expired = due.into_iter().flatten().map(|(group, members)| {
            tracing::info!(%group, count = members.len(), "members of a group are expired");
            GroupCommand::Expire(ExpireMembers { group, members, time })
        });
        let metadata = self.metadata();
        let news = read(replica, |table| news_for(table, &metadata)).flatten();
        let news = news.map(|news| GroupCommand::TopicsChanged { news, time });
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        let commands: Vec<_> = expired.chain(news).map(|command| command.encode()).collect();
        let proposals = commands.into_iter().map(|command| async {
            replica.pulse().touch();
            replica.raft().execute(command, deadline).await
        });
        for outcome in futures::future::join_all(proposals).await {
            if let Err(failure) = outcome {
                tracing::debug!(%coordinator, %failure, "its groups are tended again later");
            }
        }
    }
}

fn read<R>(replica: &Replica, look: impl FnOnce(&GroupTable) -> R) -> Option<R> {
    Some(look(&replica.groups()?.read()))
}

fn joined_in(replica: &Replica, group: &GroupName, member: &MemberId) -> Option<Generation> {
    let joined = |table: &GroupTable| Some(table.roster(group)?.member(member)?.0);
    read(replica, joined).flatten()
}

/// What the metadata says of topics.
fn news_of<'a>(
    metadata: &MetadataState,
    topics: impl IntoIterator<Item = &'a TopicName>,
) -> TopicNews {
    let fact = |topic: &TopicName| {
        let record = metadata.topics().get(topic)?;
        let partitions = u32::try_from(record.partitions.len()).unwrap_or(u32::MAX);
        Some(TopicFact { id: record.id, partitions })
    };
    TopicNews {
        metadata_index: metadata.applied().map_or(0, |applied| applied.index),
        topics: topics.into_iter().map(|topic| (topic.clone(), fact(topic))).collect(),
    }
}

/// What the table should be told of the topics its groups use; `None`: it knows.
fn news_for(table: &GroupTable, metadata: &MetadataState) -> Option<TopicNews> {
    if metadata.applied().is_none_or(|applied| applied.index < table.metadata_index()) {
        return None;
    }
    let members = table.rosters().flat_map(|(_, roster)| roster.members().values());
    let used: BTreeSet<&TopicName> =
        members.flat_map(|member| &member.profile.topics).chain(table.topics().keys()).collect();
    let mut news = news_of(metadata, used);
    news.topics.retain(|topic, fact| table.topics().get(topic) != fact.as_ref());
    // The rest comes with the next look.
    while news.topics.len() > TOPIC_NEWS_MAX {
        news.topics.pop_last();
    }
    (!news.topics.is_empty()).then_some(news)
}
