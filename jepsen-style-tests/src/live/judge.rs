//! From a history to a verdict: the simulator's checkers, and the counts of the verdict line.
//!
//! The checkers tell the first violation of each kind; here all are counted. A survey that lacks a
//! chain hash counts as a disagreement, since nothing was compared.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::checkers;
use crate::history::History;
use crate::observations::{AppendOutcome, Observations, PartitionObservations};
use crate::violation::Violation;

/// What the verdict line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records acknowledged.
    pub(super) acked: usize,
    /// Records whose append may or may not have had its effect.
    pub(super) unknown: usize,
    /// Records refused for good.
    pub(super) refused: usize,
    /// Records in the log at the end, by the node that has fewest.
    pub(super) read: usize,
    /// Acknowledged records that are missing on some node.
    pub(super) lost: usize,
    /// Records that stand in the log once more than they should.
    pub(super) duplicated: usize,
    /// Partitions whose order contradicts real time.
    pub(super) reordered: usize,
    /// Every replica told its hash, and all are equal.
    pub(super) replicas_agree: bool,
}

/// Counts and violations.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    pub(super) counts: Counts,
    pub(super) violations: Vec<Violation>,
}

/// Judges a history that ends with a survey of every node.
pub(super) fn judge(history: &History) -> Judgement {
    let observations = Observations::of(history);
    let violations = checkers::check_all(&observations);
    let mut counts = Counts { replicas_agree: true, ..Counts::default() };
    for (number, partition) in &observations.partitions {
        counts.add_appends(partition);
        counts.add_surveys(partition);
        if checkers::replicas_agree::check(*number, partition).is_err() {
            counts.replicas_agree = false;
        }
    }
    let reordered = |it: &&Violation| matches!(it, Violation::AppendsReordered { .. });
    counts.reordered = violations.iter().filter(reordered).count();
    Judgement { counts, violations }
}

impl Counts {
    fn add_appends(&mut self, partition: &PartitionObservations) {
        for append in &partition.appends {
            let count = match append.outcome {
                AppendOutcome::Acked { .. } => &mut self.acked,
                AppendOutcome::Unknown => &mut self.unknown,
                AppendOutcome::Refused(_) => &mut self.refused,
            };
            *count += append.values.len();
        }
    }

    fn add_surveys(&mut self, partition: &PartitionObservations) {
        let surveys = &partition.surveys;
        self.read += surveys.iter().map(|survey| survey.values.len()).min().unwrap_or(0);
        let compared = surveys.iter().filter(|survey| survey.chain_hash.is_some()).count();
        self.replicas_agree &= compared > 0 && compared == surveys.len();
        let (mut lost, mut duplicated) = (0, 0);
        for survey in surveys {
            let mut times: BTreeMap<u64, usize> = BTreeMap::new();
            for value in &survey.values {
                *times.entry(*value).or_default() += 1;
            }
            let more = times.values().map(|times| times - 1).sum::<usize>();
            duplicated = duplicated.max(more);
            let place = |offset: u64| {
                let index = usize::try_from(offset.checked_sub(survey.start)?).ok()?;
                survey.values.get(index)
            };
            let offsets = partition.appends.iter().flat_map(|append| append.offsets());
            let kept = offsets.filter(|(offset, _)| *offset >= survey.start);
            lost = lost.max(kept.filter(|(offset, value)| place(*offset) != Some(value)).count());
        }
        self.lost += lost;
        self.duplicated += duplicated;
    }

    /// The verdict line. `failover`: the longest pause that the faults made.
    pub(super) fn line(&self, failover: Option<Duration>) -> String {
        let failover = failover.map_or("none".to_owned(), |it| format!("{} ms", it.as_millis()));
        format!("verdict: {self}, failover {failover}, {}", self.agreement())
    }

    fn agreement(&self) -> &'static str {
        if self.replicas_agree { "replicas agree" } else { "replicas disagree" }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, read, lost, duplicated, reordered, .. } = self;
        write!(f, "acked {acked}, read {read}, lost {lost}, ")?;
        write!(f, "duplicated {duplicated}, reordered {reordered}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Call, Event, What};

    fn history(parts: Vec<What>) -> History {
        let events = parts.into_iter();
        let event = |what| Event { at_us: 0, process: "t".to_owned(), what };
        History { events: events.map(event).collect() }
    }

    fn acked(op: u64, value: u64, offset: u64) -> [What; 2] {
        let call = Call::Append { partition: 0, values: vec![value] };
        let answer = Answer::Appended { base_offset: Some(offset) };
        [What::Invoke { op, call }, What::Ok { op, answer }]
    }

    fn surveyed(op: u64, node: u64, values: &[u64], hash: Option<&str>) -> [What; 2] {
        let call = Call::Survey { partition: 0, node };
        let chain_hash = hash.map(str::to_owned);
        let answer = Answer::Log { start: 0, values: values.to_vec(), chain_hash };
        [What::Invoke { op, call }, What::Ok { op, answer }]
    }

    #[test]
    fn a_run_that_kept_everything_says_so() {
        let mut parts = Vec::from(acked(1, 10, 0));
        parts.extend(acked(2, 11, 1));
        for node in 1..=3 {
            parts.extend(surveyed(2 + node, node, &[10, 11], Some("a")));
        }
        let judgement = judge(&history(parts));
        assert_eq!(judgement.violations, []);
        let line = judgement.counts.line(Some(Duration::from_millis(412)));
        let expected = "verdict: acked 2, read 2, lost 0, duplicated 0, reordered 0, \
                        failover 412 ms, replicas agree";
        assert_eq!(line, expected);
    }

    #[test]
    fn what_one_node_lacks_or_has_twice_is_counted() {
        let mut parts = Vec::from(acked(1, 10, 0));
        parts.extend(acked(2, 11, 1));
        parts.extend(surveyed(3, 1, &[10, 11, 10], Some("a")));
        parts.extend(surveyed(4, 2, &[10], Some("b")));
        let judgement = judge(&history(parts));
        let Counts { lost, duplicated, read, .. } = judgement.counts;
        assert_eq!((lost, duplicated, read), (1, 1, 1));
        assert!(!judgement.violations.is_empty());
    }

    #[test]
    fn a_replica_that_does_not_tell_its_hash_does_not_agree() {
        let mut parts = Vec::from(acked(1, 10, 0));
        parts.extend(surveyed(2, 1, &[10], None));
        assert!(!judge(&history(parts)).counts.replicas_agree);
    }
}
