//! Judges a history: is everything acknowledged there, once, in order, and on every replica?
//!
//! A pure function, so that every kind of violation can be shown to be caught (the tests below).
//! It trusts no count that was kept on the way: the acknowledgements are the delivery reports,
//! the rest are answers to reads that were made after everything was over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::demo::history::{Content, Found, History, Outcome};

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An acknowledged or consumed record is not where it was said to be.
    Lost(String),
    /// A record is there more than once, or was delivered more than once.
    Duplicated(String),
    /// Records of one key don't stand in the order in which they were sent.
    Reordered(String),
    /// A record is there that nobody sent, or that was refused.
    Alien(String),
    /// A record was sent and never acknowledged.
    Unacknowledged(String),
    /// Nothing was acknowledged in place of the leader that was killed.
    NoFailover(String),
    /// Replicas hold different records, or one of them can't tell.
    Disagreement(String),
    /// No member of the group got a record, or the group was not put to the test.
    Missing(String),
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acked: usize,
    pub(crate) read: usize,
    /// The longest time, over the partitions that the killed node led, from the kill to the next
    /// append acknowledged by another leader. `None`: there was none.
    pub(crate) failover: Option<Duration>,
    pub(crate) violations: Vec<Violation>,
}

impl Verdict {
    /// Everything that was promised was kept.
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    pub(crate) fn lost(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Lost(_)))
    }

    pub(crate) fn duplicated(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Duplicated(_)))
    }

    pub(crate) fn reordered(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Reordered(_)))
    }

    pub(crate) fn missing(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Missing(_)))
    }

    pub(crate) fn replicas_agree(&self) -> bool {
        self.count(|violation| matches!(violation, Violation::Disagreement(_))) == 0
    }

    fn count(&self, is: impl Fn(&Violation) -> bool) -> usize {
        self.violations.iter().filter(|violation| is(violation)).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verdict: acked {}, read {}, ", self.acked, self.read)?;
        write!(f, "lost {}, duplicated {}, ", self.lost(), self.duplicated())?;
        write!(f, "reordered {}, ", self.reordered())?;
        match self.failover {
            Some(failover) => write!(f, "failover {} ms, ", failover.as_millis())?,
            None => write!(f, "failover none, ")?,
        }
        f.write_str(if self.replicas_agree() { "replicas agree" } else { "replicas disagree" })?;
        write!(f, ", consumed at least once by the group: missing {}", self.missing())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost(what) => write!(f, "lost: {what}"),
            Violation::Duplicated(what) => write!(f, "duplicated: {what}"),
            Violation::Reordered(what) => write!(f, "reordered: {what}"),
            Violation::Alien(what) => write!(f, "not sent: {what}"),
            Violation::Unacknowledged(what) => write!(f, "not acknowledged: {what}"),
            Violation::NoFailover(what) => write!(f, "no failover: {what}"),
            Violation::Disagreement(what) => write!(f, "replicas: {what}"),
            Violation::Missing(what) => write!(f, "missing in the group: {what}"),
        }
    }
}

/// A place in the topic.
type Place = (u32, u64);

/// Judges a history.
pub(crate) fn judge(history: &History) -> Verdict {
    let mut violations = Vec::new();
    let read = places(&history.read, &mut violations);
    check_acked(history, &read, &mut violations);
    check_read(history, &read, &mut violations);
    check_dense(&read, &mut violations);
    check_order(history, &read, &mut violations);
    check_consumed(history, &read, &mut violations);
    check_group(history, &read, &mut violations);
    check_replicas(history, &read, &mut violations);
    let failover = failover(history, &mut violations);
    let is_acked = |outcome: &Outcome| matches!(outcome, Outcome::Acked { .. });
    let acked = history.sent.iter().filter(|sent| is_acked(&sent.outcome)).count();
    Verdict { acked, read: history.read.len(), failover, violations }
}

/// What stands at each place. The same place delivered twice is a violation.
fn places<'a>(found: &'a [Found], violations: &mut Vec<Violation>) -> BTreeMap<Place, &'a Content> {
    let mut places = BTreeMap::new();
    for record in found {
        let place = (record.partition, record.offset);
        if places.insert(place, &record.content).is_some() {
            let what = format!("{} was read twice", at(place));
            violations.push(Violation::Duplicated(what));
        }
    }
    places
}

/// Every acknowledged record stands where its acknowledgement says.
fn check_acked(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    let ids_read: BTreeSet<&str> = read.values().map(|content| content.id.as_str()).collect();
    for sent in &history.sent {
        let id = &sent.content.id;
        match &sent.outcome {
            Outcome::Acked { partition, offset: Some(offset), .. } => {
                let place = (*partition, *offset);
                let instead = match read.get(&place) {
                    Some(content) if **content == sent.content => continue,
                    Some(other) => format!("{} is there", other.id),
                    None => "nothing is there".to_owned(),
                };
                let what = format!("{id} was acknowledged at {}, {instead}", at(place));
                violations.push(Violation::Lost(what));
            }
            Outcome::Acked { partition, offset: None, .. } => {
                if !ids_read.contains(id.as_str()) {
                    let what = format!("{id} was acknowledged in partition {partition}");
                    violations.push(Violation::Lost(what));
                }
            }
            Outcome::Refused(why) | Outcome::Unknown(why) => {
                violations.push(Violation::Unacknowledged(format!("{id}: {why}")));
            }
        }
    }
}

/// Every record read was sent, as it is, and stands at one place only.
fn check_read(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    let sent: BTreeMap<&str, _> =
        history.sent.iter().map(|sent| (sent.content.id.as_str(), sent)).collect();
    let mut first_places: BTreeMap<&str, Place> = BTreeMap::new();
    for (place, content) in read {
        if let Some(first) = first_places.insert(&content.id, *place) {
            let what = format!("{} is at {} and at {}", content.id, at(first), at(*place));
            violations.push(Violation::Duplicated(what));
        }
        let why = match sent.get(content.id.as_str()) {
            None => "nobody sent it",
            Some(sent) if sent.content != **content => "it was sent with another content",
            Some(sent) if matches!(sent.outcome, Outcome::Refused(_)) => "it was refused",
            Some(_) => continue,
        };
        let what = format!("{} at {}: {why}", content.id, at(*place));
        violations.push(Violation::Alien(what));
    }
}

/// Offsets of a partition begin at 0 and leave none out.
fn check_dense(read: &BTreeMap<Place, &Content>, violations: &mut Vec<Violation>) {
    for (partition, end) in ends(read) {
        for offset in (0..end).filter(|offset| !read.contains_key(&(partition, *offset))) {
            let what = format!("nothing is at {}, below the end {end}", at((partition, offset)));
            violations.push(Violation::Lost(what));
        }
    }
}

/// The records of a key stand in one partition, in the order in which they were sent.
fn check_order(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    let send_order: BTreeMap<&str, usize> =
        (0..).zip(&history.sent).map(|(order, sent)| (sent.content.id.as_str(), order)).collect();
    // By key: the place read last, and its place in the order of sending.
    let mut last: BTreeMap<&[u8], (Place, usize)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (place, content) in read {
        let Some(order) = send_order.get(content.id.as_str()) else { continue };
        if !seen.insert(&content.id) {
            // The second copy is reported as one; where it stands says nothing about order.
            continue;
        }
        if let Some((before, order_before)) = last.get(&content.key[..]) {
            let key = String::from_utf8_lossy(&content.key);
            if before.0 != place.0 {
                let what = format!("key {key} is in partitions {} and {}", before.0, place.0);
                violations.push(Violation::Reordered(what));
            } else if order < order_before {
                let what = format!(
                    "{} at {} was sent before what is at {}, of the same key {key}",
                    content.id,
                    at(*place),
                    at(*before)
                );
                violations.push(Violation::Reordered(what));
                continue;
            }
        }
        last.insert(&content.key, (*place, *order));
    }
}

/// The consumer got each partition from its start to its end, in order, and saw what is there.
fn check_consumed(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for found in &history.consumed {
        let place = (found.partition, found.offset);
        let expected = next.entry(found.partition).or_insert(0);
        if found.offset < *expected {
            let what = format!("{} was consumed again", at(place));
            violations.push(Violation::Duplicated(what));
        } else if found.offset > *expected {
            let what = format!("the consumer went from {expected} to {}", at(place));
            violations.push(Violation::Lost(what));
        }
        *expected = (*expected).max(found.offset.saturating_add(1));
        if read.get(&place).is_none_or(|content| **content != found.content) {
            let what =
                format!("{} was consumed at {} and is not there", found.content.id, at(place));
            violations.push(Violation::Lost(what));
        }
    }
    for (partition, end) in ends(read) {
        let consumed = next.get(&partition).copied().unwrap_or(0);
        if consumed < end {
            let what = format!("the consumer got {} of {end}", at((partition, consumed)));
            violations.push(Violation::Lost(what));
        }
    }
}

/// Some member of the group got each record, and none got what is not there, though one was killed.
fn check_group(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    let reads = &history.group.reads;
    let consumed: BTreeSet<Place> = reads.iter().map(|it| (it.partition, it.offset)).collect();
    for place in read.keys().filter(|place| !consumed.contains(*place)) {
        violations.push(Violation::Missing(format!("nobody got {}", at(*place))));
    }
    for place in consumed.iter().filter(|place| !read.contains_key(*place)) {
        let what = format!("the group got {}, where nothing is", at(*place));
        violations.push(Violation::Alien(what));
    }
    if history.group.killed.is_none() {
        violations.push(Violation::Missing("no consumer was killed".to_owned()));
    }
}

/// For every partition all nodes gave the same chain hash at the end offset that was read.
fn check_replicas(
    history: &History,
    read: &BTreeMap<Place, &Content>,
    violations: &mut Vec<Violation>,
) {
    if history.nodes.is_empty() {
        violations.push(Violation::Disagreement("no node was asked".to_owned()));
    }
    for (partition, end) in ends(read) {
        let mut hashes = BTreeSet::new();
        for node in &history.nodes {
            let answer = history.replicas.iter().find(|answer| {
                answer.node == *node && answer.partition == partition && answer.offset == end
            });
            match answer.filter(|answer| !answer.chain_hash.is_empty()) {
                Some(answer) => {
                    hashes.insert(&answer.chain_hash);
                }
                None => {
                    let place = at((partition, end));
                    let what = format!("node {node} has no chain hash for {place}");
                    violations.push(Violation::Disagreement(what));
                }
            }
        }
        if hashes.len() > 1 {
            let place = at((partition, end));
            let what = format!("{} different chain hashes at {place}", hashes.len());
            violations.push(Violation::Disagreement(what));
        }
    }
}

/// The longest of the partitions' times from the kill to the next acknowledgement. Only a later
/// leader epoch counts: an answer of the dead leader may still arrive after the kill. A partition
/// to which nothing was sent any more has no time; one that got stuck shows as not acknowledged.
fn failover(history: &History, violations: &mut Vec<Violation>) -> Option<Duration> {
    let Some(kill) = &history.kill else {
        violations.push(Violation::NoFailover("no node was killed".to_owned()));
        return None;
    };
    let next_acked = |led: u32, epoch_before: u64| {
        let times = history.sent.iter().filter_map(move |sent| match &sent.outcome {
            Outcome::Acked { partition, leader_epoch, at, .. }
                if *partition == led && *leader_epoch > epoch_before =>
            {
                at.checked_sub(kill.at)
            }
            Outcome::Acked { .. } | Outcome::Refused(_) | Outcome::Unknown(_) => None,
        });
        times.min()
    };
    let longest = kill.led.iter().filter_map(|(led, epoch)| next_acked(*led, *epoch)).max();
    if longest.is_none() {
        let what = format!("nothing was acknowledged by whoever took over from node {}", kill.node);
        violations.push(Violation::NoFailover(what));
    }
    longest
}

/// The end offset of every partition that has records.
fn ends(read: &BTreeMap<Place, &Content>) -> BTreeMap<u32, u64> {
    read.keys().map(|(partition, offset)| (*partition, offset + 1)).collect()
}

fn at(place: Place) -> String {
    format!("{}:{}", place.0, place.1)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
