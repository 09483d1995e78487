//! What clients send becomes our own types here, with every limit checked; generated types go no
//! further into the node. Times and sizes beyond what the node gives are cut to it, since all of
//! them are upper bounds; everything else beyond its limit is refused by the name of its field.

use std::time::Duration;

use bytes::Bytes;
use node_core::groups::{CommitOffsets, OffsetCommit};
use node_core::ids::{GroupId, GroupName, NodeAddress, TopicName};
use node_core::limits::TOPIC_PARTITIONS_MAX;
use node_core::time::EntryTime;
use node_core::topic_config::{ConfigChange, ConfigError, TopicConfig, parse_changes};
use quipu_batch::{BATCH_BYTES_MAX, BatchHeader};
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;

use super::group_members;
use super::status::Refusal;
use crate::limits;
use crate::metrics;
use crate::partition::{Appended, Fetched, Level, OffsetPosition, OffsetsFound};

/// One partition, as asked for; it may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartitionName {
    pub(super) topic: TopicName,
    pub(super) number: u32,
}

impl std::fmt::Display for PartitionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// An append whose batch is not looked at yet: its greatest size depends on the topic.
#[derive(Debug)]
pub(super) struct AppendWish {
    pub(super) partition: PartitionName,
    pub(super) batch: Bytes,
    pub(super) expect_end_offset: Option<u64>,
    pub(super) within: Duration,
}

/// A fetch within the bounds of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchWish {
    pub(super) partition: PartitionName,
    pub(super) offset: u64,
    pub(super) bytes_max: usize,
    pub(super) bytes_min: usize,
    pub(super) wait: Duration,
    pub(super) level: Level,
}

/// A follow within the bounds of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FollowWish {
    pub(super) partition: PartitionName,
    pub(super) offset: u64,
    pub(super) bytes_max: usize,
    pub(super) level: Level,
}

/// A new topic that no rule but the cluster's own forbids.
#[derive(Debug)]
pub(super) struct TopicWish {
    pub(super) name: TopicName,
    pub(super) partitions: u32,
    pub(super) replication_factor: u32,
    pub(super) config: TopicConfig,
}

pub(super) fn topic_name(name: &str) -> Result<TopicName, Refusal> {
    name.parse().map_err(|error| Refusal::invalid(format!("topic: {error}")))
}

pub(super) fn group_name(name: &str) -> Result<GroupName, Refusal> {
    name.parse().map_err(|error| Refusal::invalid(format!("group: {error}")))
}

pub(super) fn partition_name(topic: &str, number: u32) -> Result<PartitionName, Refusal> {
    Ok(PartitionName { topic: topic_name(topic)?, number })
}

pub(super) fn append(request: v1::AppendRequest) -> Result<AppendWish, Refusal> {
    let v1::AppendRequest { topic, partition, batch, expect_end_offset, timeout_ms } = request;
    Ok(AppendWish {
        partition: partition_name(&topic, partition)?,
        batch,
        expect_end_offset,
        within: within(timeout_ms, limits::APPEND_WITHIN_DEFAULT),
    })
}

/// Checks that the bytes are one whole batch, undamaged, acceptable and no larger than the topic
/// allows.
pub(super) fn batch(bytes: &[u8], max_batch_bytes: u32) -> Result<BatchHeader, Refusal> {
    let bytes_max = usize::try_from(max_batch_bytes).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX);
    if bytes.len() > bytes_max {
        return Err(Refusal::batch_too_large(bytes.len(), max_batch_bytes));
    }
    quipu_batch::verify(bytes).map_err(|error| Refusal::of_batch(&error))
}

pub(super) fn fetch(request: &v1::FetchRequest) -> Result<FetchWish, Refusal> {
    let bytes_max = fetch_bytes(request.max_bytes);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(usize::MAX).min(bytes_max);
    let wait = Duration::from_millis(request.max_wait_ms.into()).min(limits::FETCH_WAIT_MAX);
    Ok(FetchWish {
        partition: partition_name(&request.topic, request.partition)?,
        offset: request.offset,
        bytes_max,
        bytes_min,
        // Who asks for no bytes has them already.
        wait: if bytes_min == 0 { Duration::ZERO } else { wait },
        level: level(request.level, Some(request.max_lag_ms))?,
    })
}

pub(super) fn follow(request: &v1::FollowRequest) -> Result<FollowWish, Refusal> {
    Ok(FollowWish {
        partition: partition_name(&request.topic, request.partition)?,
        offset: request.offset,
        bytes_max: fetch_bytes(request.max_bytes),
        level: level(request.level, Some(request.max_lag_ms))?,
    })
}

pub(super) fn list_offsets(
    request: &v1::ListOffsetsRequest,
) -> Result<(PartitionName, OffsetPosition, Level), Refusal> {
    use v1::list_offsets_request::Position;
    let partition = partition_name(&request.topic, request.partition)?;
    let position = match request.position {
        Some(Position::Earliest(_)) => OffsetPosition::Earliest,
        Some(Position::Latest(_)) => OffsetPosition::Latest,
        Some(Position::EntryTimeMs(ms)) => OffsetPosition::EntryTime(ms),
        Some(Position::EventTimeMs(ms)) => OffsetPosition::EventTime(ms),
        None => {
            let message = "position: set one of earliest, latest, entry_time_ms, event_time_ms";
            return Err(Refusal::invalid(message));
        }
    };
    Ok((partition, position, level(request.level, None)?))
}

/// The level of a read; without a word it is linearizable.
fn level(number: i32, max_lag_ms: Option<u32>) -> Result<Level, Refusal> {
    match (v1::ReadLevel::try_from(number), max_lag_ms) {
        (Ok(v1::ReadLevel::Unspecified | v1::ReadLevel::Linearizable), _) => {
            Ok(Level::Linearizable)
        }
        (Ok(v1::ReadLevel::Committed), _) => Ok(Level::Committed),
        (Ok(v1::ReadLevel::Bounded), Some(ms)) => {
            Ok(Level::Bounded(Duration::from_millis(ms.into())))
        }
        (Ok(v1::ReadLevel::Bounded), None) => Err(Refusal::invalid(
            "level: offsets are looked up LINEARIZABLE or COMMITTED, not BOUNDED",
        )),
        (Err(_), _) => Err(Refusal::invalid(format!(
            "level: {number} is none; there are LINEARIZABLE (1), COMMITTED (2) and BOUNDED (3)"
        ))),
    }
}

/// The level as it is counted.
pub(super) fn counted(level: Level) -> metrics::Level {
    match level {
        Level::Linearizable => metrics::Level::Linearizable,
        Level::Committed => metrics::Level::Committed,
        Level::Bounded(_) => metrics::Level::Bounded,
    }
}

fn fetch_bytes(max_bytes: u32) -> usize {
    match usize::try_from(max_bytes).unwrap_or(usize::MAX) {
        0 => limits::FETCH_BYTES_DEFAULT,
        bytes => bytes.min(limits::FETCH_BYTES_MAX),
    }
}

fn within(timeout_ms: u32, default: Duration) -> Duration {
    match timeout_ms {
        0 => default,
        ms => Duration::from_millis(ms.into()).min(limits::APPEND_WITHIN_MAX),
    }
}

/// A commit that apply takes, and the time for it.
pub(super) fn commit(
    request: v1::CommitOffsetsRequest,
    now_ms: u64,
) -> Result<(CommitOffsets, Duration), Refusal> {
    let count = request.offsets.len();
    if count > limits::GROUP_OFFSETS_PER_COMMIT_MAX {
        return Err(Refusal::invalid(format!(
            "offsets: a commit has at most {}, this one has {count}; commit them in parts",
            limits::GROUP_OFFSETS_PER_COMMIT_MAX
        )));
    }
    let group = group_name(&request.group)?;
    let committer = group_members::committer(&request.member_id, request.generation)?;
    let offsets = request.offsets.into_iter().map(offset_commit).collect::<Result<_, _>>()?;
    let time = EntryTime::from_ms(now_ms);
    let commit = CommitOffsets { group, offsets, committer, reset: request.reset, time };
    commit.check().map_err(|error| Refusal::invalid(format!("offsets: {error}")))?;
    Ok((commit, within(request.timeout_ms, limits::CALL_WITHIN)))
}

fn offset_commit(offset: v1::GroupOffset) -> Result<OffsetCommit, Refusal> {
    let bytes = offset.metadata.as_ref().map_or(0, String::len);
    if bytes > limits::GROUP_OFFSET_METADATA_BYTES_MAX {
        return Err(Refusal::invalid(format!(
            "metadata: an offset's has at most {} bytes, this one has {bytes}",
            limits::GROUP_OFFSET_METADATA_BYTES_MAX
        )));
    }
    Ok(OffsetCommit {
        topic: topic_name(&offset.topic)?,
        partition: offset.partition,
        offset: offset.offset,
        metadata: offset.metadata,
    })
}

/// The group, and the partitions asked for; none means all.
pub(super) fn fetch_offsets(
    request: &v1::FetchOffsetsRequest,
) -> Result<(GroupName, Vec<PartitionName>), Refusal> {
    let count = request.partitions.len();
    if count > limits::GROUP_PARTITIONS_PER_FETCH_MAX {
        return Err(Refusal::invalid(format!(
            "partitions: at most {} at a time, not {count}; leave them out to get all",
            limits::GROUP_PARTITIONS_PER_FETCH_MAX
        )));
    }
    let group = group_name(&request.group)?;
    let partitions = request.partitions.iter();
    let partitions = partitions.map(|wanted| partition_name(&wanted.topic, wanted.partition));
    Ok((group, partitions.collect::<Result<_, _>>()?))
}

/// Which groups are listed.
pub(super) struct GroupsPage {
    /// Only those behind it.
    pub(super) after: Option<GroupName>,
    /// At most so many; at least one.
    pub(super) limit: usize,
}

pub(super) fn groups_page(request: &v1::ListGroupsRequest) -> Result<GroupsPage, Refusal> {
    let after = (!request.after.is_empty()).then(|| group_name(&request.after)).transpose();
    let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
        0 => limits::GROUPS_LISTED_MAX,
        limit => limit.min(limits::GROUPS_LISTED_MAX),
    };
    Ok(GroupsPage { after: after?, limit })
}

pub(super) fn create_topic(request: v1::CreateTopicRequest) -> Result<TopicWish, Refusal> {
    let v1::CreateTopicRequest { topic, partitions, replication_factor, configs } = request;
    let name = topic_name(&topic)?;
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
        return Err(Refusal::invalid(format!(
            "partitions: a topic has 1 to {TOPIC_PARTITIONS_MAX}, not {partitions}"
        )));
    }
    let configs = sorted(configs);
    let pairs = configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let config = TopicConfig::from_pairs(pairs).map_err(|error| invalid_config(&error))?;
    Ok(TopicWish { name, partitions, replication_factor, config })
}

pub(super) fn alter_topic(
    request: v1::AlterTopicRequest,
) -> Result<(TopicName, Vec<ConfigChange>), Refusal> {
    let name = topic_name(&request.topic)?;
    let configs = sorted(request.configs);
    if configs.is_empty() {
        return Err(Refusal::invalid("configs: name at least one setting to change"));
    }
    let pairs = configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let changes = parse_changes(pairs).map_err(|error| invalid_config(&error))?;
    Ok((name, changes))
}

/// The same order in every run, whatever the map's.
fn sorted(configs: impl IntoIterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut configs: Vec<(String, String)> = configs.into_iter().collect();
    configs.sort_unstable();
    configs
}

fn invalid_config(error: &ConfigError) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, error.to_string())
}

/// The addresses of the nodes that shall form a cluster.
pub(super) fn addresses(addresses: Vec<String>) -> Result<Vec<String>, Refusal> {
    let count = addresses.len();
    if !(1..=limits::JOIN_ADDRESSES_MAX).contains(&count) {
        return Err(Refusal::invalid(format!(
            "addresses: name every node that shall form the cluster, 1 to {}, not {count}",
            limits::JOIN_ADDRESSES_MAX
        )));
    }
    for address in &addresses {
        let valid = address.parse::<NodeAddress>();
        valid.map_err(|error| Refusal::invalid(format!("addresses: {error}")))?;
    }
    Ok(addresses)
}

/// The coordinators named; none means all.
pub(super) fn coordinators(named: &[u32], count: u32) -> Vec<GroupId> {
    let first = GroupId::COORDINATOR_FIRST.0;
    let all = first..first.saturating_add(count);
    all.filter(|id| named.is_empty() || named.contains(id)).map(GroupId).collect()
}

pub(super) fn appended(appended: Appended) -> v1::AppendResponse {
    v1::AppendResponse {
        base_offset: appended.base_offset,
        duplicate: appended.duplicate,
        leader_epoch: appended.leader_epoch,
        entry_time_ms: appended.entry_time_ms,
    }
}

pub(super) fn fetched(fetched: Fetched, served_by: u64) -> v1::FetchResponse {
    v1::FetchResponse {
        record_set: fetched.record_set,
        next_offset: fetched.next_offset,
        log_start_offset: fetched.log_start,
        high_watermark: fetched.high_watermark,
        staleness_ms: fetched.staleness.map(ms_rounded_up),
        served_by,
    }
}

pub(super) fn offsets_found(found: OffsetsFound) -> v1::ListOffsetsResponse {
    v1::ListOffsetsResponse {
        offset: found.offset,
        log_start_offset: found.log_start,
        high_watermark: found.high_watermark,
    }
}

/// Never less than it is: a promise about staleness must hold.
pub(super) fn ms_rounded_up(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, Refusal>) -> ErrorCode {
        result.err().map_or(ErrorCode::Unspecified, |refusal| refusal.code())
    }

    fn fetch_request() -> v1::FetchRequest {
        v1::FetchRequest { topic: "t".to_owned(), ..v1::FetchRequest::default() }
    }

    #[test]
    fn a_fetch_without_a_word_is_linearizable_and_of_the_default_size() {
        let wish = fetch(&fetch_request()).unwrap();
        assert_eq!(wish.level, Level::Linearizable);
        assert_eq!(wish.bytes_max, limits::FETCH_BYTES_DEFAULT);
        assert_eq!(wish.wait, Duration::ZERO);
    }

    #[test]
    fn a_fetch_is_cut_to_what_the_node_gives() {
        let request = v1::FetchRequest {
            max_bytes: u32::MAX,
            min_bytes: u32::MAX,
            max_wait_ms: u32::MAX,
            ..fetch_request()
        };
        let wish = fetch(&request).unwrap();
        assert_eq!(wish.bytes_max, limits::FETCH_BYTES_MAX);
        assert_eq!(wish.bytes_min, limits::FETCH_BYTES_MAX);
        assert_eq!(wish.wait, limits::FETCH_WAIT_MAX);
    }

    #[test]
    fn who_asks_for_no_bytes_does_not_wait() {
        let request = v1::FetchRequest { max_wait_ms: 500, ..fetch_request() };
        assert_eq!(fetch(&request).unwrap().wait, Duration::ZERO);
        let request = v1::FetchRequest { min_bytes: 1, ..request };
        assert_eq!(fetch(&request).unwrap().wait, Duration::from_millis(500));
    }

    #[test]
    fn a_level_that_there_is_not_is_refused() {
        assert_eq!(code(level(4, Some(0))), ErrorCode::InvalidArgument);
        assert_eq!(code(level(-1, Some(0))), ErrorCode::InvalidArgument);
        assert_eq!(code(level(3, None)), ErrorCode::InvalidArgument);
        assert_eq!(level(3, Some(7)).unwrap(), Level::Bounded(Duration::from_millis(7)));
    }

    #[test]
    fn the_time_for_an_append_has_a_default_and_a_bound() {
        assert_eq!(within(0, limits::APPEND_WITHIN_DEFAULT), limits::APPEND_WITHIN_DEFAULT);
        assert_eq!(within(u32::MAX, Duration::ZERO), limits::APPEND_WITHIN_MAX);
        assert_eq!(within(5, Duration::ZERO), Duration::from_millis(5));
    }

    #[test]
    fn what_is_too_large_for_the_topic_is_not_even_looked_at() {
        assert_eq!(code(batch(&[0; 129], 128)), ErrorCode::BatchTooLarge);
        assert_eq!(code(batch(&[0; 128], 128)), ErrorCode::BatchUnsupported);
        assert_eq!(code(batch(&[], 128)), ErrorCode::BatchCorrupt);
        let beyond = vec![0; BATCH_BYTES_MAX + 1];
        assert_eq!(code(batch(&beyond, u32::MAX)), ErrorCode::BatchTooLarge);
    }

    #[test]
    fn names_in_a_request_are_checked_and_named() {
        let refusal = topic_name("a b").expect_err("a blank").into_error();
        assert_eq!(refusal.code(), ErrorCode::InvalidArgument);
        assert!(refusal.message.starts_with("topic: "), "{}", refusal.message);
        assert_eq!(code(group_name("")), ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_commit_is_held_to_its_limits() {
        let offset = v1::GroupOffset { topic: "t".to_owned(), ..v1::GroupOffset::default() };
        let request = |offsets| v1::CommitOffsetsRequest {
            group: "g".to_owned(),
            offsets,
            ..v1::CommitOffsetsRequest::default()
        };
        let most = vec![offset.clone(); limits::GROUP_OFFSETS_PER_COMMIT_MAX];
        assert!(commit(request(most), 0).is_ok());
        let beyond = vec![offset.clone(); limits::GROUP_OFFSETS_PER_COMMIT_MAX + 1];
        assert_eq!(code(commit(request(beyond), 0)), ErrorCode::InvalidArgument);
        let text = "x".repeat(limits::GROUP_OFFSET_METADATA_BYTES_MAX + 1);
        let long = v1::GroupOffset { metadata: Some(text), ..offset };
        assert_eq!(code(commit(request(vec![long]), 0)), ErrorCode::InvalidArgument);
    }

    #[test]
    fn settings_and_partitions_of_a_new_topic_are_checked() {
        let request = |partitions, name: &str, value: &str| v1::CreateTopicRequest {
            topic: "t".to_owned(),
            partitions,
            replication_factor: 0,
            configs: [(name.to_owned(), value.to_owned())].into_iter().collect(),
        };
        assert!(create_topic(request(1, "retention.ms", "7d")).is_ok());
        let zero = create_topic(request(0, "retention.ms", "7d"));
        assert_eq!(code(zero), ErrorCode::InvalidArgument);
        let many = create_topic(request(TOPIC_PARTITIONS_MAX + 1, "retention.ms", "7d"));
        assert_eq!(code(many), ErrorCode::InvalidArgument);
        let name = create_topic(request(1, "retention", "7d"));
        assert_eq!(code(name), ErrorCode::InvalidConfig);
        let value = create_topic(request(1, "retention.ms", "soon"));
        assert_eq!(code(value), ErrorCode::InvalidConfig);
    }

    #[test]
    fn staleness_is_never_told_too_small() {
        assert_eq!(ms_rounded_up(Duration::ZERO), 0);
        assert_eq!(ms_rounded_up(Duration::from_micros(1)), 1);
        assert_eq!(ms_rounded_up(Duration::MAX), u32::MAX);
    }
}
