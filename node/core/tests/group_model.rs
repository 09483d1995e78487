//! The coordinator's table against a naive model, on random commits, resets and deletions.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;

use node_core::groups::{
    CommitOffsets, GroupCommand, GroupOutcome, GroupTable, OffsetCommit, coordinator_of,
};
use node_core::ids::{GroupId, GroupName, TopicName};
use node_core::limits::{COMMIT_OFFSETS_MAX, OFFSET_METADATA_BYTES_MAX};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use proptest::prelude::*;

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn at(index: u64) -> RaftPosition {
    RaftPosition { term: 3, index }
}

fn offset_of(name: &str, partition: u32, offset: u64) -> OffsetCommit {
    OffsetCommit { topic: topic(name), partition, offset, metadata: None }
}

fn commit(offsets: Vec<OffsetCommit>, reset: bool) -> GroupCommand {
    let time = EntryTime::from_ms(1_000);
    GroupCommand::Commit(CommitOffsets {
        group: group("billing"),
        offsets,
        committer: None,
        reset,
        time,
    })
}

prop_compose! {
    fn any_offset()(
        topic in prop_oneof![Just("orders"), Just("payments")],
        partition in 0_u32..3,
        offset in 0_u64..20,
        metadata in proptest::option::of("[a-zä]{0,9}"),
    ) -> OffsetCommit {
        OffsetCommit { metadata, ..offset_of(topic, partition, offset) }
    }
}

prop_compose! {
    fn any_commit()(
        name in prop_oneof![Just("billing"), Just("Größe")],
        offsets in proptest::collection::vec(any_offset(), 0..5),
        reset in proptest::bool::weighted(0.2),
        time in any::<u64>(),
    ) -> CommitOffsets {
        CommitOffsets { group: group(name), offsets, committer: None, reset, time: EntryTime(time) }
    }
}

fn any_command() -> impl Strategy<Value = GroupCommand> {
    let name = prop_oneof![Just("billing"), Just("Größe")];
    let topic_name = prop_oneof![Just("orders"), Just("payments")];
    prop_oneof![
        12 => any_commit().prop_map(GroupCommand::Commit),
        1 => name.prop_map(|name| GroupCommand::Delete { group: group(name) }),
        1 => topic_name.prop_map(|name| GroupCommand::ForgetTopic { topic: topic(name) }),
    ]
}

/// Group, topic and partition to the offset in force.
type Model = BTreeMap<(GroupName, TopicName, u32), u64>;

fn apply_to_model(model: &mut Model, command: &GroupCommand) -> GroupOutcome {
    match command {
        GroupCommand::Commit(commit) => {
            let mut after = model.clone();
            for wanted in &commit.offsets {
                let place = (commit.group.clone(), wanted.topic.clone(), wanted.partition);
                let in_force = after.insert(place, wanted.offset);
                if let Some(committed) = in_force.filter(|old| *old > wanted.offset)
                    && !commit.reset
                {
                    let (topic, partition) = (wanted.topic.clone(), wanted.partition);
                    return GroupOutcome::Regression { topic, partition, committed };
                }
            }
            *model = after;
            GroupOutcome::Committed
        }
        GroupCommand::Delete { group } => {
            let before = model.len();
            model.retain(|place, _| place.0 != *group);
            if model.len() < before { GroupOutcome::Deleted } else { GroupOutcome::UnknownGroup }
        }
        GroupCommand::ForgetTopic { topic } => {
            let before = model.len();
            model.retain(|place, _| place.1 != *topic);
            GroupOutcome::TopicForgotten { offsets: before - model.len() }
        }
        other => unreachable!("{other:?} is not among any_command()"),
    }
}

fn contents(table: &GroupTable) -> Model {
    let mut contents = Model::new();
    for group in table.group_names() {
        for ((topic, partition), offset) in table.offsets(group).unwrap() {
            contents.insert((group.clone(), topic.clone(), *partition), offset.offset);
        }
    }
    contents
}

proptest! {
    #[test]
    fn the_table_is_that_of_the_naive_model(
        commands in proptest::collection::vec(any_command(), 1..40),
    ) {
        let (mut table, mut model) = (GroupTable::default(), Model::new());
        for (index, command) in (0..).zip(&commands) {
            let outcome = table.apply(at(index), command);
            prop_assert_eq!(outcome, apply_to_model(&mut model, command));
            prop_assert_eq!(contents(&table), model.clone());
        }
        table.apply_membership(at(commands.len() as u64), b"members".as_slice().into());
        // Equal with its account of bytes, which the reader adds up anew.
        let snapshot = table.encode_snapshot();
        prop_assert_eq!(GroupTable::decode_snapshot(snapshot.clone()), Ok(table));

        let mut other = GroupTable::default();
        for (index, command) in (0..).zip(&commands) {
            other.apply(at(index), &GroupCommand::decode(command.encode()).unwrap());
        }
        other.apply_membership(at(commands.len() as u64), b"members".as_slice().into());
        prop_assert_eq!(other.encode_snapshot(), snapshot);
    }

    #[test]
    fn what_was_encoded_is_decoded_again(command in any_command()) {
        prop_assert_eq!(GroupCommand::decode(command.encode()), Ok(command));
    }

    #[test]
    fn a_changed_command_is_refused_or_can_be_applied(
        command in any_command(),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = command.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(command) = GroupCommand::decode(bytes.into()) {
            GroupTable::default().apply(at(0), &command);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let versioned = [&[1], &bytes[..]].concat();
        let _ = GroupCommand::decode(bytes.into());
        let _ = GroupCommand::decode(versioned.clone().into());
        let _ = GroupTable::decode_snapshot(versioned.into());
    }
}

#[test]
fn an_offset_goes_back_only_by_a_reset() {
    let mut table = GroupTable::default();
    table.apply(at(0), &commit(vec![offset_of("orders", 0, 10)], false));
    let both = || vec![offset_of("orders", 1, 5), offset_of("orders", 0, 9)];
    let regression =
        GroupOutcome::Regression { topic: topic("orders"), partition: 0, committed: 10 };
    assert_eq!(table.apply(at(1), &commit(both(), false)), regression);
    assert_eq!(table.offset(&group("billing"), &topic("orders"), 1), None, "all or none");
    assert_eq!(table.apply(at(2), &commit(both(), true)), GroupOutcome::Committed);
    let offset = table.offset(&group("billing"), &topic("orders"), 0).expect("committed");
    assert_eq!((offset.offset, offset.committed_at.ms()), (9, 1_000));
}

#[test]
fn the_time_of_a_commit_never_goes_back() {
    let mut table = GroupTable::default();
    let at_ms = |ms| {
        let offsets = vec![offset_of("orders", 0, 1)];
        let time = EntryTime::from_ms(ms);
        GroupCommand::Commit(CommitOffsets {
            group: group("g"),
            offsets,
            committer: None,
            reset: false,
            time,
        })
    };
    table.apply(at(0), &at_ms(500));
    table.apply(at(1), &at_ms(400));
    let offset = table.offset(&group("g"), &topic("orders"), 0).expect("committed");
    assert_eq!(offset.committed_at.ms(), 500);
}

#[test]
fn a_full_table_takes_nothing_more_but_lets_go() {
    let note = "x".repeat(OFFSET_METADATA_BYTES_MAX);
    let noted = |partition| OffsetCommit {
        metadata: Some(note.clone()),
        ..offset_of("orders", partition, 1)
    };
    let mut table = GroupTable::default();
    let mut index = 0;
    let refused = loop {
        let first = u32::try_from(index).unwrap() * 1_000;
        let outcome =
            table.apply(at(index), &commit((first..first + 1_000).map(noted).collect(), false));
        index += 1;
        if outcome != GroupOutcome::Committed {
            break outcome;
        }
    };
    assert!(matches!(refused, GroupOutcome::TableFull { .. }), "{refused:?}");
    let less = commit(vec![offset_of("orders", 0, 2)], false);
    assert_eq!(table.apply(at(index), &less), GroupOutcome::Committed);
    let delete = GroupCommand::Delete { group: group("billing") };
    assert_eq!(table.apply(at(index + 1), &delete), GroupOutcome::Deleted);
}

#[test]
fn a_commit_over_the_limits_is_told_which() {
    let check = |offsets| match commit(offsets, false) {
        GroupCommand::Commit(commit) => commit.check().map_err(|error| error.to_string()),
        _ => unreachable!("a commit was made"),
    };
    let many = |count| (0..count).map(|partition| offset_of("t", partition, 1)).collect();
    let limit = u32::try_from(COMMIT_OFFSETS_MAX).unwrap();
    assert_eq!(check(many(limit)), Ok(()));
    let text = "a commit has at most 10000 offsets, this one has 10001";
    assert_eq!(check(many(limit + 1)), Err(text.to_owned()));

    let noted =
        |bytes: usize| OffsetCommit { metadata: Some("x".repeat(bytes)), ..offset_of("t", 0, 1) };
    let text = "metadata of an offset has at most 4096 bytes, not 4097";
    assert_eq!(check(vec![noted(4_097)]), Err(text.to_owned()));
    assert_eq!(check(vec![noted(4_096)]), Ok(()));
    let error = check(vec![noted(4_096); 2_100]).expect_err("over 8 MiB");
    assert!(error.starts_with("a commit has at most 8388608 bytes in all"), "{error}");
}

#[test]
fn groups_spread_over_the_coordinators_and_stay_where_they_are() {
    // Fixed for ever: with another hash, groups would look for their offsets elsewhere.
    assert_eq!(coordinator_of(&group("billing"), 4), GroupId(2));
    assert_eq!(coordinator_of(&group("shipping"), 4), GroupId(3));
    let mut counts = BTreeMap::new();
    for number in 0..4_000 {
        let coordinator = coordinator_of(&group(&format!("group-{number}")), 4);
        *counts.entry(coordinator).or_insert(0) += 1;
    }
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5].map(GroupId));
    assert!(counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
}
