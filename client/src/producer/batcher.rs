//! Gathers records into batches: a record comes in, a full or a due batch goes out.
//!
//! Pure: time and randomness are arguments. A batch is due when it has lingered; it is only taken
//! while its partition has room on the way, and keeps growing until then, so that batches become
//! larger just when a partition is slow.
//!
//! Which partition a record without a partition of its own belongs to is decided here too: by its
//! key, or, without a key, the one whose batch is being filled (sticky), then the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quipu_batch::{BatchBuilder, Compression, PushError, Record, partition_of_key};
use tokio::time::Instant;

/// How records become batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatcherConfig {
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) delivery_timeout: Duration,
}

/// The batches being filled, of all partitions. `W` is who waits for a record.
#[derive(Debug)]
pub(crate) struct Batcher<W> {
    config: BatcherConfig,
    topics: BTreeMap<String, TopicLanes>,
    /// One for each partition that ever had a record; never removed, so that the index of a lane
    /// names its partition.
    lanes: Vec<Lane<W>>,
    /// Lanes where something begins that the sender must look at.
    touched: BTreeSet<usize>,
    /// Number of the next batch.
    number_next: u64,
    /// Batches that have not come to their end, by number.
    unsettled: BTreeSet<u64>,
}

#[derive(Debug)]
struct TopicLanes {
    name: Arc<str>,
    /// Partition to lane.
    lanes: BTreeMap<u32, usize>,
    /// Where records without a key go.
    sticky: u32,
}

#[derive(Debug)]
struct Lane<W> {
    topic: Arc<str>,
    partition: u32,
    open: Option<Filling<W>>,
    full: VecDeque<Filling<W>>,
}

/// A batch and who waits for its records, in their order.
#[derive(Debug)]
pub(crate) struct Filling<W> {
    /// Greater than that of every batch begun before, in any partition.
    pub(crate) number: u64,
    pub(crate) builder: BatchBuilder,
    pub(crate) waiting: Vec<W>,
    /// Bytes of the buffer that its records hold.
    pub(crate) held_bytes: usize,
    pub(crate) expires_at: Instant,
    due_at: Instant,
}

/// A record to be put into a batch.
#[derive(Debug)]
pub(crate) struct Entering<'a, W> {
    pub(crate) topic: &'a str,
    /// Partitions of the topic.
    pub(crate) partition_count: u32,
    /// `None`: to be chosen.
    pub(crate) partition: Option<u32>,
    pub(crate) record: Record,
    pub(crate) held_bytes: usize,
    pub(crate) waiting: W,
}

impl<W> Batcher<W> {
    pub(crate) fn new(config: BatcherConfig) -> Batcher<W> {
        Batcher {
            config,
            topics: BTreeMap::new(),
            lanes: Vec::new(),
            touched: BTreeSet::new(),
            number_next: 0,
            unsettled: BTreeSet::new(),
        }
    }

    /// Puts a record into a batch of its partition. `true`: the sender should look, because a batch
    /// begins, and with it a time to look again, or because one is full.
    ///
    /// # Errors
    /// The record fits no batch; nothing has changed.
    pub(crate) fn push(
        &mut self,
        entering: Entering<'_, W>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<bool, PushError> {
        let config = self.config;
        let index = self.lane_for(&entering, rng);
        let lane = &mut self.lanes[index];
        if let Some(open) = &mut lane.open {
            match open.builder.push(&entering.record) {
                Ok(()) => {
                    open.waiting.push(entering.waiting);
                    open.held_bytes += entering.held_bytes;
                    return Ok(false);
                }
                Err(PushError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        let mut builder = BatchBuilder::new(config.compression, config.batch_bytes);
        builder.push(&entering.record)?;
        self.seal(index);
        let number = self.number_next;
        self.number_next += 1;
        self.unsettled.insert(number);
        self.lanes[index].open = Some(Filling {
            number,
            builder,
            waiting: vec![entering.waiting],
            held_bytes: entering.held_bytes,
            expires_at: now + config.delivery_timeout,
            due_at: now + config.linger,
        });
        self.touched.insert(index);
        Ok(true)
    }

    /// Lanes touched since this was asked last.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.touched)
    }

    /// Topic and partition of a lane.
    pub(crate) fn place(&self, lane: usize) -> Option<(Arc<str>, u32)> {
        self.lanes.get(lane).map(|lane| (Arc::clone(&lane.topic), lane.partition))
    }

    /// Takes out what is full, and what is due if the partition has room on the way, or expired.
    pub(crate) fn take(
        &mut self,
        lane: usize,
        has_room: bool,
        now: Instant,
    ) -> VecDeque<Filling<W>> {
        let ripe = |open: &Filling<W>| (has_room && open.due_at <= now) || open.expires_at <= now;
        let Some(state) = self.lanes.get(lane) else { return VecDeque::new() };
        if state.full.is_empty() && state.open.as_ref().is_some_and(ripe) {
            self.seal(lane);
        }
        self.lanes.get_mut(lane).map(|lane| std::mem::take(&mut lane.full)).unwrap_or_default()
    }

    /// When to look at a lane again, though no record comes.
    pub(crate) fn wake_at(&self, lane: usize, has_room: bool) -> Option<Instant> {
        let open = self.lanes.get(lane)?.open.as_ref()?;
        Some(if has_room { open.due_at.min(open.expires_at) } else { open.expires_at })
    }

    /// Makes everything due, and returns the number of the first batch that does not belong to it.
    pub(crate) fn flush(&mut self) -> u64 {
        for index in 0..self.lanes.len() {
            if self.seal(index) {
                self.touched.insert(index);
            }
        }
        self.number_next
    }

    /// A batch has come to its end.
    pub(crate) fn settle(&mut self, number: u64) {
        self.unsettled.remove(&number);
    }

    /// Some batch has not come to its end.
    pub(crate) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Every batch with a lower number has come to its end.
    pub(crate) fn settled_below(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.number_next)
    }

    /// Ends the batch being filled; the sticky choice moves on.
    fn seal(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        let Some(filled) = lane.open.take() else { return false };
        lane.full.push_back(filled);
        if let Some(topic) = self.topics.get_mut(&*lane.topic)
            && topic.sticky == lane.partition
        {
            topic.sticky = topic.sticky.wrapping_add(1);
        }
        true
    }

    fn lane_for(&mut self, entering: &Entering<'_, W>, rng: &mut fastrand::Rng) -> usize {
        let Entering { topic, partition_count, .. } = *entering;
        if !self.topics.contains_key(topic) {
            // Anywhere: producers that start together should not all begin at partition 0.
            let sticky = rng.u32(..partition_count.max(1));
            let name = Arc::from(topic);
            let lanes = BTreeMap::new();
            self.topics.insert(topic.to_owned(), TopicLanes { name, lanes, sticky });
        }
        let known = self.topics.get_mut(topic).expect("inserted above");
        let partition = match (entering.partition, &entering.record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, partition_count),
            (None, None) => {
                if known.sticky >= partition_count {
                    known.sticky = 0;
                }
                known.sticky
            }
        };
        let lanes = &mut self.lanes;
        *known.lanes.entry(partition).or_insert_with(|| {
            lanes.push(Lane {
                topic: Arc::clone(&known.name),
                partition,
                open: None,
                full: VecDeque::new(),
            });
            lanes.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_millis(5);

    fn batcher(batch_bytes: usize) -> Batcher<u32> {
        Batcher::new(BatcherConfig {
            linger: LINGER,
            batch_bytes,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(60),
        })
    }

    fn entering(
        partition_count: u32,
        partition: Option<u32>,
        value: &[u8],
        waiting: u32,
    ) -> Entering<'static, u32> {
        let value = Some(bytes::Bytes::copy_from_slice(value));
        let record = Record { value, ..Record::default() };
        Entering { topic: "t", partition_count, partition, record, held_bytes: 1, waiting }
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    #[test]
    fn a_batch_is_given_out_when_it_has_lingered_and_not_before() {
        let now = Instant::now();
        let mut batcher = batcher(1 << 10);
        for waiting in 0..3 {
            let news = batcher.push(entering(1, Some(0), b"v", waiting), now, &mut rng());
            assert_eq!(news, Ok(waiting == 0), "only the first record begins a batch");
        }
        assert_eq!(batcher.take_touched(), BTreeSet::from([0]));
        assert!(batcher.take(0, true, now).is_empty());
        assert_eq!(batcher.wake_at(0, true), Some(now + LINGER));
        let taken = batcher.take(0, true, now + LINGER);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].waiting, [0, 1, 2]);
        assert_eq!(taken[0].held_bytes, 3);
    }

    #[test]
    fn a_due_batch_stays_and_grows_while_its_partition_has_no_room() {
        let now = Instant::now();
        let mut batcher = batcher(1 << 10);
        batcher.push(entering(1, Some(0), b"v", 0), now, &mut rng()).unwrap();
        let later = now + LINGER * 2;
        assert!(batcher.take(0, false, later).is_empty());
        assert!(batcher.wake_at(0, false) > Some(later), "nothing to look at until it expires");
        batcher.push(entering(1, Some(0), b"v", 1), later, &mut rng()).unwrap();
        assert_eq!(batcher.take(0, true, later)[0].waiting, [0, 1]);
    }

    #[test]
    fn a_full_batch_is_given_out_at_once() {
        let now = Instant::now();
        let mut batcher = batcher(200);
        batcher.push(entering(1, Some(0), &[1; 100], 0), now, &mut rng()).unwrap();
        let news = batcher.push(entering(1, Some(0), &[2; 100], 1), now, &mut rng());
        assert_eq!(news, Ok(true));
        let taken = batcher.take(0, false, now);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].waiting, [0]);
    }

    #[test]
    fn a_record_that_fits_no_batch_is_refused_and_changes_nothing() {
        let now = Instant::now();
        let mut batcher = batcher(200);
        batcher.push(entering(1, Some(0), b"v", 0), now, &mut rng()).unwrap();
        let refused = batcher.push(entering(1, Some(0), &[1; 500], 1), now, &mut rng());
        assert!(matches!(refused, Err(PushError::RecordTooLarge { .. })));
        assert_eq!(batcher.take(0, true, now + LINGER)[0].waiting, [0]);
    }

    #[test]
    fn records_without_a_key_fill_one_batch_after_the_other_over_all_partitions() {
        let now = Instant::now();
        let mut batcher = batcher(200);
        let mut rng = rng();
        for waiting in 0..8 {
            batcher.push(entering(4, None, &[1; 100], waiting), now, &mut rng).unwrap();
        }
        let mut records = [0; 4];
        for lane in 0..4 {
            let (_, partition) = batcher.place(lane).expect("each partition has a lane");
            let batches = batcher.take(lane, true, now + LINGER);
            let partition = usize::try_from(partition).unwrap();
            records[partition] += batches.iter().map(|one| one.waiting.len()).sum::<usize>();
        }
        assert!(records.iter().all(|count| *count > 0), "{records:?}");
    }

    #[test]
    fn records_of_one_key_share_a_partition() {
        let now = Instant::now();
        let mut batcher = batcher(1 << 10);
        for waiting in 0..5 {
            let mut entering = entering(1000, None, b"v", waiting);
            entering.record.key = Some(bytes::Bytes::from_static(b"21"));
            batcher.push(entering, now, &mut rng()).unwrap();
        }
        assert_eq!(batcher.place(0), Some((Arc::from("t"), 340)));
        assert_eq!(batcher.place(1), None);
    }

    #[test]
    fn a_flush_makes_all_due_and_ends_when_its_batches_do() {
        let now = Instant::now();
        let mut batcher = batcher(1 << 10);
        batcher.push(entering(2, Some(0), b"v", 0), now, &mut rng()).unwrap();
        batcher.push(entering(2, Some(1), b"v", 1), now, &mut rng()).unwrap();
        let target = batcher.flush();
        batcher.push(entering(2, Some(1), b"v", 2), now, &mut rng()).unwrap();
        assert_eq!(batcher.take(0, false, now).len() + batcher.take(1, false, now).len(), 2);
        assert!(batcher.settled_below() < target);
        batcher.settle(1);
        assert!(batcher.settled_below() < target);
        batcher.settle(0);
        assert_eq!(batcher.settled_below(), target);
    }

    proptest! {
        #[test]
        fn every_record_comes_out_once_in_the_order_of_its_partition(
            records in prop::collection::vec((0_u32..3, 0_usize..150, 0_u64..4), 1..200),
        ) {
            let mut batcher = batcher(300);
            let mut now = Instant::now();
            let mut rng = rng();
            let mut came: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            let mut went: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            for (waiting, (partition, size, wait_ms)) in (0..).zip(records) {
                now += Duration::from_millis(wait_ms);
                let entering = entering(3, Some(partition), &vec![7; size], waiting);
                batcher.push(entering, now, &mut rng).unwrap();
                came.entry(partition).or_default().push(waiting);
                for lane in batcher.take_touched() {
                    drain(&mut batcher, lane, waiting % 2 == 0, now, &mut went);
                }
            }
            batcher.flush();
            for lane in batcher.take_touched() {
                drain(&mut batcher, lane, false, now, &mut went);
            }
            prop_assert_eq!(came, went);
        }
    }

    fn drain(
        batcher: &mut Batcher<u32>,
        lane: usize,
        has_room: bool,
        now: Instant,
        went: &mut BTreeMap<u32, Vec<u32>>,
    ) {
        let (_, partition) = batcher.place(lane).expect("touched");
        for batch in batcher.take(lane, has_room, now) {
            let count = usize::try_from(batch.builder.record_count()).unwrap();
            assert_eq!(count, batch.waiting.len());
            went.entry(partition).or_default().extend(batch.waiting);
        }
    }
}
