//! Histories that nobody ran: valid by construction, and with a violation planted.
//!
//! A list of records stands for the partition. Processes begin operations, which take effect at one
//! moment between their beginning and their end, so what they are told is right, whatever the
//! order. Everything follows from a seed.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::history::{Answer, Call, Event, Failure, History, What};

/// What a history is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many operations it has.
    pub operations: usize,
    /// How many of them are under way at once, at most.
    pub processes: usize,
    /// Records of a batch, at most.
    pub batch_records_max: usize,
    /// Batches that one read returns, at most.
    pub read_batches_max: usize,
    /// Operations of unknown outcome, of a thousand.
    pub unknown_per_mille: u32,
    /// Appends that are refused for good, of a thousand.
    pub refused_per_mille: u32,
    /// Appends that have a condition, of a thousand.
    pub conditional_per_mille: u32,
    /// Reads that only ask for the end, of a thousand.
    pub list_per_mille: u32,
}

impl Shape {
    /// Few operations, much trouble.
    pub const SHORT: Self = Self {
        operations: 10,
        processes: 4,
        batch_records_max: 3,
        read_batches_max: 3,
        unknown_per_mille: 200,
        refused_per_mille: 50,
        conditional_per_mille: 200,
        list_per_mille: 250,
    };

    /// As a long run of a healthy cluster would give.
    pub const LONG: Self = Self {
        operations: 1_000_000,
        processes: 32,
        batch_records_max: 4,
        read_batches_max: 4,
        unknown_per_mille: 10,
        refused_per_mille: 5,
        conditional_per_mille: 20,
        list_per_mille: 50,
    };
}

/// A history of partition 0 that keeps every promise.
pub fn valid(shape: Shape, rng: &mut Rng) -> History {
    let mut making = Making {
        shape,
        history: History::default(),
        ends: vec![0],
        records: Vec::new(),
        under_way: Vec::new(),
        adrift: VecDeque::new(),
        op: 0,
        value: 0,
    };
    making.history.events.reserve(shape.operations * 2);
    while making.op_index() < shape.operations || !making.under_way.is_empty() {
        making.go_on(rng);
    }
    making.history
}

/// An operation under way.
struct UnderWay {
    op: u64,
    process: usize,
    call: Call,
    /// Set when it has taken effect: what it will be told.
    answer: Option<Answer>,
    /// It will be told nothing.
    unknown: bool,
    refused: bool,
}

struct Making {
    shape: Shape,
    history: History,
    /// Where batches end, ascending; 0 is the first.
    ends: Vec<u64>,
    records: Vec<u64>,
    under_way: Vec<UnderWay>,
    /// Appends that were given up and may still take effect.
    adrift: VecDeque<Call>,
    op: u64,
    value: u64,
}

impl Making {
    fn op_index(&self) -> usize {
        usize::try_from(self.op).unwrap_or(usize::MAX)
    }

    fn go_on(&mut self, rng: &mut Rng) {
        let may_begin =
            self.under_way.len() < self.shape.processes && self.op_index() < self.shape.operations;
        // Mostly many at once.
        if may_begin && (self.under_way.is_empty() || rng.u8(0..8) < 4) {
            self.begin(rng);
            return;
        }
        if !self.adrift.is_empty() && rng.u8(0..8) == 0 {
            self.land(rng);
            return;
        }
        if self.under_way.is_empty() {
            return;
        }
        let index = rng.usize(..self.under_way.len());
        if self.under_way[index].answer.is_none() && !self.under_way[index].refused {
            // One that is given up may not have taken effect yet.
            if !self.under_way[index].unknown || rng.bool() {
                let call = self.under_way[index].call.clone();
                self.under_way[index].answer = Some(self.take_effect(&call, rng));
                return;
            }
        }
        self.end(index);
    }

    fn begin(&mut self, rng: &mut Rng) {
        self.op += 1;
        let per_mille = |rng: &mut Rng, wanted: u32| rng.u32(0..1_000) < wanted;
        let shape = self.shape;
        let unknown = per_mille(rng, shape.unknown_per_mille);
        let (call, refused) = if rng.bool() {
            let count = rng.usize(1..=shape.batch_records_max);
            let values: Vec<u64> = (self.value..).take(count).collect();
            self.value += u64::try_from(count).expect("few");
            let refused = per_mille(rng, shape.refused_per_mille);
            (self.append(values, per_mille(rng, shape.conditional_per_mille), rng), refused)
        } else if per_mille(rng, shape.list_per_mille) {
            (Call::ListOffsets { partition: 0 }, false)
        } else {
            let end = self.ends.last().copied().unwrap_or(0);
            let back = u64::try_from(shape.read_batches_max * shape.batch_records_max);
            let from = rng.u64(end.saturating_sub(back.unwrap_or(0))..=end + 1);
            (Call::Read { partition: 0, node: rng.u64(1..=3), from }, false)
        };
        let busy = |process: &usize| self.under_way.iter().any(|it| it.process == *process);
        let process = (0..shape.processes).find(|process| !busy(process)).unwrap_or(0);
        let op = self.op;
        self.push(process, What::Invoke { op, call: call.clone() });
        let answer = None;
        self.under_way.push(UnderWay { op, process, call, answer, unknown, refused });
    }

    fn append(&self, values: Vec<u64>, conditional: bool, rng: &mut Rng) -> Call {
        let partition = 0;
        if !conditional {
            return Call::Append { partition, values };
        }
        let end = self.ends.last().copied().unwrap_or(0);
        let expect_end_offset = Some(end + rng.u64(0..=1));
        Call::AppendWith { partition, values, expect_end_offset, producer: None }
    }

    /// Something that was given up takes effect after all, or never will.
    fn land(&mut self, rng: &mut Rng) {
        if let Some(call) = self.adrift.pop_front()
            && rng.bool()
        {
            self.take_effect(&call, rng);
        }
    }

    fn take_effect(&mut self, call: &Call, rng: &mut Rng) -> Answer {
        let end = self.ends.last().copied().unwrap_or(0);
        match call {
            Call::AppendWith { expect_end_offset: Some(expected), .. } if *expected != end => {
                Answer::Conflict { end_offset: end }
            }
            Call::Append { values, .. } | Call::AppendWith { values, .. } => {
                self.records.extend(values);
                self.ends.push(u64::try_from(self.records.len()).expect("a usize fits"));
                Answer::Appended { base_offset: Some(end) }
            }
            Call::Read { from, .. } => Answer::Records { values: self.read(*from, rng), end },
            _ => Answer::Offsets { log_start: 0, end },
        }
    }

    /// Whole batches behind `from`, but for the first, which may have begun before.
    fn read(&self, from: u64, rng: &mut Rng) -> Vec<u64> {
        let first = self.ends.partition_point(|end| *end <= from);
        let last = first.checked_add(rng.usize(0..=self.shape.read_batches_max));
        let last = last.and_then(|last| last.checked_sub(1)).unwrap_or(0);
        let end = self.ends.get(last.min(self.ends.len() - 1)).copied().unwrap_or(0);
        let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self.records.get(index(from)..index(end));
        part.map(<[u64]>::to_vec).unwrap_or_default()
    }

    fn end(&mut self, index: usize) {
        let ended = self.under_way.swap_remove(index);
        let op = ended.op;
        let error = |code: &str| Failure { code: code.to_owned(), message: String::new() };
        let what = match ended.answer {
            None if ended.refused => What::Fail { op, error: error("OVERLOADED") },
            Some(answer) if !ended.unknown => What::Ok { op, answer },
            took_effect => {
                let is_append = matches!(ended.call, Call::Append { .. } | Call::AppendWith { .. });
                if took_effect.is_none() && is_append {
                    self.adrift.push_back(ended.call);
                }
                What::Unknown { op, error: error("TIMED_OUT") }
            }
        };
        self.push(ended.process, what);
    }

    fn push(&mut self, process: usize, what: What) {
        // Time is nothing but the order here.
        let at_us = u64::try_from(self.history.events.len()).expect("a usize fits");
        self.history.events.push(Event { at_us, process: format!("process-{process}"), what });
    }
}

/// Changes something at one place of a history, so that it is mostly, but not always, one that no
/// partition could give.
pub fn plant(history: &mut History, rng: &mut Rng) {
    let events = &mut history.events;
    let Some(last) = events.len().checked_sub(1) else { return };
    let index = rng.usize(0..=last);
    match rng.u8(0..8) {
        // Real time: two neighbours change places.
        0 | 1 if index < last && movable(&events[index].what, &events[index + 1].what) => {
            events.swap(index, index + 1);
        }
        // An answer comes much later or earlier.
        2 => {
            let to = rng.usize(0..=last);
            if (index.min(to)..=index.max(to)).all(|at| op_of(events, at) != op_of(events, index))
                || is_later_ending(events, index, to)
            {
                let event = events.remove(index);
                events.insert(to, event);
            }
        }
        // What was acknowledged is said to be refused, or the other way round.
        3 => swap_outcome(&mut events[index].what, rng),
        _ => {
            // The first answer from there on.
            let answers = events.iter_mut().skip(index);
            let mut answers = answers.filter_map(|event| match &mut event.what {
                What::Ok { answer, .. } => Some(answer),
                _ => None,
            });
            if let Some(answer) = answers.next() {
                change(answer, rng);
            }
        }
    }
}

fn op_of(events: &[Event], index: usize) -> Option<u64> {
    match &events[index].what {
        What::Invoke { op, .. }
        | What::Ok { op, .. }
        | What::Fail { op, .. }
        | What::Unknown { op, .. } => Some(*op),
        What::Fault { .. } | What::Started { .. } => None,
    }
}

/// An ending may move to wherever its operation has begun.
fn is_later_ending(events: &[Event], index: usize, to: usize) -> bool {
    let op = op_of(events, index);
    let begun = events.iter().position(
        |event| matches!(&event.what, What::Invoke { op: begun, .. } if Some(*begun) == op),
    );
    begun.is_some_and(|begun| begun < index && begun < to)
}

fn movable(first: &What, second: &What) -> bool {
    match (first, second) {
        (What::Invoke { op, .. }, What::Ok { op: other, .. })
        | (What::Invoke { op, .. }, What::Fail { op: other, .. })
        | (What::Invoke { op, .. }, What::Unknown { op: other, .. }) => op != other,
        _ => true,
    }
}

fn swap_outcome(what: &mut What, rng: &mut Rng) {
    let error = || Failure { code: "OVERLOADED".to_owned(), message: String::new() };
    *what = match what {
        What::Ok { op, .. } if rng.bool() => What::Fail { op: *op, error: error() },
        What::Ok { op, .. } | What::Fail { op, .. } => What::Unknown { op: *op, error: error() },
        What::Unknown { op, .. } => What::Fail { op: *op, error: error() },
        _ => return,
    };
}

/// Makes an answer say something a little different.
fn change(answer: &mut Answer, rng: &mut Rng) {
    let nudge = |offset: &mut u64, rng: &mut Rng| {
        *offset = if rng.bool() { *offset + rng.u64(1..=2) } else { offset.saturating_sub(1) };
    };
    match answer {
        Answer::Appended { base_offset: Some(base) } => nudge(base, rng),
        Answer::Conflict { end_offset } => nudge(end_offset, rng),
        Answer::Offsets { end, .. } => nudge(end, rng),
        Answer::Records { values, end } => match rng.u8(0..5) {
            0 => {
                values.pop();
            }
            1 if values.len() > 1 => values.swap(0, 1),
            2 if !values.is_empty() => {
                let index = rng.usize(..values.len());
                values[index] = rng.u64(0..12);
            }
            3 => values.push(rng.u64(0..12)),
            _ => nudge(end, rng),
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::check_all;
    use crate::observations::Observations;

    #[test]
    fn what_is_made_keeps_every_promise() {
        for seed in 0..20 {
            let shape = Shape { operations: 2_000, ..Shape::LONG };
            let history = valid(shape, &mut Rng::with_seed(seed));
            assert_eq!(check_all(&Observations::of(&history)), [], "seed {seed}");
            let counts = history.counts();
            for kind in ["append ok", "read ok", "list_offsets ok", "append_if ok"] {
                assert!(counts.contains_key(kind), "seed {seed} has no {kind}: {counts:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_history() {
        let make = || {
            let mut rng = Rng::with_seed(7);
            let mut history = valid(Shape::SHORT, &mut rng);
            plant(&mut history, &mut rng);
            history
        };
        assert_eq!(make(), make());
    }
}
