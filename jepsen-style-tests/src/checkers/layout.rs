//! What stands where in one partition, put together once from all that was answered and seen.
//!
//! Acknowledgements give the order of the log; reads place what has no acknowledgement. Where
//! operations contradict each other the first one counts here, and the others are listed for
//! `one_value_per_offset` to report: whatever the history says, every checker can go on.
//!
//! Offsets are dense, so a plain vector by offset serves instead of a map: that is what makes a
//! million operations a matter of a fraction of a second. Offsets that no honest log of so many
//! records can have go to a map beside it.

use std::collections::BTreeMap;

use crate::observations::{Append, AppendOutcome, Moment, PartitionObservations};

/// A partition and its layout: what a checker is given.
pub struct Case<'a> {
    /// The partition.
    pub number: u32,
    /// What was answered and seen.
    pub observed: &'a PartitionObservations,
    /// Where everything stands.
    pub layout: Layout<'a>,
}

/// What stands where.
pub struct Layout<'a> {
    slots: Vec<Option<Slot>>,
    /// Slots behind those.
    far: BTreeMap<u64, Slot>,
    /// Sightings that do not agree with a slot, in the order in which they were found.
    pub contradictions: Vec<Sighting>,
    /// Appends whose place is known, by that place.
    pub batches: Vec<Batch<'a>>,
    /// How many of those begin below each offset.
    below: Vec<u32>,
    /// Appends that may stand somewhere and that nobody saw.
    pub adrift: Vec<&'a Append>,
    /// Every end that somebody was told: of the log, and of what one answer held.
    pub told_ends: Vec<ToldEnd>,
    senders: Senders<'a>,
}

/// The record at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The record.
    pub value: u64,
    /// The operation that put or saw it there.
    pub operation: u64,
    /// How.
    pub source: Source,
}

/// How it is known what stands at an offset. The first of these that is known counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An append was acknowledged.
    Acknowledged,
    /// A reader was given the record.
    Read,
    /// A survey at the end found it.
    Survey,
}

/// A record at an offset, as one operation put or saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The offset.
    pub offset: u64,
    /// The record.
    pub value: u64,
    /// The operation.
    pub operation: u64,
    /// When it returned.
    pub returned: Moment,
}

/// An append whose place is known.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Offset of its first record.
    pub base: u64,
    /// The append.
    pub append: &'a Append,
    /// The operation that shows where it stands.
    pub shown_by: u64,
}

impl<'a> Case<'a> {
    /// Puts a partition together.
    pub fn new(number: u32, observed: &'a PartitionObservations) -> Self {
        Self { number, observed, layout: Layout::of(observed) }
    }
}

impl Batch<'_> {
    /// The offset after its last record.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(length(self.append.values.len()))
    }

    /// When it was acknowledged, if it was.
    pub fn returned(&self) -> Option<Moment> {
        returned(self.append)
    }
}

/// When an append was acknowledged, if it was.
pub fn returned(append: &Append) -> Option<Moment> {
    match append.outcome {
        AppendOutcome::Acked { returned, .. } => Some(returned),
        AppendOutcome::Refused(_) | AppendOutcome::Unknown => None,
    }
}

/// A number of things as an offset.
pub fn length(count: usize) -> u64 {
    u64::try_from(count).expect("a usize fits")
}

impl<'a> Layout<'a> {
    fn of(observed: &'a PartitionObservations) -> Self {
        let senders = Senders::of(&observed.appends);
        let mut layout = Self {
            slots: Vec::new(),
            far: BTreeMap::new(),
            contradictions: Vec::new(),
            batches: Vec::new(),
            below: Vec::new(),
            adrift: Vec::new(),
            told_ends: told_ends(observed),
            senders,
        };
        // More than honest logs need, and never more memory than the history has.
        let dense = layout.senders.places.len() * 2 + 1_024;
        layout.slots.reserve(layout.senders.places.len());
        for_each_sighting(observed, |source, sighting| layout.put(dense, source, sighting));
        layout.place(observed);
        layout.count_below(dense);
        layout
    }

    fn put(&mut self, dense: usize, source: Source, sighting: Sighting) {
        let Sighting { offset, value, operation, .. } = sighting;
        let slot = Slot { value, operation, source };
        let known = match usize::try_from(offset) {
            Ok(index) if index < dense => {
                if self.slots.len() <= index {
                    self.slots.resize(index + 1, None);
                }
                self.slots[index].get_or_insert(slot)
            }
            _ => self.far.entry(offset).or_insert(slot),
        };
        if known.value != value {
            self.contradictions.push(sighting);
        }
    }

    fn place(&mut self, observed: &'a PartitionObservations) {
        let mut batches = Vec::with_capacity(observed.appends.len());
        let acked_at = |append: &Append| append.offsets().next().map(|(offset, _)| offset);
        let mut found: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (offset, slot) in self.slots() {
            if slot.source != Source::Acknowledged
                && let Some((append, at)) = self.senders.find(slot.value)
                && let Some(base) = offset.checked_sub(at)
            {
                found.entry(append).or_insert((base, slot.operation));
            }
        }
        for (index, append) in observed.appends.iter().enumerate() {
            let acked = acked_at(append).map(|base| (base, append.op));
            if let Some((base, shown_by)) = acked.or_else(|| found.get(&index).copied()) {
                batches.push(Batch { base, append, shown_by });
            } else if !matches!(append.outcome, AppendOutcome::Refused(_)) {
                self.adrift.push(append);
            }
        }
        batches.sort_unstable_by_key(|batch| (batch.base, batch.append.op));
        self.batches = batches;
    }

    fn count_below(&mut self, dense: usize) {
        self.below.push(0);
        for (batch, index) in self.batches.iter().zip(0_u32..) {
            let base = usize::try_from(batch.base).unwrap_or(usize::MAX);
            if base >= dense {
                break;
            }
            self.below.resize(base + 1, index);
        }
    }

    /// What is known to stand at each offset, ascending.
    pub fn slots(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        let near = self.slots.iter().zip(0_u64..);
        let near = near.filter_map(|(slot, offset)| Some((offset, (*slot)?)));
        near.chain(self.far.iter().map(|(offset, slot)| (*offset, *slot)))
    }

    /// Who sent a record, and which of the append's records it is.
    pub fn sender(&self, value: u64) -> Option<(&'a Append, u64)> {
        let (append, at) = self.senders.find(value)?;
        Some((&self.senders.appends[append], at))
    }

    /// How many batches begin below `end`; the first of `batches` that does not has that index.
    pub fn batches_below(&self, end: u64) -> usize {
        let known = usize::try_from(end).ok().and_then(|end| self.below.get(end));
        match known.copied().map(usize::try_from) {
            Some(Ok(count)) => count,
            _ => self.batches.partition_point(|batch| batch.base < end),
        }
    }

    /// Numbers the records that somebody sent, from 0 on: for tables of them.
    pub fn record_number(&self, value: u64) -> Option<usize> {
        self.senders.place(value)
    }

    /// How many records were sent.
    pub fn record_count(&self) -> usize {
        self.senders.places.len()
    }
}

/// Calls `each` for all that was acknowledged, then all that was read, then all surveys.
pub fn for_each_sighting(observed: &PartitionObservations, mut each: impl FnMut(Source, Sighting)) {
    for append in &observed.appends {
        let Some(returned) = returned(append) else { continue };
        for (offset, value) in append.offsets() {
            let sighting = Sighting { offset, value, operation: append.op, returned };
            each(Source::Acknowledged, sighting);
        }
    }
    for read in &observed.reads {
        for (offset, value) in read.offsets() {
            let (operation, returned) = (read.op, read.returned);
            each(Source::Read, Sighting { offset, value, operation, returned });
        }
    }
    for read in &observed.lagging_reads {
        for (offset, value) in read.offsets() {
            let (operation, returned) = (read.op, read.returned);
            each(Source::Read, Sighting { offset, value, operation, returned });
        }
    }
    for survey in &observed.surveys {
        for (offset, value) in survey.offsets() {
            let (operation, returned) = (survey.op, survey.returned);
            each(Source::Survey, Sighting { offset, value, operation, returned });
        }
    }
}

/// An end (exclusive) of the log that somebody was told.
#[derive(Debug, Clone, Copy)]
pub struct ToldEnd {
    /// The end.
    pub end: u64,
    /// The operation.
    pub operation: u64,
    /// When it returned.
    pub returned: Moment,
}

fn told_ends(observed: &PartitionObservations) -> Vec<ToldEnd> {
    let mut ends = Vec::new();
    let mut add = |from: u64, count: usize, end: u64, operation: u64, returned: Moment| {
        ends.push(ToldEnd { end, operation, returned });
        let last = from.saturating_add(length(count));
        if count > 0 && last != end {
            ends.push(ToldEnd { end: last, operation, returned });
        }
    };
    for read in &observed.reads {
        add(read.from, read.values.len(), read.end, read.op, read.returned);
    }
    for read in &observed.lagging_reads {
        add(read.from, read.values.len(), read.end, read.op, read.returned);
    }
    for survey in &observed.surveys {
        add(survey.start, survey.values.len(), survey.end(), survey.op, survey.returned);
    }
    ends
}

/// Who sent which record.
struct Senders<'a> {
    appends: &'a [Append],
    /// Value, append, place in the append; by value.
    places: Vec<(u64, u32, u32)>,
}

impl<'a> Senders<'a> {
    fn of(appends: &'a [Append]) -> Self {
        let count = appends.iter().map(|append| append.values.len()).sum();
        let mut places = Vec::with_capacity(count);
        for (append, index) in appends.iter().zip(0_u32..) {
            places.extend(append.values.iter().zip(0_u32..).map(|(value, at)| (*value, index, at)));
        }
        if !places.is_sorted() {
            places.sort_unstable();
        }
        Self { appends, places }
    }

    /// Values are mostly numbered one after the other, so that the place of one follows from the
    /// first.
    fn place(&self, value: u64) -> Option<usize> {
        let guess = usize::try_from(value.checked_sub(self.places.first()?.0)?).ok()?;
        if self.places.get(guess).is_some_and(|place| place.0 == value) {
            return Some(guess);
        }
        self.places.binary_search_by_key(&value, |place| place.0).ok()
    }

    /// The append, as an index, and which of its records it is.
    fn find(&self, value: u64) -> Option<(usize, u64)> {
        let (_, append, at) = self.places[self.place(value)?];
        Some((usize::try_from(append).ok()?, u64::from(at)))
    }
}
