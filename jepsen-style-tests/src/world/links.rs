//! Which hosts can talk to which, as it should be, and the calls that make it so.
//!
//! Several faults may want to cut the same link, and each takes only its own wish back. So the
//! wishes are kept, and the state of each link follows from all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use turmoil::Sim;

/// Hosts by name.
pub type Names = BTreeSet<String>;

/// What becomes of messages between hosts that are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// They arrive when the link is whole again, as TCP sends again what was lost.
    Late,
    /// They are gone, and so is every connection that carried one, though nobody says so: as when
    /// a box in between forgot the connection.
    Never,
}

/// A wish that some hosts can't talk to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// Who is not heard.
    pub from: Names,
    /// By whom.
    pub to: Names,
    /// The other way is open.
    pub one_way: bool,
    /// What becomes of messages. One way they are always lost.
    pub loss: Loss,
}

/// A barrier that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BarrierId(u64);

/// The state of the link between two hosts; the smaller name is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Whole,
    /// Messages wait.
    Held,
    /// Messages are lost: those of the first host, those of the second.
    Cut(bool, bool),
}

/// All links of a world.
#[derive(Debug, Default)]
pub(super) struct Links {
    hosts: Names,
    /// Made, and whether it is up.
    barriers: BTreeMap<BarrierId, (Barrier, bool)>,
    made: u64,
    /// Links that are not whole.
    current: BTreeMap<(String, String), State>,
}

impl Links {
    pub(super) fn add(&mut self, host: &str) {
        self.hosts.insert(host.to_owned());
    }

    /// Makes a barrier that is not up yet.
    pub(super) fn reserve(&mut self, barrier: Barrier) -> BarrierId {
        self.made += 1;
        let id = BarrierId(self.made);
        self.barriers.insert(id, (barrier, false));
        id
    }

    /// Puts a barrier up.
    pub(super) fn raise(&mut self, sim: &Sim<'_>, id: BarrierId) {
        if let Some((_, is_up)) = self.barriers.get_mut(&id) {
            *is_up = true;
            self.follow(sim);
        }
    }

    /// Takes it away for good.
    pub(super) fn lower(&mut self, sim: &Sim<'_>, id: BarrierId) {
        self.barriers.remove(&id);
        self.follow(sim);
    }

    /// Makes the links as they are wished.
    fn follow(&mut self, sim: &Sim<'_>) {
        let mut next = BTreeMap::new();
        for a in &self.hosts {
            for b in self.hosts.range::<String, _>(a.clone()..).filter(|b| *b != a) {
                let pair = (a.clone(), b.clone());
                let (was, wished) =
                    (self.current.get(&pair).copied().unwrap_or_default(), self.wished(a, b));
                if was != wished {
                    change(sim, (a, b), was, wished);
                }
                if wished != State::Whole {
                    next.insert(pair, wished);
                }
            }
        }
        self.current = next;
    }

    fn wished(&self, a: &str, b: &str) -> State {
        let (mut held, mut cut_a, mut cut_b) = (false, false, false);
        for (barrier, _) in self.barriers.values().filter(|(_, is_up)| *is_up) {
            let blocks = |from: &str, to: &str| {
                barrier.from.contains(from) && barrier.to.contains(to)
                    || !barrier.one_way && barrier.from.contains(to) && barrier.to.contains(from)
            };
            let (of_a, of_b) = (blocks(a, b), blocks(b, a));
            if barrier.loss == Loss::Late && !barrier.one_way {
                held |= of_a || of_b;
            } else {
                cut_a |= of_a;
                cut_b |= of_b;
            }
        }
        match (held, cut_a, cut_b) {
            (false, false, false) => State::Whole,
            (true, false, false) => State::Held,
            // What is held one way and lost the other is lost both ways: turmoil has no such link.
            (held, cut_a, cut_b) => State::Cut(cut_a || held, cut_b || held),
        }
    }
}

fn change(sim: &Sim<'_>, (a, b): (&str, &str), was: State, wished: State) {
    // Whole first: what was held and is not lost now arrives.
    match was {
        State::Whole => {}
        State::Held => sim.release(a, b),
        State::Cut(..) => sim.repair(a, b),
    }
    match wished {
        State::Whole => {}
        State::Held => sim.hold(a, b),
        State::Cut(true, true) => sim.partition(a, b),
        State::Cut(of_a, _) => {
            let (from, to) = if of_a { (a, b) } else { (b, a) };
            sim.partition_oneway(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links_with(barriers: &[Barrier]) -> Links {
        let mut links = Links::default();
        for barrier in barriers {
            let id = links.reserve(barrier.clone());
            links.barriers.get_mut(&id).expect("just made").1 = true;
        }
        links
    }

    fn barrier(from: &[&str], to: &[&str], one_way: bool, loss: Loss) -> Barrier {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Barrier { from: names(from), to: names(to), one_way, loss }
    }

    #[test]
    fn a_barrier_is_between_its_two_sides_only() {
        let links = links_with(&[barrier(&["n1"], &["n2", "n3"], false, Loss::Late)]);
        assert_eq!(links.wished("n1", "n2"), State::Held);
        assert_eq!(links.wished("c1", "n1"), State::Whole);
        assert_eq!(links.wished("n2", "n3"), State::Whole);
    }

    #[test]
    fn one_way_the_other_way_is_open() {
        let links = links_with(&[barrier(&["n2"], &["n1"], true, Loss::Late)]);
        assert_eq!(links.wished("n1", "n2"), State::Cut(false, true));
    }

    #[test]
    fn of_two_barriers_the_worse_counts() {
        let links = links_with(&[
            barrier(&["n1"], &["n2"], false, Loss::Late),
            barrier(&["n1"], &["n2"], true, Loss::Never),
        ]);
        assert_eq!(links.wished("n1", "n2"), State::Cut(true, true));
    }

    #[test]
    fn a_barrier_that_is_not_up_does_nothing() {
        let mut links = Links::default();
        links.reserve(barrier(&["n1"], &["n2"], false, Loss::Never));
        assert_eq!(links.wished("n1", "n2"), State::Whole);
    }
}
