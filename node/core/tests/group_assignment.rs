//! What the assignor promises, on random groups: complete, balanced, sticky, and the same whatever
//! the order in which the facts were told.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use node_core::groups::assignor::{Plan, assign};
use node_core::ids::{Generation, TopicName};
use proptest::prelude::*;

type Members = BTreeMap<Generation, BTreeSet<TopicName>>;

fn topic(number: usize) -> TopicName {
    TopicName::new(format!("t{number}")).unwrap()
}

fn run(members: &Members, now: &Plan) -> Plan {
    assign(&members.iter().map(|(joined, topics)| (*joined, topics)).collect(), now)
}

/// Topics of so many partitions, which nobody has.
fn unowned(partitions: &[usize]) -> Plan {
    let topics = partitions.iter().enumerate();
    topics.map(|(number, count)| (topic(number), vec![None; *count])).collect()
}

/// `count` members that all subscribe to the first `topics` topics.
fn alike(count: u64, topics: usize) -> Members {
    (1..=count).map(|joined| (Generation(joined), (0..topics).map(topic).collect())).collect()
}

fn counts(members: &Members, plan: &Plan) -> BTreeMap<Generation, usize> {
    let mut counts: BTreeMap<Generation, usize> = members.keys().map(|key| (*key, 0)).collect();
    for holder in plan.values().flatten().flatten() {
        *counts.get_mut(holder).expect("only members hold partitions") += 1;
    }
    counts
}

fn moved(before: &Plan, after: &Plan) -> usize {
    let pairs = before.values().flatten().zip(after.values().flatten());
    pairs.filter(|(before, after)| before != after).count()
}

fn total(plan: &Plan) -> usize {
    plan.values().map(Vec::len).sum()
}

/// Complete, with members that subscribe, and balanced among equals.
fn check(members: &Members, plan: &Plan) {
    for (topic, seats) in plan {
        let subscribers: Vec<_> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).collect();
        for holder in seats {
            match holder {
                None => assert!(subscribers.is_empty(), "{topic} has nobody's partitions"),
                Some(holder) => assert!(members[holder].contains(topic), "{holder} of {topic}"),
            }
        }
    }
    let counts = counts(members, plan);
    let mut classes: BTreeMap<&BTreeSet<TopicName>, Vec<usize>> = BTreeMap::new();
    for (joined, topics) in members {
        classes.entry(topics).or_default().push(counts[joined]);
    }
    for (topics, counts) in classes {
        let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(max - min <= 1, "members of {topics:?} have {counts:?}");
    }
}

fn any_topics() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..20, 1..5)
}

fn any_members() -> impl Strategy<Value = Members> {
    let subscription = proptest::collection::btree_set((0_usize..5).prop_map(topic), 1..5);
    proptest::collection::btree_map((1_u64..40).prop_map(Generation), subscription, 0..12)
}

proptest! {
    #[test]
    fn every_partition_has_one_subscriber_and_equals_have_equal_shares(
        topics in any_topics(),
        histories in proptest::collection::vec(any_members(), 1..6),
    ) {
        // Each step begins with what the step before decided, whoever is still there.
        let mut plan = unowned(&topics);
        for members in histories {
            plan = run(&members, &plan);
            check(&members, &plan);
        }
    }

    #[test]
    fn one_who_joins_or_leaves_moves_no_more_than_its_share(
        topics in any_topics(),
        count in 1_u64..12,
        leaves in any::<prop::sample::Index>(),
    ) {
        let mut members = alike(count, topics.len());
        let before = run(&members, &unowned(&topics));
        let total = total(&before);
        let joined = alike(count + 1, topics.len());
        let after = run(&joined, &before);
        check(&joined, &after);
        let (share, larger_share) = (
            total.div_ceil(usize::try_from(count).unwrap() + 1),
            total.div_ceil(usize::try_from(count).unwrap()),
        );
        prop_assert!(moved(&before, &after) <= share);

        let gone = *members.keys().nth(leaves.index(members.len())).unwrap();
        members.remove(&gone);
        let after = run(&members, &before);
        check(&members, &after);
        prop_assert!(moved(&before, &after) <= larger_share);
        for (before, after) in before.values().flatten().zip(after.values().flatten()) {
            prop_assert!(*before == Some(gone) || before == after, "only the leaver's move");
        }
    }

    #[test]
    fn nothing_moves_where_nothing_changed(topics in any_topics(), count in 0_u64..12) {
        let members = alike(count, topics.len());
        let plan = run(&members, &unowned(&topics));
        prop_assert_eq!(run(&members, &plan), plan);
    }

    #[test]
    fn holders_that_are_not_members_count_as_none(topics in any_topics(), count in 1_u64..5) {
        let members = alike(count, topics.len());
        let mut strange = unowned(&topics);
        for holder in strange.values_mut().flatten() {
            *holder = Some(Generation(99));
        }
        prop_assert_eq!(run(&members, &strange), run(&members, &unowned(&topics)));
    }
}

#[test]
fn each_topic_is_spread_over_all_members() {
    let members = alike(3, 2);
    let plan = run(&members, &unowned(&[12, 12]));
    for seats in plan.values() {
        for member in members.keys() {
            assert_eq!(seats.iter().filter(|holder| **holder == Some(*member)).count(), 4);
        }
    }
    // The one who joins gets some of each topic too.
    let plan = run(&alike(4, 2), &plan);
    for seats in plan.values() {
        assert_eq!(seats.iter().filter(|holder| **holder == Some(Generation(4))).count(), 3);
    }
}

#[test]
fn a_member_with_a_topic_of_its_own_gets_less_of_the_shared_one() {
    let mut members = alike(1, 1);
    members.insert(Generation(2), [topic(0), topic(1)].into());
    let plan = run(&members, &unowned(&[10, 6]));
    check(&members, &plan);
    assert_eq!(counts(&members, &plan), [(Generation(1), 8), (Generation(2), 8)].into());
    // The same when the topic of its own comes later: some of the shared one move over.
    let before = run(&members, &unowned(&[10]));
    let mut now = before.clone();
    now.insert(topic(1), vec![None; 6]);
    let after = run(&members, &now);
    assert_eq!(counts(&members, &after), [(Generation(1), 8), (Generation(2), 8)].into());
}

#[test]
fn a_thousand_members_with_subscriptions_of_their_own_are_served_in_bounded_work() {
    let own = |joined: u64| {
        let own = usize::try_from(joined).unwrap();
        [topic(0), topic(own)].into()
    };
    let members: Members = (1..=1_000).map(|joined| (Generation(joined), own(joined))).collect();
    let mut partitions = vec![4_096];
    partitions.extend(vec![4; 1_000]);
    let plan = run(&members, &unowned(&partitions));
    check(&members, &plan);
    let counts = counts(&members, &plan);
    assert!(counts.values().all(|count| (8..=9).contains(count)), "{counts:?}");
}
