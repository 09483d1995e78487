//! What the fetchers of a consumer have read ahead, and where the consumer takes it from.
//!
//! One lock, held for moments and never across an await: a fetcher puts a chunk in, the consumer
//! takes a whole chunk out and gives its records out without the lock.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::consumer::position::{Given, Place, Wanted};
use crate::error::ReadError;
use crate::read::Fetched;

/// The places of a consumer, by slot. The slots of an assignment never change.
#[derive(Debug)]
pub(crate) struct Shelf {
    places: Mutex<Vec<Place>>,
    bells: Vec<Bells>,
    /// Something was put in, or there is nothing more to wait for.
    pub(crate) news: Notify,
    fetch_bytes: usize,
    share_bytes: usize,
}

/// What a fetcher waits for.
#[derive(Debug, Default)]
struct Bells {
    /// There may be room, or reason, to fetch.
    room: Notify,
    /// What is being fetched is not wanted any more.
    jumped: Notify,
}

impl Shelf {
    /// Each slot may hold `share_bytes`, filled by fetches of `fetch_bytes`.
    pub(crate) fn new(
        offsets: impl IntoIterator<Item = u64>,
        fetch_bytes: usize,
        share_bytes: usize,
    ) -> Shelf {
        let places: Vec<Place> = offsets.into_iter().map(Place::new).collect();
        let bells = places.iter().map(|_| Bells::default()).collect();
        Shelf { places: Mutex::new(places), bells, news: Notify::new(), fetch_bytes, share_bytes }
    }

    pub(crate) fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().expect("no panic while the lock is held")
    }

    /// What the fetcher of `slot` should ask for; waits until there is something.
    pub(crate) async fn wanted(&self, slot: usize) -> Wanted {
        loop {
            let wanted = self.places()[slot].wanted(self.fetch_bytes, self.share_bytes);
            match wanted {
                Some(wanted) => return wanted,
                None => self.bells[slot].room.notified().await,
            }
        }
    }

    /// Returns when what `slot` fetches is not wanted any more.
    pub(crate) async fn jumped(&self, slot: usize) {
        self.bells[slot].jumped.notified().await;
    }

    /// A fetcher's success.
    pub(crate) fn put(&self, slot: usize, wanted: Wanted, fetched: Fetched) {
        let mut places = self.places();
        if let Err(gap) = places[slot].on_fetched(wanted, fetched) {
            places[slot].on_error(wanted, gap, true);
        }
        drop(places);
        self.news.notify_one();
    }

    /// A fetcher's failure.
    pub(crate) fn put_error(&self, slot: usize, wanted: Wanted, error: ReadError, stop: bool) {
        self.places()[slot].on_error(wanted, error, stop);
        self.news.notify_one();
    }

    /// The partition does not hold what is wanted; go on at `offset`.
    pub(crate) fn reset(&self, slot: usize, wanted: Wanted, offset: u64) {
        self.places()[slot].on_reset(wanted, offset);
    }

    /// The next thing of any slot, beginning with slot `first`.
    pub(crate) fn take(&self, first: usize) -> Option<(usize, Given)> {
        let mut places = self.places();
        let count = places.len();
        let found = (first..first + count).find_map(|slot| {
            let slot = slot % count;
            places[slot].take().map(|given| (slot, given))
        })?;
        drop(places);
        self.bells[found.0].room.notify_one();
        Some(found)
    }

    /// Goes on elsewhere.
    pub(crate) fn jump(&self, slot: usize, offset: u64) {
        self.places()[slot].jump(offset);
        self.bells[slot].jumped.notify_one();
        self.bells[slot].room.notify_one();
    }

    /// Something may come without a call of the application.
    pub(crate) fn is_awaited(&self) -> bool {
        self.places().iter().any(Place::is_awaited)
    }
}
