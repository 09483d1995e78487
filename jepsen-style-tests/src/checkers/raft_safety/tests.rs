//! A group of three replicas, told probe by probe: each promise broken once, and kept once.

use std::collections::BTreeSet;

use super::*;

const GROUP: u32 = 7;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// Three disks, of which a test changes what it is about.
struct Told {
    safety: RaftSafety,
    probes: Vec<RaftProbe>,
}

impl Told {
    /// Replica 1 leads in term 1; its first two entries are on all disks and committed.
    fn new() -> Self {
        let vote = Vote { term: 1, replica: 1, committed: true };
        let ladder: Vec<Rung> =
            (0..2).map(|index| Rung { id: id(1, index), hash: 10 + index }).collect();
        let voters = Voters { sets: vec![BTreeSet::from([1, 2, 3])], since: 0 };
        let probe = |replica| RaftProbe {
            replica,
            node: replica,
            live: Some(LiveReplica {
                run: 1,
                role: if replica == 1 { RaftRole::Leader } else { RaftRole::Other },
                term: 1,
                last_index: Some(1),
                committed: Some(id(1, 1)),
                voters: voters.clone(),
                disk_is_behind: false,
            }),
            vote: Some(vote),
            log_start: 0,
            ladder_start: 0,
            ladder: ladder.clone(),
            log_end: 2,
            vote_damaged: false,
        };
        let mut told = Self { safety: RaftSafety::default(), probes: (1..=3).map(probe).collect() };
        assert_eq!(told.look(), Ok(()));
        told
    }

    fn probe(&mut self, replica: usize) -> &mut RaftProbe {
        &mut self.probes[replica - 1]
    }

    fn live(&mut self, replica: usize) -> &mut LiveReplica {
        self.probe(replica).live.as_mut().expect("it runs")
    }

    /// A new entry comes to the log and to the disk of a replica.
    fn write(&mut self, replica: usize, id: LogId, hash: u64) {
        let probe = self.probe(replica);
        probe.ladder.retain(|rung| rung.id.index < id.index);
        probe.ladder_start = probe.ladder_start.min(id.index);
        probe.ladder.push(Rung { id, hash });
        probe.log_end = id.index + 1;
        self.live(replica).last_index = Some(id.index);
    }

    /// A replica is elected, with votes of these.
    fn elect(&mut self, leader: usize, term: u64, voters: &[usize]) {
        let replica = u64::try_from(leader).expect("small");
        for voter in voters {
            self.probe(*voter).vote = Some(Vote { term, replica, committed: false });
            let live = self.live(*voter);
            (live.term, live.role) = (term, RaftRole::Other);
        }
        self.live(leader).role = RaftRole::Leader;
        self.live(leader).term = term;
    }

    fn look(&mut self) -> Result<(), RaftViolation> {
        let looked = self.safety.observe(GROUP, &self.probes);
        for probe in &mut self.probes {
            probe.ladder_start = probe.ladder.last().map_or(0, |last| last.id.index + 1);
            probe.ladder_start = probe.ladder_start.max(probe.log_start);
            probe.ladder.clear();
        }
        looked
    }

    fn kind(&mut self) -> &'static str {
        let found = self.look().expect_err("a violation");
        assert!(!found.to_string().is_empty());
        found.kind()
    }
}

#[test]
fn a_leader_that_is_followed_by_another_in_a_later_term_is_in_order() {
    let mut told = Told::new();
    told.elect(2, 2, &[2, 3]);
    assert_eq!(told.look(), Ok(()));
    // The old leader, cut off, does not know yet; it adds what is never committed.
    told.write(1, id(1, 2), 99);
    for replica in [2, 3] {
        told.write(replica, id(2, 2), 12);
        told.live(replica).committed = Some(id(2, 2));
    }
    assert_eq!(told.look(), Ok(()));
    // It hears of it, and its suffix is replaced.
    told.probe(1).vote = Some(Vote { term: 2, replica: 2, committed: true });
    told.live(1).role = RaftRole::Other;
    told.live(1).term = 2;
    told.write(1, id(2, 2), 12);
    told.live(1).committed = Some(id(2, 2));
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn two_leaders_of_one_term_are_a_violation() {
    let mut told = Told::new();
    told.live(2).role = RaftRole::Leader;
    assert_eq!(told.kind(), "two-leaders");
}

#[test]
fn a_leader_whose_votes_are_not_on_disk_is_a_violation() {
    let mut told = Told::new();
    told.elect(2, 2, &[2]);
    assert_eq!(told.kind(), "elected-without-majority");
    let mut told = Told::new();
    told.elect(2, 2, &[2, 3]);
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn a_vote_that_goes_back_or_changes_within_a_term_is_a_violation() {
    let other = |term, replica| Some(Vote { term, replica, committed: true });
    for vote in [None, other(0, 3), other(1, 3)] {
        let mut told = Told::new();
        told.probe(2).vote = vote;
        assert_eq!(told.kind(), "vote-fell");
    }
    let mut told = Told::new();
    told.probe(2).vote = other(2, 3);
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn a_candidate_that_lost_follows_who_won_and_votes_for_nobody_else() {
    let vote = |replica, committed| Some(Vote { term: 2, replica, committed });
    for (next, allowed) in [(vote(3, true), true), (vote(3, false), false)] {
        let mut told = Told::new();
        told.probe(2).vote = vote(2, false);
        assert_eq!(told.look(), Ok(()));
        told.probe(2).vote = next;
        assert_eq!(told.look().is_ok(), allowed);
    }
}

#[test]
fn what_a_running_replica_knows_never_goes_back_and_a_restart_may_forget_it() {
    let mut told = Told::new();
    told.live(3).committed = Some(id(1, 0));
    assert_eq!(told.kind(), "raft-went-back");
    let mut told = Told::new();
    told.live(3).committed = None;
    told.live(3).run = 2;
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn two_entries_of_one_index_and_term_are_a_violation() {
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.write(2, id(1, 2), 13);
    assert_eq!(told.kind(), "logs-differ");
}

#[test]
fn one_entry_behind_two_different_ones_is_a_violation() {
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.write(1, id(3, 3), 13);
    told.write(2, id(2, 2), 22);
    told.write(2, id(3, 3), 13);
    // The later call has replaced nothing before it.
    told.probes[0].ladder = vec![Rung { id: id(1, 2), hash: 12 }, Rung { id: id(3, 3), hash: 13 }];
    told.probes[1].ladder = vec![Rung { id: id(2, 2), hash: 22 }, Rung { id: id(3, 3), hash: 13 }];
    assert_eq!(told.kind(), "logs-differ");
}

#[test]
fn a_commit_that_is_on_the_disk_of_the_leader_alone_is_a_violation() {
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.live(1).committed = Some(id(1, 2));
    let found = told.look().expect_err("a violation");
    let expected = RaftViolation::CommitNotDurable {
        group: GROUP,
        leader: 1,
        committed: id(1, 2),
        missing: vec![2, 3],
    };
    assert_eq!(found, expected);
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.write(3, id(1, 2), 12);
    told.live(1).committed = Some(id(1, 2));
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn the_disk_of_the_leader_counts_like_any_other() {
    let mut told = Told::new();
    for replica in [2, 3] {
        told.write(replica, id(1, 2), 12);
    }
    told.live(1).last_index = Some(2);
    told.live(1).committed = Some(id(1, 2));
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn while_members_change_a_majority_of_both_sets_is_asked() {
    for (holders, holds) in [(&[1, 2][..], false), (&[1, 2, 3][..], true)] {
        let mut told = Told::new();
        let sets = vec![BTreeSet::from([1, 2]), BTreeSet::from([3])];
        told.live(1).voters = Voters { sets, since: 2 };
        for replica in holders {
            told.write(*replica, id(1, 2), 12);
        }
        told.live(1).committed = Some(id(1, 2));
        assert_eq!(told.look().is_ok(), holds);
    }
}

#[test]
fn two_committed_entries_at_one_index_are_a_violation() {
    let mut told = Told::new();
    told.elect(2, 2, &[2, 3]);
    for replica in [2, 3] {
        told.write(replica, id(2, 2), 12);
        told.live(replica).committed = Some(id(2, 2));
    }
    assert_eq!(told.look(), Ok(()));
    told.write(1, id(1, 2), 99);
    told.live(1).committed = Some(id(1, 2));
    assert_eq!(told.kind(), "committed-changed");
}

#[test]
fn a_disk_may_lag_behind_what_its_replica_knows_to_be_committed_only_while_it_has_writes_to_do() {
    let mut told = Told::new();
    told.elect(2, 2, &[2, 3]);
    told.write(1, id(1, 2), 99);
    for replica in [2, 3] {
        told.write(replica, id(2, 2), 12);
    }
    for replica in [1, 2, 3] {
        told.live(replica).committed = Some(id(2, 2));
    }
    told.live(1).disk_is_behind = true;
    assert_eq!(told.look(), Ok(()));
    // Everything is written and synced, and the overruled entry is still there.
    told.live(1).disk_is_behind = false;
    assert_eq!(told.kind(), "committed-changed");
}

#[test]
fn a_committed_entry_that_is_overwritten_is_a_violation() {
    let mut told = Told::new();
    told.elect(2, 2, &[2, 3]);
    told.write(3, id(2, 1), 77);
    assert_eq!(told.kind(), "committed-changed");
}

#[test]
fn a_log_that_ends_before_a_committed_entry_that_it_had_is_a_violation() {
    let mut told = Told::new();
    told.write(3, id(1, 2), 12);
    assert_eq!(told.look(), Ok(()));
    let cut = |told: &mut Told, end: u64| {
        let probe = told.probe(3);
        (probe.ladder_start, probe.log_end) = (end, end);
        probe.ladder.clear();
    };
    // Nobody knows yet that the last one is committed.
    cut(&mut told, 2);
    assert_eq!(told.look(), Ok(()));
    cut(&mut told, 1);
    assert_eq!(told.kind(), "committed-cut-off");
}

#[test]
fn a_leader_that_lacks_what_was_committed_before_its_term_is_a_violation() {
    let mut told = Told::new();
    for replica in [1, 2] {
        told.write(replica, id(1, 2), 12);
        told.live(replica).committed = Some(id(1, 2));
    }
    assert_eq!(told.look(), Ok(()));
    told.elect(3, 2, &[2, 3]);
    let found = told.look().expect_err("a violation");
    let (leader, committed) = (3, id(1, 2));
    let expected = RaftViolation::LeaderIncomplete { group: GROUP, leader, term: 2, committed };
    assert_eq!(found, expected);
}

#[test]
fn a_disk_that_was_lost_on_purpose_is_not_held_to_what_it_had() {
    let mut told = Told::new();
    told.safety.disk_lost(3);
    told.probes.pop();
    told.write(1, id(1, 2), 12);
    told.live(1).committed = Some(id(1, 2));
    // Whether it had the entry nobody can tell any more.
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn a_purged_entry_was_committed_and_is_not_looked_for() {
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.write(2, id(1, 2), 12);
    assert_eq!(told.look(), Ok(()));
    told.probe(2).log_start = 3;
    told.live(1).committed = Some(id(1, 2));
    assert_eq!(told.look(), Ok(()));
}

#[test]
fn what_is_on_a_disk_and_can_not_be_read_raises_no_alarm() {
    let mut told = Told::new();
    told.write(1, id(1, 2), 12);
    told.write(2, id(1, 2), 12);
    told.probe(2).ladder.clear();
    told.live(1).committed = Some(id(1, 2));
    told.probe(3).vote = None;
    told.probe(3).vote_damaged = true;
    assert_eq!(told.look(), Ok(()));
}
