//! Tests of the queue of one partition: single rules by example, then all of them together against
//! a model of a partition behind a bad network.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quipu_proto::v1;

use super::*;
use crate::error::Code;

const SECOND: Duration = Duration::from_secs(1);

fn config(in_flight: usize) -> QueueConfig {
    QueueConfig {
        in_flight,
        idempotent: true,
        delivery_timeout: 100 * SECOND,
        backoff: Backoff::default(),
    }
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(3)
}

/// A queue of single records, numbered from 1, with producer id 7.
fn queue_of(batches: u64, now: Instant) -> Queue<u64> {
    let mut queue = Queue::new(config(5));
    for number in 1..=batches {
        queue.push(number, 1, now + 100 * SECOND, number);
    }
    queue.on_session(7, 0);
    queue
}

fn send(queue: &mut Queue<u64>, request: u64, now: Instant) -> Option<(u64, Option<u32>)> {
    let sent = queue.send_next(request, now)?;
    Some((sent.number, sent.identity.map(|identity| identity.sequence_first)))
}

fn attempt(batch: u64, request: u64) -> Attempt {
    Attempt { batch, request }
}

fn node_says(code: ErrorCode, outcome: v1::Outcome, retriable: bool) -> CallError {
    CallError::of_node(v1::Error {
        code: code.into(),
        outcome: outcome.into(),
        retriable,
        ..v1::Error::default()
    })
}

fn overloaded() -> CallError {
    node_says(ErrorCode::Overloaded, v1::Outcome::Definite, true)
}

fn too_large() -> CallError {
    node_says(ErrorCode::BatchTooLarge, v1::Outcome::Definite, false)
}

fn lost() -> CallError {
    CallError::local(Code::ConnectionLost, "reset".to_owned())
}

fn outcomes<P>(settled: &[Settled<P>]) -> Vec<(u64, Option<Outcome>)> {
    let outcome = |one: &Settled<P>| one.result.as_ref().err().map(ProduceError::outcome);
    settled.iter().map(|one| (one.number, outcome(one))).collect()
}

#[test]
fn nothing_is_sent_without_a_producer_id_and_no_more_than_the_window() {
    let now = Instant::now();
    let mut queue = Queue::new(config(2));
    for number in 1..=3 {
        queue.push(number, 1, now + SECOND, number);
    }
    assert!(queue.wants_session());
    assert!(!queue.can_send(now));
    queue.on_session(7, 0);
    assert_eq!(send(&mut queue, 1, now), Some((1, Some(0))));
    assert_eq!(send(&mut queue, 2, now), Some((2, Some(1))));
    assert_eq!(send(&mut queue, 3, now), None);
}

#[test]
fn a_failed_batch_takes_those_behind_it_back_with_the_same_sequences() {
    let now = Instant::now();
    let mut queue = queue_of(3, now);
    for request in 1..=3 {
        send(&mut queue, request, now);
    }
    assert!(queue.on_failed(attempt(2, 2), overloaded(), now, &mut rng()).is_empty());
    assert!(!queue.can_send(now), "after a failure there is a pause");
    let later = now + SECOND;
    assert_eq!(send(&mut queue, 4, later), Some((2, Some(1))));
    assert_eq!(send(&mut queue, 5, later), Some((3, Some(2))));
}

#[test]
fn a_late_answer_to_an_old_attempt_counts_if_it_is_an_acknowledgement_only() {
    let now = Instant::now();
    let mut queue = queue_of(1, now);
    send(&mut queue, 1, now);
    queue.on_failed(attempt(1, 1), lost(), now, &mut rng());
    let later = now + SECOND;
    assert_eq!(send(&mut queue, 2, later), Some((1, Some(0))));
    assert!(queue.on_failed(attempt(1, 1), too_large(), later, &mut rng()).is_empty());
    let settled = queue.on_appended(1, AppendResponse::default()).expect("still waiting");
    assert_eq!(outcomes(&[settled]), [(1, None)]);
}

#[test]
fn behind_a_definite_failure_batches_go_on_under_another_producer_id() {
    let now = Instant::now();
    let mut queue = queue_of(3, now);
    for request in 1..=3 {
        send(&mut queue, request, now);
    }
    let settled = queue.on_failed(attempt(1, 1), too_large(), now, &mut rng());
    assert_eq!(outcomes(&settled), [(1, Some(Outcome::Definite))]);
    assert!(queue.wants_session());
    assert!(!queue.accepts(7));
    queue.on_session(8, 0);
    let sent = queue.send_next(4, now).expect("may go on at once");
    assert_eq!(sent.number, 2);
    assert_eq!(sent.identity, Some(ProducerIdentity { id: 8, epoch: 0, sequence_first: 0 }));
}

#[test]
fn the_sequence_of_a_definite_failure_is_used_again_when_nothing_was_sent_behind_it() {
    let now = Instant::now();
    let mut queue = queue_of(2, now);
    send(&mut queue, 1, now);
    queue.on_failed(attempt(1, 1), too_large(), now, &mut rng());
    assert!(!queue.wants_session());
    assert_eq!(send(&mut queue, 2, now), Some((2, Some(0))));
}

#[test]
fn behind_an_unknown_failure_what_was_sent_is_unknown_and_the_rest_goes_on() {
    let now = Instant::now();
    let mut queue = Queue::new(config(2));
    for number in 1..=3 {
        queue.push(number, 1, now + SECOND * u32::try_from(number).unwrap(), number);
    }
    queue.on_session(7, 0);
    send(&mut queue, 1, now);
    send(&mut queue, 2, now);
    let settled = queue.expire(now + SECOND);
    let unknown = Some(Outcome::Unknown);
    assert_eq!(outcomes(&settled), [(1, unknown), (2, unknown)]);
    queue.on_session(8, 0);
    assert_eq!(send(&mut queue, 3, now), Some((3, Some(0))));
}

#[test]
fn a_batch_that_was_never_sent_expires_definitely() {
    let now = Instant::now();
    let mut queue = queue_of(1, now);
    let settled = queue.expire(now + 100 * SECOND);
    assert_eq!(outcomes(&settled), [(1, Some(Outcome::Definite))]);
}

#[test]
fn a_batch_whose_attempts_were_all_refused_expires_definitely() {
    let now = Instant::now();
    let mut queue = queue_of(1, now);
    send(&mut queue, 1, now);
    queue.on_failed(attempt(1, 1), overloaded(), now, &mut rng());
    let settled = queue.expire(now + 100 * SECOND);
    assert_eq!(outcomes(&settled), [(1, Some(Outcome::Definite))]);
}

#[test]
fn a_forgotten_producer_is_replaced_and_its_batch_sent_again() {
    let now = Instant::now();
    let mut queue = queue_of(2, now);
    send(&mut queue, 1, now);
    queue.on_appended(1, AppendResponse::default());
    send(&mut queue, 2, now);
    let forgotten = node_says(ErrorCode::UnknownProducer, v1::Outcome::Definite, false);
    assert!(queue.on_failed(attempt(2, 2), forgotten, now, &mut rng()).is_empty());
    queue.on_session(8, 0);
    assert_eq!(send(&mut queue, 3, now + SECOND), Some((2, Some(0))));
}

#[test]
fn a_batch_that_may_be_there_is_not_sent_under_another_id_when_its_producer_is_forgotten() {
    let now = Instant::now();
    let mut queue = queue_of(2, now);
    send(&mut queue, 1, now);
    queue.on_appended(1, AppendResponse::default());
    send(&mut queue, 2, now);
    queue.on_failed(attempt(2, 2), lost(), now, &mut rng());
    send(&mut queue, 3, now + SECOND);
    let forgotten = node_says(ErrorCode::UnknownProducer, v1::Outcome::Definite, false);
    let settled = queue.on_failed(attempt(2, 3), forgotten, now + SECOND, &mut rng());
    assert_eq!(outcomes(&settled), [(2, Some(Outcome::Unknown))]);
}

#[test]
fn batches_of_two_producer_ids_are_not_on_their_way_together() {
    let now = Instant::now();
    let mut queue = queue_of(3, now);
    for request in 1..=3 {
        send(&mut queue, request, now);
    }
    queue.on_failed(attempt(2, 2), too_large(), now, &mut rng());
    queue.on_session(8, 0);
    assert_eq!(send(&mut queue, 4, now), None, "batch 1 is still on its way");
    queue.on_appended(1, AppendResponse::default());
    assert_eq!(send(&mut queue, 4, now), Some((3, Some(0))));
}

#[test]
fn a_partition_that_has_fallen_behind_its_own_answers_gets_another_producer_id() {
    let now = Instant::now();
    let mut queue = queue_of(3, now);
    send(&mut queue, 1, now);
    send(&mut queue, 2, now);
    queue.on_appended(1, AppendResponse::default());
    queue.on_appended(2, AppendResponse::default());
    send(&mut queue, 3, now);
    let mut gap = node_says(ErrorCode::SequenceOutOfOrder, v1::Outcome::Definite, true);
    gap.detail.as_mut().unwrap().sequence_expected = Some(1);
    assert!(queue.on_failed(attempt(3, 3), gap, now, &mut rng()).is_empty());
    assert!(queue.wants_session());
}

#[test]
fn without_sequences_one_batch_is_sent_at_a_time_and_an_unknown_one_fails() {
    let now = Instant::now();
    let mut queue = Queue::new(QueueConfig { idempotent: false, ..config(5) });
    queue.push(1, 1, now + SECOND, 1);
    queue.push(2, 1, now + SECOND, 2);
    assert_eq!(send(&mut queue, 1, now), Some((1, None)));
    assert_eq!(send(&mut queue, 2, now), None);
    let settled = queue.on_failed(attempt(1, 1), lost(), now, &mut rng());
    assert_eq!(outcomes(&settled), [(1, Some(Outcome::Unknown))]);
    assert_eq!(send(&mut queue, 3, now), Some((2, None)));
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Sent {
    request: u64,
    number: u64,
    count: u32,
    identity: ProducerIdentity,
}

/// A partition as docs/client.md describes it, an unkind network, and what the queue said.
struct World {
    queue: Queue<u64>,
    now: Instant,
    rng: fastrand::Rng,
    counts: BTreeMap<u64, u32>,
    requests: u64,
    ids: u64,
    /// On the living connection, in order.
    on_the_way: Vec<Sent>,
    /// Left over from broken connections; may still arrive, in any order.
    lingering: Vec<Sent>,
    /// Producer id to the sequence expected and the batches taken, by first sequence.
    producers: BTreeMap<u64, (u32, BTreeMap<u32, u64>)>,
    log: Vec<u64>,
    ends: BTreeMap<u64, Option<Outcome>>,
}

impl World {
    fn new(in_flight: usize) -> World {
        World {
            queue: Queue::new(config(in_flight)),
            now: Instant::now(),
            rng: rng(),
            counts: BTreeMap::new(),
            requests: 0,
            ids: 0,
            on_the_way: Vec::new(),
            lingering: Vec::new(),
            producers: BTreeMap::new(),
            log: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    fn push(&mut self, count: u32) {
        let number = u64::try_from(self.counts.len()).unwrap();
        self.counts.insert(number, count);
        self.queue.push(number, count, self.now + 100 * SECOND, number);
    }

    fn send(&mut self) {
        if self.queue.wants_session() {
            self.ids += 1;
            self.queue.on_session(self.ids, 0);
        }
        while let Some(out) = self.queue.send_next(self.requests, self.now) {
            let identity = out.identity.expect("the queue is idempotent");
            let (request, number) = (self.requests, out.number);
            let count = self.counts[&number];
            self.on_the_way.push(Sent { request, number, count, identity });
            self.requests += 1;
        }
    }

    fn settle(&mut self, settled: impl IntoIterator<Item = Settled<u64>>) {
        for one in settled {
            let end = one.result.as_ref().err().map(ProduceError::outcome);
            let twice = self.ends.insert(one.number, end);
            assert_eq!(twice, None, "batch {} ended twice", one.number);
        }
    }

    /// The partition applies a request.
    fn apply(&mut self, sent: &Sent) -> Result<(), CallError> {
        let ProducerIdentity { id, sequence_first, .. } = sent.identity;
        if !self.producers.contains_key(&id) && sequence_first != 0 {
            return Err(node_says(ErrorCode::UnknownProducer, v1::Outcome::Definite, false));
        }
        let (expected, taken) = self.producers.entry(id).or_default();
        if let Some(number) = taken.get(&sequence_first) {
            assert_eq!(*number, sent.number, "two batches under one sequence");
            return Ok(());
        }
        if *expected != sequence_first {
            let mut error = node_says(ErrorCode::SequenceOutOfOrder, v1::Outcome::Definite, true);
            let detail = error.detail.as_mut().expect("a node said it");
            detail.sequence_expected = Some(*expected);
            return Err(error);
        }
        taken.insert(sequence_first, sent.number);
        *expected += sent.count;
        self.log.push(sent.number);
        Ok(())
    }

    fn answer(&mut self, sent: &Sent, result: Result<(), CallError>) {
        match result {
            Ok(()) => {
                let settled = self.queue.on_appended(sent.number, AppendResponse::default());
                self.settle(settled);
            }
            Err(error) => {
                let attempt = attempt(sent.number, sent.request);
                let settled = self.queue.on_failed(attempt, error, self.now, &mut self.rng);
                self.settle(settled);
            }
        }
    }

    /// The connection breaks; `arrives` says of each request whether it may still arrive.
    fn break_connection(&mut self, mut arrives: u8) {
        for sent in std::mem::take(&mut self.on_the_way) {
            arrives = arrives.rotate_left(1);
            if arrives & 1 == 1 {
                self.lingering.push(sent.clone());
            }
            self.answer(&sent, Err(lost()));
        }
    }

    fn step(&mut self, (kind, arg): (u8, u8)) {
        match kind % 12 {
            0 | 1 => self.push(u32::from(arg % 3) + 1),
            2 | 3 => self.send(),
            4 => self.now += Duration::from_millis(u64::from(arg) * 4),
            5 => {
                self.now += SECOND * u32::from(arg);
                let settled = self.queue.expire(self.now);
                self.settle(settled);
            }
            6 => self.break_connection(arg),
            7 if !self.lingering.is_empty() => {
                let late = self.lingering.remove(usize::from(arg) % self.lingering.len());
                // Nobody hears the answer.
                let _ = self.apply(&late);
            }
            _ if self.on_the_way.is_empty() => self.send(),
            kind => {
                // Answers come in order, mostly.
                let at = if arg % 4 == 3 { usize::from(arg) % self.on_the_way.len() } else { 0 };
                let sent = self.on_the_way.remove(at);
                let result = match kind {
                    8 => Err(overloaded()),
                    9 => Err(too_large()),
                    10 => {
                        if arg & 1 == 1 {
                            let _ = self.apply(&sent);
                        } else {
                            self.lingering.push(sent.clone());
                        }
                        Err(node_says(ErrorCode::TimedOut, v1::Outcome::Unknown, true))
                    }
                    _ => self.apply(&sent),
                };
                self.answer(&sent, result);
            }
        }
    }

    /// No more faults: everything that was pushed comes to an end.
    fn heal(&mut self) {
        for _ in 0..1000 {
            if self.queue.is_empty() {
                break;
            }
            self.now += Duration::from_millis(300);
            self.send();
            for sent in std::mem::take(&mut self.on_the_way) {
                let result = self.apply(&sent);
                self.answer(&sent, result);
            }
        }
        for late in std::mem::take(&mut self.lingering) {
            let _ = self.apply(&late);
        }
    }

    fn check(&self) {
        assert!(self.queue.is_empty(), "stuck: {:?}", self.queue);
        assert_eq!(self.ends.len(), self.counts.len(), "every batch ends");
        let appended: BTreeSet<u64> = self.log.iter().copied().collect();
        assert_eq!(appended.len(), self.log.len(), "written twice: {:?}", self.log);
        for (number, end) in &self.ends {
            match end {
                None => assert!(appended.contains(number), "batch {number} is lost"),
                Some(Outcome::Definite) => {
                    assert!(!appended.contains(number), "batch {number} is there after all");
                }
                Some(Outcome::Unknown) => {}
            }
        }
        let acknowledged: Vec<u64> =
            self.log.iter().copied().filter(|number| self.ends[number].is_none()).collect();
        assert!(acknowledged.is_sorted(), "order is lost: {:?}", self.log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nothing_is_lost_doubled_reordered_or_wrongly_called_definite(
        steps in prop::collection::vec(any::<(u8, u8)>(), 1..120),
        in_flight in 1_usize..8,
    ) {
        let mut world = World::new(in_flight);
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.check();
    }
}
