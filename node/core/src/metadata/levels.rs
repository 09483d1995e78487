//! The finalized feature level: what may be proposed at it, and raising it.

use super::{MetadataCommand, MetadataOutcome, MetadataState};
use crate::features::FeatureLevel;
use crate::ids::NodeUuid;

impl MetadataState {
    /// Whether a command may be proposed at all: every member must know it. Asked before it is
    /// proposed, so that no member ever meets one that it can't read; and by apply again.
    ///
    /// # Errors
    /// What apply would answer.
    pub fn admits(&self, command: &MetadataCommand) -> Result<(), MetadataOutcome> {
        if let MetadataCommand::FinalizeLevel { level } = command {
            return match self.members_without(*level).next() {
                Some(node) => Err(MetadataOutcome::LevelRefused { node }),
                None => Ok(()),
            };
        }
        let needed = command.known_since();
        match needed <= self.level {
            true => Ok(()),
            false => Err(MetadataOutcome::LevelTooLow { needed }),
        }
    }

    /// Members that don't speak a level, as they announced themselves when they last started.
    pub fn members_without(&self, level: FeatureLevel) -> impl Iterator<Item = NodeUuid> {
        let without =
            self.members().filter(move |(_, node)| !node.version.levels().contains(level));
        without.map(|(uuid, _)| uuid)
    }

    pub(super) fn finalize_level(&mut self, level: FeatureLevel) -> MetadataOutcome {
        // A level is never taken back: what it brought may be stored everywhere by now.
        self.level = self.level.max(level);
        MetadataOutcome::LevelFinalized { level: self.level }
    }
}
