//! The batches of one partition that are not acknowledged yet: which to send next, which to send
//! again, what an answer means for those behind.
//!
//! Pure: time, randomness and answers are arguments. Invariant: the first `sent` batches have an
//! unanswered current attempt, those behind have none. So a batch that fails takes all behind it
//! back, and they are sent again in order after it. With sequences this is safe: a partition
//! takes a batch only right behind its predecessor, and recognises one that it has.
//!
//! The hard part is to go on after a batch has failed for good, because those behind it carry
//! sequences that leave a gap now. They are numbered anew under a new producer id, but only those
//! that certainly are not in the log and cannot get there any more:
//!
//! - The failed batch is definitely not appended: then nothing behind it can be, ever, because
//!   its sequence stays missing under the old id.
//! - Its outcome is unknown: then the same holds for every batch behind it of which an attempt
//!   was never answered. They fail too, with an unknown outcome. The others are numbered anew.
//!
//! Batches of different ids are not on their way together: nothing would keep their order.
//!
//! Without sequences (`idempotent: false`) one batch is sent at a time, and one of unknown outcome
//! fails.

use std::collections::VecDeque;
use std::time::Duration;

use quipu_batch::{ProducerIdentity, SEQUENCE_MAX, sequence_add};
use quipu_proto::v1::AppendResponse;
use tokio::time::Instant;

use crate::config::Backoff;
use crate::error::{CallError, ErrorCode, Outcome, ProduceError};
use crate::retry;

/// How the queue behaves; the same for all partitions of a producer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueConfig {
    pub(crate) in_flight: usize,
    pub(crate) idempotent: bool,
    pub(crate) delivery_timeout: Duration,
    pub(crate) backoff: Backoff,
}

/// The unacknowledged batches of one partition, oldest first. `P` is what a batch carries.
#[derive(Debug)]
pub(crate) struct Queue<P> {
    config: QueueConfig,
    batches: VecDeque<Batch<P>>,
    /// Batches at the front that have a current attempt.
    sent: usize,
    session: Session,
    /// Sequence of the next record that is numbered under `session`.
    sequence_next: u32,
    /// The producer id used last.
    id_last: Option<u64>,
    /// Failures since the last acknowledgement.
    failures: u32,
    not_before: Option<Instant>,
    /// For people who ask why a record expired.
    last_failure: Option<String>,
}

#[derive(Debug)]
struct Batch<P> {
    number: u64,
    record_count: u32,
    expires_at: Instant,
    /// Given when it is first sent. Invariant: from the front on, first batches of older ids,
    /// then of the session's, then some without.
    identity: Option<ProducerIdentity>,
    /// The attempt whose failure counts.
    current: Option<u64>,
    /// All attempts that have no answer yet, the current one among them.
    unanswered: Vec<u64>,
    /// An attempt ended without a definite answer.
    unresolved: bool,
    payload: P,
}

/// Who numbers the batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// Nobody: not idempotent.
    None,
    /// A producer id must be fetched before anything is sent.
    Wanted,
    Given {
        id: u64,
        epoch: u16,
    },
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, P> {
    pub(crate) number: u64,
    pub(crate) identity: Option<ProducerIdentity>,
    pub(crate) payload: &'a mut P,
}

/// One sending of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Number of the batch.
    pub(crate) batch: u64,
    pub(crate) request: u64,
}

/// A batch that has come to its end.
#[derive(Debug)]
pub(crate) struct Settled<P> {
    pub(crate) number: u64,
    pub(crate) payload: P,
    pub(crate) result: Result<AppendResponse, ProduceError>,
}

impl<P> Queue<P> {
    /// An empty queue, which will want a producer id if it is to number batches.
    pub(crate) fn new(config: QueueConfig) -> Queue<P> {
        let session = if config.idempotent { Session::Wanted } else { Session::None };
        Queue {
            config,
            batches: VecDeque::new(),
            sent: 0,
            session,
            sequence_next: 0,
            id_last: None,
            failures: 0,
            not_before: None,
            last_failure: None,
        }
    }

    /// Adds a batch behind all others. `number` is greater than that of any before.
    pub(crate) fn push(&mut self, number: u64, record_count: u32, expires_at: Instant, payload: P) {
        assert!(self.batches.back().is_none_or(|last| last.number < number), "batches in order");
        self.batches.push_back(Batch {
            number,
            record_count,
            expires_at,
            identity: None,
            current: None,
            unanswered: Vec::new(),
            unresolved: false,
            payload,
        });
    }

    /// A batch that came now could be sent at once.
    pub(crate) fn has_room(&self) -> bool {
        self.batches.len() < self.window() && self.not_before.is_none()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// A producer id is needed, one that [`Queue::accepts`].
    pub(crate) fn wants_session(&self) -> bool {
        self.session == Session::Wanted && self.batches.iter().any(|one| one.identity.is_none())
    }

    /// Whether the batches to come may be numbered under this producer id.
    pub(crate) fn accepts(&self, id: u64) -> bool {
        self.id_last != Some(id)
    }

    /// Takes a producer id, if one is wanted.
    pub(crate) fn on_session(&mut self, id: u64, epoch: u16) {
        if self.session == Session::Wanted && self.accepts(id) {
            self.session = Session::Given { id, epoch };
            self.sequence_next = 0;
            self.id_last = Some(id);
        }
    }

    /// Whether [`Queue::send_next`] would give a batch.
    pub(crate) fn can_send(&self, now: Instant) -> bool {
        let Some(next) = self.batches.get(self.sent) else { return false };
        let in_time = self.not_before.is_none_or(|at| at <= now);
        in_time && self.sent < self.window() && self.follows_those_sent(next)
    }

    /// Only one producer id is on its way at a time.
    fn follows_those_sent(&self, next: &Batch<P>) -> bool {
        let id_next = match (next.identity, self.session) {
            (Some(identity), _) => Some(identity.id),
            (None, Session::Given { id, .. }) => Some(id),
            (None, Session::None) => None,
            (None, Session::Wanted) => return false,
        };
        let first = self.batches.front().filter(|_| self.sent > 0);
        first.is_none_or(|first| first.identity.map(|identity| identity.id) == id_next)
    }

    /// The next batch to send, which counts as sent by the attempt `request`.
    pub(crate) fn send_next(&mut self, request: u64, now: Instant) -> Option<Outgoing<'_, P>> {
        if !self.can_send(now) {
            return None;
        }
        self.not_before = None;
        let batch = self.batches.get_mut(self.sent)?;
        if let (None, Session::Given { id, epoch }) = (batch.identity, self.session) {
            let sequence_first = self.sequence_next;
            self.sequence_next = sequence_add(sequence_first, batch.record_count);
            batch.identity = Some(ProducerIdentity { id, epoch, sequence_first });
        }
        assert_eq!(batch.current, None, "a batch has one current attempt");
        batch.current = Some(request);
        batch.unanswered.push(request);
        self.sent += 1;
        let Batch { number, identity, payload, .. } = batch;
        Some(Outgoing { number: *number, identity: *identity, payload })
    }

    /// Batch `number` is in the log, whichever attempt brought it there.
    pub(crate) fn on_appended(
        &mut self,
        number: u64,
        answer: AppendResponse,
    ) -> Option<Settled<P>> {
        let index = self.index_of(number)?;
        self.failures = 0;
        Some(self.remove(index).settled(Ok(answer)))
    }

    /// An attempt has failed. Gives out what has come to its end.
    pub(crate) fn on_failed(
        &mut self,
        Attempt { batch: number, request }: Attempt,
        error: CallError,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Vec<Settled<P>> {
        let Some(index) = self.index_of(number) else { return Vec::new() };
        let batch = &mut self.batches[index];
        let known = batch.unanswered.len();
        batch.unanswered.retain(|unanswered| *unanswered != request);
        if batch.unanswered.len() < known && error.outcome == Outcome::Unknown {
            batch.unresolved = true;
        }
        if batch.current != Some(request) {
            return Vec::new();
        }
        self.last_failure = Some(error.to_string());
        match self.judge(index, &error) {
            Verdict::SendAgain(from) => {
                self.take_back(from);
                self.postpone(&error, now, rng);
                Vec::new()
            }
            Verdict::NumberAnew => {
                self.number_anew(index);
                self.postpone(&error, now, rng);
                Vec::new()
            }
            Verdict::Fail(outcome) => {
                self.batches[index].unresolved |= outcome == Outcome::Unknown;
                self.fail(index, |outcome| ProduceError::Call(CallError { outcome, ..error }))
            }
        }
    }

    /// No attempt can be made: the partition's leader, or a producer id, cannot be learned now.
    /// Gives out the batches that end with this.
    pub(crate) fn on_blocked(
        &mut self,
        error: &CallError,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Vec<Settled<P>> {
        self.last_failure = Some(error.to_string());
        if error.retriable {
            self.postpone(error, now, rng);
            return Vec::new();
        }
        let mut settled = Vec::new();
        while !self.batches.is_empty() {
            let error = error.clone();
            settled
                .extend(self.fail(0, |outcome| ProduceError::Call(CallError { outcome, ..error })));
        }
        settled
    }

    /// Gives out the batches whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Settled<P>> {
        let mut settled = Vec::new();
        while self.batches.front().is_some_and(|first| first.expires_at <= now) {
            let after = self.config.delivery_timeout;
            let last = self.last_failure.clone().unwrap_or_else(|| "no answer yet".to_owned());
            settled.extend(self.fail(0, |outcome| ProduceError::Expired { after, outcome, last }));
        }
        settled
    }

    /// When to look again without an answer.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let expires_at = self.batches.front()?.expires_at;
        let unsent = self.sent < self.batches.len();
        Some(self.not_before.filter(|_| unsent).map_or(expires_at, |at| at.min(expires_at)))
    }

    fn judge(&self, index: usize, error: &CallError) -> Verdict {
        let is_numbered = self.session != Session::None;
        let definite = error.outcome == Outcome::Definite;
        if is_numbered && definite && error.is(ErrorCode::SequenceOutOfOrder) {
            return self.judge_gap(index, error);
        }
        if is_numbered && definite && error.is(ErrorCode::UnknownProducer) {
            // Only the first batch shows that the partition has forgotten the producer; for one
            // behind it, it says that the first has not arrived.
            return match (index, self.batches[index].outcome()) {
                (0, Outcome::Definite) => self.judge_numbering(0),
                // An earlier attempt may have been appended before the producer was forgotten.
                (0, Outcome::Unknown) => Verdict::Fail(Outcome::Unknown),
                _ => Verdict::SendAgain(0),
            };
        }
        let may_repeat = is_numbered || self.batches[index].outcome() == Outcome::Definite;
        if error.retriable && may_repeat {
            Verdict::SendAgain(index)
        } else {
            Verdict::Fail(error.outcome)
        }
    }

    /// The partition wants another sequence than that of the batch at `index`.
    fn judge_gap(&self, index: usize, error: &CallError) -> Verdict {
        let expected = error.detail.as_ref().and_then(|detail| detail.sequence_expected);
        let (Some(expected), Some(identity)) = (expected, self.batches[index].identity) else {
            return if index == 0 { self.judge_numbering(0) } else { Verdict::SendAgain(0) };
        };
        if index > 0 {
            // One before it is missing there, though it was sent before.
            let missing = ProducerIdentity { sequence_first: expected, ..identity };
            let before = self.batches.range(..index);
            let at = before.map(|batch| batch.identity).position(|one| one == Some(missing));
            return Verdict::SendAgain(at.unwrap_or(0));
        }
        // Sequences wrap, so that "later" is less than half the way around.
        let ahead = expected.wrapping_sub(identity.sequence_first) & SEQUENCE_MAX;
        match ahead {
            0 => Verdict::SendAgain(0),
            // The node has passed this sequence and does not say where the batch is.
            1..=0x3fff_ffff => Verdict::Fail(Outcome::Unknown),
            _ => self.judge_numbering(index),
        }
    }

    /// The partition has no place for the sequence of the batch at `index`, hence will never take
    /// it, nor those behind it. A fresh producer that begins at 0 is refused by no sound node.
    fn judge_numbering(&self, index: usize) -> Verdict {
        let identity = self.batches[index].identity;
        let is_fresh = identity.is_some_and(|identity| identity.sequence_first == 0);
        if is_fresh { Verdict::Fail(Outcome::Definite) } else { Verdict::NumberAnew }
    }

    /// The batch at `index` and those behind it are to be sent again.
    fn take_back(&mut self, index: usize) {
        for batch in self.batches.range_mut(index..) {
            batch.current = None;
        }
        self.sent = self.sent.min(index);
    }

    fn number_anew(&mut self, index: usize) {
        let id = self.batches[index].identity.map(|identity| identity.id);
        if matches!(self.session, Session::Given { id: given, .. } if Some(given) == id) {
            self.session = Session::Wanted;
        }
        self.forget_numbers(index);
    }

    /// The batches from `index` on are to be numbered anew. The caller knows that no attempt made
    /// so far can bring one of them into the log any more.
    fn forget_numbers(&mut self, index: usize) {
        self.take_back(index);
        for batch in self.batches.range_mut(index..) {
            batch.identity = None;
            batch.unanswered.clear();
            batch.unresolved = false;
        }
    }

    /// Ends the batch at `index`, and whatever must end with it.
    fn fail(
        &mut self,
        index: usize,
        error: impl FnOnce(Outcome) -> ProduceError,
    ) -> Vec<Settled<P>> {
        let failed = self.remove(index);
        let outcome = failed.outcome();
        let missing = failed.identity;
        let error = error(outcome);
        let cause = error.to_string();
        let mut settled = vec![failed.settled(Err(error))];
        let Some(missing) = missing else { return settled };

        let mut at = index;
        while outcome == Outcome::Unknown && at < self.batches.len() {
            match self.batches[at].outcome() {
                Outcome::Definite => at += 1,
                Outcome::Unknown => {
                    let error = ProduceError::BehindUnknown { cause: cause.clone() };
                    settled.push(self.remove(at).settled(Err(error)));
                }
            }
        }
        self.close_gap(index, missing, outcome);
        settled
    }

    /// The sequence of a batch that stood at `index` stays missing: those behind are numbered anew.
    fn close_gap(&mut self, index: usize, missing: ProducerIdentity, outcome: Outcome) {
        // Where nothing is left on its way that would fit behind it, the sequence can be used
        // again, by another batch.
        let nothing_lingers =
            self.batches.range(index..).all(|batch| batch.outcome() == Outcome::Definite);
        let is_session = matches!(self.session, Session::Given { id, .. } if id == missing.id);
        self.forget_numbers(index);
        if is_session && outcome == Outcome::Definite && nothing_lingers {
            self.sequence_next = missing.sequence_first;
        } else if is_session {
            self.session = Session::Wanted;
        }
    }

    fn postpone(&mut self, error: &CallError, now: Instant, rng: &mut fastrand::Rng) {
        self.failures = self.failures.saturating_add(1);
        let wait = retry::wait_after(error, self.config.backoff, self.failures, rng);
        self.not_before = (!wait.is_zero()).then(|| now + wait);
    }

    fn remove(&mut self, index: usize) -> Batch<P> {
        let batch = self.batches.remove(index).expect("the caller has found it");
        if index < self.sent {
            self.sent -= 1;
        }
        if self.batches.is_empty() {
            // The pause was for what is gone.
            self.not_before = None;
        }
        batch
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        self.batches.binary_search_by_key(&number, |batch| batch.number).ok()
    }

    fn window(&self) -> usize {
        if self.config.idempotent { self.config.in_flight } else { 1 }
    }
}

impl<P> Batch<P> {
    /// Whether an attempt may have brought it into the log, or still may.
    fn outcome(&self) -> Outcome {
        if self.unresolved || !self.unanswered.is_empty() {
            Outcome::Unknown
        } else {
            Outcome::Definite
        }
    }

    fn settled(self, result: Result<AppendResponse, ProduceError>) -> Settled<P> {
        Settled { number: self.number, payload: self.payload, result }
    }
}

/// What follows the failure of a current attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Send the batch at this index again, and those behind it after it.
    SendAgain(usize),
    /// The same under another producer id.
    NumberAnew,
    /// It is over; the attempt ended with this outcome.
    Fail(Outcome),
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
