//! What a group has written and committed, as far as anybody has shown it.

use std::collections::BTreeMap;

use super::probe::{LogId, Rung};
use super::violation::RaftViolation;

/// An entry that some disk has held.
#[derive(Debug, Clone, Copy)]
struct Written {
    hash: u64,
    /// The entry before it, where that is known.
    before: Option<LogId>,
    replica: u64,
}

/// Which entry is committed at an index, and the term of who first said so.
#[derive(Debug, Clone, Copy)]
struct Committed {
    id: LogId,
    told_in_term: u64,
    told_by: u64,
}

/// Entries by place and term, committed entries by place.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    written: BTreeMap<(u64, u64), Written>,
    committed: BTreeMap<u64, Committed>,
}

impl Ledger {
    /// A disk holds this entry behind that one.
    pub(super) fn take_in(
        &mut self,
        group: u32,
        replica: u64,
        before: Option<LogId>,
        rung: Rung,
    ) -> Result<(), RaftViolation> {
        let new = Written { hash: rung.hash, before, replica };
        let known = self.written.entry((rung.id.index, rung.id.term)).or_insert(new);
        known.before = known.before.or(before);
        let other_before = before.is_some() && known.before != before;
        if known.hash != rung.hash || other_before {
            let replicas = [known.replica, replica];
            return Err(RaftViolation::LogsDiffer { group, id: rung.id, replicas });
        }
        Ok(())
    }

    /// A replica in some term says that everything up to `committed` is committed. What stands
    /// before it is found in a log that holds it.
    pub(super) fn committed<'a>(
        &mut self,
        group: u32,
        (told_by, told_in_term): (u64, u64),
        committed: LogId,
        mut logs: impl Iterator<Item = &'a BTreeMap<u64, Rung>>,
    ) -> Result<(), RaftViolation> {
        let changed = |known: &Committed, other: LogId| RaftViolation::CommittedChanged {
            group,
            committed: known.id,
            other,
            replicas: [known.told_by, told_by],
        };
        if let Some(known) = self.committed.get(&committed.index) {
            return if known.id == committed { Ok(()) } else { Err(changed(known, committed)) };
        }
        self.committed.insert(committed.index, Committed { id: committed, told_in_term, told_by });
        let holds = |log: &&BTreeMap<u64, Rung>| {
            log.get(&committed.index).is_some_and(|rung| rung.id == committed)
        };
        let Some(log) = logs.find(holds) else { return Ok(()) };
        for (index, rung) in log.range(..committed.index).rev() {
            match self.committed.get(index) {
                // Everything before it was looked at when that was told.
                Some(known) if known.id == rung.id => break,
                Some(known) => return Err(changed(known, rung.id)),
                None => {
                    let id = rung.id;
                    self.committed.insert(*index, Committed { id, told_in_term, told_by });
                }
            }
        }
        Ok(())
    }

    /// A log holds, up to what its replica knows to be committed, nothing else. The end of it is
    /// enough: a log that agrees there agrees before. Where the `disk_is_behind`, an entry of an
    /// earlier term may still stand on it: its end, and what replaces it, wait to be synced while
    /// others have committed that.
    pub(super) fn still_holds(
        &self,
        group: u32,
        (replica, disk_is_behind): (u64, bool),
        log: &BTreeMap<u64, Rung>,
        end: u64,
    ) -> Result<(), RaftViolation> {
        let Some((index, rung)) = log.range(..=end).next_back() else { return Ok(()) };
        match self.committed.get(index) {
            Some(known) if disk_is_behind && rung.id.term < known.id.term => Ok(()),
            Some(known) if known.id != rung.id => Err(RaftViolation::CommittedChanged {
                group,
                committed: known.id,
                other: rung.id,
                replicas: [known.told_by, replica],
            }),
            _ => Ok(()),
        }
    }

    /// A log that now ends at `end` has not lost a committed entry there: such entries leave a disk
    /// at the log's beginning only.
    pub(super) fn keeps(
        &self,
        group: u32,
        replica: u64,
        log: &BTreeMap<u64, Rung>,
        end: u64,
    ) -> Result<(), RaftViolation> {
        let is_committed = |(index, rung): &(&u64, &Rung)| {
            self.committed.get(index).is_some_and(|known| known.id == rung.id)
        };
        match log.range(end..).find(is_committed) {
            Some((_, rung)) => {
                Err(RaftViolation::CommittedCutOff { group, replica, committed: rung.id })
            }
            None => Ok(()),
        }
    }

    /// A leader's log reaches over everything that was told to be committed in earlier terms.
    pub(super) fn is_complete(
        &self,
        group: u32,
        leader: u64,
        term: u64,
        last_index: Option<u64>,
    ) -> Result<(), RaftViolation> {
        let end = last_index.map_or(0, |last| last + 1);
        let earlier = self.committed.range(end..).find(|(_, it)| it.told_in_term < term);
        match earlier {
            Some((_, known)) => {
                let committed = known.id;
                Err(RaftViolation::LeaderIncomplete { group, leader, term, committed })
            }
            None => Ok(()),
        }
    }
}
