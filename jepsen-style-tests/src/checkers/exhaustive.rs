//! Whether there is an order at all: a search through every order of one partition's operations.
//!
//! The partition is an object with a list of records. Append puts a batch at the end, on a
//! condition or not, and answers its offset; a read answers the length of the list and a part of
//! it that ends with a batch. Operations may be put in any order that is true to real time; one of
//! unknown outcome may be put in after it began, or left out. (Wing and Gong 1993, with the memory
//! of visited states of Lowe 2017.)
//!
//! Takes exponential time and knows nothing of intervals and offsets, and reads the history by
//! itself: it is here to be compared with the fast checkers, which must give the same verdict.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, History, What};

/// More operations than this are not searched: their order must fit 64 bits, four for each.
pub const OPERATIONS_MAX: usize = 16;

/// A history that is too long to be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Operations it has.
    pub operations: usize,
}

/// Whether the operations on a partition have an order.
///
/// # Errors
/// If there are more than [`OPERATIONS_MAX`].
pub fn has_order(history: &History, partition: u32) -> Result<bool, TooLong> {
    let steps = steps(history, partition);
    if steps.len() > OPERATIONS_MAX {
        return Err(TooLong { operations: steps.len() });
    }
    let mut search = Search { steps: &steps, visited: BTreeSet::new(), log: Log::default() };
    Ok(search.goes_on(0, 0))
}

/// An operation to be put in order.
#[derive(Debug)]
struct Step<'a> {
    invoked: usize,
    /// `None`: it may be left out.
    returned: Option<usize>,
    what: Effect<'a>,
}

#[derive(Debug)]
enum Effect<'a> {
    Append {
        values: &'a [u64],
        expected: Option<u64>,
        /// As it was told; not set where it was not told or is not known.
        base: Option<u64>,
    },
    Read {
        from: u64,
        values: &'a [u64],
        end: u64,
        /// An end that it must not be.
        other_than: Option<u64>,
    },
}

fn steps(history: &History, partition: u32) -> Vec<Step<'_>> {
    let mut open: BTreeMap<u64, (usize, &Call)> = BTreeMap::new();
    let mut steps = Vec::new();
    for (moment, event) in history.events.iter().enumerate() {
        match &event.what {
            What::Invoke { op, call } if is_about(call, partition) => {
                open.insert(*op, (moment, call));
            }
            What::Ok { op, answer } => {
                let begun = open.remove(op);
                let known = begun.and_then(|(invoked, call)| step(call, answer, invoked, moment));
                steps.extend(known);
            }
            What::Fail { op, .. } => {
                open.remove(op);
            }
            _ => {}
        }
    }
    for (invoked, call) in open.into_values() {
        let (values, expected) = match call {
            Call::Append { values, .. } => (values, None),
            Call::AppendWith { values, expect_end_offset, .. } => (values, *expect_end_offset),
            _ => continue,
        };
        let what = Effect::Append { values, expected, base: None };
        steps.push(Step { invoked, returned: None, what });
    }
    steps
}

fn is_about(call: &Call, wanted: u32) -> bool {
    match call {
        Call::Append { partition, .. }
        | Call::AppendWith { partition, .. }
        | Call::Read { partition, .. }
        | Call::ListOffsets { partition } => *partition == wanted,
        _ => false,
    }
}

fn step<'a>(
    call: &'a Call,
    answer: &'a Answer,
    invoked: usize,
    returned: usize,
) -> Option<Step<'a>> {
    let returned = Some(returned);
    let what = match (call, answer) {
        (Call::Append { values, .. }, Answer::Appended { base_offset }) => {
            Effect::Append { values, expected: None, base: *base_offset }
        }
        (Call::AppendWith { values, expect_end_offset, .. }, Answer::Appended { base_offset }) => {
            Effect::Append { values, expected: *expect_end_offset, base: *base_offset }
        }
        (Call::AppendWith { expect_end_offset, .. }, Answer::Conflict { end_offset }) => {
            let (end, other_than) = (*end_offset, *expect_end_offset);
            Effect::Read { from: end, values: &[], end, other_than }
        }
        (Call::Read { from, .. }, Answer::Records { values, end }) => {
            Effect::Read { from: *from, values, end: *end, other_than: None }
        }
        (Call::ListOffsets { .. }, Answer::Offsets { end, .. }) => {
            Effect::Read { from: *end, values: &[], end: *end, other_than: None }
        }
        _ => return None,
    };
    Some(Step { invoked, returned, what })
}

/// The list of records, and where its batches end.
#[derive(Debug, Default)]
struct Log {
    values: Vec<u64>,
    ends: Vec<usize>,
}

impl Log {
    /// Whether the operation is told the truth now. An append is put at the end.
    fn takes(&mut self, what: &Effect<'_>) -> bool {
        let length = self.values.len();
        match what {
            Effect::Append { values, expected, base } => {
                let is_here = |offset: &u64| usize::try_from(*offset) == Ok(length);
                if !expected.iter().all(is_here) || !base.iter().all(is_here) {
                    return false;
                }
                self.values.extend_from_slice(values);
                self.ends.push(self.values.len());
                true
            }
            Effect::Read { from, values, end, other_than } => {
                usize::try_from(*end) == Ok(length)
                    && *other_than != Some(*end)
                    && self.has_part(*from, values)
            }
        }
    }

    fn has_part(&self, from: u64, part: &[u64]) -> bool {
        if part.is_empty() {
            return true;
        }
        let Ok(start) = usize::try_from(from) else { return false };
        let end = start.saturating_add(part.len());
        self.values.get(start..end) == Some(part) && self.ends.contains(&end)
    }

    fn undo_append(&mut self) {
        self.ends.pop();
        self.values.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

struct Search<'a> {
    steps: &'a [Step<'a>],
    /// Which operations were put in, and the order of the appends among them.
    visited: BTreeSet<(u32, u64)>,
    log: Log,
}

impl Search<'_> {
    /// Whether an order of what is not in `done` goes on from here.
    fn goes_on(&mut self, done: u32, order: u64) -> bool {
        let left = || (0..self.steps.len()).filter(|index| done & (1 << index) == 0);
        let Some(first_return) = left().filter_map(|index| self.steps[index].returned).min() else {
            return true;
        };
        if !self.visited.insert((done, order)) {
            return false;
        }
        for index in 0..self.steps.len() {
            let step = &self.steps[index];
            if done & (1 << index) != 0 || step.invoked > first_return {
                continue;
            }
            if !self.log.takes(&step.what) {
                continue;
            }
            let is_append = matches!(step.what, Effect::Append { .. });
            let place = u64::try_from(index).expect("few operations");
            let order = if is_append { order << 4 | place } else { order };
            if self.goes_on(done | 1 << index, order) {
                return true;
            }
            if is_append {
                self.log.undo_append();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Failure};

    struct Told(History);

    impl Told {
        fn new() -> Self {
            Self(History::default())
        }

        fn push(&mut self, what: What) -> &mut Self {
            self.0.events.push(Event { at_us: 0, process: "t".to_owned(), what });
            self
        }

        fn append(&mut self, op: u64, values: &[u64]) -> &mut Self {
            let call = Call::Append { partition: 0, values: values.to_vec() };
            self.push(What::Invoke { op, call })
        }

        fn acked(&mut self, op: u64, base: u64) -> &mut Self {
            let answer = Answer::Appended { base_offset: Some(base) };
            self.push(What::Ok { op, answer })
        }

        fn unknown(&mut self, op: u64) -> &mut Self {
            let error = Failure { code: "TIMED_OUT".to_owned(), message: String::new() };
            self.push(What::Unknown { op, error })
        }

        fn read(&mut self, op: u64, from: u64, values: &[u64], end: u64) -> &mut Self {
            let call = Call::Read { partition: 0, node: 1, from };
            self.push(What::Invoke { op, call });
            let answer = Answer::Records { values: values.to_vec(), end };
            self.push(What::Ok { op, answer })
        }

        fn has_order(&self) -> bool {
            has_order(&self.0, 0).expect("short")
        }
    }

    #[test]
    fn operations_under_way_together_may_have_any_order() {
        let mut told = Told::new();
        told.append(1, &[1]).append(2, &[2]).acked(1, 1).acked(2, 0).read(3, 0, &[2, 1], 2);
        assert!(told.has_order());
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_has_no_order() {
        let mut told = Told::new();
        told.append(1, &[1]).acked(1, 0).read(2, 0, &[], 0);
        assert!(!told.has_order());
    }

    #[test]
    fn an_append_of_unknown_outcome_comes_late_or_never_but_stays() {
        let mut told = Told::new();
        told.append(1, &[1]).unknown(1).read(2, 0, &[], 0);
        assert!(told.has_order());
        told.read(3, 0, &[1], 1);
        assert!(told.has_order());
        told.read(4, 0, &[], 0);
        assert!(!told.has_order());
    }

    #[test]
    fn a_long_history_is_refused() {
        let mut told = Told::new();
        for op in 1..=17 {
            told.append(op, &[op]);
        }
        assert_eq!(has_order(&told.0, 0), Err(TooLong { operations: 17 }));
    }
}
