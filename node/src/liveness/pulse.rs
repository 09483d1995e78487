//! One hosted group's timers. Parked, a group has none: followers rely on the beats of the node
//! that leads it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;
use crate::limits;
use crate::raft::RaftGroup;

/// The life of one hosted group.
pub(crate) struct Pulse {
    raft: Arc<RaftGroup>,
    opened: Instant,
    /// This replica leads, and nothing happens.
    parked: AtomicBool,
    timers: AtomicBool,
    leading: AtomicBool,
    /// Milliseconds from `opened` to the last thing that happened.
    active_ms: AtomicU64,
    /// Counts changes of this node's list of parked groups.
    parked_version: Arc<AtomicU64>,
    leaderless: Mutex<Leaderless>,
}

/// What is remembered while a group has no live leader.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Leaderless {
    pub(super) since: Option<Instant>,
    /// An election was called; not again before.
    pub(super) again_at: Option<Instant>,
    /// Elections called so far.
    calls: u32,
    /// Term of the dead leader that was taken over from.
    pub(super) took_over_from: Option<u64>,
}

impl Leaderless {
    /// Notes that an election is called. The next one waits longer each time, for disks and links
    /// on which an election takes long; and for a time drawn anew, since replicas that call theirs
    /// in step with each other would split every vote.
    pub(super) fn called(&mut self, now: Instant) {
        let wait_ms = limits::ELECTION_AGAIN_MS << self.calls.min(limits::ELECTION_DOUBLINGS);
        let jitter_ms = crate::env::random_u64() % wait_ms;
        self.again_at = Some(now + Duration::from_millis(wait_ms + jitter_ms));
        self.calls = self.calls.saturating_add(1);
    }
}

impl Pulse {
    pub(super) fn new(raft: Arc<RaftGroup>, parked_version: Arc<AtomicU64>) -> Self {
        Self {
            raft,
            opened: Instant::now(),
            parked: AtomicBool::new(false),
            timers: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            active_ms: AtomicU64::new(0),
            parked_version,
            leaderless: Mutex::default(),
        }
    }

    pub(super) fn raft(&self) -> &Arc<RaftGroup> {
        &self.raft
    }

    /// Something happens in the group: it is not parked, or not any longer.
    pub(crate) fn touch(&self) {
        self.active_ms.store(self.age_ms(), Ordering::Relaxed);
        if self.parked.swap(false, Ordering::AcqRel) {
            self.parked_version.fetch_add(1, Ordering::AcqRel);
            self.set_timers(true);
        }
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// Stops the group's timers; this replica leads it and everybody has everything.
    pub(super) fn park(&self) {
        self.set_timers(false);
        self.parked.store(true, Ordering::Release);
        self.parked_version.fetch_add(1, Ordering::AcqRel);
    }

    /// This replica does not lead any more, so it has nothing to say of parking.
    pub(super) fn unpark_as_follower(&self) {
        if self.parked.swap(false, Ordering::AcqRel) {
            self.parked_version.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn set_timers(&self, on: bool) {
        if self.timers.swap(on, Ordering::AcqRel) != on {
            self.raft.set_timers(on);
        }
    }

    /// Notes whether this replica leads. Answers `true` when it has just begun to.
    pub(super) fn note_leading(&self, leading: bool) -> bool {
        !self.leading.swap(leading, Ordering::Relaxed) && leading
    }

    pub(super) fn idle_ms(&self) -> u64 {
        self.age_ms().saturating_sub(self.active_ms.load(Ordering::Relaxed))
    }

    pub(super) fn leaderless(&self) -> Leaderless {
        *lock(&self.leaderless)
    }

    pub(super) fn set_leaderless(&self, leaderless: Leaderless) {
        *lock(&self.leaderless) = leaderless;
    }

    /// Time since the replica was opened.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
