//! What the leaders of one group wrote: the log that every replica must end up with, the entries
//! of overruled leaders beside it, and the state after each entry.

use std::collections::BTreeMap;

use bytes::Bytes;
use node::rig::{RigEntry, RigKind};
use node_core::groups::{GroupCommand, GroupTable};
use node_core::ids::GroupId;
use node_core::partition::{
    AdvanceStart, Append, AppendBatch, LadderLimits, LogCommand, PartitionState,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use quipu_batch::{BatchBuilder, Compression, ProducerIdentity, Record};

/// A rung every few entries, so that a short story has several.
const LADDER: LadderLimits = LadderLimits { bytes: 600, ms: u64::MAX };

/// One group's true log.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) group: GroupId,
    is_partition: bool,
    /// By index, from 0.
    pub(super) entries: Vec<RigEntry>,
    /// Snapshots that a leader could have sent, by the position they are of.
    pub(super) snapshots: BTreeMap<u64, (RaftPosition, Bytes)>,
}

/// A replica's state as it must be.
pub(super) struct Expected {
    /// In one buffer.
    pub(super) state: Bytes,
    /// Checkpoints by the index of their entry.
    pub(super) rungs: BTreeMap<u64, Bytes>,
}

impl Story {
    /// Draws a log of `length` entries.
    pub(super) fn draw(
        group: GroupId,
        is_partition: bool,
        length: u64,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut story =
            Self { group, is_partition, entries: Vec::new(), snapshots: BTreeMap::new() };
        let mut state = PartitionState::new(LADDER);
        let mut table = GroupTable::default();
        let (mut term, mut sequence) = (1, 0);
        for index in 0..length {
            let new_term = index > 0 && rng.u8(0..6) == 0;
            term += u64::from(new_term);
            let at = RaftPosition { term, index };
            let blank = index == 0 || new_term;
            let command = match (blank, is_partition) {
                (true, _) => Bytes::new(),
                (false, true) => partition_command(&state, index, &mut sequence, rng),
                (false, false) => table_command(index),
            };
            let entry = RigEntry { at, command };
            if is_partition {
                apply(&mut state, &entry, |position, rung| {
                    story.snapshots.insert(position.index, (position, rung));
                });
            } else {
                apply_to_table(&mut table, &entry);
                story.snapshots.insert(index, (at, table.encode_snapshot()));
            }
            story.entries.push(entry);
        }
        story
    }

    pub(super) fn kind(&self) -> RigKind {
        if self.is_partition { RigKind::Partition(LADDER) } else { RigKind::Coordinator }
    }

    pub(super) fn is_partition(&self) -> bool {
        self.is_partition
    }

    /// Index of the last entry.
    pub(super) fn last_index(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.at.index)
    }

    /// The entry at `index`.
    pub(super) fn entry(&self, index: u64) -> Option<&RigEntry> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// The entry that a leader overruled at `index` would have had there: of the term before.
    pub(super) fn stale_entry(&self, first: u64, index: u64) -> Option<RigEntry> {
        let term = self.entry(first.checked_sub(1)?)?.at.term;
        let at = RaftPosition { term, index };
        let command = match self.is_partition {
            true => append_of(index, &format!("overruled {index}"), None),
            false => table_command(index),
        };
        Some(RigEntry { at, command })
    }

    /// The state of a replica that applied everything up to and with `applied`, and began with the
    /// snapshot at `began`.
    pub(super) fn expected(&self, applied: Option<u64>, began: Option<u64>) -> Option<Expected> {
        let Some(applied) = applied else {
            let state = match self.is_partition {
                true => PartitionState::new(LADDER).checkpoint(),
                false => GroupTable::default().encode_snapshot(),
            };
            return Some(Expected { state, rungs: BTreeMap::new() });
        };
        let begins = began.and_then(|at| self.snapshots.get(&at));
        let first = begins.map_or(0, |(at, _)| at.index + 1);
        let entries = || (first..=applied).map(|index| self.entry(index));
        let mut rungs = BTreeMap::new();
        let state = if self.is_partition {
            let mut state = match begins {
                None => PartitionState::new(LADDER),
                Some((at, checkpoint)) => {
                    rungs.insert(at.index, checkpoint.clone());
                    PartitionState::from_checkpoint(checkpoint.clone()).ok()?
                }
            };
            for entry in entries() {
                apply(&mut state, entry?, |at, rung| {
                    rungs.insert(at.index, rung);
                });
            }
            state.checkpoint()
        } else {
            let mut table = match begins {
                None => GroupTable::default(),
                Some((_, snapshot)) => GroupTable::decode_snapshot(snapshot.clone()).ok()?,
            };
            for entry in entries() {
                apply_to_table(&mut table, entry?);
            }
            table.encode_snapshot()
        };
        Some(Expected { state, rungs })
    }
}

fn apply(state: &mut PartitionState, entry: &RigEntry, mut rung: impl FnMut(RaftPosition, Bytes)) {
    if entry.command.is_empty() {
        state.apply_blank(entry.at);
        return;
    }
    let applied = match LogCommand::decode(entry.command.clone()).expect("drawn here") {
        LogCommand::Append(append) => state.apply_append(entry.at, &append),
        LogCommand::AdvanceStart(advance) => state.apply_advance_start(entry.at, &advance),
    };
    if let Some(made) = applied.rung {
        rung(made.summary.position, made.checkpoint);
    }
}

fn apply_to_table(table: &mut GroupTable, entry: &RigEntry) {
    if entry.command.is_empty() {
        table.apply_blank(entry.at);
    } else {
        let command = GroupCommand::decode(entry.command.clone()).expect("drawn here");
        table.apply(entry.at, &command);
    }
}

fn partition_command(
    state: &PartitionState,
    index: u64,
    sequence: &mut u32,
    rng: &mut fastrand::Rng,
) -> Bytes {
    let rungs = state.rungs();
    if rungs.len() > 2 && rng.u8(0..3) == 0 {
        let rung_index = rungs[1].position.index;
        let time = EntryTime::from_ms(1_000 + index);
        return LogCommand::AdvanceStart(AdvanceStart { time, rung_index }).encode();
    }
    let producer = rng.bool().then(|| {
        *sequence += 1;
        ProducerIdentity { id: 7, epoch: 0, sequence_first: *sequence - 1 }
    });
    // Some are long enough for a blob file.
    let length = if rng.u8(0..4) == 0 { 700 } else { rng.usize(1..60) };
    append_of(index, &format!("{index} {}", "x".repeat(length)), producer)
}

fn append_of(index: u64, value: &str, producer: Option<ProducerIdentity>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    let record = Record {
        timestamp_ms: 1,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Record::default()
    };
    builder.push(&record).expect("a small record");
    let bytes = builder.build(producer).expect("a batch with a record");
    let batches = vec![AppendBatch { expect_end_offset: None, bytes }];
    LogCommand::Append(Append { time: EntryTime::from_ms(1_000 + index), batches }).encode()
}

fn table_command(index: u64) -> Bytes {
    let group = format!("group-{index}").parse().expect("a name");
    GroupCommand::Delete { group }.encode()
}
