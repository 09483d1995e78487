//! The partition's state machine against a naive model that remembers everything, on random logs:
//! retries, gaps, epochs, conditions, entries of several batches, sequences that wrap, idle
//! producers, retention. After each entry the rows that were to be stored give the same state
//! back; at the end a replica that began with any rung has caught up with the others.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod model;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use node_core::ids::ProducerId;
use node_core::limits::BATCH_RECORDS_MAX;
use node_core::partition::{
    AdvanceStart, Append, AppendBatch, Applied, BatchOutcome, LadderLimits, LogCommand,
    PartitionState, Rung,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use proptest::prelude::*;
use proptest::sample::Index;

use model::{CIRCLE, Model, ModelProducer, Wanted};

const LIMITS: LadderLimits = LadderLimits { bytes: 1_000, ms: 60_000 };

/// What a random batch shall be, seen from what its producer sent before.
#[derive(Debug, Clone)]
enum Intent {
    Anonymous,
    Next,
    Retry(Index),
    NewEpoch { sequence: u8 },
    OldEpoch,
    Shifted { by: i64 },
}

#[derive(Debug, Clone)]
struct Plan {
    producer: u64,
    intent: Intent,
    records: u32,
    timestamp: i64,
    filler: u8,
    /// `Some(0)`: expect the end as it is; others: so far from it.
    condition: Option<u64>,
}

impl Plan {
    fn wanted(&self, model: &Model) -> Wanted {
        let known = model.producers.get(&self.producer);
        let epoch = known.map_or(0, |producer| producer.epoch);
        let end = known.map_or(0, ModelProducer::sequence_end);
        let mut records = self.records;
        let sender = |epoch, sequence: u64| Some((self.producer, epoch, sequence % CIRCLE));
        let sender = match &self.intent {
            Intent::Anonymous => None,
            Intent::Next => sender(epoch, end),
            Intent::Retry(which) => match known {
                None => sender(epoch, end),
                Some(known) => {
                    let (first, count, _) = *which.get(&known.batches);
                    records = count;
                    sender(epoch, first)
                }
            },
            Intent::NewEpoch { sequence } => sender(epoch + 1, u64::from(*sequence)),
            Intent::OldEpoch => sender(epoch.saturating_sub(1), end),
            Intent::Shifted { by } => {
                sender(epoch, (end + CIRCLE).checked_add_signed(*by).unwrap())
            }
        };
        Wanted {
            sender,
            records,
            timestamp: self.timestamp,
            filler: self.filler,
            expect_end_offset: self.condition.map(|off| model.next_offset + off),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { time_step_ms: i64, plans: Vec<Plan> },
    AdvanceStart { time_step_ms: i64, rung: Index },
    AdvanceToNowhere { rung_index: u64 },
    Blank,
    Membership(u8),
}

fn any_intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        2 => Just(Intent::Anonymous),
        12 => Just(Intent::Next),
        4 => any::<Index>().prop_map(Intent::Retry),
        1 => (0_u8..2).prop_map(|sequence| Intent::NewEpoch { sequence }),
        1 => Just(Intent::OldEpoch),
        2 => (-60_i64..20).prop_map(|by| Intent::Shifted { by }),
        1 => (-(1_i64 << 31)..1 << 31).prop_map(|by| Intent::Shifted { by }),
    ]
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let condition = prop_oneof![4 => Just(None), 1 => (0_u64..3).prop_map(Some)];
    (0_u64..3, any_intent(), 1_u32..6, any::<i64>(), any::<u8>(), condition).prop_map(
        |(producer, intent, records, timestamp, filler, condition)| Plan {
            producer,
            intent,
            records,
            timestamp,
            filler,
            condition,
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let time_step_ms = || {
        prop_oneof![
            8 => 0_i64..100,
            4 => 0_i64..40_000,
            1 => -5_000_i64..0,
            1 => 0_i64..8 * 24 * 60 * 60 * 1_000,
        ]
    };
    let append = (time_step_ms(), proptest::collection::vec(any_plan(), 1..6));
    prop_oneof![
        20 => append.prop_map(|(time_step_ms, plans)| Step::Append { time_step_ms, plans }),
        2 => (time_step_ms(), any::<Index>())
            .prop_map(|(time_step_ms, rung)| Step::AdvanceStart { time_step_ms, rung }),
        1 => any::<u64>().prop_map(|rung_index| Step::AdvanceToNowhere { rung_index }),
        1 => Just(Step::Blank),
        1 => any::<u8>().prop_map(Step::Membership),
    ]
}

/// A log entry as it stands in a Raft log.
#[derive(Debug, Clone)]
enum Entry {
    Command(Bytes),
    Blank,
    Membership(Bytes),
}

/// What a node does with an entry.
fn apply(state: &mut PartitionState, at: RaftPosition, entry: &Entry) -> Option<Applied> {
    match entry {
        Entry::Command(payload) => match LogCommand::decode(payload.clone()).unwrap() {
            LogCommand::Append(append) => Some(state.apply_append(at, &append)),
            LogCommand::AdvanceStart(advance) => Some(state.apply_advance_start(at, &advance)),
        },
        Entry::Blank => {
            state.apply_blank(at);
            None
        }
        Entry::Membership(bytes) => {
            state.apply_membership(at, bytes.clone());
            None
        }
    }
}

/// What a node stores, by what `Applied` tells it to.
#[derive(Debug, Clone)]
struct Rows {
    head: Bytes,
    ladder: Bytes,
    producers: BTreeMap<ProducerId, Bytes>,
}

impl Rows {
    fn of(state: &PartitionState) -> Rows {
        let row = |id| (id, state.encode_producer(id).unwrap());
        Rows {
            head: state.encode_head(),
            ladder: state.encode_ladder(),
            producers: state.producer_ids().map(row).collect(),
        }
    }

    fn store(&mut self, state: &PartitionState, applied: &Applied) {
        if applied.ladder_changed() {
            self.ladder = state.encode_ladder();
        }
        for id in &applied.producers_changed {
            self.producers.insert(*id, state.encode_producer(*id).unwrap());
        }
        for id in &applied.producers_removed {
            assert!(self.producers.remove(id).is_some());
        }
    }

    fn restore(&self) -> PartitionState {
        let producers = self.producers.values().cloned();
        PartitionState::restore(self.head.clone(), self.ladder.clone(), producers).unwrap()
    }
}

/// A replica, its model, its stored rows, and its log.
#[derive(Debug, Clone)]
struct World {
    state: PartitionState,
    model: Model,
    rows: Rows,
    entries: Vec<Entry>,
    rungs: Vec<Rung>,
    log_start: u64,
}

impl World {
    fn new() -> World {
        let state = PartitionState::new(LIMITS);
        let rows = Rows::of(&state);
        let entries = Vec::new();
        let (model, rungs) = (Model::default(), Vec::new());
        World { state, model, rows, entries, rungs, log_start: 0 }
    }

    /// One idempotent producer (id 0) that is about to wrap its sequence.
    fn near_wrap() -> World {
        static NEAR_WRAP: LazyLock<World> = LazyLock::new(|| {
            let mut world = World::new();
            let mut left = CIRCLE - 20;
            while left > 0 {
                let records = u32::try_from(left.min(u64::from(BATCH_RECORDS_MAX))).unwrap();
                left -= u64::from(records);
                let plan = Plan {
                    producer: 0,
                    intent: Intent::Next,
                    records,
                    timestamp: 0,
                    filler: 0,
                    condition: None,
                };
                world.step(&Step::Append { time_step_ms: 0, plans: vec![plan] });
            }
            world
        });
        NEAR_WRAP.clone()
    }

    fn position(index: usize) -> RaftPosition {
        // The term rises now and then.
        let index = u64::try_from(index).unwrap();
        RaftPosition { term: 1 + index / 7, index }
    }

    fn time(&self, step_ms: i64) -> EntryTime {
        let now_ms = self.model.time >> 16;
        EntryTime(now_ms.saturating_add_signed(step_ms) << 16)
    }

    fn step(&mut self, step: &Step) {
        let at = World::position(self.entries.len());
        let (entry, expected) = match step {
            Step::Append { time_step_ms, plans } => self.append(*time_step_ms, plans),
            Step::AdvanceStart { time_step_ms, rung } => {
                let rungs = self.state.rungs();
                let rung_index = if rungs.is_empty() { 0 } else { rung.get(rungs).position.index };
                let time = self.time(*time_step_ms);
                (advance(time, rung_index), Vec::new())
            }
            Step::AdvanceToNowhere { rung_index } => {
                (advance(self.time(0), *rung_index), Vec::new())
            }
            Step::Blank => (Entry::Blank, Vec::new()),
            Step::Membership(byte) => (Entry::Membership(vec![*byte; 3].into()), Vec::new()),
        };
        let applied = apply(&mut self.state, at, &entry);
        if let Some(applied) = &applied {
            assert_eq!(applied.outcomes, expected);
            self.model.time = self.model.time.max(applied.time.0);
            self.check(at, &entry, applied);
            self.rows.store(&self.state, applied);
        }
        self.rows.head = self.state.encode_head();
        self.entries.push(entry);
        self.rungs.extend(applied.and_then(|applied| applied.rung));
    }

    /// The entry, and what the model says of its batches.
    fn append(&mut self, step_ms: i64, plans: &[Plan]) -> (Entry, Vec<BatchOutcome>) {
        let time = self.time(step_ms);
        self.model.time = self.model.time.max(time.0);
        let (mut batches, mut outcomes) = (Vec::new(), Vec::new());
        for plan in plans {
            let wanted = plan.wanted(&self.model);
            outcomes.push(self.model.apply_batch(&wanted));
            let expect_end_offset = wanted.expect_end_offset;
            batches.push(AppendBatch { expect_end_offset, bytes: wanted.bytes() });
        }
        self.model.end_entry();
        (Entry::Command(Append { time, batches }.encode()), outcomes)
    }

    fn check(&mut self, at: RaftPosition, entry: &Entry, applied: &Applied) {
        assert_eq!(self.state.next_offset(), self.model.next_offset);
        assert_eq!(self.state.timestamp_max(), self.model.timestamp_max.unwrap_or(i64::MIN));
        assert_eq!(applied.time.0, self.model.time);
        let producers: Vec<u64> = self.state.producer_ids().map(|id| id.0).collect();
        assert_eq!(producers, self.model.producers.keys().copied().collect::<Vec<_>>());

        if let (Some(index), Entry::Command(payload)) = (&applied.index, entry) {
            assert_eq!(index.position, at);
            assert_eq!(index.next_offset(), self.model.next_offset);
            assert_eq!(index.chain_hash, self.state.chain_hash());
            let count = index.batches.len();
            let accepted = &self.model.log[self.model.log.len() - count..];
            for ((offset, batch), (model_offset, bytes)) in
                index.batches_with_offsets().zip(accepted)
            {
                assert_eq!(offset, *model_offset);
                assert_eq!(payload.slice(batch.range()), bytes);
            }
        }
        let appended = |outcome: &&BatchOutcome| matches!(outcome, BatchOutcome::Appended { .. });
        let appended = applied.outcomes.iter().filter(appended).count();
        assert_eq!(applied.index.as_ref().map_or(0, |index| index.batches.len()), appended);

        if let Some(moved) = applied.log_start_moved {
            assert_eq!(moved.from, self.log_start);
            assert!(moved.to > moved.from);
            assert_eq!(self.state.start_rung(), Some(moved.rung));
            self.log_start = moved.to;
        }
        assert_eq!(self.state.log_start(), self.log_start);
        for removed in &applied.rungs_removed {
            assert!(self.state.rungs().iter().all(|rung| rung.position.index != *removed));
        }
    }

    /// Whoever begins with a rung and reads on has the same state, once the log start has moved
    /// to that rung everywhere.
    fn check_replica_that_begins_with(&self, rung: &Rung) {
        let start = usize::try_from(rung.summary.position.index).unwrap() + 1;
        let mut late = PartitionState::from_checkpoint(rung.checkpoint.clone()).unwrap();
        assert_eq!(late.log_start(), rung.summary.next_offset);
        assert_eq!(late.start_rung(), Some(rung.summary));
        for (index, entry) in self.entries.iter().enumerate().skip(start) {
            let applied = apply(&mut late, World::position(index), entry);
            if let Some(rung) = applied.and_then(|applied| applied.rung) {
                assert!(self.rungs.contains(&rung), "a rung with other bytes");
            }
        }
        assert_eq!(late.chain_hash(), self.state.chain_hash());

        let mut early = self.state.clone();
        let at = World::position(self.entries.len());
        let entry = advance(self.time(0), rung.summary.position.index);
        apply(&mut early, at, &entry);
        apply(&mut late, at, &entry);
        // A rung that the log start has passed can't be begun with any more.
        if rung.summary.next_offset >= self.log_start {
            assert_eq!(early.checkpoint(), late.checkpoint());
            assert_eq!(early, late);
        }
    }
}

fn advance(time: EntryTime, rung_index: u64) -> Entry {
    Entry::Command(AdvanceStart { time, rung_index }.encode())
}

fn check_run(mut world: World, steps: &[Step]) {
    for step in steps {
        world.step(step);
        assert_eq!(world.rows.restore(), world.state);
    }
    assert_eq!(world.state.chain_hash(), world.model.chain_hash());

    let checkpoint = world.state.checkpoint();
    assert_eq!(PartitionState::from_checkpoint(checkpoint.clone()).unwrap(), world.state);

    let mut other = PartitionState::new(LIMITS);
    for (index, entry) in world.entries.iter().enumerate() {
        apply(&mut other, World::position(index), entry);
    }
    assert_eq!(other.checkpoint(), checkpoint, "two replicas of one log");
    for rung in world.rungs.iter().rev().take(6) {
        world.check_replica_that_begins_with(rung);
    }
}

proptest! {
    #[test]
    fn the_state_is_that_of_the_naive_model(
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        check_run(World::new(), &steps);
    }

    #[test]
    fn the_state_is_that_of_the_naive_model_over_many_entries_of_one_kind(
        steps in proptest::collection::vec(any_step(), 1..10),
        plan in any_plan(),
        times in 60_usize..150,
    ) {
        let next = Plan { intent: Intent::Next, condition: None, ..plan };
        let many = Step::Append { time_step_ms: 1, plans: vec![next] };
        let steps = [vec![many; times], steps].concat();
        check_run(World::new(), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_state_is_that_of_the_naive_model_where_sequences_wrap(
        steps in proptest::collection::vec(any_step(), 20..60),
    ) {
        check_run(World::near_wrap(), &steps);
    }
}
