//! Replicas and preferred leaders spread evenly: within a topic, and over the whole cluster.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use node_core::ids::{NodeLabel, NodeUuid};
use node_core::metadata::Standing;
use node_core::metadata::placement::{InvalidReplication, NodeLoad, Placement, replication_factor};
use proptest::prelude::*;
use uuid::Uuid;

fn idle_nodes(count: u64) -> Vec<NodeLoad> {
    let idle = |number: u64| NodeLoad {
        node: NodeUuid(Uuid::from_u64_pair(1, number)),
        label: NodeLabel(number),
        replicas: 0,
        leaders: 0,
        standing: Standing::Active,
    };
    (1..=count).map(idle).collect()
}

/// Places the groups of one topic and adds them to the loads.
fn place(loads: &mut [NodeLoad], groups: u32, replication: u32) -> Vec<Vec<NodeUuid>> {
    let mut placement = Placement::new(loads.iter().copied());
    let placed: Vec<Vec<NodeUuid>> = (0..groups).map(|_| placement.place(replication)).collect();
    for group in &placed {
        for (place, node) in group.iter().enumerate() {
            let load = loads.iter_mut().find(|load| load.node == *node).expect("of these");
            load.replicas += 1;
            load.leaders += u32::from(place == 0);
        }
    }
    placed
}

/// Between the most and the least loaded node: replicas and leaders.
fn spread(loads: &[NodeLoad]) -> (u32, u32) {
    let span = |count: fn(&NodeLoad) -> u32| {
        let counts: Vec<u32> = loads.iter().map(count).collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    };
    (span(|load| load.replicas), span(|load| load.leaders))
}

#[test]
fn one_topic_spreads_evenly() {
    for nodes in 1..=9 {
        for replication in [1, 3, 5].into_iter().filter(|wanted| u64::from(*wanted) <= nodes) {
            for groups in 1..=60 {
                let mut loads = idle_nodes(nodes);
                place(&mut loads, groups, replication);
                let (replicas, leaders) = spread(&loads);
                assert!(
                    leaders <= 1 && replicas <= 1,
                    "{groups} groups of {replication} on {nodes}: {leaders}, {replicas}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn many_topics_of_one_replication_spread_evenly(
        nodes in 3_u64..12,
        replication in prop_oneof![Just(1_u32), Just(3)],
        topics in proptest::collection::vec(1_u32..9, 1..100),
    ) {
        let mut loads = idle_nodes(nodes);
        for groups in topics {
            for mut group in place(&mut loads, groups, replication) {
                group.sort_unstable();
                group.dedup();
                prop_assert_eq!(group.len(), replication as usize, "each on another node");
            }
        }
        let (replicas, leaders) = spread(&loads);
        prop_assert!(leaders <= 1 && replicas <= 1, "{leaders}, {replicas}");
    }

    // Where replication differs between topics the two aims can conflict; leading is the more
    // expensive part, so it is leaders that stay even.
    #[test]
    fn topics_of_mixed_replication_spread_their_leaders_evenly(
        nodes in 3_u64..12,
        topics in proptest::collection::vec((1_u32..9, prop_oneof![Just(1_u32), Just(3)]), 1..60),
    ) {
        let mut loads = idle_nodes(nodes);
        for (groups, replication) in topics {
            place(&mut loads, groups, replication);
        }
        let (_, leaders) = spread(&loads);
        prop_assert!(leaders <= 1, "{leaders}");
    }
}

#[test]
fn a_node_that_joined_empty_gets_no_more_than_its_share_of_a_new_topic() {
    let mut loads = idle_nodes(4);
    for load in &mut loads[..3] {
        (load.replicas, load.leaders) = (30, 10);
    }
    let placed = place(&mut loads, 8, 1);
    let on_new = placed.iter().filter(|group| group[0] == loads[3].node).count();
    assert_eq!(on_new, 2);
    let small = place(&mut loads, 1, 1);
    assert_eq!(small[0][0], loads[3].node, "but what has only one partition goes to it");
}

#[test]
fn the_same_loads_give_the_same_places() {
    let (mut one, mut other) = (idle_nodes(5), idle_nodes(5));
    assert_eq!(place(&mut one, 20, 3), place(&mut other, 20, 3));
}

#[test]
fn replication_follows_from_the_nodes() {
    assert_eq!(replication_factor(0, 2), Ok(1));
    assert_eq!(replication_factor(0, 3), Ok(3));
    assert_eq!(replication_factor(5, 5), Ok(5));
    for (wanted, nodes) in [(2, 5), (3, 2), (7, 9), (0, 0)] {
        let refused = InvalidReplication { wanted, nodes };
        assert_eq!(replication_factor(wanted, nodes), Err(refused));
    }
}
