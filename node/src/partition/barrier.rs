//! What a read must wait for before it looks: nothing, a known freshness, or the read index.

use std::time::Duration;

use tokio::time::Instant;

use super::Partition;
use super::read::ReadFault;
use crate::limits;
use crate::raft::{Place, RaftFailure, Role};

/// What a read must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// At least all that was acknowledged before the read began.
    Linearizable,
    /// This replica's applied prefix.
    Committed,
    /// As committed, but no older than this.
    Bounded(Duration),
}

/// Why a read was not answered. Reads change nothing, so every failure is definite.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadFailure {
    #[error("no leader could confirm the end of the partition in time")]
    NoLeader { leader: Option<Place> },
    #[error("this replica may lag more than was allowed")]
    Stale { lag: Option<Duration> },
    #[error("offset {offset} is not between {log_start} and {high_watermark}")]
    OutOfRange { offset: u64, log_start: u64, high_watermark: u64 },
    #[error(transparent)]
    Fault(#[from] ReadFault),
    #[error("this replica has stopped: {0}")]
    Stopped(String),
}

impl Partition {
    /// Waits for what `level` demands. Answers how stale this replica may be, where that is known.
    pub(super) async fn barrier(
        &self,
        level: Level,
        deadline: Instant,
    ) -> Result<Option<Duration>, ReadFailure> {
        match level {
            Level::Committed => Ok(self.lag()),
            Level::Linearizable => self.linearize(deadline).await.map(|()| Some(Duration::ZERO)),
            Level::Bounded(max) => {
                let lag = self.lag();
                if lag.is_some_and(|lag| lag <= max) {
                    return Ok(lag);
                }
                // The replica can't know that it is fresh enough. Asking the leader makes it so.
                match self.linearize(deadline).await {
                    Ok(()) => Ok(Some(Duration::ZERO)),
                    Err(ReadFailure::NoLeader { .. }) => Err(ReadFailure::Stale { lag }),
                    Err(other) => Err(other),
                }
            }
        }
    }

    /// How far this replica may lag, from what the leader last said of its commit index. `None`
    /// where nothing was heard for so long that it says nothing of the replica: in a parked group
    /// that is the time since something happened in it.
    pub(crate) fn lag(&self) -> Option<Duration> {
        self.lag_heard().filter(|lag| *lag <= limits::LAG_TOLD_MAX)
    }

    fn lag_heard(&self) -> Option<Duration> {
        let brief = self.raft.brief();
        if brief.role == Role::Leader {
            return match brief.committed_in_term {
                true if brief.sole_voter => Some(Duration::ZERO),
                true => brief.quorum_age,
                false => None,
            };
        }
        let applied_end = *self.raft.applied_end().borrow();
        self.context.linearizer.liveness.lag(self.group(), applied_end)
    }

    async fn linearize(&self, deadline: Instant) -> Result<(), ReadFailure> {
        let linearized = self.context.linearizer.linearize(&self.raft, deadline).await;
        linearized.map_err(|failure| match failure {
            RaftFailure::Stopped(why) => ReadFailure::Stopped(why),
            RaftFailure::NotLeader { leader } => ReadFailure::NoLeader { leader },
            RaftFailure::NoQuorum | RaftFailure::Busy | RaftFailure::OutcomeUnknown => {
                ReadFailure::NoLeader { leader: None }
            }
        })
    }
}
