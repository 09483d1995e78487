//! A node and its cluster's feature level: whether every member speaks a level, and what follows on
//! this node when one is finalized.
//!
//! Which commands a level admits is decided in `node_core`; here is what needs asking other nodes,
//! the disk, or the end of the process.

use std::sync::Arc;

use node_core::features::FeatureLevel;
use node_core::ids::{NodeLabel, NodeVersion};
use node_core::metadata::{MetadataCommand, MetadataOutcome, MetadataState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::formation::Formation;
use crate::limits;
use crate::member::Member;
use crate::raft::RaftFailure;

/// Why a level was not finalized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LevelFailure {
    #[error("feature level {finalized} is finalized, and a level is never taken back")]
    Lower { finalized: FeatureLevel },
    #[error(
        "node {label} does not answer, so nobody knows what it speaks: start it, or remove it, \
         then try again"
    )]
    Silent { label: NodeLabel },
    #[error(
        "node {label} runs {build}, which does not speak feature level {level}: upgrade it first"
    )]
    NotSpoken { label: NodeLabel, build: String, level: FeatureLevel },
    #[error(transparent)]
    Raft(#[from] RaftFailure),
}

/// Raises the finalized level, if every member speaks it and says so now.
pub(crate) async fn finalize(
    member: &Member,
    level: Option<FeatureLevel>,
    deadline: Instant,
) -> Result<FeatureLevel, LevelFailure> {
    let metadata = member.fresh_metadata(deadline).await?;
    let level = level.or_else(|| highest(&metadata)).unwrap_or(metadata.level());
    if level < metadata.level() {
        return Err(LevelFailure::Lower { finalized: metadata.level() });
    }
    if level == metadata.level() {
        return Ok(level);
    }
    for (uuid, record) in metadata.members() {
        // What it runs at this moment counts, too: its record may be of a start before.
        let now = if uuid == member.me() {
            member.release().announced().ok()
        } else {
            member.announced_by(uuid).await
        };
        let label = record.label;
        let now = now.ok_or(LevelFailure::Silent { label })?;
        for version in [&now, &record.version] {
            if !version.levels().contains(level) {
                let build = version.build().to_owned();
                return Err(LevelFailure::NotSpoken { label, build, level });
            }
        }
    }
    match member.propose(MetadataCommand::FinalizeLevel { level }, deadline).await? {
        MetadataOutcome::LevelFinalized { level } => Ok(level),
        MetadataOutcome::LevelRefused { node } => {
            let record = member.metadata().nodes().get(&node).cloned();
            let label = record.as_ref().map_or(NodeLabel(0), |record| record.label);
            let build = record.map_or_else(String::new, |it| it.version.build().to_owned());
            Err(LevelFailure::NotSpoken { label, build, level })
        }
        other => Err(RaftFailure::Stopped(format!("the metadata answered {other:?}")).into()),
    }
}

/// The highest level that every member speaks, by their records.
pub(crate) fn highest(metadata: &MetadataState) -> Option<FeatureLevel> {
    let ranges = metadata.members().map(|(_, record)| record.version.levels());
    node_core::features::FeatureRange::highest_common(ranges)
}

impl Member {
    /// What another member announces at this moment; `None` where it does not answer.
    async fn announced_by(&self, uuid: node_core::ids::NodeUuid) -> Option<NodeVersion> {
        let link = self.peer(uuid)?;
        let hello = link.hello(limits::HELLO_MAX).await.ok()?;
        let is_it = hello.node_uuid.as_ref() == uuid.0.as_bytes();
        hello.version.parse().ok().filter(|_| is_it)
    }
}

/// Keeps each level that is finalized in the data directory, and ends the node where it is none
/// that this build speaks.
pub(crate) async fn follow(formation: Arc<Formation>, fatal: watch::Sender<Option<String>>) {
    let mut member = formation.watch();
    let Ok(member) = member.wait_for(Option::is_some).await.map(|it| it.clone()) else { return };
    let Some(member) = member else { return };
    let mut metadata = member.watch_metadata();
    loop {
        let level = metadata.borrow_and_update().level();
        if let Err(failure) = formation.keep_level(level).await {
            tracing::error!(%failure, "this node can't go on in its cluster");
            fatal.send_replace(Some(failure.to_string()));
            return;
        }
        if metadata.changed().await.is_err() {
            return;
        }
    }
}
