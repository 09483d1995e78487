//! The bytes of a partition's state: as rows, of which only the changed ones are written after an
//! entry, and as one checkpoint.
//!
//! Rows: the head (small, written with every entry), the ladder (written when a rung comes or
//! goes), one row per producer. They belong together: the caller writes them in one atomic batch.
//! A checkpoint is all of them in one buffer with a checksum.
//!
//! The layouts are in `docs/formats/checkpoints.md`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quipu_batch::{SEQUENCE_MAX, sequence_add};

use super::chain_hash::ChainHash;
use super::ladder::{Ladder, LadderLimits};
use super::producers::{AcceptedBatch, Producer, Producers};
use super::{Membership, PartitionState, RungSummary};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ProducerEpoch, ProducerId};
use crate::limits::{
    BATCH_RECORDS_MAX, MEMBERSHIP_BYTES_MAX, OFFSET_MAX, PRODUCER_BATCHES_REMEMBERED,
    PRODUCERS_MAX, RUNGS_MAX,
};
use crate::position::RaftPosition;
use crate::time::EntryTime;
use crate::zoo::{self, Bug};

const HEAD_VERSION: u8 = 1;
const LADDER_VERSION: u8 = 1;
const PRODUCER_VERSION: u8 = 1;
const CHECKPOINT_VERSION: u8 = 1;

const RUNG_BYTES: usize = 8 + 16 + 8 + 8 + 8;
const HEAD_BYTES_MAX: usize = 256 + MEMBERSHIP_BYTES_MAX;
const LADDER_BYTES_MAX: usize = 16 + RUNGS_MAX * RUNG_BYTES;
const PRODUCER_BYTES_MAX: usize = 64 + PRODUCER_BATCHES_REMEMBERED * 16;

impl PartitionState {
    /// The head row: everything but the ladder and the producers.
    #[must_use]
    pub fn encode_head(&self) -> Bytes {
        self.encode_head_starting_at(self.log_start)
    }

    /// The ladder row: what is known of each rung but its checkpoint.
    #[must_use]
    pub fn encode_ladder(&self) -> Bytes {
        encode_rungs(&self.ladder.rungs)
    }

    /// One producer's row; `None` where it is not remembered.
    #[must_use]
    pub fn encode_producer(&self, id: ProducerId) -> Option<Bytes> {
        self.producers.get(id).map(|producer| encode_producer(id, producer))
    }

    /// The state from its rows, the producers' in any order.
    pub fn restore(
        head: Bytes,
        ladder: Bytes,
        producers: impl IntoIterator<Item = Bytes>,
    ) -> Result<PartitionState, DecodeError> {
        let mut state = decode_head(head)?;
        state.ladder.rungs = Arc::new(decode_rungs(ladder)?);
        for row in producers {
            let (id, producer) = decode_producer(row)?;
            if !state.producers.restore(id, producer) {
                return Err(invalid("two rows of one producer"));
            }
        }
        state.check()?;
        Ok(state)
    }

    /// The whole state in one buffer.
    #[must_use]
    pub fn checkpoint(&self) -> Bytes {
        encode_checkpoint(&self.encode_head(), &self.encode_ladder(), &self.producers)
    }

    /// The state from what [`checkpoint`](Self::checkpoint) gave, or from a
    /// [rung's](super::Rung) checkpoint.
    pub fn from_checkpoint(bytes: Bytes) -> Result<PartitionState, DecodeError> {
        let mut reader = Reader::with_checksum("checkpoint", CHECKPOINT_VERSION, bytes)?;
        let head = reader.bytes(HEAD_BYTES_MAX)?;
        let ladder = reader.bytes(LADDER_BYTES_MAX)?;
        let count = reader.count(PRODUCERS_MAX, 4)?;
        let mut producers = Vec::with_capacity(count);
        for _ in 0..count {
            producers.push(reader.bytes(PRODUCER_BYTES_MAX)?);
        }
        reader.finish()?;
        PartitionState::restore(head, ladder, producers)
    }

    /// The checkpoint of a rung made at the present state: with the log starting here and no
    /// other rung, as a replica that begins with it will see the log. So it is small, and the
    /// same also on replicas that began with different rungs themselves.
    pub(super) fn encode_as_starting_at(&self, rung: RungSummary) -> Bytes {
        let head = self.encode_head_starting_at(rung.next_offset);
        if zoo::is(Bug::CheckpointWithoutProducers) {
            return encode_checkpoint(&head, &encode_rungs(&[rung]), &Producers::default());
        }
        encode_checkpoint(&head, &encode_rungs(&[rung]), &self.producers)
    }

    fn encode_head_starting_at(&self, log_start: u64) -> Bytes {
        let membership_bytes = self.membership.as_ref().map_or(0, |members| members.bytes.len());
        let mut writer = Writer::with_capacity(128 + membership_bytes);
        writer.u8(HEAD_VERSION);
        writer.u64(self.ladder.limits.bytes);
        writer.u64(self.ladder.limits.ms);
        writer.u64(self.next_offset);
        writer.u64(log_start);
        self.chain_hash.write(&mut writer);
        RaftPosition::write_option(self.applied, &mut writer);
        Membership::write_option(self.membership.as_ref(), &mut writer);
        writer.u64(self.bytes_total);
        writer.option(self.time_first, |writer, time| writer.u64(time.0));
        writer.u64(self.time_last.0);
        writer.i64(self.timestamp_max);
        writer.finish()
    }

    /// What apply relies on. Each part was read from bytes whose checksums held, so a breach is
    /// a fault of the writer, or rows that do not belong together.
    fn check(&self) -> Result<(), DecodeError> {
        if self.next_offset > OFFSET_MAX || self.bytes_total > OFFSET_MAX {
            return Err(invalid("an offset or total is out of range"));
        }
        if self.log_start > self.next_offset {
            return Err(invalid("the log starts after its end"));
        }
        let end = RungSummary {
            number: u64::MAX,
            position: self.applied.unwrap_or(RaftPosition { term: 0, index: 0 }),
            next_offset: self.next_offset,
            bytes_total: self.bytes_total,
            time: self.time_last,
        };
        let rungs = &self.ladder.rungs;
        let above = rungs.iter().skip(1).chain(std::iter::once(&end));
        for (rung, next) in rungs.iter().zip(above) {
            let in_order = rung.number < next.number
                && rung.position <= next.position
                && rung.next_offset <= next.next_offset
                && rung.bytes_total <= next.bytes_total
                && rung.time <= next.time;
            if !in_order {
                return Err(invalid("rungs are not in order"));
            }
        }
        if rungs.windows(2).any(|pair| pair[0].position.index >= pair[1].position.index) {
            return Err(invalid("two rungs at one entry"));
        }
        if rungs.first().is_some_and(|rung| rung.next_offset < self.log_start) {
            return Err(invalid("a rung lies before the log start"));
        }
        let in_log = |batch: &AcceptedBatch| {
            batch.base_offset + u64::from(batch.record_count) <= self.next_offset
        };
        if !self.producers.iter().all(|(_, producer)| producer.batches.iter().all(in_log)) {
            return Err(invalid("a producer's batch lies after the log's end"));
        }
        Ok(())
    }
}

impl Membership {
    /// Appends a flag, and the membership where there is one.
    pub(crate) fn write_option(membership: Option<&Membership>, writer: &mut Writer) {
        writer.option(membership, |writer, membership| {
            RaftPosition::write_option(membership.position, writer);
            writer.bytes(&membership.bytes);
        });
    }

    /// Reads what [`Membership::write_option`] wrote.
    pub(crate) fn read_option(reader: &mut Reader) -> Result<Option<Membership>, DecodeError> {
        reader.option(|reader| {
            Ok(Membership {
                position: RaftPosition::read_option(reader)?,
                bytes: reader.bytes(MEMBERSHIP_BYTES_MAX)?,
            })
        })
    }
}

fn decode_head(head: Bytes) -> Result<PartitionState, DecodeError> {
    let mut reader = Reader::new("partition head", head);
    reader.version(HEAD_VERSION)?;
    let limits = LadderLimits { bytes: reader.u64()?, ms: reader.u64()? };
    let state = PartitionState {
        next_offset: reader.u64()?,
        log_start: reader.u64()?,
        chain_hash: ChainHash::read(&mut reader)?,
        applied: RaftPosition::read_option(&mut reader)?,
        membership: Membership::read_option(&mut reader)?,
        bytes_total: reader.u64()?,
        time_first: reader.option(|reader| reader.u64().map(EntryTime))?,
        time_last: EntryTime(reader.u64()?),
        timestamp_max: reader.i64()?,
        producers: Producers::default(),
        ladder: Ladder::new(limits),
    };
    reader.finish()?;
    Ok(state)
}

fn encode_rungs(rungs: &[RungSummary]) -> Bytes {
    let mut writer = Writer::with_capacity(5 + rungs.len() * RUNG_BYTES);
    writer.u8(LADDER_VERSION);
    writer.count(rungs.len());
    for rung in rungs {
        writer.u64(rung.number);
        rung.position.write(&mut writer);
        writer.u64(rung.next_offset);
        writer.u64(rung.bytes_total);
        writer.u64(rung.time.0);
    }
    writer.finish()
}

fn decode_rungs(row: Bytes) -> Result<Vec<RungSummary>, DecodeError> {
    let mut reader = Reader::new("partition ladder", row);
    reader.version(LADDER_VERSION)?;
    let count = reader.count(RUNGS_MAX, RUNG_BYTES)?;
    let mut rungs = Vec::with_capacity(count);
    for _ in 0..count {
        rungs.push(RungSummary {
            number: reader.u64()?,
            position: RaftPosition::read(&mut reader)?,
            next_offset: reader.u64()?,
            bytes_total: reader.u64()?,
            time: EntryTime(reader.u64()?),
        });
    }
    reader.finish()?;
    Ok(rungs)
}

fn encode_checkpoint(head: &[u8], ladder: &[u8], producers: &Producers) -> Bytes {
    let mut writer = Writer::with_capacity(head.len() + ladder.len() + producers.len() * 128 + 32);
    writer.u8(CHECKPOINT_VERSION);
    writer.bytes(head);
    writer.bytes(ladder);
    writer.count(producers.len());
    for (id, producer) in producers.iter() {
        writer.bytes(&encode_producer(id, producer));
    }
    writer.finish_with_checksum()
}

/// A row is written with every append of its producer, so it is kept small: sequences follow
/// from the first, and counts and gaps take as many bytes as the largest of them needs.
fn encode_producer(id: ProducerId, producer: &Producer) -> Bytes {
    let oldest = producer.batches.front().expect("a producer is made with its first batch");
    let steps = steps_of(&producer.batches);
    let largest = steps.iter().map(|step| step.gap.max(u64::from(step.records))).max();
    let width = Width::of(largest.unwrap_or(0));

    let mut writer = Writer::with_capacity(42 + steps.len() * 16);
    writer.u8(PRODUCER_VERSION);
    id.write(&mut writer);
    producer.epoch.write(&mut writer);
    writer.u64(producer.last_use.0);
    writer.u64(producer.epoch_records);
    writer.u32(oldest.sequence_first);
    writer.u64(oldest.base_offset);
    writer.u8(width.number());
    writer.count(steps.len());
    for step in steps {
        width.write(u64::from(step.records), &mut writer);
        width.write(step.gap, &mut writer);
    }
    writer.finish()
}

fn decode_producer(row: Bytes) -> Result<(ProducerId, Producer), DecodeError> {
    let mut reader = Reader::new("producer row", row);
    reader.version(PRODUCER_VERSION)?;
    let id = ProducerId::read(&mut reader)?;
    let epoch = ProducerEpoch::read(&mut reader)?;
    let last_use = EntryTime(reader.u64()?);
    let epoch_records = reader.u64()?;
    let mut sequence = reader.u32()?;
    let mut offset = reader.u64()?;
    let width = Width::read(&mut reader)?;
    let count = reader.count(PRODUCER_BATCHES_REMEMBERED, 4)?;
    let mut batches = VecDeque::with_capacity(count);
    let mut records_remembered = 0;
    if count == 0 || sequence > SEQUENCE_MAX {
        return Err(reader.invalid("no batch, or a sequence over 2^31-1"));
    }
    for _ in 0..count {
        let record_count = u32::try_from(width.read_value(&mut reader)?).unwrap_or(u32::MAX);
        if !(1..=BATCH_RECORDS_MAX).contains(&record_count) {
            return Err(reader.invalid("a batch has no record, or too many"));
        }
        let gap = width.read_value(&mut reader)?;
        offset = match offset.checked_add(gap) {
            Some(offset) if offset <= OFFSET_MAX => offset,
            _ => return Err(reader.invalid("an offset is out of range")),
        };
        batches.push_back(AcceptedBatch {
            sequence_first: sequence,
            record_count,
            base_offset: offset,
        });
        sequence = sequence_add(sequence, record_count);
        offset += u64::from(record_count);
        records_remembered += u64::from(record_count);
    }
    if !(records_remembered..=OFFSET_MAX).contains(&epoch_records) {
        return Err(reader.invalid("its count of records can't be right"));
    }
    reader.finish()?;
    Ok((id, Producer { epoch, last_use, epoch_records, batches }))
}

/// One remembered batch, seen from the one before.
struct Step {
    records: u32,
    /// Offsets between the end of the batch before and this one; 0 for the first.
    gap: u64,
}

fn steps_of(batches: &VecDeque<AcceptedBatch>) -> Vec<Step> {
    let mut end = batches.front().map_or(0, |oldest| oldest.base_offset);
    let step = |batch: &AcceptedBatch| {
        let gap = batch.base_offset - end;
        end = batch.base_offset + u64::from(batch.record_count);
        Step { records: batch.record_count, gap }
    };
    batches.iter().map(step).collect()
}

/// How many bytes each count and gap of a producer row takes.
#[derive(Debug, Clone, Copy)]
enum Width {
    Two,
    Four,
    Eight,
}

impl Width {
    fn of(largest: u64) -> Width {
        if u16::try_from(largest).is_ok() {
            Width::Two
        } else if u32::try_from(largest).is_ok() {
            Width::Four
        } else {
            Width::Eight
        }
    }

    fn number(self) -> u8 {
        match self {
            Width::Two => 2,
            Width::Four => 4,
            Width::Eight => 8,
        }
    }

    fn read(reader: &mut Reader) -> Result<Width, DecodeError> {
        match reader.u8()? {
            2 => Ok(Width::Two),
            4 => Ok(Width::Four),
            8 => Ok(Width::Eight),
            _ => Err(reader.invalid("a width is not 2, 4 or 8")),
        }
    }

    fn write(self, value: u64, writer: &mut Writer) {
        let fits = "the width was chosen for the largest value";
        match self {
            Width::Two => writer.u16(u16::try_from(value).expect(fits)),
            Width::Four => writer.u32(u32::try_from(value).expect(fits)),
            Width::Eight => writer.u64(value),
        }
    }

    fn read_value(self, reader: &mut Reader) -> Result<u64, DecodeError> {
        match self {
            Width::Two => reader.u16().map(u64::from),
            Width::Four => reader.u32().map(u64::from),
            Width::Eight => reader.u64(),
        }
    }
}

fn invalid(reason: &'static str) -> DecodeError {
    DecodeError::Invalid { what: "partition state", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::{Append, AppendBatch};
    use super::*;
    use crate::limits::PRODUCERS_MAX;

    /// A batch of one producer; only its header counts here.
    fn batch(id: u64, sequence: u32, records: u32) -> AppendBatch {
        let mut bytes = vec![0; 61];
        bytes[8..12].copy_from_slice(&49_u32.to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes[43..51].copy_from_slice(&id.to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&records.to_be_bytes());
        AppendBatch { expect_end_offset: None, bytes: bytes.into() }
    }

    fn append(state: &mut PartitionState, batches: Vec<AppendBatch>) -> super::super::Applied {
        let index = state.applied().map_or(0, |applied| applied.index + 1);
        let term = state.applied().map_or(1, |applied| applied.term);
        let time = EntryTime(state.time_last().0.saturating_add(1));
        state.apply_append(RaftPosition { term, index }, &Append { time, batches })
    }

    /// A state with some of everything.
    fn state() -> PartitionState {
        let mut state = PartitionState::new(LadderLimits { bytes: 400, ms: 1 << 40 });
        for round in 0..6 {
            append(&mut state, vec![batch(1, round, 1), batch(2, round * 7, 7)]);
        }
        let at = RaftPosition { term: 2, index: 6 };
        state.apply_membership(at, Bytes::from_static(b"members"));
        state
    }

    #[test]
    fn a_row_of_a_full_window_of_small_batches_is_small() {
        let mut state = PartitionState::new(LadderLimits::default());
        for sequence in 0..100 {
            append(&mut state, vec![batch(1, sequence, 1)]);
        }
        let row = state.encode_producer(ProducerId(1)).expect("it has just appended");
        assert_eq!(row.len(), 300);
    }

    #[test]
    fn counts_and_gaps_of_every_width_are_read_again() {
        for step in [1_u64, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 50] {
            let mut batches = VecDeque::new();
            for number in 0..5_u32 {
                batches.push_back(AcceptedBatch {
                    sequence_first: sequence_add(SEQUENCE_MAX - 2, number),
                    record_count: 1,
                    base_offset: 40 + u64::from(number) * (step + 1),
                });
            }
            let producer = Producer {
                epoch: ProducerEpoch(3),
                last_use: EntryTime(9),
                epoch_records: 77,
                batches,
            };
            let row = encode_producer(ProducerId(5), &producer);
            assert_eq!(decode_producer(row), Ok((ProducerId(5), producer)));
        }
    }

    #[test]
    fn a_producer_evicted_by_the_entry_it_appears_in_is_removed_and_not_changed() {
        let mut state = PartitionState::new(LadderLimits::default());
        let mut append = |index, ids: std::ops::Range<u64>| {
            // All at one time, so that ids decide who was idle for longest.
            let batches = ids.map(|id| batch(id, 0, 1)).collect();
            let append = Append { time: EntryTime(5), batches };
            state.apply_append(RaftPosition { term: 1, index }, &append)
        };
        append(0, 10_000..14_000);
        append(1, 14_000..18_000);
        let applied = append(2, 0..4_000);
        let range = |ids: std::ops::Range<u64>| ids.map(ProducerId).collect::<Vec<_>>();
        assert_eq!(applied.producers_removed, range(0..2_000));
        assert_eq!(applied.producers_changed, range(2_000..4_000));
        assert_eq!(state.producer_count(), PRODUCERS_MAX);
    }

    #[test]
    fn rows_that_do_not_belong_together_are_refused() {
        let state = state();
        let rows = || state.producer_ids().map(|id| state.encode_producer(id).expect("known"));
        let (head, ladder) = (state.encode_head(), state.encode_ladder());
        assert_eq!(
            PartitionState::restore(head.clone(), ladder.clone(), rows()),
            Ok(state.clone())
        );

        let empty = PartitionState::new(LadderLimits::default());
        let old_head = PartitionState::restore(empty.encode_head(), ladder.clone(), rows());
        assert_eq!(old_head, Err(invalid("rungs are not in order")));
        let old_ladder =
            PartitionState::restore(empty.encode_head(), empty.encode_ladder(), rows());
        assert_eq!(old_ladder, Err(invalid("a producer's batch lies after the log's end")));
        let twice = PartitionState::restore(head, ladder, rows().chain(rows()));
        assert_eq!(twice, Err(invalid("two rows of one producer")));
    }

    proptest! {
        #[test]
        fn a_changed_row_is_refused_or_gives_a_state_that_can_go_on(
            row in 0_usize..4,
            place in any::<Index>(),
            value in any::<u8>(),
        ) {
            let state = state();
            let mut rows = vec![state.encode_head(), state.encode_ladder()];
            rows.extend(state.producer_ids().map(|id| state.encode_producer(id).expect("known")));
            let mut changed = rows[row].to_vec();
            let place = place.index(changed.len());
            changed[place] = value;
            rows[row] = changed.into();
            let producers = rows.split_off(2);
            if let Ok(mut state) =
                PartitionState::restore(rows[0].clone(), rows[1].clone(), producers)
                && state.applied().is_none_or(|applied| applied.index < u64::MAX)
            {
                append(&mut state, vec![batch(1, 6, 1), batch(2, 0, 7), batch(3, 0, 1)]);
                prop_assert_eq!(PartitionState::from_checkpoint(state.checkpoint()), Ok(state));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let versioned = Bytes::from([&[1], &bytes[..]].concat());
            let _ = decode_head(versioned.clone());
            let _ = decode_rungs(versioned.clone());
            let _ = decode_producer(versioned.clone());
            let _ = PartitionState::from_checkpoint(versioned);
            let _ = PartitionState::from_checkpoint(bytes.into());
        }
    }
}
