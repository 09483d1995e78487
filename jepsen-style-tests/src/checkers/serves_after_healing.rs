//! When a majority of the nodes is healed, and the others stay dead, the cluster serves again
//! within a time: every partition takes appends and is read linearizably on every healed node,
//! group offsets are committed, a topic can be created.
//!
//! This is the promise "recovers". Somebody must have tried: what nobody asked for after the
//! healing counts as not served, so that a harness that forgets to ask is found out.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Failure, History, What};
use crate::violation::Violation;

/// What was healed, and what must work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healing {
    /// Simulated time at which the last fault was taken away, microseconds.
    pub healed_us: u64,
    /// Each demand must be met so long after that, microseconds.
    pub within_us: u64,
    /// Labels of the nodes that run and reach each other: a majority of every group.
    pub core: BTreeSet<u64>,
    /// Partitions that must be served.
    pub partitions: BTreeSet<u32>,
    /// Groups for which a commit must succeed, in any partition.
    pub groups: BTreeSet<String>,
    /// A topic must be created.
    pub topic: bool,
}

/// Something that must work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    Append { partition: u32 },
    Read { node: u64, partition: u32 },
    Commit { group: String },
    CreateTopic,
}

/// How far a demand is from being met.
#[derive(Debug, Clone, Default)]
enum Progress<'a> {
    #[default]
    NotTried,
    Tried(Option<&'a Failure>),
    Met,
}

/// Checks a history that goes on after the healing. Returns every demand that was not met.
pub fn check(history: &History, healing: &Healing) -> Vec<Violation> {
    let mut demands: BTreeMap<Demand, Progress<'_>> =
        healing.demands().into_iter().map(|demand| (demand, Progress::NotTried)).collect();
    let deadline_us = healing.healed_us.saturating_add(healing.within_us);
    let mut open: BTreeMap<u64, Demand> = BTreeMap::new();
    for event in history.events.iter().filter(|event| event.at_us >= healing.healed_us) {
        let (op, met, failure) = match &event.what {
            What::Invoke { op, call } => {
                if let Some(demand) = Demand::of(call)
                    && let Some(progress) = demands.get_mut(&demand)
                {
                    if let Progress::NotTried = progress {
                        *progress = Progress::Tried(None);
                    }
                    open.insert(*op, demand);
                }
                continue;
            }
            What::Ok { op, answer } => {
                (*op, event.at_us <= deadline_us && is_success(answer), None)
            }
            What::Fail { op, error } | What::Unknown { op, error } => (*op, false, Some(error)),
            What::Fault { .. } | What::Started { .. } => continue,
        };
        let progress = open.remove(&op).and_then(|demand| demands.get_mut(&demand));
        match progress {
            Some(Progress::Met) | None => {}
            Some(progress) if met => *progress = Progress::Met,
            Some(progress) => *progress = Progress::Tried(failure),
        }
    }
    let unmet = demands.into_iter().filter_map(|(demand, progress)| {
        let within_ms = healing.within_us / 1_000;
        let last = match progress {
            Progress::Met => return None,
            Progress::NotTried => "nobody tried".to_owned(),
            Progress::Tried(None) => "there was no answer in time".to_owned(),
            Progress::Tried(Some(error)) => format!("last: {}: {}", error.code, error.message),
        };
        let what = format!("{} was not had within {within_ms} ms; {last}", demand.in_words());
        Some(Violation::NotServing { what })
    });
    unmet.collect()
}

fn is_success(answer: &Answer) -> bool {
    // A condition that does not hold, or a commit that would go back, is an answer of a cluster
    // that serves, but not what was demanded.
    !matches!(answer, Answer::Conflict { .. } | Answer::Regression { .. })
}

impl Healing {
    fn demands(&self) -> BTreeSet<Demand> {
        let mut demands = BTreeSet::new();
        for &partition in &self.partitions {
            demands.insert(Demand::Append { partition });
            demands.extend(self.core.iter().map(|&node| Demand::Read { node, partition }));
        }
        demands.extend(self.groups.iter().map(|group| Demand::Commit { group: group.clone() }));
        demands.extend(self.topic.then_some(Demand::CreateTopic));
        demands
    }
}

impl Demand {
    fn of(call: &Call) -> Option<Self> {
        Some(match call {
            Call::Append { partition, .. } | Call::AppendWith { partition, .. } => {
                Self::Append { partition: *partition }
            }
            Call::Read { partition, node, .. } | Call::Survey { partition, node } => {
                Self::Read { node: *node, partition: *partition }
            }
            Call::Commit { group, .. } | Call::CommitVersion { group, .. } => {
                Self::Commit { group: group.clone() }
            }
            Call::CreateTopic { .. } => Self::CreateTopic,
            _ => return None,
        })
    }

    fn in_words(&self) -> String {
        match self {
            Self::Append { partition } => format!("an append to partition {partition}"),
            Self::Read { node, partition } => {
                format!("a linearizable read of partition {partition} at node {node}")
            }
            Self::Commit { group } => format!("a commit of group {group}"),
            Self::CreateTopic => "a new topic".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Event;

    fn event(at_us: u64, what: What) -> Event {
        Event { at_us, process: "t".to_owned(), what }
    }

    fn healing() -> Healing {
        Healing {
            healed_us: 1_000_000,
            within_us: 500_000,
            core: BTreeSet::from([1, 3]),
            partitions: BTreeSet::from([0]),
            groups: BTreeSet::from(["g".to_owned()]),
            topic: true,
        }
    }

    /// Everything that is demanded, each answered so long after the healing.
    fn served(after_us: u64) -> History {
        let append = Call::Append { partition: 0, values: vec![1] };
        let read = |node| Call::Read { partition: 0, node, from: 0 };
        let commit = Call::Commit { group: "g".to_owned(), partition: 0, offset: 1 };
        let topic = Call::CreateTopic { topic: "new".to_owned(), partitions: 1 };
        let records = || Answer::Records { values: vec![1], end: 1 };
        let asked = [
            (append, Answer::Appended { base_offset: Some(0) }),
            (read(1), records()),
            (read(3), records()),
            (commit, Answer::Committed),
            (topic, Answer::Done),
        ];
        let mut history = History::default();
        for ((call, answer), op) in asked.into_iter().zip(1..) {
            history.events.push(event(1_000_000, What::Invoke { op, call }));
            history.events.push(event(1_000_000 + after_us, What::Ok { op, answer }));
        }
        history
    }

    #[test]
    fn a_cluster_that_serves_in_time_has_recovered() {
        assert_eq!(check(&served(500_000), &healing()), []);
    }

    #[test]
    fn what_is_answered_too_late_or_never_asked_for_is_not_served() {
        assert_eq!(check(&served(500_001), &healing()).len(), 5);
        assert_eq!(check(&History::default(), &healing()).len(), 5);
    }

    #[test]
    fn a_node_of_the_core_that_can_not_be_read_is_named_with_its_last_error() {
        let mut history = served(1);
        let read = |event: &Event| matches!(&event.what, What::Ok { op: 3, .. });
        let place = history.events.iter().position(read).expect("it was asked");
        let error = Failure { code: "NO_LEADER".to_owned(), message: "nobody leads".to_owned() };
        history.events[place].what = What::Fail { op: 3, error };
        let found = check(&history, &healing());
        let [Violation::NotServing { what }] = found.as_slice() else {
            panic!("expected one violation, found {found:?}");
        };
        assert!(what.contains("partition 0 at node 3"), "{what}");
        assert!(what.contains("nobody leads"), "{what}");
    }

    #[test]
    fn one_success_is_enough_whatever_failed_before_and_after() {
        let mut history = served(1);
        let error = Failure { code: "NO_LEADER".to_owned(), message: "nobody leads".to_owned() };
        let call = Call::Append { partition: 0, values: vec![2] };
        history.events.push(event(1_000_002, What::Invoke { op: 9, call }));
        history.events.push(event(1_000_003, What::Fail { op: 9, error }));
        assert_eq!(check(&history, &healing()), []);
    }
}
