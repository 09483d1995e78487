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
use crate::group_description::{GroupDescription, PartitionLag};
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

/// Some of the names of all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsPage {
    /// In order.
    pub groups: Vec<String>,
    /// There are others after the last one.
    pub more: bool,
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
    /// [`GroupError::OffsetRegression`] if one of them is below what the group has committed,
    /// [`GroupError::OffsetBeyondEnd`] if one is beyond the end of its partition.
    pub async fn commit(&self, group: &str, offsets: Vec<GroupOffset>) -> Result<(), GroupError> {
        self.send_commit(group, offsets, (false, None)).await
    }

    /// As [`Groups::commit`], by a member of the group for partitions that it owns: its id and the
    /// last generation it was told. For programs that keep up a membership of their own; a
    /// [`GroupConsumer`](crate::GroupConsumer) commits by itself.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER`, `GROUP_MEMBER_FENCED` or `PARTITION_NOT_OWNED` if it is no owner.
    pub async fn commit_as(
        &self,
        group: &str,
        member: (&str, i64),
        offsets: Vec<GroupOffset>,
    ) -> Result<(), GroupError> {
        self.send_commit(group, offsets, (false, Some(member))).await
    }

    /// Sets all of `offsets`, or none; they may go back.
    ///
    /// Not sent again once it may have had its effect: it could undo a later commit.
    ///
    /// # Errors
    /// What prevents it.
    pub async fn reset(&self, group: &str, offsets: Vec<GroupOffset>) -> Result<(), GroupError> {
        self.send_commit(group, offsets, (true, None)).await
    }

    async fn send_commit(
        &self,
        group: &str,
        offsets: Vec<GroupOffset>,
        (reset, member): (bool, Option<(&str, i64)>),
    ) -> Result<(), GroupError> {
        let (member_id, generation) = member.unwrap_or_default();
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: offsets.into_iter().map(Into::into).collect(),
            reset,
            timeout_ms: self.client.shared.request_timeout_ms(),
            member_id: member_id.to_owned(),
            generation,
        };
        let committed = self
            .call(group, !reset, |mut groups| {
                let request = request.clone();
                async move { groups.commit_offsets(request).await }
            })
            .await;
        match committed {
            Ok(v1::CommitOffsetsResponse {}) => Ok(()),
            Err(error) => Err(refused_or(error)),
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

    /// The names of all groups, in order, asked for page by page.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn list(&self) -> Result<Vec<String>, GroupError> {
        let mut groups: Vec<String> = Vec::new();
        loop {
            let after = groups.last().cloned().unwrap_or_default();
            let mut page = self.list_page(&after, 0).await?;
            // A page that brought nothing new would be asked for without end.
            page.groups.retain(|name| *name > after);
            let goes_on = page.more && !page.groups.is_empty();
            groups.extend(page.groups);
            if !goes_on {
                return Ok(groups);
            }
        }
    }

    /// Names of groups after `after` (empty: from the first on), in order: at most `limit`, or as
    /// many as the node gives at once, and whether there are more.
    ///
    /// # Errors
    /// What prevents asking.
    pub async fn list_page(&self, after: &str, limit: u32) -> Result<GroupsPage, GroupError> {
        let shared = &self.client.shared;
        let request =
            v1::ListGroupsRequest { after: after.to_owned(), limit, coordinators: Vec::new() };
        let answer = shared
            .call(&Target::Any, shared.patience(true), |channel| {
                let request = request.clone();
                async move { groups_client(channel).list_groups(request).await }
            })
            .await?;
        let mut groups = answer.groups;
        groups.sort();
        Ok(GroupsPage { groups, more: answer.more })
    }

    /// A group: who keeps it, who is in it, what it has committed, and how far it is behind.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`.
    pub async fn describe(&self, group: &str) -> Result<GroupDescription, GroupError> {
        let request = v1::DescribeGroupRequest { group: group.to_owned(), with_lag: true };
        let answer = self
            .call(group, true, |mut groups| {
                let request = request.clone();
                async move { groups.describe_group(request).await }
            })
            .await?;
        Ok(answer.into())
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

    /// How far the group is behind in each partition that it has an offset for or that a member
    /// subscribes to, by the partitions' own ends, whether its members are alive or not.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`.
    pub async fn lag(&self, group: &str) -> Result<Vec<PartitionLag>, GroupError> {
        Ok(self.describe(group).await?.lags)
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

fn refused_or(error: CallError) -> GroupError {
    let is_definite = error.outcome == Outcome::Definite;
    if is_definite && error.is(ErrorCode::OffsetBeyondEnd) {
        let end = error.detail.as_ref().and_then(|detail| detail.high_watermark);
        return GroupError::OffsetBeyondEnd {
            end_offset: end.unwrap_or(0),
            message: error.to_string(),
        };
    }
    let committed = error.detail.as_ref().and_then(|detail| detail.committed_offset);
    match committed {
        Some(committed_offset) if error.is(ErrorCode::OffsetRegression) && is_definite => {
            GroupError::OffsetRegression { committed_offset }
        }
        _ => GroupError::Call(error),
    }
}

pub(crate) fn sorted(offsets: Vec<v1::GroupOffset>) -> Vec<GroupOffset> {
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
