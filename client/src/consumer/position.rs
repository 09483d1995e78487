//! Where a consumer is in one partition: what was read ahead, what comes next, what to do when
//! the partition does not hold it.
//!
//! Pure. Invariant: what waits to be given out, chunk after chunk, is dense and ends right before
//! `fetch_next`. So nothing is left out and nothing is given twice, whatever was asked of which
//! node: an answer is taken only if it begins where the last one ended.

use std::collections::VecDeque;

use crate::consumer::OutOfRange;
use crate::error::ReadError;
use crate::read::Fetched;
use crate::record::ConsumedRecord;

/// Bytes that a record takes besides its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// The place in one partition.
#[derive(Debug)]
pub(crate) struct Place {
    chunks: VecDeque<Chunk>,
    waiting_bytes: usize,
    fetch_next: u64,
    /// Counts the jumps, so that what was asked for before one is not taken after it.
    jumps: u64,
    high_watermark: Option<u64>,
    paused: bool,
    state: State,
}

/// Records that were fetched together. Never empty.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) records: std::vec::IntoIter<ConsumedRecord>,
    bytes: usize,
}

#[derive(Debug)]
enum State {
    Reading,
    /// To be told when everything before it has been given out; then reading goes on.
    Complaining(ReadError),
    /// The same, and then nothing more.
    Stopping(ReadError),
    Stopped,
}

/// What to ask for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: u64,
    jumps: u64,
}

/// What a place gives out.
#[derive(Debug)]
pub(crate) enum Given {
    Records(Chunk),
    Error { error: ReadError, stopped: bool },
}

/// What to do about an offset that a node does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfRangeStep {
    /// The asked replica lags: ask again.
    AskAgain,
    GoTo(u64),
    Stop,
}

impl Place {
    pub(crate) fn new(offset: u64) -> Place {
        Place {
            chunks: VecDeque::new(),
            waiting_bytes: 0,
            fetch_next: offset,
            jumps: 0,
            high_watermark: None,
            paused: false,
            state: State::Reading,
        }
    }

    /// Goes on at `offset`; what was read ahead is dropped, what had stopped goes on.
    pub(crate) fn jump(&mut self, offset: u64) {
        self.chunks.clear();
        self.waiting_bytes = 0;
        self.fetch_next = offset;
        self.jumps += 1;
        self.state = State::Reading;
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// What to fetch, if `fetch_bytes` more fit into `share_bytes`. One fetch is always allowed
    /// where nothing waits, or a partition with great batches would stand still.
    pub(crate) fn wanted(&self, fetch_bytes: usize, share_bytes: usize) -> Option<Wanted> {
        let reads = matches!(self.state, State::Reading | State::Complaining(_));
        let fits = self.chunks.is_empty() || self.waiting_bytes + fetch_bytes <= share_bytes;
        (reads && fits).then_some(Wanted { offset: self.fetch_next, jumps: self.jumps })
    }

    /// Takes what was fetched. `false`: it is not wanted any more.
    ///
    /// # Errors
    /// It does not begin where the last one ended; nothing is taken.
    pub(crate) fn on_fetched(
        &mut self,
        wanted: Wanted,
        fetched: Fetched,
    ) -> Result<bool, ReadError> {
        if wanted.jumps != self.jumps {
            return Ok(false);
        }
        let expected = self.fetch_next;
        let found = fetched.records.first().map_or(fetched.next_offset, |first| first.offset);
        if found != expected {
            return Err(ReadError::Gap { expected, found });
        }
        if matches!(self.state, State::Complaining(_)) {
            // It works again; the complaint was not told in time to matter.
            self.state = State::Reading;
        }
        self.fetch_next = fetched.next_offset;
        let known = self.high_watermark.unwrap_or(0);
        self.high_watermark = Some(known.max(fetched.high_watermark));
        if !fetched.records.is_empty() {
            let bytes = fetched.records.iter().map(bytes_of).sum();
            self.waiting_bytes += bytes;
            self.chunks.push_back(Chunk { records: fetched.records.into_iter(), bytes });
        }
        Ok(true)
    }

    /// Reading fails; it will be tried again unless `stop`.
    pub(crate) fn on_error(&mut self, wanted: Wanted, error: ReadError, stop: bool) {
        if wanted.jumps == self.jumps {
            self.state = if stop { State::Stopping(error) } else { State::Complaining(error) };
        }
    }

    /// As [`Place::jump`], because the partition does not hold what is wanted. What was read before
    /// is still given out.
    pub(crate) fn on_reset(&mut self, wanted: Wanted, offset: u64) {
        if wanted.jumps == self.jumps {
            self.fetch_next = offset;
            self.jumps += 1;
        }
    }

    /// What to give out next, if anything waits.
    pub(crate) fn take(&mut self) -> Option<Given> {
        if self.paused {
            return None;
        }
        if let Some(chunk) = self.chunks.pop_front() {
            self.waiting_bytes -= chunk.bytes;
            return Some(Given::Records(chunk));
        }
        let (error, stopped) = match std::mem::replace(&mut self.state, State::Reading) {
            State::Reading => return None,
            State::Complaining(error) => (error, false),
            State::Stopping(error) => {
                self.state = State::Stopped;
                (error, true)
            }
            State::Stopped => {
                self.state = State::Stopped;
                return None;
            }
        };
        Some(Given::Error { error, stopped })
    }

    /// Puts back the rest of a chunk that was taken last.
    pub(crate) fn put_back(&mut self, chunk: Chunk) {
        if !chunk.records.as_slice().is_empty() {
            self.waiting_bytes += chunk.bytes;
            self.chunks.push_front(chunk);
        }
    }

    /// The first offset not given out.
    pub(crate) fn offset(&self) -> u64 {
        let first = self.chunks.front().and_then(|chunk| chunk.records.as_slice().first());
        first.map_or(self.fetch_next, |record| record.offset)
    }

    pub(crate) fn high_watermark(&self) -> Option<u64> {
        self.high_watermark
    }

    /// Something may come of it without a jump or a resume.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.paused && (!matches!(self.state, State::Stopped) || !self.chunks.is_empty())
    }
}

/// Decides about `offset`, which is outside `log_start_offset..=end` of a replica.
///
/// `end` is asked of the leader, linearizable: a replica that lags, or a leader that has not
/// learned its own end yet, must not make a consumer believe that records have vanished.
pub(crate) fn out_of_range(
    policy: OutOfRange,
    offset: u64,
    log_start_offset: u64,
    end: u64,
) -> OutOfRangeStep {
    if (log_start_offset..=end).contains(&offset) {
        return OutOfRangeStep::AskAgain;
    }
    match policy {
        OutOfRange::Error => OutOfRangeStep::Stop,
        OutOfRange::Earliest => OutOfRangeStep::GoTo(log_start_offset),
        OutOfRange::Latest => OutOfRangeStep::GoTo(end),
    }
}

fn bytes_of(record: &ConsumedRecord) -> usize {
    let fields = [&record.key, &record.value].into_iter().flatten().map(bytes::Bytes::len);
    let headers = record
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.as_ref().map_or(0, bytes::Bytes::len));
    RECORD_OVERHEAD_BYTES + fields.chain(headers).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fetched(offset: u64, count: u64) -> Fetched {
        let record = |offset| ConsumedRecord {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
            leader_epoch: 1,
        };
        Fetched {
            records: (offset..offset + count).map(record).collect(),
            next_offset: offset + count,
            log_start_offset: 0,
            high_watermark: 1000,
            staleness: None,
            served_by: 1,
        }
    }

    fn wanted(place: &Place) -> Wanted {
        place.wanted(1, usize::MAX).expect("it reads")
    }

    fn gap() -> ReadError {
        ReadError::Gap { expected: 1, found: 2 }
    }

    #[test]
    fn what_was_asked_for_before_a_jump_is_not_taken_after_it() {
        let mut place = Place::new(5);
        let before = wanted(&place);
        place.jump(0);
        assert_eq!(place.on_fetched(before, fetched(5, 3)), Ok(false));
        assert!(place.take().is_none());
        assert_eq!(place.offset(), 0);
    }

    #[test]
    fn an_answer_that_begins_elsewhere_is_a_gap() {
        let mut place = Place::new(5);
        let error = place.on_fetched(wanted(&place), fetched(7, 1)).unwrap_err();
        assert_eq!(error, ReadError::Gap { expected: 5, found: 7 });
        assert_eq!(place.offset(), 5);
    }

    #[test]
    fn an_empty_answer_that_moves_on_is_a_gap() {
        let mut place = Place::new(5);
        let moved = Fetched { next_offset: 9, ..fetched(5, 0) };
        assert!(place.on_fetched(wanted(&place), moved).is_err());
    }

    #[test]
    fn no_more_is_read_ahead_than_the_share_but_always_one_fetch() {
        let mut place = Place::new(0);
        assert!(place.wanted(100, 10).is_some());
        place.on_fetched(wanted(&place), fetched(0, 1)).unwrap();
        assert!(place.wanted(100, 10).is_none());
        assert!(place.wanted(100, 10_000).is_some());
        assert!(place.take().is_some());
        assert!(place.wanted(100, 10).is_some());
    }

    #[test]
    fn an_error_is_told_after_what_was_read_before_it() {
        let mut place = Place::new(0);
        place.on_fetched(wanted(&place), fetched(0, 2)).unwrap();
        place.on_error(wanted(&place), gap(), true);
        assert!(place.wanted(1, 1000).is_none(), "it has stopped");
        assert!(matches!(place.take(), Some(Given::Records(_))));
        assert!(place.is_awaited());
        assert!(matches!(place.take(), Some(Given::Error { stopped: true, .. })));
        assert!(place.take().is_none());
        assert!(!place.is_awaited());
        place.jump(2);
        assert!(place.is_awaited());
    }

    #[test]
    fn a_paused_place_keeps_what_it_has() {
        let mut place = Place::new(0);
        place.on_fetched(wanted(&place), fetched(0, 2)).unwrap();
        place.set_paused(true);
        assert!(place.take().is_none());
        assert!(!place.is_awaited());
        place.set_paused(false);
        assert!(matches!(place.take(), Some(Given::Records(_))));
    }

    #[test]
    fn the_rest_of_a_chunk_that_is_put_back_comes_first() {
        let mut place = Place::new(0);
        place.on_fetched(wanted(&place), fetched(0, 3)).unwrap();
        place.on_fetched(wanted(&place), fetched(3, 1)).unwrap();
        let Some(Given::Records(mut chunk)) = place.take() else { panic!("records wait") };
        assert_eq!(chunk.records.next().map(|record| record.offset), Some(0));
        assert_eq!(place.offset(), 3);
        place.put_back(chunk);
        assert_eq!(place.offset(), 1);
    }

    #[test]
    fn a_replica_that_lags_is_asked_again_whatever_the_policy() {
        for policy in [OutOfRange::Error, OutOfRange::Earliest, OutOfRange::Latest] {
            assert_eq!(out_of_range(policy, 10, 0, 10), OutOfRangeStep::AskAgain);
        }
    }

    #[test]
    fn the_policy_decides_what_is_really_out_of_range() {
        use OutOfRangeStep::{GoTo, Stop};
        for offset in [4, 11] {
            assert_eq!(out_of_range(OutOfRange::Error, offset, 5, 10), Stop);
            assert_eq!(out_of_range(OutOfRange::Earliest, offset, 5, 10), GoTo(5));
            assert_eq!(out_of_range(OutOfRange::Latest, offset, 5, 10), GoTo(10));
        }
    }

    proptest! {
        /// Nodes answer late, twice, or from elsewhere; the application pauses and goes on.
        #[test]
        fn offsets_are_given_out_dense_whatever_comes(
            steps in prop::collection::vec((0_u8..6, 0_u64..20, 0_u64..5), 1..200),
        ) {
            let mut place = Place::new(0);
            let mut asked = Vec::new();
            let mut expected = 0;
            for (kind, a, b) in steps {
                match kind {
                    0 => asked.extend(place.wanted(1, 1000)),
                    1 => if let Some(&wanted) = asked.get(usize::try_from(a).unwrap()) {
                        let _ = place.on_fetched(wanted, fetched(wanted.offset, b));
                    },
                    2 => if let Some(&wanted) = asked.last() {
                        let _ = place.on_fetched(wanted, fetched(a, b));
                    },
                    3 => place.set_paused(b > 2),
                    4 => {
                        place.jump(a);
                        expected = a;
                    }
                    _ => {
                        prop_assert_eq!(place.offset(), expected);
                        if let Some(Given::Records(mut chunk)) = place.take() {
                            let first = chunk.records.next().expect("never empty");
                            prop_assert_eq!(first.offset, expected);
                            expected += 1;
                            place.put_back(chunk);
                        }
                    }
                }
            }
        }
    }
}
