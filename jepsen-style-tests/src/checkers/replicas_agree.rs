//! All replicas have the same chain hash below the same offset, and the same bytes of each batch.
//!
//! The chain hash runs over every accepted batch and its offset, so one comparison stands for the
//! bytes of the whole log, also those that no reader happened to read. It is what each replica
//! believes to have applied; the batches themselves are compared too, as they are stored. Surveys
//! that ended at different offsets are compared as far as both reach.

use std::collections::BTreeMap;

use crate::history::BatchSum;
use crate::observations::{PartitionObservations, Survey};
use crate::violation::{Place, Violation};

/// Checks one partition.
pub fn check(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    chain_hashes_agree(partition, observed)?;
    batches_agree(partition, observed)
}

fn chain_hashes_agree(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
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

fn batches_agree(partition: u32, observed: &PartitionObservations) -> Result<(), Violation> {
    let mut surveys = observed.batch_surveys.iter();
    let Some(first) = surveys.next() else { return Ok(()) };
    for other in surveys {
        // Retention may have left one of them behind the other.
        let from = start(&first.batches).max(start(&other.batches));
        let kept = |batches: &'_ [BatchSum]| -> usize {
            batches.partition_point(|batch| batch.base_offset < from)
        };
        let ours = first.batches.iter().skip(kept(&first.batches));
        let theirs = other.batches.iter().skip(kept(&other.batches));
        if let Some((differs, _)) = ours.zip(theirs).find(|(ours, theirs)| ours != theirs) {
            let place = Place { partition, offset: differs.base_offset };
            let nodes = [first.node, other.node];
            return Err(Violation::BatchesDiffer { place, nodes, surveys: [first.op, other.op] });
        }
    }
    Ok(())
}

fn start(batches: &[BatchSum]) -> u64 {
    batches.first().map_or(0, |batch| batch.base_offset)
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

    #[test]
    fn other_bytes_of_one_batch_are_a_violation() {
        let story = Story::new();
        let first = story.batches(1, &[(0, 2, "a"), (2, 1, "b")]);
        let second = story.batches(2, &[(0, 2, "a"), (2, 1, "c")]);
        let place = Place { partition: 0, offset: 2 };
        let surveys = [first, second];
        let expected = Violation::BatchesDiffer { place, nodes: [1, 2], surveys };
        assert_eq!(check(0, &story.partition()), Err(expected));
    }

    #[test]
    fn batches_are_compared_where_both_replicas_have_them() {
        let story = Story::new();
        story.batches(1, &[(0, 2, "a"), (2, 1, "b"), (3, 1, "c")]);
        story.batches(2, &[(2, 1, "b")]);
        assert_eq!(check(0, &story.partition()), Ok(()));
    }
}
