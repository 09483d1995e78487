//! All replicas have the same chain hash below the same offset.
//!
//! The chain hash runs over every accepted batch and its offset, so one comparison stands for the
//! bytes of the whole log, also those that no reader happened to read. Surveys that ended at
//! different offsets are compared only with those that ended where they did.

use std::collections::BTreeMap;

use crate::observations::{PartitionObservations, Survey};
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut first_at: BTreeMap<u64, (&Survey, &str)> = BTreeMap::new();
    for survey in &observed.surveys {
        let Some(hash) = &survey.chain_hash else { continue };
        let (first, first_hash) = *first_at.entry(survey.end()).or_insert((survey, hash.as_str()));
        if first_hash != hash {
            let place = Place { partition, offset: survey.end() };
            let nodes = [first.node, survey.node];
            let surveys = [first.op, survey.op];
            return Err(Violation::ReplicasDiffer { place, nodes, surveys });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::Story;

    #[test]
    fn two_hashes_below_one_offset_are_a_violation() {
        let story = Story::new();
        let surveys = [story.survey(1, &[1, 2], "a"), story.survey(2, &[1, 2], "b")];
        let place = Place { partition: 0, offset: 2 };
        let expected = Violation::ReplicasDiffer { place, nodes: [1, 2], surveys };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn hashes_below_different_offsets_are_not_compared() {
        let story = Story::new();
        story.survey(1, &[1, 2], "a");
        story.survey(2, &[1], "b");
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
