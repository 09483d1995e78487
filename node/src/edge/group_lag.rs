//! How far a group is behind, by the ends of the partitions themselves; and commits that lie beyond
//! them, which are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use node_core::groups::{CommitOffsets, GroupTable};
use node_core::ids::{GroupName, MemberId, TopicName};
use quipu_proto::v1;
use tokio::time::Instant;

use super::status::Refusal;
use crate::limits;
use crate::member::{Measured, Member, PositionAsked};

/// A partition that a group is about.
#[derive(Debug, Clone, Default)]
struct Share {
    offset: Option<u64>,
    owner: Option<MemberId>,
}

/// The partitions that a group is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares(BTreeMap<(TopicName, u32), Share>);

/// Those with an offset, and those that a member subscribes to, whoever is alive.
pub(super) fn shares(table: &GroupTable, group: &GroupName) -> Shares {
    let mut shares: BTreeMap<(TopicName, u32), Share> = BTreeMap::new();
    for (place, committed) in table.offsets(group).into_iter().flatten() {
        shares.entry(place.clone()).or_default().offset = Some(committed.offset);
    }
    let Some(roster) = table.roster(group) else { return Shares(shares) };
    for topic in roster.members().values().flat_map(|member| &member.profile.topics) {
        let count = table.topics().get(topic).map_or(0, |fact| fact.partitions);
        for partition in 0..count {
            let share = shares.entry((topic.clone(), partition)).or_default();
            let owner = roster.owner(topic, partition);
            let owner = owner.and_then(|hold| roster.members().get(&hold.member));
            share.owner = owner.map(|member| member.id.clone());
        }
    }
    Shares(shares)
}

/// How far behind each is. Partitions of topics that are no more are left out.
pub(super) async fn lags(member: &Member, Shares(shares): Shares) -> Vec<v1::PartitionLag> {
    let metadata = member.metadata();
    let mut asked = Vec::with_capacity(shares.len());
    let mut rows = Vec::with_capacity(shares.len());
    for ((topic, partition), share) in shares {
        let Some(group) = metadata.partition_group(&topic, partition) else { continue };
        asked.push(PositionAsked { group, offset: share.offset });
        rows.push((topic, partition, share));
    }
    let deadline = Instant::now() + limits::POSITIONS_WITHIN;
    let measured = member.measure(&asked, deadline).await;
    rows.into_iter()
        .zip(measured)
        .map(|((topic, partition, share), measured)| lag(&topic, partition, share, measured))
        .collect()
}

fn lag(
    topic: &TopicName,
    partition: u32,
    share: Share,
    measured: Option<Measured>,
) -> v1::PartitionLag {
    let Share { offset, owner } = share;
    let records = |it: Measured| {
        let next = offset.unwrap_or(0).max(it.log_start);
        it.high_watermark.saturating_sub(next)
    };
    let ms = |waiting: Duration| u64::try_from(waiting.as_millis()).unwrap_or(u64::MAX);
    v1::PartitionLag {
        topic: topic.to_string(),
        partition,
        group_offset: offset,
        log_start_offset: measured.map(|it| it.log_start),
        high_watermark: measured.map(|it| it.high_watermark),
        lag: measured.map(records),
        lag_ms: measured.map(|it| ms(it.waiting)),
        member_id: owner.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// Refuses a commit that lies where no record can have been read. Where nobody can tell, it is
/// taken: a group goes on committing while one of its partitions has no leader.
pub(super) async fn within_ends(
    member: &Member,
    commit: &CommitOffsets,
    deadline: Instant,
) -> Result<(), Refusal> {
    let metadata = member.metadata();
    let asked = commit.offsets.iter().filter_map(|wanted| {
        let group = metadata.partition_group(&wanted.topic, wanted.partition)?;
        let place = PositionAsked { group, offset: Some(wanted.offset) };
        Some((wanted, place))
    });
    let (wanted, asked): (Vec<_>, Vec<PositionAsked>) = asked.unzip();
    let deadline = deadline.min(Instant::now() + limits::POSITIONS_WITHIN);
    let Some((at, measured)) = member.beyond_end(&asked, deadline).await else { return Ok(()) };
    let wanted = wanted[at];
    let message = format!(
        "offset {} of {}/{} lies beyond its end, {}; nobody can have consumed so far: was the \
         topic deleted and made again?",
        wanted.offset, wanted.topic, wanted.partition, measured.high_watermark
    );
    Err(Refusal::beyond_end(message, measured.log_start, measured.high_watermark))
}
