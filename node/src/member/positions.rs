//! Where partitions end, for what is said of groups: how far they are behind, and whether a commit
//! lies where no record is. Asked of this node's replicas, else of other nodes'.
//!
//! Every end is linearizable, so whoever has read a record is never told that it is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use node_core::ids::{GroupId, NodeUuid};
use quipu_proto::peer::v1 as pb;
use tokio::time::Instant;

use super::Member;
use crate::limits;
use crate::partition::{Level, OffsetPosition, Partition};

/// A place in a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PositionAsked {
    /// The partition's Raft group.
    pub(crate) group: GroupId,
    /// The next offset to consume; `None`: the log start.
    pub(crate) offset: Option<u64>,
}

/// What was found of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
    /// Since when the first record from the offset on is in the log; zero where there is none.
    pub(crate) waiting: Duration,
}

impl Member {
    /// Measures places, in their order. `None`: nobody who knows could be asked by `deadline`.
    pub(crate) async fn measure(
        &self,
        asked: &[PositionAsked],
        deadline: Instant,
    ) -> Vec<Option<Measured>> {
        let mut measured = self.measure_here(asked, deadline).await;
        let mut elsewhere: BTreeMap<NodeUuid, Vec<usize>> = BTreeMap::new();
        for (at, (place, found)) in asked.iter().zip(&measured).enumerate() {
            let is_here = found.is_some() || self.registry.partition(place.group).is_some();
            if !is_here && let Some(node) = self.who_may_know(place.group) {
                elsewhere.entry(node).or_default().push(at);
            }
        }
        let calls = elsewhere.into_iter().map(|(node, places)| async move {
            let wanted: Vec<PositionAsked> = places.iter().map(|at| asked[*at]).collect();
            (places, self.measure_at(node, &wanted, deadline).await)
        });
        for (places, answers) in futures::future::join_all(calls).await {
            for (at, answer) in places.into_iter().zip(answers) {
                measured[at] = answer;
            }
        }
        measured
    }

    /// As [`Member::measure`], of this node's replicas only.
    pub(crate) async fn measure_here(
        &self,
        asked: &[PositionAsked],
        deadline: Instant,
    ) -> Vec<Option<Measured>> {
        let mut measured = Vec::with_capacity(asked.len());
        for places in asked.chunks(limits::POSITIONS_AT_ONCE) {
            let here = places.iter().map(|place| async {
                let partition = self.registry.partition(place.group)?;
                self.measure_one(&partition, place.offset, deadline).await
            });
            measured.extend(futures::future::join_all(here).await);
        }
        measured
    }

    /// The first of `asked` that lies beyond the end of its partition for certain, and that end.
    pub(crate) async fn beyond_end(
        &self,
        asked: &[PositionAsked],
        deadline: Instant,
    ) -> Option<(usize, Measured)> {
        let is_below = |place: &PositionAsked| {
            let end = self.registry.partition(place.group).map(|it| it.view().high_watermark);
            place.offset.is_none_or(|offset| end.is_some_and(|end| offset <= end))
        };
        // What this node's own replica has already needs nobody's word.
        let open: Vec<usize> = (0..asked.len()).filter(|at| !is_below(&asked[*at])).collect();
        let wanted: Vec<PositionAsked> = open.iter().map(|at| asked[*at]).collect();
        let measured = self.measure(&wanted, deadline).boxed().await;
        open.into_iter().zip(measured).find_map(|(at, measured)| {
            let measured = measured?;
            (asked[at].offset? > measured.high_watermark).then_some((at, measured))
        })
    }

    async fn measure_one(
        &self,
        partition: &Partition,
        offset: Option<u64>,
        deadline: Instant,
    ) -> Option<Measured> {
        let end = partition.find_offset(OffsetPosition::Latest, Level::Linearizable, deadline);
        let end = end.boxed().await.ok()?;
        let offset = offset.unwrap_or(0).max(end.log_start);
        let came = match offset < end.high_watermark {
            true => partition.entry_time_at(offset),
            false => None,
        };
        let waiting_ms = came.map_or(0, |at| self.clock().now_ms().saturating_sub(at.ms()));
        Some(Measured {
            log_start: end.log_start,
            high_watermark: end.high_watermark,
            waiting: Duration::from_millis(waiting_ms),
        })
    }

    /// The leader of a group, else any node that has a replica of it.
    fn who_may_know(&self, group: GroupId) -> Option<NodeUuid> {
        let other = |node: &NodeUuid| *node != self.me() && self.liveness().is_alive(*node);
        let leader = self.leader_of(group).map(|(place, _)| place.node);
        let metadata = self.metadata();
        let replicas = metadata.groups().get(&group).map_or(&[][..], |group| &group.replicas);
        leader.filter(other).or_else(|| replicas.iter().map(|it| it.node).find(other))
    }

    async fn measure_at(
        &self,
        node: NodeUuid,
        asked: &[PositionAsked],
        deadline: Instant,
    ) -> Vec<Option<Measured>> {
        let nothing = vec![None; asked.len()];
        let Some(link) = self.ground.peers.get(node) else { return nothing };
        let positions = asked
            .iter()
            .map(|place| pb::PositionAsked { group: place.group.0, offset: place.offset });
        let request = pb::MeasurePositionsRequest {
            cluster_id: bytes::Bytes::copy_from_slice(self.cluster_id().0.as_bytes()),
            positions: positions.collect(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match link.measure_positions(request, left).await {
            Ok(answer) if answer.positions.len() == asked.len() => {
                answer.positions.iter().map(measured_of).collect()
            }
            Ok(_) => nothing,
            Err(error) => {
                tracing::debug!(%error, "the ends of its partitions stay unknown");
                nothing
            }
        }
    }
}

fn measured_of(answer: &pb::PositionMeasured) -> Option<Measured> {
    Some(Measured {
        log_start: answer.log_start_offset?,
        high_watermark: answer.high_watermark?,
        waiting: Duration::from_millis(answer.waiting_ms?),
    })
}

/// What is asked by another node.
pub(crate) fn asked_of(request: &pb::MeasurePositionsRequest) -> Vec<PositionAsked> {
    let positions = request.positions.iter();
    positions
        .map(|place| PositionAsked { group: GroupId(place.group), offset: place.offset })
        .collect()
}

/// What another node is told.
pub(crate) fn answer_of(measured: Vec<Option<Measured>>) -> pb::MeasurePositionsResponse {
    let position = |measured: Option<Measured>| match measured {
        None => pb::PositionMeasured::default(),
        Some(Measured { log_start, high_watermark, waiting }) => pb::PositionMeasured {
            log_start_offset: Some(log_start),
            high_watermark: Some(high_watermark),
            waiting_ms: Some(u64::try_from(waiting.as_millis()).unwrap_or(u64::MAX)),
        },
    };
    pb::MeasurePositionsResponse { positions: measured.into_iter().map(position).collect() }
}
