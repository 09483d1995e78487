//! A coordinator that assigns what the test says, to whoever asks, and keeps offsets.

use std::time::Duration;

use quipu_proto::v1;
use tokio::time::Instant;

use super::services::Node;
use super::{Fate, final_refusal};

impl Node {
    /// Answers when the member does not have just what the test says, or when its wait is over.
    pub(super) async fn heartbeat(
        &self,
        request: v1::GroupHeartbeatRequest,
    ) -> Result<v1::GroupHeartbeatResponse, v1::Error> {
        let wait = Duration::from_millis(request.max_wait_ms.into());
        let until = Instant::now() + wait;
        self.cluster.state().heartbeats.push(request.clone());
        let owned: Vec<u32> =
            request.owned.iter().flat_map(|part| part.partitions.clone()).collect();
        loop {
            {
                let mut state = self.cluster.state();
                self.lead(Some(state.coordinator))?;
                if let Some(code) = state.expiries.pop_front() {
                    return Err(final_refusal(code));
                }
                let (generation, partitions) = state.assignment.clone();
                let told = generation != request.generation;
                if told || Instant::now() >= until || request.generation < 0 {
                    let part = v1::TopicPartitions {
                        topic: "t".to_owned(),
                        topic_id: bytes::Bytes::from_static(b"t"),
                        partitions: partitions.clone(),
                    };
                    let assignment = v1::GroupAssignment { partitions: vec![part] };
                    return Ok(v1::GroupHeartbeatResponse {
                        generation,
                        heartbeat_interval_ms: 0,
                        assignment: (told || owned != partitions).then_some(assignment),
                    });
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Commits what is not behind, unless the test says otherwise.
    pub(super) fn commit(
        &self,
        request: v1::CommitOffsetsRequest,
    ) -> Result<v1::CommitOffsetsResponse, v1::Error> {
        let mut state = self.cluster.state();
        self.lead(Some(state.coordinator))?;
        let fate = state.fates.pop_front().unwrap_or(Fate::Fine);
        if let Fate::Refused(error) = fate {
            return Err(error);
        }
        let group = state.groups.entry(request.group).or_default();
        for offset in &request.offsets {
            let known = group.get(&(offset.topic.clone(), offset.partition));
            if let Some(known) = known.filter(|known| known.offset > offset.offset)
                && !request.reset
            {
                return Err(v1::Error {
                    committed_offset: Some(known.offset),
                    ..final_refusal(v1::ErrorCode::OffsetRegression)
                });
            }
        }
        for offset in request.offsets {
            let committed = v1::GroupOffset { committed_at_ms: 5, ..offset };
            group.insert((committed.topic.clone(), committed.partition), committed);
        }
        match fate {
            Fate::WrittenThenError(error) => Err(error),
            _ => Ok(v1::CommitOffsetsResponse {}),
        }
    }
}
