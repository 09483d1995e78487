//! Looks after the hosted groups: parks the idle ones, wakes those without a live leader, and takes
//! over from leaders that are dead.
//!
//! A take-over goes past the dead leader's lease, so it asks for a majority's opinion first: with a
//! broken link between two of three nodes, the third decides whether anybody is dead. A leader
//! whose node was started again is gone for certain, and nobody is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_core::ids::{GroupId, NodeUuid};
use tokio::time::Instant;

use super::directory::Claimed;
use super::pulse::{Leaderless, Pulse};
use super::{Leads, Liveness, lock};
use crate::limits;
use crate::raft::{Brief, GroupStatus, Role};

/// Why nobody leads a group, as far as is known here.
#[derive(Debug, Clone, Copy)]
enum Without {
    /// Nobody says that it leads.
    Word,
    /// Who says so can't be reached.
    Answer(Claimed),
    /// Who said so was started again since; it led in this term.
    Process { term: u64 },
}

impl Liveness {
    /// Looks after the groups until the node stops.
    pub(crate) async fn tend(self: Arc<Self>) {
        let mut looked = Instant::now();
        loop {
            drop(tokio::time::timeout(limits::TEND_INTERVAL, self.look_now.notified()).await);
            // After a pause of this very node everybody else seems silent: listen first.
            if looked.elapsed() < limits::TEND_INTERVAL * 4 {
                self.note_silence();
            }
            looked = Instant::now();
            self.tend_once().await;
        }
    }

    async fn tend_once(&self) {
        let pulses: Vec<_> = lock(&self.pulses).values().cloned().collect();
        let parked_version = self.parked_version.load(Ordering::Acquire);
        let mut leads =
            Leads { made: Instant::now(), active: Vec::new(), parked_version, parked: Vec::new() };
        for pulse in &pulses {
            let brief = pulse.raft().brief();
            if pulse.note_leading(brief.role == Role::Leader) {
                self.metrics.raft.leader_changes.inc();
            }
            match brief.role {
                Role::Leader => self.tend_leader(pulse, brief, &mut leads),
                Role::Follower | Role::Candidate => self.tend_follower(pulse, brief).await,
                Role::Learner | Role::Stopped => pulse.unpark_as_follower(),
            }
        }
        self.metrics.groups_hosted.set(pulses.len());
        self.metrics.groups_led.set(leads.active.len() + leads.parked.len());
        self.metrics.groups_parked.set(leads.parked.len());
        self.metrics.peer.alive.set(self.alive_peers());
        self.claim_own(&leads);
        *lock(&self.leads) = leads;
    }

    /// This node's own leaderships are in its directory, too.
    fn claim_own(&self, leads: &Leads) {
        let word = super::directory::Word {
            node: self.me,
            asked: leads.made,
            active: &leads.active,
            parked: Some(&leads.parked),
        };
        lock(&self.directory).hear(&word);
    }

    fn tend_leader(&self, pulse: &Pulse, brief: Brief, leads: &mut Leads) {
        pulse.set_leaderless(Leaderless::default());
        let Some(mut lead) = pulse.raft().lead() else { return };
        if !pulse.is_parked() {
            pulse.set_timers(true);
            if pulse.idle_ms() >= limits::PARK_AFTER_MS && self.may_park(pulse, brief) {
                pulse.park();
            }
        }
        if pulse.is_parked() {
            // Nothing is asked of the others while parked, so nothing is proven either.
            if !brief.sole_voter {
                lead.quorum_age_ms = None;
            }
            leads.parked.push(lead);
        } else {
            leads.active.push(lead);
        }
    }

    fn may_park(&self, pulse: &Pulse, brief: Brief) -> bool {
        if brief.committed_index != brief.last_index {
            return false;
        }
        let status = pulse.raft().status();
        status.members_settled
            && !status.joint
            && status.all_caught_up()
            && status.members.values().all(|node| self.is_alive(*node))
    }

    async fn tend_follower(&self, pulse: &Pulse, brief: Brief) {
        pulse.unpark_as_follower();
        let group = pulse.raft().group();
        let (claim, abandoned) = {
            let directory = lock(&self.directory);
            (directory.claim(group), directory.abandoned(group))
        };
        match claim {
            Some(claim) if claim.place.node != self.me && self.is_alive(claim.place.node) => {
                pulse.set_leaderless(Leaderless::default());
                pulse.set_timers(!rests(claim, brief));
            }
            Some(claim) if claim.place.node != self.me => {
                self.without_leader(pulse, Without::Answer(claim)).await;
            }
            Some(_) | None => {
                let process = abandoned.map(|term| Without::Process { term });
                self.without_leader(pulse, process.unwrap_or(Without::Word)).await;
            }
        }
    }

    /// Nobody alive leads the group, as far as is known here.
    async fn without_leader(&self, pulse: &Pulse, without: Without) {
        let now = Instant::now();
        let mut leaderless = pulse.leaderless();
        let since = *leaderless.since.get_or_insert(now);
        let status = pulse.raft().status();
        let lost = match without {
            Without::Answer(Claimed { term, .. }) | Without::Process { term } => Some(term),
            Without::Word => None,
        };
        if lost.is_some_and(|term| self.another_leads_since(term, &status)) {
            pulse.set_leaderless(Leaderless::default());
            pulse.set_timers(true);
            return;
        }
        let group = pulse.raft().group();
        let Some(rank) = self.rank(group, &status) else {
            pulse.set_leaderless(leaderless);
            return;
        };
        let spread = limits::ELECTION_SPREAD * rank;
        let is_gone = match without {
            Without::Answer(claim) => self.majority_agrees(&status, claim.place.node),
            Without::Process { .. } => true,
            Without::Word => false,
        };
        match (lost, is_gone) {
            (Some(term), true) => {
                let called = leaderless.took_over_from == Some(term)
                    && leaderless.again_at.is_some_and(|again| now < again);
                if now >= since + spread && !called {
                    leaderless.took_over_from = Some(term);
                    leaderless.called(now);
                    pulse.set_timers(true);
                    tracing::info!(%group, rank, "taking over");
                    self.metrics.raft.elections.inc();
                    // On its own: it may wait for this replica's log to be flushed.
                    let raft = pulse.raft().clone();
                    crate::env::spawn(async move { raft.take_over().await });
                }
            }
            // Its node can't be reached from here, but others reach it: wait for word of it.
            (Some(_), false) => self.wait_out(pulse, now, since),
            (None, _) => {
                let due = now >= since + limits::LEADERLESS_GRACE + spread;
                let called = leaderless.again_at.is_some_and(|again| now < again);
                if due && !called {
                    leaderless.called(now);
                    pulse.set_timers(true);
                    self.metrics.raft.elections.inc();
                    pulse.raft().elect().await;
                }
            }
        }
        pulse.set_leaderless(leaderless);
    }

    /// A live node was elected after the term of the dead leader; its own word of that is on its
    /// way. Taking over now would go past the lease of a leader that is well.
    fn another_leads_since(&self, term: u64, status: &GroupStatus) -> bool {
        let leader = status.leader.filter(|_| status.vote_committed && status.term > term);
        leader.is_some_and(|leader| leader.node != self.me && self.is_alive(leader.node))
    }

    /// The group's own timers are the last resort: where pre-vote finds a majority without a
    /// leader, there is none.
    fn wait_out(&self, pulse: &Pulse, now: Instant, since: Instant) {
        if now >= since + Duration::from_secs(2) {
            pulse.set_timers(true);
        }
    }

    /// This replica's turn among the live voters; `None` where it does not vote. Each group
    /// begins with another, so that a dead node's leaderships are spread over the survivors.
    fn rank(&self, group: GroupId, status: &GroupStatus) -> Option<u32> {
        let voters: BTreeMap<_, _> = status
            .members
            .iter()
            .filter(|(replica, node)| status.voters.contains(replica) && self.is_alive(**node))
            .collect();
        // Drained nodes come last: they lead only if nobody else is left.
        let aside = lock(&self.aside);
        let (late, soon): (Vec<&NodeUuid>, Vec<&NodeUuid>) =
            voters.into_values().partition(|node| aside.contains(*node));
        if let Some(mine) = late.iter().position(|node| **node == self.me) {
            return u32::try_from(soon.len() + mine).ok();
        }
        let mine = soon.iter().position(|node| **node == self.me)?;
        let count = soon.len();
        let first = usize::try_from(group.0).unwrap_or(0) % count;
        u32::try_from((mine + count - first) % count).ok()
    }

    fn majority_agrees(&self, status: &GroupStatus, dead: NodeUuid) -> bool {
        let watched = lock(&self.watched);
        let voters = status.voters.iter().filter_map(|voter| status.members.get(voter));
        let agree = voters.filter(|node| {
            **node == self.me
                || (**node != dead
                    && watched
                        .get(node)
                        .is_some_and(|peer| !peer.was_dead && peer.unreachable.contains(&dead)))
        });
        agree.count() * 2 > status.voters.len()
    }
}

/// A follower needs no timers: its leader is alive, parked, and this replica has all it has.
fn rests(claim: Claimed, brief: Brief) -> bool {
    claim.parked
        && claim.term == brief.term
        && brief.last_index.is_some_and(|last| last >= claim.commit)
}
