//! What a replica is asked to do, drawn from a seed, and what it was told in return.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::rig::{ReplicaRig, RigEntry};
use node::storage::Engine;
use node::storage::log_writer::LogWriter;
use node_core::position::RaftPosition;
use tokio::task::JoinHandle;

use super::story::Story;

/// Appends on their way at once.
const IN_FLIGHT_MAX: usize = 3;

/// One step of a replica, as openraft would ask for it.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Vote in a term, before any of its entries.
    Vote(u64),
    /// Append, without waiting.
    Append(Vec<RigEntry>),
    /// Wait for all appends.
    Await,
    /// Everything up to there is committed: apply it.
    Commit(RaftPosition),
    /// An overruled leader's entries go.
    TruncateAfter(Option<RaftPosition>),
    /// Make the snapshot at the log start, purge behind it.
    Snapshot,
    /// Begin anew with a leader's snapshot.
    Install(RaftPosition),
}

/// A step that was begun. `acked`: the engine's count of writes when it was known to be done.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) step: Step,
    pub(super) acked: Option<u64>,
}

/// What one replica was asked and told, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Vec<Fact>>>);

impl Journal {
    pub(super) fn facts(&self) -> MutexGuard<'_, Vec<Fact>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal as it is now.
    pub(super) fn copy(&self) -> Vec<Fact> {
        self.facts().clone()
    }

    fn begin(&self, step: &Step) -> usize {
        let mut facts = self.facts();
        facts.push(Fact { step: step.clone(), acked: None });
        facts.len() - 1
    }

    fn ack(&self, number: usize, writes: u64) {
        self.facts()[number].acked = Some(writes);
    }
}

/// Draws `count` steps over a story.
pub(super) fn draw(story: &Story, count: usize, rng: &mut fastrand::Rng) -> Vec<Step> {
    let mut drawing = Drawing { story, steps: Vec::new(), next: 0, committed: None, stale: 0 };
    drawing.steps.push(Step::Vote(1));
    while drawing.steps.len() < count && drawing.next <= story.last_index() {
        drawing.step(rng);
    }
    drawing.steps.push(Step::Await);
    drawing.steps
}

struct Drawing<'a> {
    story: &'a Story,
    steps: Vec<Step>,
    /// The first true entry that the replica does not have.
    next: u64,
    committed: Option<u64>,
    /// Entries of an overruled leader behind it.
    stale: u64,
}

impl Drawing<'_> {
    fn step(&mut self, rng: &mut fastrand::Rng) {
        match rng.u8(0..20) {
            0..10 => self.append(rng),
            10..13 => self.commit(rng),
            13..15 => self.steps.push(Step::Await),
            // Of nothing no snapshot is ever asked for.
            15..17 if self.committed.is_some() => self.steps.push(Step::Snapshot),
            15..17 => {}
            17..19 => self.append_stale(rng),
            _ => self.install(rng),
        }
    }

    fn at(&self, index: u64) -> Option<RaftPosition> {
        self.story.entry(index).map(|entry| entry.at)
    }

    fn last(&self) -> Option<RaftPosition> {
        self.at(self.next.checked_sub(1)?)
    }

    fn begins_a_term(&self) -> bool {
        match (self.last(), self.at(self.next)) {
            (Some(last), Some(next)) => next.term > last.term,
            _ => false,
        }
    }

    fn append(&mut self, rng: &mut fastrand::Rng) {
        let Some(first) = self.at(self.next) else { return };
        if self.begins_a_term() {
            self.steps.push(Step::Vote(first.term));
        }
        if self.stale > 0 {
            self.steps.push(Step::TruncateAfter(self.last()));
            self.stale = 0;
        }
        let mut entries = Vec::new();
        for _ in 0..rng.u8(1..=5) {
            // A term ends: the next leader asks for a vote first.
            if !entries.is_empty() && self.begins_a_term() {
                break;
            }
            let Some(entry) = self.story.entry(self.next) else { break };
            entries.push(entry.clone());
            self.next += 1;
        }
        self.steps.push(Step::Append(entries));
    }

    fn append_stale(&mut self, rng: &mut fastrand::Rng) {
        if self.stale > 0 || !self.begins_a_term() {
            return;
        }
        self.stale = rng.u64(1..=3);
        let entries = (self.next..self.next + self.stale)
            .filter_map(|index| self.story.stale_entry(self.next, index));
        self.steps.push(Step::Append(entries.collect()));
    }

    /// Bit by bit, so that several writes that nobody waits for follow each other.
    fn commit(&mut self, rng: &mut fastrand::Rng) {
        for _ in 0..rng.u8(1..=5) {
            let first = self.committed.map_or(0, |committed| committed + 1);
            if first < self.next {
                let index = rng.u64(first..self.next.min(first + 2));
                self.committed = Some(index);
                self.steps.extend(self.at(index).map(Step::Commit));
            }
        }
    }

    fn install(&mut self, rng: &mut fastrand::Rng) {
        let ahead = self.story.snapshots.range(self.next + 2..self.next + 20);
        let ahead: Vec<RaftPosition> = ahead.map(|(_, (at, _))| *at).collect();
        let Some(at) = rng.choice(&ahead) else { return };
        if self.last().is_none_or(|last| at.term > last.term) {
            self.steps.push(Step::Vote(at.term));
        }
        self.steps.push(Step::Install(*at));
        (self.next, self.committed, self.stale) = (at.index + 1, Some(at.index), 0);
    }
}

/// Drives one replica through its steps until they end or its disk fails.
pub(super) async fn drive(
    (engine, writer): (Arc<dyn Engine>, LogWriter),
    story: Arc<Story>,
    steps: Vec<Step>,
    journal: Journal,
    writes: Arc<AtomicU64>,
) {
    let opened = ReplicaRig::open(engine, writer, story.group, story.kind()).await;
    let Ok(mut rig) = opened else { return };
    let mut in_flight: Vec<JoinHandle<bool>> = Vec::new();
    for step in steps {
        let number = journal.begin(&step);
        let done = match &step {
            Step::Vote(term) => rig.save_vote(*term, 1).await,
            Step::Append(entries) => match rig.append(entries).await {
                Err(error) => Err(error),
                Ok(appended) => {
                    let (journal, writes) = (journal.clone(), writes.clone());
                    in_flight.push(tokio::spawn(async move {
                        let durable = appended.is_durable().await;
                        if durable {
                            journal.ack(number, writes.load(Ordering::SeqCst));
                        }
                        durable
                    }));
                    Ok(())
                }
            },
            Step::Await => Ok(()),
            Step::Commit(at) => rig.commit(*at).await,
            Step::TruncateAfter(last) => rig.truncate_after(*last).await,
            Step::Snapshot => rig.snapshot_and_purge().await.map(drop),
            Step::Install(at) => {
                let (_, data) = &story.snapshots[&at.index];
                rig.install(*at, data.clone()).await
            }
        };
        if done.is_err() {
            return;
        }
        // The writer takes what was queued so far for itself.
        tokio::task::yield_now().await;
        if !matches!(step, Step::Append(_) | Step::Await) {
            journal.ack(number, writes.load(Ordering::SeqCst));
        }
        if matches!(step, Step::Await) || in_flight.len() >= IN_FLIGHT_MAX {
            for appended in in_flight.drain(..) {
                if !appended.await.unwrap_or(false) {
                    return;
                }
            }
        }
    }
}
