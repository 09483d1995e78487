//! What a nemesis can do to clients: kill one, make all of them send more, or some of them lose
//! their patience.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A client that can be killed: its name, and what kills it.
type Mortal = (String, Rc<Notify>);

/// Clients as a nemesis sees them. Clones share it.
#[derive(Clone, Default)]
pub struct Controls {
    /// How many faults want a rush.
    rushes: Rc<Cell<u32>>,
    storm: Rc<Cell<Option<Storm>>>,
    /// Batches that were sent again in a storm.
    retries: Rc<Cell<u64>>,
    mortals: Rc<RefCell<Vec<Mortal>>>,
}

/// How impatient clients behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// They wait so long for an answer.
    pub patience_ms: u64,
    /// Their batches have numbers.
    pub numbered: bool,
}

impl Controls {
    /// How impatient clients behave now, if there is a storm.
    pub fn storm(&self) -> Option<Storm> {
        self.storm.get()
    }

    /// A storm begins or ends.
    pub fn set_storm(&self, storm: Option<Storm>) {
        self.storm.set(storm);
    }

    /// A batch is sent again.
    pub fn count_retry(&self) {
        self.retries.set(self.retries.get() + 1);
    }

    /// Batches that were sent again in storms.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// From now on clients send more.
    pub fn begin_rush(&self) {
        self.rushes.set(self.rushes.get() + 1);
    }

    /// Not any more, if nobody else wants it.
    pub fn end_rush(&self) {
        self.rushes.set(self.rushes.get().saturating_sub(1));
    }

    /// Whether clients shall send more than usual.
    pub fn is_rush(&self) -> bool {
        self.rushes.get() > 0
    }

    /// Kills one of those that can be killed, counted round. Answers who that was.
    pub fn kill(&self, number: u32) -> Option<String> {
        let mortals = self.mortals.borrow();
        let count = u32::try_from(mortals.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(number % count).ok()?;
        let (name, killed) = &mortals[index];
        killed.notify_one();
        Some(name.clone())
    }

    /// Lives one life after the other, each until it ends by itself or is killed: dropped wherever
    /// it waits. The life that ends by itself is the last.
    pub fn live<Life>(
        &self,
        name: &str,
        mut next: impl FnMut(u32) -> Life + 'static,
    ) -> impl Future<Output = ()> + 'static
    where
        Life: Future<Output = ()> + 'static,
    {
        let killed = Rc::new(Notify::new());
        self.mortals.borrow_mut().push((name.to_owned(), killed.clone()));
        async move {
            for number in 0.. {
                tokio::select! {
                    biased;
                    () = next(number) => return,
                    () = killed.notified() => {}
                }
            }
        }
    }
}
