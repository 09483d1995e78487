//! Tests of what is believed of the cluster.

use proptest::prelude::*;

use super::*;

const LATER: Duration = Duration::from_secs(1);

fn routing() -> Routing {
    Routing::new(vec!["a:1".to_owned(), "b:1".to_owned()], 0)
}

fn news(epoch: u64, address: Option<&str>) -> LeaderNews {
    LeaderNews { partition: 0, epoch, address: address.map(str::to_owned) }
}

fn leads(address: &str) -> Lookup {
    Lookup::Leader(address.to_owned())
}

#[test]
fn what_was_never_heard_of_is_unknown_and_not_missing() {
    let now = Instant::now();
    let mut routing = routing();
    assert_eq!(routing.leader("t", 0), Lookup::TopicUnknown);
    assert_eq!(routing.partition_count("t"), None);
    routing.learn_topic("t", "id", &[news(1, None)], now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
    assert_eq!(routing.leader("t", 1), Lookup::NoSuchPartition(1));
    assert_eq!(routing.partition_count("t"), Some(1));
}

#[test]
fn news_of_an_older_epoch_is_ignored() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("b:1"))], now);
    routing.learn_topic("t", "id", &[news(4, Some("a:1"))], now);
    assert_eq!(routing.leader("t", 0), leads("b:1"));
}

#[test]
fn a_node_that_knows_of_no_leader_does_not_make_us_forget_one() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("b:1"))], now);
    routing.learn_topic("t", "id", &[news(5, None)], now);
    assert_eq!(routing.leader("t", 0), leads("b:1"));
    routing.learn_topic("t", "id", &[news(6, None)], now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
}

#[test]
fn a_topic_created_again_starts_from_nothing() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "old", &[news(9, Some("b:1"))], now);
    routing.learn_topic("t", "new", &[news(1, Some("a:1"))], now);
    assert_eq!(routing.leader("t", 0), leads("a:1"));
}

#[test]
fn a_refusal_is_believed_over_what_others_still_say() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now);
    routing.on_refused(("t", 0), "a:1", None, now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now + LATER);
    assert_eq!(routing.leader("t", 0), leads("a:1"));
}

#[test]
fn a_node_elected_again_is_believed_at_once() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now);
    routing.on_unreachable("a:1", now);
    routing.learn_topic("t", "id", &[news(6, Some("a:1"))], now);
    assert_eq!(routing.leader("t", 0), leads("a:1"));
}

#[test]
fn a_hint_is_followed_but_not_back_to_the_one_who_gives_it() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now);
    routing.on_refused(("t", 0), "a:1", Some("a:1"), now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
    routing.on_refused(("t", 0), "a:1", Some("b:1"), now);
    assert_eq!(routing.leader("t", 0), leads("b:1"));
}

#[test]
fn a_node_that_cannot_be_reached_leads_nothing_and_is_asked_last() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_topic("t", "id", &[news(5, Some("a:1"))], now);
    routing.set_coordinator("g", Some("a:1"));
    routing.set_metadata_leader(Some("a:1"));
    routing.on_unreachable("a:1", now);
    assert_eq!(routing.leader("t", 0), Lookup::LeaderUnknown);
    assert_eq!(routing.coordinator("g"), None);
    assert_eq!(routing.metadata_leader(), None);
    for _ in 0..4 {
        assert_eq!(routing.nodes_in_turn(now), ["b:1", "a:1"]);
    }
    let first: Vec<String> =
        (0..2).map(|_| routing.nodes_in_turn(now + LATER).swap_remove(0)).collect();
    assert_eq!(first, ["a:1", "b:1"], "after a while it has its turn again");
}

#[test]
fn a_node_that_fails_again_and_again_is_asked_last_for_longer_until_it_answers() {
    let mut now = Instant::now();
    let mut routing = routing();
    for _ in 0..10 {
        routing.on_unreachable("a:1", now);
        now += LATER * 60;
    }
    routing.on_unreachable("a:1", now);
    let asked_first =
        |routing: &mut Routing, at| (0..2).any(|_| routing.nodes_in_turn(at)[0] == "a:1");
    assert!(asked_first(&mut routing, now + LATER), "long ago is forgotten");
    for _ in 0..10 {
        routing.on_unreachable("a:1", now);
        now += LATER;
    }
    assert!(!asked_first(&mut routing, now + LATER * 20));
    assert!(asked_first(&mut routing, now + LATER * 40));
    routing.on_reachable("a:1");
    assert!(asked_first(&mut routing, now));
}

#[test]
fn nodes_that_the_cluster_names_are_asked_too() {
    let now = Instant::now();
    let mut routing = routing();
    routing.learn_nodes([(7, "c:1".to_owned()), (8, "a:1".to_owned())]);
    assert_eq!(routing.node(7).as_deref(), Some("c:1"));
    assert_eq!(routing.nodes_in_turn(now).len(), 3);
    routing.learn_nodes([]);
    assert_eq!(routing.node(7).as_deref(), Some("c:1"), "a fresh node knows of nobody");
}

#[test]
fn the_number_of_remembered_coordinators_is_bounded() {
    let mut routing = routing();
    for group in 0..2 * COORDINATORS_MAX {
        routing.set_coordinator(&group.to_string(), Some("a:1"));
        assert!(routing.coordinators.len() <= COORDINATORS_MAX);
    }
}

#[test]
fn a_partition_number_out_of_the_blue_costs_no_memory() {
    let now = Instant::now();
    let mut routing = routing();
    let far = LeaderNews { partition: u32::MAX, epoch: 1, address: None };
    routing.learn_topic("t", "id", &[far], now);
    assert_eq!(routing.partition_count("t"), Some(1));
}

proptest! {
    /// Whatever is heard, in whatever order: the leader is one that somebody named under the newest
    /// epoch, not one that has just failed under it, and there is always somebody to ask.
    #[test]
    fn beliefs_follow_the_two_rules(
        steps in prop::collection::vec((0_u8..4, 0_u64..4, 0_usize..4, 0_u64..300), 1..100),
    ) {
        let nodes = [None, Some("a:1"), Some("b:1"), Some("c:1")];
        let mut routing = routing();
        let mut now = Instant::now();
        let mut newest = 0;
        let mut named: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        let mut failed: Option<(&str, u64, Instant)> = None;
        for (kind, epoch, node, wait_ms) in steps {
            now += Duration::from_millis(wait_ms);
            let node = nodes[node];
            match (kind, node) {
                (0, Some(address)) => {
                    if routing.leader("t", 0) == leads(address) {
                        failed = Some((address, newest, now + AVOIDED_UNREACHABLE));
                    }
                    routing.on_unreachable(address, now);
                }
                (1, Some(address)) => routing.on_reachable(address),
                _ => {
                    named.entry(epoch).or_default().extend(node);
                    newest = newest.max(epoch);
                    routing.learn_topic("t", "id", &[news(epoch, node)], now);
                }
            }
            if let Lookup::Leader(address) = routing.leader("t", 0) {
                prop_assert!(named[&newest].contains(&address.as_str()), "{address}");
                if let Some((avoided, under, until)) = failed {
                    prop_assert!(avoided != address || under < newest || until <= now);
                }
            }
            prop_assert!(!routing.nodes_in_turn(now).is_empty());
        }
    }
}
