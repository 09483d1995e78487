//! Which hosts can talk to which, as it should be, and the calls that make it so.
//!
//! Several faults may want to cut the same link, and each takes only its own wish back. So the
//! wishes are kept, and the state of each link follows from all of them.

use std::collections::{BTreeMap, BTreeSet};

use turmoil::Sim;

use crate::plan::Loss;

/// The state of the link between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Messages wait.
    Held,
    /// Messages are lost.
    Cut,
}

/// All links of a world.
#[derive(Debug, Default)]
pub(super) struct Links {
    nodes: Vec<String>,
    clients: Vec<String>,
    /// Nodes without power: nothing they still send is heard.
    silent: BTreeSet<String>,
    /// Nodes cut off from other nodes, and how.
    isolated: BTreeMap<String, Isolation>,
    /// Links that are not whole; of each pair the smaller name first.
    current: BTreeMap<(String, String), State>,
}

/// How a node is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// From clients too, not only from nodes.
    pub clients_too: bool,
    /// What becomes of messages.
    pub loss: Loss,
}

impl Links {
    pub(super) fn add_node(&mut self, name: &str) {
        self.nodes.push(name.to_owned());
    }

    pub(super) fn add_client(&mut self, name: &str) {
        self.clients.push(name.to_owned());
    }

    /// Nothing that the node sends from now on arrives, nor what is sent to it.
    pub(super) fn silence(&mut self, sim: &Sim<'_>, node: &str) {
        self.silent.insert(node.to_owned());
        self.follow(sim);
    }

    /// The node is heard again.
    pub(super) fn unsilence(&mut self, sim: &Sim<'_>, node: &str) {
        self.silent.remove(node);
        self.follow(sim);
    }

    /// Cuts a node off.
    pub(super) fn isolate(&mut self, sim: &Sim<'_>, node: &str, isolation: Isolation) {
        self.isolated.insert(node.to_owned(), isolation);
        self.follow(sim);
    }

    /// Takes that back.
    pub(super) fn reconnect(&mut self, sim: &Sim<'_>, node: &str) {
        self.isolated.remove(node);
        self.follow(sim);
    }

    /// Makes the links as they are wished.
    fn follow(&mut self, sim: &Sim<'_>) {
        let hosts: BTreeSet<&String> = self.nodes.iter().chain(&self.clients).collect();
        let mut next = BTreeMap::new();
        for a in &hosts {
            for b in hosts.range::<String, _>((*a).clone()..).filter(|b| *b != a) {
                let pair = ((*a).clone(), (*b).clone());
                let wished = self.wished(a, b);
                let current = self.current.get(&pair).copied().unwrap_or(State::Whole);
                match (current, wished) {
                    (State::Whole, State::Whole) => continue,
                    (current, wished) if current == wished => {}
                    (_, State::Cut) => sim.partition(a.as_str(), b.as_str()),
                    (_, State::Held) => sim.hold(a.as_str(), b.as_str()),
                    (State::Held, State::Whole) => sim.release(a.as_str(), b.as_str()),
                    (_, State::Whole) => sim.repair(a.as_str(), b.as_str()),
                }
                if wished != State::Whole {
                    next.insert(pair, wished);
                }
            }
        }
        self.current = next;
    }

    fn wished(&self, a: &str, b: &str) -> State {
        if self.silent.contains(a) || self.silent.contains(b) {
            return State::Cut;
        }
        let between_nodes = [a, b].iter().all(|host| self.nodes.iter().any(|node| node == host));
        let mut state = State::Whole;
        for host in [a, b] {
            let Some(isolation) = self.isolated.get(host) else { continue };
            if !between_nodes && !isolation.clients_too {
                continue;
            }
            match isolation.loss {
                Loss::Never => return State::Cut,
                Loss::Late => state = State::Held,
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let mut links = Links::default();
        for node in ["n1", "n2", "n3"] {
            links.add_node(node);
        }
        links.add_client("c1");
        links
    }

    #[test]
    fn an_isolated_node_still_has_its_clients_unless_they_are_cut_off_too() {
        let mut links = links();
        let isolation = Isolation { clients_too: false, loss: Loss::Late };
        links.isolated.insert("n1".to_owned(), isolation);
        assert_eq!(links.wished("n1", "n2"), State::Held);
        assert_eq!(links.wished("c1", "n1"), State::Whole);
        assert_eq!(links.wished("n2", "n3"), State::Whole);
        let isolation = Isolation { clients_too: true, ..isolation };
        links.isolated.insert("n1".to_owned(), isolation);
        assert_eq!(links.wished("c1", "n1"), State::Held);
    }

    #[test]
    fn a_node_without_power_is_cut_off_whatever_else_is_wished() {
        let mut links = links();
        let isolation = Isolation { clients_too: true, loss: Loss::Late };
        links.isolated.insert("n1".to_owned(), isolation);
        links.silent.insert("n1".to_owned());
        assert_eq!(links.wished("n1", "n2"), State::Cut);
        links.silent.remove("n1");
        assert_eq!(links.wished("n1", "n2"), State::Held);
    }
}
