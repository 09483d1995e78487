//! What the members of one group are given, partition by partition, and how long records had to
//! wait for it while the group changed.
//!
//! A record waits from when it was due to be appended until a member has it, so that a stall is as
//! many late records as would have come meanwhile. A record that is given again, because its owner
//! died before it committed, has waited no longer than until the first time.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

/// All members share it.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Partition>,
    changing: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    /// Who was given its last record.
    owner: Option<u64>,
    /// Everything below was given to somebody.
    next_offset: u64,
    /// The owner when the change began, and the longest wait since.
    before: Option<u64>,
    waited: Duration,
}

/// How a partition came through a change of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    /// Another member has it than before.
    pub(super) moved: bool,
    /// The longest that one of its records waited.
    pub(super) waited: Duration,
}

impl Watch {
    pub(super) fn new(partitions: usize) -> Watch {
        let partitions = vec![Partition::default(); partitions];
        Watch { state: Mutex::new(State { partitions, changing: false }), news: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// A member has a record.
    pub(super) fn given(&self, member: u64, partition: usize, offset: u64, waited: Duration) {
        let mut state = self.state();
        let changing = state.changing;
        let Some(it) = state.partitions.get_mut(partition) else { return };
        let is_new_owner = it.owner.replace(member) != Some(member);
        if offset >= it.next_offset {
            it.next_offset = offset + 1;
            if changing {
                it.waited = it.waited.max(waited);
            }
        }
        if is_new_owner {
            self.news.notify_waiters();
        }
    }

    /// The group changes now.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.changing = true;
        for it in &mut state.partitions {
            (it.before, it.waited) = (it.owner, Duration::ZERO);
        }
    }

    /// How many partitions `member` was given records of last.
    pub(super) fn owned_by(&self, member: u64) -> usize {
        self.state().partitions.iter().filter(|it| it.owner == Some(member)).count()
    }

    /// Waits until what is asked for is so.
    pub(super) async fn until(&self, so: impl Fn(&Watch) -> bool) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if so(self) {
                return;
            }
            news.await;
        }
    }

    /// Every partition has somebody.
    pub(super) fn all_owned(&self) -> bool {
        self.state().partitions.iter().all(|it| it.owner.is_some())
    }

    /// The change is over.
    pub(super) fn end(&self) -> Vec<Passage> {
        let mut state = self.state();
        state.changing = false;
        let passage = |it: &Partition| Passage { moved: it.owner != it.before, waited: it.waited };
        state.partitions.iter().map(passage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_partition_has_moved_if_another_member_was_given_its_records() {
        let watch = Watch::new(2);
        watch.given(1, 0, 0, MS);
        assert!(!watch.all_owned());
        watch.given(2, 1, 0, MS);
        assert!(watch.all_owned());
        watch.begin();
        watch.given(1, 0, 1, 7 * MS);
        watch.given(1, 1, 1, 30 * MS);
        watch.given(1, 1, 2, 20 * MS);
        assert_eq!((watch.owned_by(1), watch.owned_by(2)), (2, 0));
        let passages = watch.end();
        assert_eq!(passages[0], Passage { moved: false, waited: 7 * MS });
        assert_eq!(passages[1], Passage { moved: true, waited: 30 * MS });
    }

    #[test]
    fn a_record_that_is_given_again_has_not_waited() {
        let watch = Watch::new(1);
        watch.given(1, 0, 5, MS);
        watch.begin();
        watch.given(2, 0, 4, 900 * MS);
        watch.given(2, 0, 5, 900 * MS);
        watch.given(2, 0, 6, 3 * MS);
        assert_eq!(watch.end()[0].waited, 3 * MS);
    }

    #[test]
    fn what_waited_before_the_change_does_not_count() {
        let watch = Watch::new(1);
        watch.given(1, 0, 0, 500 * MS);
        watch.begin();
        watch.given(1, 0, 1, MS);
        assert_eq!(watch.end()[0], Passage { moved: false, waited: MS });
    }
}
