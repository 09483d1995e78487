//! Asking every node what it has, and answering that for this one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use node_core::ids::{GroupId, NodeUuid};
use node_core::survey::{LeadSurvey, MemberSurvey, NodeSurvey, ReplicaSurvey, Survey};
use quipu_proto::peer::v1 as pb;

use super::Member;
use super::replica::Replica;
use crate::limits;
use crate::peer::survey as wire;
use crate::raft::Role;
use crate::storage::LogWriterStats;

impl Member {
    /// What every node that answers in time has, this one too.
    pub(crate) async fn survey(&self) -> Survey {
        let metadata = self.metadata();
        let cluster_id = Bytes::copy_from_slice(self.cluster_id.0.as_bytes());
        let others = metadata.members().map(|(node, _)| node).filter(|node| *node != self.me());
        // A node that is dead would only make everybody wait for it.
        let others = others.filter(|node| self.liveness.is_alive(*node));
        let asked = others.map(|node| {
            let request = pb::SurveyRequest { cluster_id: cluster_id.clone() };
            async move {
                let link = self.ground.peers.get(node)?;
                let answer = link.survey(request, limits::SURVEY_MAX).await.ok()?;
                Some((node, wire::read(answer)?))
            }
        });
        let asked: Vec<_> = asked.collect();
        let mut nodes: BTreeMap<NodeUuid, NodeSurvey> =
            futures::future::join_all(asked).await.into_iter().flatten().collect();
        for (node, skew_ms) in self.liveness.clock_skews() {
            if let Some(survey) = nodes.get_mut(&node) {
                survey.clock_skew_ms = Some(skew_ms);
            }
        }
        nodes.insert(self.me(), self.own_survey());
        Survey { nodes }
    }

    /// What this node has.
    pub(crate) fn own_survey(&self) -> NodeSurvey {
        let mut replicas: BTreeMap<GroupId, ReplicaSurvey> = BTreeMap::new();
        for hosted in self.registry.all_hosted() {
            let (replica, runs) = (hosted.replica, false);
            let closed = ReplicaSurvey { replica, runs, bytes: 0, leads: None };
            replicas.insert(hosted.group, closed);
        }
        for replica in self.registry.all() {
            replicas.insert(replica.hosted().group, look(&replica));
        }
        NodeSurvey {
            disk_free_bytes: self.ground.engine.space_left().ok().flatten(),
            disk_reserve_bytes: self.ground.config.disk_reserve_bytes,
            sync_p99_us: self.recent_syncs.lock().unwrap_or_else(PoisonError::into_inner).p99_us(),
            clock_skew_ms: None,
            unreachable: self.liveness.found_dead(),
            replicas,
        }
    }
}

fn look(replica: &Replica) -> ReplicaSurvey {
    let brief = replica.raft().brief();
    let leads = (brief.role == Role::Leader).then(|| {
        let status = replica.raft().status();
        let members = status.members.iter().map(|(id, node)| {
            let matched = status.matched.get(id).copied().flatten();
            (*id, MemberSurvey { node: *node, voter: status.voters.contains(id), matched })
        });
        LeadSurvey {
            term: status.term,
            last_index: status.last_index.unwrap_or(0),
            members: members.collect(),
        }
    });
    ReplicaSurvey {
        replica: replica.raft().replica(),
        runs: brief.role != Role::Stopped,
        bytes: replica.partition().map_or(0, |partition| partition.view().bytes_kept),
        leads,
    }
}

/// How long the synced writes of the last minute took.
#[derive(Debug, Default)]
pub(super) struct RecentSyncs(VecDeque<LogWriterStats>);

impl RecentSyncs {
    /// To be told every [`limits::UPKEEP_INTERVAL`].
    pub(super) fn note(&mut self, stats: LogWriterStats) {
        if self.0.len() > limits::SYNCS_REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(stats);
    }

    /// The 99th percentile in microseconds, rounded up to a power of two; `None` without a sync.
    fn p99_us(&self) -> Option<u64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let counts: Vec<u64> = last
            .sync_latency
            .iter()
            .zip(first.sync_latency)
            .map(|(now, then)| now - then)
            .collect();
        let total: u64 = counts.iter().sum();
        let rank = total - total / 100;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            total > 0 && seen >= rank
        })?;
        let end: Duration = LogWriterStats::bucket_end(bucket);
        u64::try_from(end.as_micros()).ok()
    }
}
