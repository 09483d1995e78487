//! Consumer groups: commands and linearizable reads of the coordinator groups. Members' sessions
//! are in `sessions`.

mod recreated;
mod sessions;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use node_core::groups::{CommitOffsets, GroupCommand, GroupOutcome, GroupTable};
use node_core::ids::{GroupId, GroupName, TopicName};
use node_core::metadata::MetadataState;
use node_core::zoo::{self, Bug};
use tokio::time::Instant;

pub(super) use self::recreated::Recreated;
use self::recreated::commits_of;
pub(crate) use self::sessions::{GroupSessions, Standing};
use super::{Member, Replica};
use crate::limits;
use crate::raft::{Applied, RaftFailure};
use crate::tables::Shared;

/// Why a coordinator did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoordinatorFailure {
    #[error("this node has no replica of coordinator {coordinator}")]
    NotHere { coordinator: GroupId },
    #[error(transparent)]
    Raft(#[from] RaftFailure),
}

impl Member {
    /// The coordinator of a group; `None` before the cluster is made.
    pub(crate) fn coordinator_of(&self, group: &GroupName) -> Option<GroupId> {
        let count = self.metadata.borrow().coordinator_count();
        (count > 0).then(|| node_core::groups::coordinator_of(group, count))
    }

    /// Has the group's coordinator commit offsets.
    pub(crate) async fn commit_offsets(
        &self,
        commit: CommitOffsets,
        deadline: Instant,
    ) -> Result<GroupOutcome, CoordinatorFailure> {
        let group = commit.group.clone();
        self.execute_on(&group, GroupCommand::Commit(commit), deadline).await
    }

    /// Has the group's coordinator forget it.
    pub(crate) async fn delete_group(
        &self,
        group: GroupName,
        deadline: Instant,
    ) -> Result<GroupOutcome, CoordinatorFailure> {
        let command = GroupCommand::Delete { group: group.clone() };
        self.execute_on(&group, command, deadline).await
    }

    async fn execute_on(
        &self,
        group: &GroupName,
        command: GroupCommand,
        deadline: Instant,
    ) -> Result<GroupOutcome, CoordinatorFailure> {
        let unknown = RaftFailure::NotLeader { leader: None };
        let coordinator = self.coordinator_of(group).ok_or(unknown)?;
        let replica = self.registry.replica(coordinator);
        let replica = replica.ok_or(CoordinatorFailure::NotHere { coordinator })?;
        replica.pulse().touch();
        if zoo::is(Bug::CommitFromMemory) && matches!(command, GroupCommand::Commit(_)) {
            return replica.raft().propose(command.encode()).await.map_or_else(
                |failure| Err(failure.into()),
                |_proposed| Ok(GroupOutcome::Committed),
            );
        }
        match replica.raft().execute(command.encode(), deadline).await? {
            (Applied::Group(outcome), _) => Ok(outcome),
            (other, _) => {
                Err(RaftFailure::Stopped(format!("the coordinator answered {other}")).into())
            }
        }
    }

    /// Remembers the topics' ids, on every node that has coordinators.
    pub(super) fn note_recreated(&self, metadata: &MetadataState) {
        let tables: Vec<_> = self
            .registry
            .all()
            .iter()
            .filter_map(|replica| Some((replica.hosted().group, replica.groups()?.clone())))
            .collect();
        let newest = |topic: &TopicName| {
            let newest = |(coordinator, table): &(GroupId, Arc<Shared<GroupTable>>)| {
                Some((*coordinator, commits_of(&table.read(), topic).max()?))
            };
            tables.iter().filter_map(newest).collect()
        };
        self.recreated.lock().unwrap_or_else(PoisonError::into_inner).note(metadata, newest);
    }

    /// Topics made again under their names, of which a coordinator still has the old offsets.
    pub(super) fn recreated_in(&self, replica: &Replica) -> Vec<TopicName> {
        let Some(table) = replica.groups() else { return Vec::new() };
        let mut recreated = self.recreated.lock().unwrap_or_else(PoisonError::into_inner);
        recreated.stale_in(replica.hosted().group, &table.read())
    }

    /// Where this node leads a coordinator: forgets the offsets of topics that are no more, so that
    /// a new topic of the same name does not begin with them. Where there is one already it is
    /// forgotten what a fast consumer may have committed of it, too: it consumes that again.
    pub(super) async fn forget_deleted_topics(&self, replica: &Replica) {
        let Some(table) = replica.groups() else { return };
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        for topic in self.recreated_in(replica) {
            let command = GroupCommand::ForgetTopic { topic }.encode();
            if let Err(failure) = replica.raft().execute(command, deadline).await {
                tracing::debug!(%failure, "offsets of an earlier topic stay for now");
            }
        }
        let known = self.metadata();
        let mut gone = topics_not_in(&known, &table.read());
        if gone.is_empty() {
            return;
        }
        // AFTER the table was looked at: metadata that lags must not make a new topic look deleted.
        let Ok(fresh) = self.fresh_metadata(deadline).await else { return };
        gone.retain(|topic| !fresh.topics().contains_key(topic));
        for topic in gone {
            let command = GroupCommand::ForgetTopic { topic }.encode();
            if let Err(failure) = replica.raft().execute(command, deadline).await {
                tracing::debug!(%failure, "offsets of a deleted topic stay for now");
            }
        }
    }

    /// Looks at a coordinator's table with everything acknowledged before this call.
    pub(crate) async fn read_groups<R>(
        &self,
        coordinator: GroupId,
        deadline: Instant,
        look: impl FnOnce(&GroupTable) -> R,
    ) -> Result<R, CoordinatorFailure> {
        let replica = self.registry.replica(coordinator);
        let replica = replica.ok_or(CoordinatorFailure::NotHere { coordinator })?;
        let table = replica.groups().ok_or(CoordinatorFailure::NotHere { coordinator })?;
        self.linearizer.linearize(replica.raft(), deadline).await?;
        let looked = look(&table.read());
        Ok(looked)
    }
}

fn topics_not_in(metadata: &MetadataState, table: &GroupTable) -> BTreeSet<TopicName> {
    let groups = table.group_names().filter_map(|group| table.offsets(group));
    let topics = groups.flat_map(|offsets| offsets.keys().map(|(topic, _)| topic));
    topics.filter(|topic| !metadata.topics().contains_key(*topic)).cloned().collect()
}
