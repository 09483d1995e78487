//! What must be true of a replica's disk after its power was cut and it was opened again.
//!
//! - A vote that was acknowledged did not go back.
//! - An acknowledged entry is there, byte for byte, unless something asked for later may have
//!   taken it: a truncation, a purge, a snapshot.
//! - Everything that is there was asked for; an entry whose removal was acknowledged is not.
//! - What is applied is the state that the true log makes, and the log reaches that far.
//! - Checkpoints are whole, the offset index leads to entries that are there.
//! - The replica can go on, and ends up with the state of all others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use node::rig::{ReplicaRig, RigEntry};
use node::storage::log_writer::{LogWriter, SyncDelay};
use node::storage::{Engine, keys, row};
use node_core::partition::{IndexRecord, PartitionState};
use node_core::position::RaftPosition;

use super::story::Story;
use super::workload::{Fact, Step};

/// Entries beyond what was found that a replica is given to see whether it can go on.
const GOES_ON_FOR: u64 = 6;

/// A replica as it was opened again.
struct Found {
    vote: u64,
    purged: Option<u64>,
    last: Option<RaftPosition>,
    applied: Option<RaftPosition>,
    entries: BTreeMap<u64, RigEntry>,
}

/// Opens the replica of `story` and checks it. What `facts` say was acknowledged when the engine
/// had made `writes` writes must be there.
///
/// # Errors
/// What is wrong, in words.
pub(super) async fn check(
    engine: &Arc<dyn Engine>,
    story: &Story,
    facts: &[Fact],
    writes: u64,
) -> Result<(), String> {
    let writer = LogWriter::on_task(engine.clone(), SyncDelay::fixed(Duration::ZERO));
    let of = |what: &str| format!("group {}: {what}", story.group);
    let failed = |doing: &str, error: std::io::Error| of(&format!("{doing}: {error}"));
    let rig = ReplicaRig::open(engine.clone(), writer, story.group, story.kind()).await;
    let mut rig = rig.map_err(|error| failed("it does not open", error))?;
    let found = look(&mut rig).await.map_err(|error| failed("it can't be read", error))?;
    votes_stand(&found, facts, writes).map_err(|what| of(&what))?;
    entries_stand(&found, facts, writes).map_err(|what| of(&what))?;
    state_is_that_of(&found, story, facts, writes).map_err(|what| of(&what))?;
    rig.settle().await.map_err(|error| failed("it can't write", error))?;
    let began = began_with(&found, facts);
    rows_are_whole(&**engine, story, &found, began).map_err(|what| of(&what))?;
    go_on(&mut rig, story, &found).await.map_err(|error| failed("it can't go on", error))?;
    let applied = rig.applied().await.map_err(|error| failed("it can't be read", error))?;
    if applied.map(|at| at.index) != Some(goal(&found, story)) {
        return Err(of(&format!("it went on to {applied:?}, not to {}", goal(&found, story))));
    }
    let found = Found { applied, ..found };
    rows_are_whole(&**engine, story, &found, began).map_err(|what| of(&what))
}

async fn look(rig: &mut ReplicaRig) -> std::io::Result<Found> {
    let vote = rig.vote().await?.map_or(0, |(term, _)| term);
    let purged = rig.purged().await?.map(|at| at.index);
    let last = rig.last().await?;
    let applied = rig.applied().await?;
    let (mut next, end) = (purged.map_or(0, |at| at + 1), last.map_or(0, |at| at.index + 1));
    let mut entries = BTreeMap::new();
    while next < end {
        let read = rig.entries(next, end).await?;
        let Some(last) = read.last() else {
            return Err(std::io::Error::other(format!("entry {next} is missing")));
        };
        next = last.at.index + 1;
        entries.extend(read.into_iter().map(|entry| (entry.at.index, entry)));
    }
    Ok(Found { vote, purged, last, applied, entries })
}

fn must(fact: &Fact, writes: u64) -> bool {
    fact.acked.is_some_and(|acked| acked <= writes)
}

fn votes_stand(found: &Found, facts: &[Fact], writes: u64) -> Result<(), String> {
    let terms = |acked: bool| {
        let terms = facts.iter().filter(move |fact| !acked || must(fact, writes));
        terms.filter_map(|fact| if let Step::Vote(term) = fact.step { Some(term) } else { None })
    };
    let (least, greatest) = (terms(true).max().unwrap_or(0), terms(false).max().unwrap_or(0));
    match (least..=greatest).contains(&found.vote) {
        true => Ok(()),
        false => Err(format!("it voted in term {least} and now knows {}", found.vote)),
    }
}

/// What may stand at one index, and what must.
#[derive(Default)]
struct Place {
    /// Oldest first.
    candidates: Vec<RigEntry>,
    /// The last of them was acknowledged and nothing later may have taken it.
    must: bool,
}

fn places(facts: &[Fact], writes: u64) -> BTreeMap<u64, Place> {
    let mut places: BTreeMap<u64, Place> = BTreeMap::new();
    for fact in facts {
        match &fact.step {
            Step::Append(entries) => {
                for entry in entries {
                    let place = places.entry(entry.at.index).or_default();
                    place.candidates.push(entry.clone());
                    place.must = must(fact, writes);
                }
            }
            Step::TruncateAfter(last) => {
                let first = last.map_or(0, |last| last.index + 1);
                for place in places.range_mut(first..).map(|(_, place)| place) {
                    place.must = false;
                    if must(fact, writes) {
                        place.candidates.clear();
                    }
                }
            }
            // Both purge at most what is applied here, or replaced by the snapshot.
            Step::Snapshot => places.values_mut().for_each(|place| place.must = false),
            Step::Install(at) => {
                for place in places.range_mut(..=at.index).map(|(_, place)| place) {
                    place.must = false;
                }
            }
            Step::Vote(_) | Step::Await | Step::Commit(_) => {}
        }
    }
    places
}

fn entries_stand(found: &Found, facts: &[Fact], writes: u64) -> Result<(), String> {
    let places = places(facts, writes);
    let mut term = 0;
    for (index, entry) in &found.entries {
        let known = places.get(index).is_some_and(|place| place.candidates.contains(entry));
        if !known {
            return Err(format!("entry {} is one that nobody appended there", entry.at));
        }
        if entry.at.term < term {
            return Err(format!("entry {} follows one of term {term}", entry.at));
        }
        term = entry.at.term;
    }
    for (index, place) in &places {
        let purged = found.purged.is_some_and(|purged| *index <= purged);
        if place.must && !purged && found.entries.get(index) != place.candidates.last() {
            let last = found.last;
            return Err(format!("acknowledged entry {index} is gone; the log ends at {last:?}"));
        }
    }
    Ok(())
}

/// The snapshot with which the replica began, if it began with one: the last that it was given of
/// those that lie in what it has applied.
fn began_with(found: &Found, facts: &[Fact]) -> Option<u64> {
    let applied = found.applied?.index;
    let installs = facts.iter().filter_map(|fact| match fact.step {
        Step::Install(at) => Some(at.index),
        _ => None,
    });
    installs.filter(|at| *at <= applied).max()
}

fn state_is_that_of(
    found: &Found,
    story: &Story,
    facts: &[Fact],
    writes: u64,
) -> Result<(), String> {
    let applied = found.applied;
    if applied.is_some_and(|at| story.entry(at.index).is_none_or(|entry| entry.at != at)) {
        return Err(format!("it applied {applied:?}, which is not in the true log"));
    }
    if applied.map(|at| at.index) > found.last.map(|at| at.index) {
        return Err(format!("it applied {applied:?} and its log ends at {:?}", found.last));
    }
    if found.purged > applied.map(|at| at.index) {
        return Err(format!("it purged {:?} and applied {applied:?}", found.purged));
    }
    let committed = facts.iter().filter_map(|fact| match fact.step {
        Step::Commit(at) | Step::Install(at) => Some(at.index),
        _ => None,
    });
    if applied.map(|at| at.index) > committed.max() {
        return Err(format!("it applied {applied:?}, which nobody said was committed"));
    }
    let done = facts.iter().filter(|fact| must(fact, writes)).filter_map(|fact| match fact.step {
        Step::Install(at) => Some(at.index),
        _ => None,
    });
    if applied.map(|at| at.index) < done.max() {
        return Err(format!("it installed a snapshot and applied only {applied:?}"));
    }
    Ok(())
}

/// Compares the rows of a partition with what its applied entries must have made of them.
fn rows_are_whole(
    engine: &dyn Engine,
    story: &Story,
    found: &Found,
    began: Option<u64>,
) -> Result<(), String> {
    if !story.is_partition() {
        return snapshot_is_whole(engine, story, found);
    }
    let applied = found.applied.map(|at| at.index);
    let expected = story.expected(applied, began).ok_or("the story has no such state")?;
    let group = story.group;
    let text = |error: node::storage::StorageError| error.to_string();
    let Some(head) = row::get(engine, &keys::head(group)).map_err(text)? else {
        let nothing = applied.is_none();
        return if nothing { Ok(()) } else { Err("its head row is missing".to_owned()) };
    };
    let ladder = row::get(engine, &keys::ladder(group)).map_err(text)?;
    let ladder = ladder.ok_or("its ladder row is missing")?;
    let producers = row::list(engine, &keys::producers(group)).map_err(text)?;
    let state = PartitionState::restore(head, ladder, producers).map_err(|it| it.to_string())?;
    if state.checkpoint() != expected.state {
        return Err(format!("its state at {applied:?} is not what the log makes of it"));
    }
    for rung in state.rungs() {
        let index = rung.position.index;
        let stored = row::get(engine, &keys::rung(group, index)).map_err(text)?;
        if stored.is_none() || stored.as_ref() != expected.rungs.get(&index) {
            return Err(format!("the checkpoint at {} is not whole", rung.position));
        }
    }
    index_is_dense(engine, story, found, &state)
}

fn index_is_dense(
    engine: &dyn Engine,
    story: &Story,
    found: &Found,
    state: &PartitionState,
) -> Result<(), String> {
    let rows = row::list(engine, &keys::indexes_from(story.group, state.log_start()));
    let mut next = state.log_start();
    for body in rows.map_err(|error| error.to_string())? {
        let record = IndexRecord::decode(body).map_err(|error| error.to_string())?;
        let at = record.position;
        if record.base_offset != next {
            return Err(format!("offset {next} is not indexed, {} is", record.base_offset));
        }
        let purged = found.purged.is_some_and(|purged| at.index <= purged);
        if purged || story.entry(at.index).is_none_or(|entry| entry.at != at) {
            return Err(format!("offset {next} is indexed in entry {at}, which is gone"));
        }
        next = record.next_offset();
    }
    match next == state.next_offset() {
        true => Ok(()),
        false => Err(format!("the index ends at {next}, the log at {}", state.next_offset())),
    }
}

fn snapshot_is_whole(engine: &dyn Engine, story: &Story, found: &Found) -> Result<(), String> {
    let stored = row::get(engine, &keys::snapshot(story.group)).map_err(|it| it.to_string())?;
    let Some(stored) = stored else {
        return match found.purged {
            None => Ok(()),
            Some(purged) => Err(format!("its log is purged to {purged} without a snapshot")),
        };
    };
    let same = |(_, (at, snapshot)): &(&u64, &(RaftPosition, Bytes))| {
        *snapshot == stored && found.purged.is_none_or(|purged| purged <= at.index)
    };
    match story.snapshots.iter().find(same) {
        Some(_) => Ok(()),
        None => Err("its snapshot is not whole, or older than what was purged".to_owned()),
    }
}

/// The last entry, purged ones included, up to which this is the true log.
fn parted_after(found: &Found, story: &Story) -> Option<u64> {
    let is_true = |(index, entry): &(&u64, &RigEntry)| story.entry(**index) == Some(*entry);
    let last = found.entries.iter().rev().find(is_true).map(|(index, _)| *index);
    last.max(found.purged)
}

/// How far a replica goes on.
fn goal(found: &Found, story: &Story) -> u64 {
    let applied = found.applied.map(|at| at.index);
    let from = applied.max(parted_after(found, story)).unwrap_or(0);
    (from + GOES_ON_FOR).min(story.last_index())
}

/// Gives the replica the true log from where it parted from it, and applies that.
async fn go_on(rig: &mut ReplicaRig, story: &Story, found: &Found) -> std::io::Result<()> {
    let kept = parted_after(found, story).and_then(|index| story.entry(index));
    let kept = kept.map(|entry| entry.at);
    if found.last.map(|at| at.index) > kept.map(|at| at.index) {
        rig.truncate_after(kept).await?;
    }
    let next = kept.map_or(0, |at| at.index + 1);
    let goal = goal(found, story);
    let entries: Vec<RigEntry> =
        (next..=goal).filter_map(|index| story.entry(index).cloned()).collect();
    if !entries.is_empty() && !rig.append(&entries).await?.is_durable().await {
        return Err(std::io::Error::other("an append failed"));
    }
    if let Some(entry) = story.entry(goal) {
        rig.commit(entry.at).await?;
    }
    rig.settle().await
}
