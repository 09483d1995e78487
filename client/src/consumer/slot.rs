//! What the fetcher of one partition has read ahead, and where the consumer takes it from.
//!
//! One lock, held for moments and never across an await: the fetcher puts a chunk in, the consumer
//! takes a whole chunk out and gives its records out without the lock. A slot lives as long as its
//! partition is assigned, whatever else comes and goes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::consumer::position::{Given, Place, Wanted};
use crate::error::ReadError;
use crate::read::Fetched;
use crate::record::TopicPartition;

/// One assigned partition; its fetcher ends with it.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) place: TopicPartition,
    pub(crate) slot: Arc<Slot>,
    pub(crate) fetcher: AbortHandle,
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.fetcher.abort();
    }
}

/// What consumer and fetcher share.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Mutex<Place>,
    /// There may be room, or reason, to fetch.
    room: Notify,
    /// What is being fetched is not wanted any more.
    jumped: Notify,
    /// For the consumer: something was put into one of its slots.
    news: Arc<Notify>,
    share: Arc<Share>,
}

/// What each partition of a consumer may read ahead; changes with their number.
#[derive(Debug, Default)]
pub(crate) struct Share {
    share_bytes: AtomicU32,
    fetch_bytes: AtomicU32,
}

impl Share {
    /// Shares `prefetch_bytes` among `count` partitions, each read by fetches of at most
    /// `fetch_bytes_max`.
    pub(crate) fn among(&self, count: usize, prefetch_bytes: u32, fetch_bytes_max: u32) {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let share = (prefetch_bytes / count).max(1);
        self.share_bytes.store(share, Ordering::Relaxed);
        // Half a share, so that one fetch is on its way while the other is given out.
        self.fetch_bytes.store(fetch_bytes_max.min((share / 2).max(1)), Ordering::Relaxed);
    }

    /// Bytes of one fetch.
    pub(crate) fn fetch_bytes(&self) -> u32 {
        self.fetch_bytes.load(Ordering::Relaxed)
    }

    fn share_bytes(&self) -> u32 {
        self.share_bytes.load(Ordering::Relaxed)
    }
}

impl Slot {
    pub(crate) fn new(offset: u64, news: Arc<Notify>, share: Arc<Share>) -> Slot {
        let place = Mutex::new(Place::new(offset));
        Slot { place, room: Notify::new(), jumped: Notify::new(), news, share }
    }

    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("no panic while the lock is held")
    }

    /// What the fetcher should ask for; waits until there is something.
    pub(crate) async fn wanted(&self) -> Wanted {
        let to_usize = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        loop {
            let (fetch, share) = (self.share.fetch_bytes(), self.share.share_bytes());
            let wanted = self.place().wanted(to_usize(fetch), to_usize(share));
            match wanted {
                Some(wanted) => return wanted,
                None => self.room.notified().await,
            }
        }
    }

    /// Returns when what is being fetched is not wanted any more.
    pub(crate) async fn jumped(&self) {
        self.jumped.notified().await;
    }

    /// The fetcher's success.
    pub(crate) fn put(&self, wanted: Wanted, fetched: Fetched) {
        let mut place = self.place();
        if let Err(gap) = place.on_fetched(wanted, fetched) {
            place.on_error(wanted, gap, true);
        }
        drop(place);
        self.news.notify_one();
    }

    /// The fetcher's failure.
    pub(crate) fn put_error(&self, wanted: Wanted, error: ReadError, stop: bool) {
        self.place().on_error(wanted, error, stop);
        self.news.notify_one();
    }

    /// The partition does not hold what is wanted; go on at `offset`.
    pub(crate) fn reset(&self, wanted: Wanted, offset: u64) {
        self.place().on_reset(wanted, offset);
    }

    /// The next thing, if any waits.
    pub(crate) fn take(&self) -> Option<Given> {
        let given = self.place().take()?;
        self.room.notify_one();
        Some(given)
    }

    /// Goes on elsewhere.
    pub(crate) fn jump(&self, offset: u64) {
        self.place().jump(offset);
        self.jumped.notify_one();
        self.room.notify_one();
    }

    /// There may be room now that the shares have changed.
    pub(crate) fn look_again(&self) {
        self.room.notify_one();
    }
}
