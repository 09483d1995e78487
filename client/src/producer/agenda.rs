//! Which partitions need attention, and when the next one will.
//!
//! A producer may have thousands of partitions and only a few with something to do; looking at
//! all of them for each answer would cost more than sending does. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// Things to look at, by index: some at once, some at a time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    at_once: BTreeSet<usize>,
    /// Invariant: holds exactly the pairs of `time_of`, turned around.
    by_time: BTreeSet<(Instant, usize)>,
    time_of: BTreeMap<usize, Instant>,
}

impl Agenda {
    /// Look at `index` at once.
    pub(crate) fn mark(&mut self, index: usize) {
        self.at_once.insert(index);
    }

    /// Look at `index` then, and not at the time said before.
    pub(crate) fn set(&mut self, index: usize, at: Option<Instant>) {
        if let Some(before) = self.time_of.remove(&index) {
            self.by_time.remove(&(before, index));
        }
        if let Some(at) = at {
            self.time_of.insert(index, at);
            self.by_time.insert((at, index));
        }
    }

    /// What is to be looked at now, in order of index; taken off the agenda.
    pub(crate) fn take_due(&mut self, now: Instant) -> BTreeSet<usize> {
        let mut due = std::mem::take(&mut self.at_once);
        while let Some(&(at, index)) = self.by_time.first() {
            if at > now {
                break;
            }
            self.set(index, None);
            due.insert(index);
        }
        due
    }

    /// When something is due next; `None`: nothing is on the agenda but what is due at once.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_marked_or_due_is_given_out_once() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        agenda.mark(3);
        agenda.set(1, Some(now));
        agenda.set(2, Some(now + Duration::from_secs(1)));
        assert_eq!(agenda.take_due(now), BTreeSet::from([1, 3]));
        assert_eq!(agenda.take_due(now), BTreeSet::new());
        assert_eq!(agenda.next(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_new_time_replaces_the_old_one() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut agenda = Agenda::default();
        agenda.set(1, Some(now));
        agenda.set(1, Some(later));
        assert_eq!(agenda.take_due(now), BTreeSet::new());
        agenda.set(1, None);
        assert_eq!(agenda.next(), None);
    }
}
