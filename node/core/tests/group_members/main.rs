//! Members of groups: each rule of `docs/consumer-groups.md`, one test each; random schedules
//! against the promise are in `schedules`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod desk;
mod schedules;

use node_core::groups::sessions::{LOOK_GAP_MAX_MS, Sessions};
use node_core::groups::{
    GroupCommand, GroupOutcome, GroupTable, Hearing, Heartbeat, MemberProfile, TopicPartitions,
};
use node_core::ids::{Generation, GroupName};
use node_core::limits::GROUP_MEMBERS_MAX;
use node_core::time::EntryTime;

use self::desk::{Desk, commit, group, member, partitions, profile, topic, with_instance};

/// Two members that share four partitions, as both know.
fn two_members() -> Desk {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    let (first, all) = desk.join("a", profile(&["orders"]));
    assert_eq!(all, partitions("orders", &[0, 1, 2, 3]));
    desk.join("b", profile(&["orders"]));
    give_up(&mut desk, "a", first, &["orders"]);
    assert!(desk.roster().is_settled());
    desk
}

/// A member learns what it should have, and gives up the rest at once.
fn give_up(desk: &mut Desk, id: &str, generation: Generation, topics: &[&str]) -> Generation {
    let owned = desk.roster().assigned(desk.roster().member(&member(id)).unwrap().0);
    let told = desk.heartbeat(id, generation, profile(topics), owned);
    let (generation, assigned) = desk.beat(&told).unwrap();
    let reported = desk.heartbeat(id, generation, profile(topics), assigned);
    desk.beat(&reported).unwrap().0
}

#[test]
fn the_first_member_gets_all_and_the_second_half_of_it_after_the_first_gave_it_up() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    let (first, all) = desk.join("a", profile(&["orders"]));
    assert_eq!(all, partitions("orders", &[0, 1, 2, 3]));
    let (_, none) = desk.join("b", profile(&["orders"]));
    assert_eq!(none, TopicPartitions::new(), "they are still the first one's");
    // The first is told, and is still at work on what it should give up.
    let (second, half) =
        desk.beat(&desk.heartbeat("a", first, profile(&["orders"]), all.clone())).unwrap();
    assert_eq!(half.values().next().unwrap().len(), 2);
    assert!(second > first);
    let entries = desk.entries;
    desk.beat(&desk.heartbeat("a", second, profile(&["orders"]), all)).unwrap();
    assert_eq!(desk.entries, entries, "nothing changed, so nothing is logged");
    assert_eq!(desk.told("b").1, TopicPartitions::new());
    desk.beat(&desk.heartbeat("a", second, profile(&["orders"]), half.clone())).unwrap();
    assert_eq!(desk.entries, entries + 1);
    let other_half = desk.told("b").1;
    assert_eq!(other_half.values().next().unwrap().len(), 2);
    assert!(half[&topic("orders")].is_disjoint(&other_half[&topic("orders")]));
}

#[test]
fn who_keeps_a_partition_commits_without_a_break_and_who_gives_up_until_it_has() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    let (first, _) = desk.join("a", profile(&["orders"]));
    desk.join("b", profile(&["orders"]));
    let mine = desk.told("a").1;
    let kept = *mine[&topic("orders")].first().unwrap();
    let leaving = 1 - kept;
    // It has not heard of the second member; all its commits are good.
    let by = Some(("a", first));
    let both = [("orders", kept, 5), ("orders", leaving, 7)];
    assert_eq!(desk.commit(by, &both), GroupOutcome::Committed);
    let generation = give_up(&mut desk, "a", first, &["orders"]);
    let lost = GroupOutcome::NotOwner { topic: topic("orders"), partition: leaving };
    for generation in [first, generation] {
        let by = Some(("a", generation));
        assert_eq!(desk.commit(by, &[("orders", kept, 8)]), GroupOutcome::Committed);
        assert_eq!(desk.commit(by, &[("orders", kept, 9), ("orders", leaving, 9)]), lost);
    }
    assert_eq!((desk.offset("orders", kept), desk.offset("orders", leaving)), (Some(8), Some(7)));
}

#[test]
fn a_commit_from_before_a_partition_went_away_and_came_back_is_refused() {
    let mut desk = Desk::with_topics(&[("orders", 1)]);
    let (first, _) = desk.join("a", profile(&["orders", "more"]));
    // The partition goes to another member and comes back.
    let (second, _) = desk
        .beat(&desk.heartbeat("a", first, profile(&["more"]), partitions("orders", &[0])))
        .unwrap();
    desk.join("b", profile(&["orders"]));
    desk.beat(&desk.heartbeat("a", second, profile(&["more"]), TopicPartitions::new())).unwrap();
    assert_eq!(desk.told("b").1, partitions("orders", &[0]));
    let (third, _) = desk
        .beat(&desk.heartbeat("a", second, profile(&["orders"]), TopicPartitions::new()))
        .unwrap();
    assert_eq!(desk.leave("b", false), GroupOutcome::Left);
    let (fourth, mine) = desk.told("a");
    assert_eq!(mine, partitions("orders", &[0]));
    let lost = GroupOutcome::NotOwner { topic: topic("orders"), partition: 0 };
    for old in [first, second, third] {
        assert_eq!(desk.commit(Some(("a", old)), &[("orders", 0, 9)]), lost);
    }
    assert_eq!(desk.commit(Some(("a", fourth)), &[("orders", 0, 9)]), GroupOutcome::Committed);
}

#[test]
fn only_the_current_generation_changes_anything() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    let (first, _) = desk.join("a", profile(&["orders"]));
    desk.join("b", profile(&["orders"]));
    // A copy of a heartbeat from before the member knew of anything to give up, and one that joins.
    let entries = desk.entries;
    for old in [Generation(0), first] {
        let late = desk.heartbeat("a", old, profile(&["other"]), TopicPartitions::new());
        let (now, _) = desk.beat(&late).unwrap();
        assert!(now > first);
    }
    assert_eq!(desk.entries, entries);
    assert_eq!(desk.told("b").1, TopicPartitions::new(), "nothing was freed");
}

#[test]
fn a_late_copy_does_not_bring_an_older_subscription_back() {
    let mut desk = Desk::with_topics(&[]);
    let (first, none) = desk.join("a", profile(&["orders"]));
    let before = desk.heartbeat("a", first, profile(&["orders"]), none.clone());
    desk.beat(&desk.heartbeat("a", first, profile(&["payments"]), none)).unwrap();
    desk.beat(&before).unwrap();
    let (_, found) = desk.roster().member(&member("a")).unwrap();
    assert_eq!(found.profile, profile(&["payments"]));
}

#[test]
fn a_generation_that_the_member_cannot_have_is_refused() {
    let mut desk = two_members();
    let (current, assigned) = desk.told("b");
    let fenced = GroupOutcome::MemberFenced { current };
    for generation in [Generation(1), Generation(current.0 + 1)] {
        let beat = desk.heartbeat("b", generation, profile(&["orders"]), assigned.clone());
        assert_eq!(desk.beat(&beat), Err(fenced.clone()));
        assert_eq!(desk.commit(Some(("b", generation)), &[("orders", 0, 1)]), fenced);
    }
}

#[test]
fn an_unknown_group_or_member_is_told_apart() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    let beat = |desk: &Desk, id| {
        desk.heartbeat(id, Generation(7), profile(&["orders"]), TopicPartitions::new())
    };
    assert_eq!(desk.beat(&beat(&desk, "a")), Err(GroupOutcome::UnknownGroup));
    assert_eq!(desk.leave("a", false), GroupOutcome::UnknownGroup);
    assert_eq!(desk.commit(Some(("a", Generation(7))), &[]), GroupOutcome::UnknownGroup);
    desk.join("b", profile(&["orders"]));
    assert_eq!(desk.beat(&beat(&desk, "a")), Err(GroupOutcome::UnknownMember));
    assert_eq!(desk.leave("a", false), GroupOutcome::UnknownMember);
    assert_eq!(desk.commit(Some(("a", Generation(7))), &[]), GroupOutcome::UnknownMember);
    assert_eq!(desk.expire("a"), GroupOutcome::Expired { members: 0 });
}

#[test]
fn who_leaves_or_is_expired_leaves_everything_to_the_others_at_once() {
    for expires in [false, true] {
        let mut desk = two_members();
        let (generation, assigned) = desk.told("b");
        let outcome = if expires { desk.expire("b") } else { desk.leave("b", false) };
        let wanted =
            if expires { GroupOutcome::Expired { members: 1 } } else { GroupOutcome::Left };
        assert_eq!(outcome, wanted);
        assert_eq!(desk.told("a").1, partitions("orders", &[0, 1, 2, 3]));
        // What is left of it is refused.
        let beat = desk.heartbeat("b", generation, profile(&["orders"]), assigned);
        assert_eq!(desk.beat(&beat), Err(GroupOutcome::UnknownMember));
        let commit = desk.commit(Some(("b", generation)), &[("orders", 0, 1)]);
        assert_eq!(commit, GroupOutcome::UnknownMember);
        // Under its old id it is a new member, which its old generation does not fit.
        desk.join("b", profile(&["orders"]));
        let commit = desk.commit(Some(("b", generation)), &[("orders", 0, 1)]);
        assert!(matches!(commit, GroupOutcome::MemberFenced { .. }), "{commit:?}");
    }
}

#[test]
fn an_expiry_does_not_touch_one_who_joined_anew() {
    let mut desk = two_members();
    let joined = desk.roster().member(&member("b")).unwrap().0;
    desk.leave("b", false);
    desk.join("b", profile(&["orders"]));
    let (members, time) = (vec![(member("b"), joined)], EntryTime::default());
    let late = node_core::groups::ExpireMembers { group: group(), members, time };
    assert_eq!(desk.apply(GroupCommand::Expire(late)), GroupOutcome::Expired { members: 0 });
    assert!(desk.roster().member(&member("b")).is_some());
}

#[test]
fn a_restart_with_an_instance_id_moves_nothing() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    let (first, _) = desk.join("a", profile(&["orders"]));
    desk.join("b1", with_instance("b", &["orders"]));
    let before_a = give_up(&mut desk, "a", first, &["orders"]);
    let before = desk.told("b1").1;
    assert_eq!(desk.leave("b1", true), GroupOutcome::Left);
    assert!(desk.roster().member(&member("b1")).unwrap().1.away);
    let (_, after) = desk.join("b2", with_instance("b", &["orders"]));
    assert_eq!(after, before);
    assert_eq!(desk.told("a").0, before_a, "the other member has nothing to do with it");
    assert_eq!(desk.roster().members().len(), 2);
}

#[test]
fn of_two_members_with_one_instance_id_the_older_is_fenced() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    let (old, all) = desk.join("b1", with_instance("b", &["orders"]));
    let (new, same) = desk.join("b2", with_instance("b", &["orders"]));
    assert_eq!(all, same);
    let beat = desk.heartbeat("b1", old, with_instance("b", &["orders"]), all);
    assert_eq!(desk.beat(&beat), Err(GroupOutcome::InstanceFenced));
    let commit = [("orders", 0, 3)];
    assert_eq!(desk.commit(Some(("b1", old)), &commit), GroupOutcome::UnknownMember);
    assert_eq!(desk.commit(Some(("b2", new)), &commit), GroupOutcome::Committed);
}

#[test]
fn what_the_old_process_was_giving_up_is_free_when_the_new_one_takes_over() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    desk.join("b1", with_instance("b", &["orders"]));
    desk.join("a", profile(&["orders"]));
    assert_eq!(desk.told("a").1, TopicPartitions::new());
    desk.join("b2", with_instance("b", &["orders"]));
    assert!(desk.roster().is_settled());
    assert_eq!(desk.told("a").1.values().next().unwrap().len(), 2);
}

#[test]
fn each_member_gets_of_what_it_subscribes_to() {
    let mut desk = Desk::with_topics(&[("orders", 2), ("payments", 2)]);
    desk.join("a", profile(&["orders"]));
    desk.join("b", profile(&["payments", "orders"]));
    assert_eq!(desk.told("a").1, partitions("orders", &[0, 1]));
    assert_eq!(desk.told("b").1, partitions("payments", &[0, 1]));
    // Nobody wants it any more: it is given up and then nobody's.
    let (generation, owned) = desk.told("b");
    let (generation, none) =
        desk.beat(&desk.heartbeat("b", generation, profile(&["later"]), owned)).unwrap();
    assert_eq!(none, TopicPartitions::new());
    desk.beat(&desk.heartbeat("b", generation, profile(&["later"]), none)).unwrap();
    assert_eq!(desk.roster().seats().keys().collect::<Vec<_>>(), [&topic("orders")]);
}

#[test]
fn new_topics_and_partitions_are_found() {
    let mut desk = Desk::with_topics(&[("orders", 1)]);
    desk.join("a", profile(&["orders", "later"]));
    desk.make_topic("orders", 3);
    desk.make_topic("later", 1);
    assert_eq!(desk.tell_news(), GroupOutcome::TopicsLearned { groups: 1 });
    let mut all = partitions("orders", &[0, 1, 2]);
    all.extend(partitions("later", &[0]));
    assert_eq!(desk.told("a").1, all);
    assert_eq!(desk.tell_news(), GroupOutcome::TopicsLearned { groups: 0 });
}

#[test]
fn older_news_of_topics_than_the_table_has_changes_nothing() {
    let mut desk = Desk::with_topics(&[]);
    let old = desk.news([topic("orders")]);
    desk.make_topic("orders", 2);
    desk.join("a", profile(&["orders"]));
    let news = GroupCommand::TopicsChanged { news: old, time: EntryTime::default() };
    assert_eq!(desk.apply(news), GroupOutcome::TopicsLearned { groups: 0 });
    assert_eq!(desk.told("a").1, partitions("orders", &[0, 1]));
}

#[test]
fn a_topic_that_was_made_again_is_another_one() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    let (first, _) = desk.join("a", profile(&["orders"]));
    assert_eq!(desk.commit(Some(("a", first)), &[("orders", 0, 9)]), GroupOutcome::Committed);
    desk.delete_topic("orders");
    desk.make_topic("orders", 1);
    desk.tell_news();
    assert_eq!(desk.offset("orders", 0), None);
    let (second, assigned) = desk.told("a");
    assert_eq!(assigned, partitions("orders", &[0]));
    let lost = GroupOutcome::NotOwner { topic: topic("orders"), partition: 0 };
    assert_eq!(desk.commit(Some(("a", first)), &[("orders", 0, 9)]), lost);
    assert_eq!(desk.commit(Some(("a", second)), &[("orders", 0, 1)]), GroupOutcome::Committed);

    desk.delete_topic("orders");
    desk.tell_news();
    assert_eq!(desk.told("a").1, TopicPartitions::new());
    let forget = GroupCommand::ForgetTopic { topic: topic("orders") };
    assert_eq!(desk.apply(forget), GroupOutcome::TopicForgotten { offsets: 1 });
}

#[test]
fn a_topic_made_again_while_a_member_gives_up_the_one_before_is_another_one() {
    let mut desk = Desk::with_topics(&[("orders", 4), ("payments", 1)]);
    let (first, owned) = desk.join("a", profile(&["orders"]));
    let resubscribes = desk.heartbeat("a", first, profile(&["payments"]), owned);
    desk.beat(&resubscribes).unwrap();
    desk.tell_news();
    desk.delete_topic("orders");
    desk.make_topic("orders", 2);
    desk.join("b", profile(&["orders"]));
    assert_eq!(desk.told("b").1, partitions("orders", &[0, 1]));
}

#[test]
fn forgetting_a_topic_takes_its_partitions_too() {
    let mut desk = two_members();
    let forget = GroupCommand::ForgetTopic { topic: topic("orders") };
    desk.apply(forget);
    assert_eq!((desk.told("a").1, desk.told("b").1), Default::default());
    assert!(desk.table.topics().is_empty());
}

#[test]
fn a_group_with_members_takes_no_commit_or_deletion_from_outside() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    assert_eq!(desk.commit(None, &[("orders", 0, 5)]), GroupOutcome::Committed);
    desk.join("a", profile(&["orders"]));
    let busy = GroupOutcome::NotEmpty { members: 1 };
    assert_eq!(desk.commit(None, &[("orders", 0, 6)]), busy);
    let delete = GroupCommand::Delete { group: group() };
    assert_eq!(desk.apply(delete.clone()), busy);
    assert_eq!(desk.offset("orders", 0), Some(5), "members begin where the group was");
    desk.leave("a", false);
    assert_eq!(desk.commit(None, &[("orders", 0, 6)]), GroupOutcome::Committed);
    assert_eq!(desk.apply(delete), GroupOutcome::Deleted);
}

#[test]
fn an_owner_goes_back_only_by_a_reset() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    let (generation, _) = desk.join("a", profile(&["orders"]));
    let by = Some(("a", generation));
    desk.commit(by, &[("orders", 0, 5)]);
    let (topic, partition, committed) = (topic("orders"), 0, 5);
    let regression = GroupOutcome::Regression { topic, partition, committed };
    assert_eq!(desk.commit(by, &[("orders", 0, 4)]), regression);
    let mut reset = commit(by, &[("orders", 0, 4)]);
    reset.reset = true;
    assert_eq!(desk.apply(GroupCommand::Commit(reset)), GroupOutcome::Committed);
    assert_eq!(desk.offset("orders", 0), Some(4));
}

#[test]
fn generations_go_on_after_a_group_is_gone() {
    let mut desk = Desk::with_topics(&[("orders", 2)]);
    let (before, _) = desk.join("a", profile(&["orders"]));
    desk.leave("a", false);
    assert!(desk.table.group_names().next().is_none());
    let (after, _) = desk.join("a", profile(&["orders"]));
    assert!(after > before);
}

#[test]
fn a_group_takes_so_many_members_and_no_more() {
    let mut desk = Desk::with_topics(&[("orders", 64)]);
    for number in 0..GROUP_MEMBERS_MAX {
        desk.join(&format!("m{number}"), profile(&["orders"]));
    }
    let one_more =
        desk.heartbeat("more", Generation(0), profile(&["orders"]), TopicPartitions::new());
    let full = GroupOutcome::GroupFull { limit: GROUP_MEMBERS_MAX };
    assert_eq!(desk.beat(&one_more), Err(full));
    let snapshot = desk.table.encode_snapshot();
    assert_eq!(GroupTable::decode_snapshot(snapshot), Ok(desk.table));
}

#[test]
fn a_join_that_the_table_has_no_room_for_changes_nothing() {
    let mut desk = Desk::with_topics(&[("orders", 4_096)]);
    let refused = loop {
        let mut beat =
            desk.heartbeat("a", Generation(0), profile(&["orders"]), TopicPartitions::new());
        beat.group = GroupName::new(format!("group-{}", desk.entries)).unwrap();
        let before = desk.table.clone();
        let outcome = desk.apply(GroupCommand::Heartbeat(beat.clone()));
        if !matches!(outcome, GroupOutcome::Heard { .. }) {
            assert!(desk.table.rosters().eq(before.rosters()));
            break outcome;
        }
    };
    assert!(matches!(refused, GroupOutcome::TableFull { .. }), "{refused:?}");
    let snapshot = desk.table.encode_snapshot();
    assert_eq!(GroupTable::decode_snapshot(snapshot), Ok(desk.table));
}

#[test]
fn limits_of_a_heartbeat_are_told() {
    let desk = Desk::default();
    let check = |profile: MemberProfile, owned| {
        let beat = desk.heartbeat("a", Generation(0), profile, owned);
        Heartbeat::check(&beat).map_err(|error| error.to_string())
    };
    let none = TopicPartitions::new;
    let text = "the subscription is empty; name at least one topic";
    assert_eq!(check(profile(&[]), none()), Err(text.to_owned()));
    let names: Vec<String> = (0..1_001).map(|number| format!("t{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = "a subscription has at most 1000 topics, this one has 1001";
    assert_eq!(check(profile(&names), none()), Err(text.to_owned()));
    assert_eq!(check(profile(&names[1..]), none()), Ok(()));
    let short = MemberProfile { session_ms: 999, ..profile(&["t"]) };
    let text = "a session time-out is 1000 to 1800000 ms, not 999";
    assert_eq!(check(short, none()), Err(text.to_owned()));
    let long = MemberProfile { client: "x".repeat(256), ..profile(&["t"]) };
    let text = "a client's name has at most 255 bytes, not 256";
    assert_eq!(check(long, none()), Err(text.to_owned()));
    let owned = names.iter().flat_map(|name| [format!("{name}a"), format!("{name}b")]);
    let owned = owned.map(|name| (topic(&name), [0].into())).collect();
    let text = "2002 topics with 2002 partitions are more than a member can own";
    assert_eq!(check(profile(&["t"]), owned), Err(text.to_owned()));
}

#[test]
fn a_heartbeat_that_says_what_is_known_needs_no_entry() {
    let mut desk = two_members();
    let (generation, owned) = desk.told("a");
    let beat = desk.heartbeat("a", generation, profile(&["orders"]), owned);
    let joined = desk.roster().member(&member("a")).unwrap().0;
    assert_eq!(desk.table.hear(&beat), Hearing::AsBefore { joined, generation });
    let entries = desk.entries;
    desk.beat(&beat).unwrap();
    assert_eq!(desk.entries, entries);
}

#[test]
fn a_silent_member_is_due_after_its_session_and_others_are_not() {
    let desk = two_members();
    let joined = |id| desk.roster().member(&member(id)).unwrap().0;
    let mut sessions = Sessions::default();
    let mut due_at = None;
    for now_ms in (50_000..65_000).step_by(500) {
        sessions.heard(&group(), joined("a"), now_ms);
        let due = sessions.look(&desk.table, now_ms);
        if let Some(members) = due.get(&group()) {
            assert_eq!(members, &[(member("b"), joined("b"))]);
            due_at = due_at.or(Some(now_ms));
        }
    }
    assert_eq!(due_at, Some(60_000), "a full session from the leader's first look");
}

#[test]
fn time_in_which_the_leader_stood_still_is_nobodys_silence() {
    let desk = two_members();
    let mut sessions = Sessions::default();
    assert!(sessions.look(&desk.table, 0).is_empty());
    assert!(sessions.look(&desk.table, 3_600_000).is_empty());
    let mut now_ms = 3_600_000;
    let mut looks = 0;
    while sessions.look(&desk.table, now_ms).is_empty() {
        now_ms += 1_000;
        looks += 1;
    }
    assert_eq!(looks, (10_000 - LOOK_GAP_MAX_MS) / 1_000);
}

#[test]
fn who_does_not_give_up_in_its_time_is_due_though_it_is_heard() {
    let mut desk = Desk::with_topics(&[("orders", 4)]);
    desk.join("a", profile(&["orders"]));
    desk.join("b", profile(&["orders"]));
    let joined = |id| desk.roster().member(&member(id)).unwrap().0;
    let (a, b) = (joined("a"), joined("b"));
    let mut sessions = Sessions::default();
    let mut due_at = None;
    for now_ms in (0..70_000).step_by(1_000) {
        sessions.heard(&group(), a, now_ms);
        sessions.heard(&group(), b, now_ms);
        if !sessions.look(&desk.table, now_ms).is_empty() {
            due_at = due_at.or(Some(now_ms));
        }
    }
    assert_eq!(due_at, Some(60_000));
}

#[test]
fn a_table_that_never_had_members_is_written_for_older_builds() {
    let mut desk = Desk::with_topics(&[("orders", 1)]);
    desk.commit(None, &[("orders", 0, 5)]);
    assert_eq!(desk.table.encode_snapshot()[0], 1);
    desk.join("a", profile(&["orders"]));
    assert_eq!(desk.table.encode_snapshot()[0], 2);
}
