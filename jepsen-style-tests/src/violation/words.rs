//! Each violation in plain words: which promise was broken, where, and what shows it.

use std::fmt;

use super::{Place, Violation};

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { place, value, append, node, .. } => write!(
                f,
                "lost: record {value} was acknowledged at {place} (operation {append}), and the \
                 log that node {node} serves at the end does not have it there"
            ),
            Self::SeenThenGone { place, value, read, node, .. } => write!(
                f,
                "unread: record {value} was read at {place} (operation {read}), and the log that \
                 node {node} serves at the end does not have it there"
            ),
            Self::TwoValuesAtOffset { place, seen: [a, b] } => write!(
                f,
                "inconsistent: {place} holds record {} for operation {} and record {} for \
                 operation {}",
                a.value, a.operation, b.value, b.operation
            ),
            Self::ValueAtTwoOffsets { partition, value, seen: [a, b] } => write!(
                f,
                "duplicated: record {value} stands in partition {partition} at offset {} \
                 (operation {}) and at offset {} (operation {})",
                a.offset, a.operation, b.offset, b.operation
            ),
            Self::OffsetMissing { place, shown_by } => write!(
                f,
                "hole: no append can stand at {place}, and operation {shown_by} shows that the \
                 log goes on behind it"
            ),
            Self::BatchesOverlap { partition, appends: [a, b], .. } => write!(
                f,
                "overlap: in partition {partition}, appends {a} and {b} stand on one offset"
            ),
            Self::AppendsReordered { partition, first, second, .. } => write!(
                f,
                "reordered: in partition {partition}, append {first} had returned when append \
                 {second} was invoked, and stands behind it"
            ),
            Self::TornBatch { partition, append, operation, .. } => write!(
                f,
                "torn batch: in partition {partition}, operation {operation} saw a part of append \
                 {append}"
            ),
            other => other.fmt_appends(f),
        }
    }
}

impl Violation {
    /// Conditions and the numbers of producers.
    fn fmt_appends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConditionIgnored { partition, append, expected, found, .. } => write!(
                f,
                "condition ignored: in partition {partition}, append {append} was to stand at \
                 offset {expected} or nowhere, and stands at offset {found}"
            ),
            Self::ConditionHeld { partition, append, end } => write!(
                f,
                "condition held: in partition {partition}, append {append} expected the end \
                 {end}, and was refused because the end was {end}"
            ),
            Self::RetryMoved { partition, told: [a, b] } => write!(
                f,
                "retry moved: in partition {partition}, one batch of a producer stands at offset \
                 {} for operation {} and at offset {} for operation {}",
                a.offset, a.operation, b.offset, b.operation
            ),
            Self::SequencesReordered { partition, first, second } => write!(
                f,
                "sequences reordered: in partition {partition}, append {first} has the lower \
                 sequence of its producer and stands behind append {second}"
            ),
            Self::ZombieAccepted { partition, newer, zombie } => write!(
                f,
                "zombie accepted: in partition {partition}, append {newer} of a producer's newer \
                 session was acknowledged, and after that append {zombie} of an older one"
            ),
            Self::ProducerRefused { append, reason } => write!(
                f,
                "producer refused: append {append} kept the rules of idempotence and was told: \
                 {reason}"
            ),
            other => other.fmt_reads(f),
        }
    }

    /// Reads and consumers.
    fn fmt_reads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaleRead { partition, read, node, end, needed, shown_by } => {
                write!(f, "stale read: in partition {partition}, ")?;
                match node {
                    Some(node) => write!(f, "node {node} answered end {end} to read {read}")?,
                    None => write!(f, "operation {read} was told the end {end}")?,
                }
                write!(f, ", and operation {shown_by} had shown {needed} before it was invoked")
            }
            Self::EndFromFuture { partition, read, end, append, .. } => write!(
                f,
                "end from the future: in partition {partition}, operation {read} was told the end \
                 {end}, and append {append}, which stands below it, began only after that"
            ),
            Self::AppliedFell { partition, node, read, end, needed, shown_by } => write!(
                f,
                "applied log fell: in partition {partition}, node {node} answered end {end} to \
                 read {read}, and had shown {needed} to operation {shown_by} before"
            ),
            Self::TooStale { partition, read, end, staleness_ms, needed, append } => write!(
                f,
                "too stale: in partition {partition}, read {read} was answered end {end} as no \
                 older than {staleness_ms} ms, and append {append}, which ends at {needed}, had \
                 been acknowledged longer ago than that"
            ),
            Self::PollJumped { consumer, place, found, poll, .. } if *found < place.offset => {
                write!(
                    f,
                    "poll went back: consumer {consumer} was at {place} and was given offset \
                     {found} again (operation {poll})"
                )
            }
            Self::PollJumped { consumer, place, found, poll, .. } => write!(
                f,
                "poll skipped: consumer {consumer} was at {place} and was given offset {found} \
                 next (operation {poll})"
            ),
            Self::PhantomRead { place, value, read, why, .. } => {
                write!(f, "phantom: read {read} returned record {value} at {place}, {why}")
            }
            Self::DamagedRead { read, reason } => write!(f, "damaged: read {read}: {reason}"),
            other => other.fmt_groups(f),
        }
    }

    /// Groups.
    fn fmt_groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupOffsetFell { group, partition, fetch, seen, needed, shown_by } => {
                write!(f, "group offset fell: group {group}, partition {partition}: ")?;
                match seen {
                    Some(seen) => write!(f, "operation {fetch} saw {seen}")?,
                    None => write!(f, "operation {fetch} saw no commit")?,
                }
                write!(f, ", and operation {shown_by} had shown {needed} before it was invoked")
            }
            Self::GroupOffsetFromNowhere { group, partition, fetch, seen } => write!(
                f,
                "group offset from nowhere: group {group}, partition {partition}: operation \
                 {fetch} saw {seen}, which nobody had committed"
            ),
            Self::CommitMisjudged { group, partition, commit, shown_by, why } => write!(
                f,
                "commit misjudged: group {group}, partition {partition}: commit {commit} {why}, \
                 as operation {shown_by} shows"
            ),
            Self::GroupOffsetDisorder { group, partition, operations } => write!(
                f,
                "group offset disorder: group {group}, partition {partition}: no order of commits \
                 explains what operations {operations:?} were told"
            ),
            Self::TwoOwners { group, partition, commits: [a, b] } => write!(
                f,
                "two owners: group {group}, partition {partition}: commit {b} of one member was \
                 accepted after commit {a} of another one, in no later generation"
            ),
            Self::NeverDelivered { group, place, value, append } => write!(
                f,
                "never delivered: record {value} was acknowledged at {place} (operation \
                 {append}), and no member of group {group} was given it"
            ),
            other => other.fmt_cluster(f),
        }
    }

    /// Replicas and nodes.
    fn fmt_cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReplicasDiffer { place, nodes: [a, b], surveys } => write!(
                f,
                "replicas differ: nodes {a} and {b} have different chain hashes below {place} \
                 (operations {} and {})",
                surveys[0], surveys[1]
            ),
            Self::BatchesDiffer { place, nodes: [a, b], surveys } => write!(
                f,
                "batches differ: nodes {a} and {b} hold different bytes at {place} (operations {} \
                 and {})",
                surveys[0], surveys[1]
            ),
            Self::Raft(violation) => fmt::Display::fmt(violation, f),
            Self::NotServing { what } => {
                write!(f, "not serving: all faults were removed, and {what}")
            }
            Self::NodeStopped { reason } => write!(f, "node stopped: {reason}"),
            Self::ErrorLogged { line } => write!(f, "error logged: {line}"),
            Self::Panicked { what } => write!(f, "panicked: {what}"),
            // Each of the functions above has its own kinds, and a test prints every kind.
            _ => f.write_str(self.kind()),
        }
    }
}
