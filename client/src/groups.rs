//! Group offsets: what groups have consumed.
//!
//! Each group is kept by one coordinator group of the cluster; calls go to its leader, which is
//! found by asking any node and following its answer.

use quipu_proto::MESSAGE_BYTES_MAX;
use quipu_proto::v1;
use quipu_proto::v1::groups_client::GroupsClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::calls::Target;
use crate::client::Client;
use crate::error::{CallError, ErrorCode, GroupError, Outcome};
use crate::read::Position;
use crate::record::TopicPartition;

/// The calls about groups of a [`Client`].
#[derive(Debug, Clone)]
pub struct Groups {
    client: Client,
}

/// What a group has consumed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition's topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset to consume.
    pub offset: u64,
    /// Free text of the committer, at most 4 KiB.
    pub metadata: Option<String>,
    /// When it was committed, milliseconds since 1970. `None` in what is to be committed.
    pub committed_at_ms: Option<u64>,
}

/// A group and all it has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Raft group that keeps it.
    pub coordinator: u32,
    /// Label of the node that leads that Raft group; `None`: none known.
    pub leader_node: Option<u64>,
    /// By topic and partition.
    pub offsets: Vec<GroupOffset>,
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition's topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset the group will consume.
    pub group_offset: u64,
    /// First offset kept. Above `group_offset`, records were purged before the group saw them.
    pub log_start_offset: u64,
    /// End (exclusive) of the partition.
    pub high_watermark: u64,
    /// Records between the two that are still there.
    pub lag: u64,
}

impl GroupOffset {
    /// The group will consume `offset` next.
    pub fn new(topic: impl Into<String>, partition: u32, offset: u64) -> GroupOffset {
        GroupOffset {
            topic: topic.into(),
            partition,
            offset,
            metadata: None,
            committed_at_ms: None,
        }
    }
}

impl Groups {
    pub(crate) fn new(client: Client) -> Groups {
        Groups { client }
    }

    /// Commits all of `offsets`, or none. Repeating a commit does no harm, so it is retried.
    ///
    /// # Errors
    /// [`GroupError::OffsetRegression`] if one of them is below what the group has committed.
    pub async fn commit(&self, group: &str, offsets: Vec<GroupOffset>) -> Result<(), GroupError> {
        self.send_commit(group, offsets, false).await
    }

    /// Sets all of `offsets`, or none; they may go back.
    ///
    /// Not sent again once it may have had its effect: it could undo a later commit.
    ///
    /// # Errors
    /// What prevents it.
    pub async fn reset(&self, group: &str, offsets: Vec<GroupOffset>) -> Result<(), GroupError> {
        self.send_commit(group, offsets, true).await
    }

    async fn send_commit(
        &self,
        group: &str,
        offsets: Vec<GroupOffset>,
        reset: bool,
    ) -> Result<(), GroupError> {
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: offsets.into_iter().map(Into::into).collect(),
            reset,
            timeout_ms: self.client.shared.request_timeout_ms(),
            ..v1::CommitOffsetsRequest::default()
        };
        let committed = self
            .call(group, !reset, |mut groups| {
                let request = request.clone();
                async move { groups.commit_offsets(request).await }
            })
            .await;
        match committed {
            Ok(v1::CommitOffsetsResponse {}) => Ok(()),
            Err(error) => Err(regression_or(error)),
        }
    }

    /// What the group has committed for `partitions`; for an empty list, all of it. Sees every
    /// commit acknowledged before. Partitions without a commit are left out.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn fetch(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<GroupOffset>, GroupError> {
        let partitions = partitions.iter().map(|wanted| v1::TopicPartition {
            topic: wanted.topic.clone(),
            partition: wanted.partition,
        });
        let request =
            v1::FetchOffsetsRequest { group: group.to_owned(), partitions: partitions.collect() };
        let answer = self
            .call(group, true, |mut groups| {
                let request = request.clone();
                async move { groups.fetch_offsets(request).await }
            })
            .await?;
        Ok(sorted(answer.offsets))
    }

    /// The names of all groups, in order.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn list(&self) -> Result<Vec<String>, GroupError> {
        let shared = &self.client.shared;
        let answer = shared
            .call(&Target::Any, shared.patience(true), |channel| async move {
                groups_client(channel).list_groups(v1::ListGroupsRequest::default()).await
            })
            .await?;
        let mut groups = answer.groups;
        groups.sort();
        Ok(groups)
    }

    /// A group, who keeps it, and all it has committed.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`.
    pub async fn describe(&self, group: &str) -> Result<GroupDescription, GroupError> {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        let answer = self
            .call(group, true, |mut groups| {
                let request = request.clone();
                async move { groups.describe_group(request).await }
            })
            .await?;
        Ok(GroupDescription {
            group: answer.group,
            coordinator: answer.coordinator,
            leader_node: (answer.leader_node != 0).then_some(answer.leader_node),
            offsets: sorted(answer.offsets),
        })
    }

    /// Forgets a group and all it has committed.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let request = v1::DeleteGroupRequest { group: group.to_owned() };
        self.call(group, false, |mut groups| {
            let request = request.clone();
            async move { groups.delete_group(request).await }
        })
        .await?;
        Ok(())
    }

    /// How far the group is behind in each partition it has committed for. Partitions of deleted
    /// topics are left out.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`, or what prevents looking up an end.
    pub async fn lag(&self, group: &str) -> Result<Vec<PartitionLag>, GroupError> {
        let description = self.describe(group).await?;
        let mut lags = Vec::with_capacity(description.offsets.len());
        for committed in description.offsets {
            let GroupOffset { topic, partition, offset, .. } = committed;
            let ends = match self.client.list_offsets(&topic, partition, Position::Latest).await {
                Ok(ends) => ends,
                Err(error) if error.code() == crate::Code::Server(ErrorCode::UnknownTopic) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            lags.push(PartitionLag {
                topic,
                partition,
                group_offset: offset,
                log_start_offset: ends.log_start_offset,
                high_watermark: ends.high_watermark,
                lag: ends.high_watermark.saturating_sub(offset.max(ends.log_start_offset)),
            });
        }
        Ok(lags)
    }

    async fn call<T, F, R>(&self, group: &str, repeatable: bool, request: F) -> Result<T, CallError>
    where
        F: Fn(GroupsClient<Channel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.client.shared;
        let target = Target::Coordinator(group.to_owned());
        shared
            .call(&target, shared.patience(repeatable), |channel| request(groups_client(channel)))
            .await
    }
}

fn groups_client(channel: Channel) -> GroupsClient<Channel> {
    GroupsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn regression_or(error: CallError) -> GroupError {
    let committed = error.detail.as_ref().and_then(|detail| detail.committed_offset);
    match committed {
        Some(committed_offset)
            if error.is(ErrorCode::OffsetRegression) && error.outcome == Outcome::Definite =>
        {
            GroupError::OffsetRegression { committed_offset }
        }
        _ => GroupError::Call(error),
    }
}

fn sorted(offsets: Vec<v1::GroupOffset>) -> Vec<GroupOffset> {
    let mut offsets: Vec<GroupOffset> = offsets.into_iter().map(Into::into).collect();
    offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    offsets
}

impl From<GroupOffset> for v1::GroupOffset {
    fn from(offset: GroupOffset) -> v1::GroupOffset {
        v1::GroupOffset {
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            metadata: offset.metadata,
            committed_at_ms: 0,
        }
    }
}

impl From<v1::GroupOffset> for GroupOffset {
    fn from(offset: v1::GroupOffset) -> GroupOffset {
        GroupOffset {
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            metadata: offset.metadata,
            committed_at_ms: (offset.committed_at_ms != 0).then_some(offset.committed_at_ms),
        }
    }
}
