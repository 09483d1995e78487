//! Every kind of violation is caught, one test each, by spoiling a history that is good.

use bytes::Bytes;

use super::*;
use crate::demo::history::{GroupHistory, GroupRead, Kill, ReplicaAnswer, Sent};

fn content(id: &str, key: &str) -> Content {
    Content {
        id: id.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        body: Bytes::copy_from_slice(format!("body of {id}").as_bytes()),
    }
}

fn sent(id: &str, key: &str, place: Place, leader_epoch: u64, at_ms: u64) -> Sent {
    let outcome = Outcome::Acked {
        partition: place.0,
        offset: Some(place.1),
        leader_epoch,
        at: Duration::from_millis(at_ms),
    };
    Sent { content: content(id, key), outcome }
}

fn found(id: &str, key: &str, place: Place) -> Found {
    Found { partition: place.0, offset: place.1, content: content(id, key) }
}

/// The first member printed what came before it was killed, the second the rest.
fn printed((found, member): (&Found, usize)) -> GroupRead {
    GroupRead { member, partition: found.partition, offset: found.offset }
}

fn answer(node: u64, partition: u32, offset: u64) -> ReplicaAnswer {
    ReplicaAnswer { node, partition, offset, chain_hash: Bytes::from(format!("hash {partition}")) }
}

/// Two partitions, keys x and y in the first and z in the second; node 1 led both, was killed at
/// 1,000 ms, and appends were acknowledged again at 1,300 and 1,412 ms.
fn good() -> History {
    let records = [
        ("a", "x", (0, 0)),
        ("b", "y", (0, 1)),
        ("c", "x", (0, 2)),
        ("d", "z", (1, 0)),
        ("e", "z", (1, 1)),
    ];
    let found: Vec<Found> = records.iter().map(|(id, key, place)| found(id, key, *place)).collect();
    History {
        sent: vec![
            sent("a", "x", (0, 0), 3, 500),
            sent("d", "z", (1, 0), 5, 600),
            sent("b", "y", (0, 1), 3, 1_002),
            sent("c", "x", (0, 2), 4, 1_300),
            sent("e", "z", (1, 1), 6, 1_412),
        ],
        consumed: found.clone(),
        group: GroupHistory {
            reads: found.iter().zip([1, 1, 2, 1, 2]).map(printed).collect(),
            killed: Some(1),
        },
        read: found,
        kill: Some(Kill { node: 1, at: Duration::from_millis(1_000), led: vec![(0, 3), (1, 5)] }),
        nodes: vec![1, 2, 3],
        replicas: (1..=3).flat_map(|node| [answer(node, 0, 3), answer(node, 1, 2)]).collect(),
    }
}

/// The violations of the good history after `spoil`; never none.
fn violations(spoil: impl FnOnce(&mut History)) -> String {
    let mut history = good();
    spoil(&mut history);
    let verdict = judge(&history);
    assert!(!verdict.is_good(), "not caught: {verdict}");
    verdict.violations.iter().map(|violation| format!("{violation}\n")).collect()
}

/// Removes a record from what the reader, the consumer and the group got.
fn remove(history: &mut History, id: &str) {
    let gone = history.read.iter().find(|found| found.content.id == id);
    let gone = gone.map(|found| (found.partition, found.offset));
    history.group.reads.retain(|read| Some((read.partition, read.offset)) != gone);
    history.read.retain(|found| found.content.id != id);
    history.consumed.retain(|found| found.content.id != id);
}

#[test]
fn a_good_history_gets_the_settled_line() {
    let verdict = judge(&good());
    assert_eq!(
        verdict.to_string(),
        "verdict: acked 5, read 5, lost 0, duplicated 0, reordered 0, failover 412 ms, \
         replicas agree, consumed at least once by the group: missing 0"
    );
    assert!(verdict.is_good());
}

#[test]
fn an_acknowledged_record_that_is_not_there_is_lost() {
    let text = violations(|history| remove(history, "e"));
    assert!(text.contains("lost: e was acknowledged at 1:1, nothing is there"), "{text}");
}

#[test]
fn an_acknowledged_record_at_another_offset_is_lost() {
    let text = violations(|history| {
        history.sent[1] = sent("d", "z", (1, 1), 5, 600);
        history.sent[4] = sent("e", "z", (1, 0), 6, 1_412);
    });
    assert!(text.contains("lost: d was acknowledged at 1:1, e is there"), "{text}");
}

#[test]
fn a_record_whose_content_changed_is_lost_and_not_what_was_sent() {
    let text = violations(|history| {
        history.read[4].content.body = Bytes::from_static(b"damaged");
        history.consumed[4].content.body = Bytes::from_static(b"damaged");
    });
    assert!(text.contains("lost: e was acknowledged at 1:1, e is there"), "{text}");
    assert!(text.contains("not sent: e at 1:1: it was sent with another content"), "{text}");
}

#[test]
fn a_record_acknowledged_without_its_offset_has_to_be_somewhere() {
    let forget = |history: &mut History| {
        if let Outcome::Acked { offset, .. } = &mut history.sent[4].outcome {
            *offset = None;
        }
    };
    let mut history = good();
    forget(&mut history);
    assert!(judge(&history).is_good());
    let text = violations(|history| {
        forget(history);
        remove(history, "e");
    });
    assert!(text.contains("lost: e was acknowledged in partition 1"), "{text}");
}

#[test]
fn a_record_at_two_places_is_duplicated() {
    let text = violations(|history| {
        history.read.push(found("e", "z", (1, 2)));
        history.consumed.push(found("e", "z", (1, 2)));
    });
    assert!(text.contains("duplicated: e is at 1:1 and at 1:2"), "{text}");
    assert!(!text.contains("reordered"), "{text}");
}

#[test]
fn a_place_read_twice_is_duplicated() {
    let text = violations(|history| history.read.push(found("e", "z", (1, 1))));
    assert!(text.contains("duplicated: 1:1 was read twice"), "{text}");
}

#[test]
fn records_of_a_key_in_another_order_than_sent_are_reordered() {
    let text = violations(|history| history.sent.swap(0, 3));
    assert!(text.contains("reordered: c at 0:2 was sent before what is at 0:0"), "{text}");
}

#[test]
fn a_key_in_two_partitions_is_reordered() {
    let text = violations(|history| {
        history.sent.push(sent("f", "x", (1, 2), 6, 2_000));
        history.read.push(found("f", "x", (1, 2)));
        history.consumed.push(found("f", "x", (1, 2)));
    });
    assert!(text.contains("reordered: key x is in partitions 0 and 1"), "{text}");
}

#[test]
fn a_record_that_nobody_sent_is_reported() {
    let text = violations(|history| {
        history.read.push(found("ghost", "x", (0, 3)));
        history.consumed.push(found("ghost", "x", (0, 3)));
    });
    assert!(text.contains("not sent: ghost at 0:3: nobody sent it"), "{text}");
}

#[test]
fn a_refused_record_that_is_there_is_reported() {
    let text = violations(|history| {
        history.sent[4].outcome = Outcome::Refused("disk full".to_owned());
    });
    assert!(text.contains("not sent: e at 1:1: it was refused"), "{text}");
    assert!(text.contains("not acknowledged: e: disk full"), "{text}");
}

#[test]
fn a_record_of_unknown_outcome_is_reported_whether_or_not_it_is_there() {
    let unknown = |history: &mut History| {
        history.sent[4].outcome = Outcome::Unknown("timed out".to_owned());
    };
    assert!(violations(unknown).contains("not acknowledged: e: timed out"));
    let text = violations(|history| {
        unknown(history);
        remove(history, "e");
    });
    assert!(!text.contains("lost"), "{text}");
}

#[test]
fn a_hole_in_the_offsets_is_a_loss() {
    let text = violations(|history| {
        history.sent.remove(0);
        remove(history, "a");
    });
    assert!(text.contains("lost: nothing is at 0:0, below the end 3"), "{text}");
}

#[test]
fn a_consumer_that_skips_repeats_or_stops_early_is_caught() {
    let text = violations(|history| {
        history.consumed.remove(1);
    });
    assert!(text.contains("lost: the consumer went from 1 to 0:2"), "{text}");
    let text = violations(|history| history.consumed.push(found("d", "z", (1, 0))));
    assert!(text.contains("duplicated: 1:0 was consumed again"), "{text}");
    let text = violations(|history| {
        history.consumed.pop();
    });
    assert!(text.contains("lost: the consumer got 1:1 of 2"), "{text}");
}

#[test]
fn a_record_that_was_consumed_and_then_vanished_is_lost() {
    let text = violations(|history| {
        history.sent.pop();
        history.read.pop();
        history.replicas = (1..=3).flat_map(|n| [answer(n, 0, 3), answer(n, 1, 1)]).collect();
    });
    assert!(text.contains("lost: e was consumed at 1:1 and is not there"), "{text}");
}

#[test]
fn replicas_with_different_missing_or_uncommon_hashes_disagree() {
    type Spoil = fn(&mut History);
    let spoilers: [(&str, Spoil); 4] = [
        ("2 different chain hashes at 0:3", |history| {
            history.replicas[0].chain_hash = Bytes::from_static(b"other");
        }),
        ("node 1 has no chain hash for 0:3", |history| {
            history.replicas[0].chain_hash = Bytes::new();
        }),
        ("node 1 has no chain hash for 0:3", |history| {
            history.replicas[0].offset = 2;
        }),
        ("node 3 has no chain hash for 1:2", |history| {
            history.replicas.pop();
        }),
    ];
    for (expected, spoil) in spoilers {
        let text = violations(spoil);
        assert!(text.contains(&format!("replicas: {expected}")), "{text}");
    }
    let mut history = good();
    history.replicas.clear();
    assert!(judge(&history).to_string().contains("replicas disagree, "));
}

#[test]
fn an_answer_of_the_dead_leader_is_no_failover() {
    // b was acknowledged 2 ms after the kill, but under the dead leader's epoch.
    let text = violations(|history| {
        history.sent.retain(|sent| !["c", "e"].contains(&sent.content.id.as_str()));
        remove(history, "c");
        remove(history, "e");
        history.replicas = (1..=3).flat_map(|n| [answer(n, 0, 2), answer(n, 1, 1)]).collect();
    });
    let expected = "no failover: nothing was acknowledged by whoever took over from node 1\n";
    assert_eq!(text, expected);
}

#[test]
fn a_led_partition_that_got_no_more_records_has_no_time_of_its_own() {
    let mut history = good();
    history.sent.pop();
    remove(&mut history, "e");
    history.replicas = (1..=3).flat_map(|n| [answer(n, 0, 3), answer(n, 1, 1)]).collect();
    let verdict = judge(&history);
    assert_eq!(verdict.failover, Some(Duration::from_millis(300)));
    assert!(verdict.is_good());
}

#[test]
fn a_run_without_a_kill_of_a_leader_is_no_proof() {
    assert!(violations(|history| history.kill = None).contains("no node was killed"));
    let text = violations(|history| {
        if let Some(kill) = &mut history.kill {
            kill.led.clear();
        }
    });
    assert!(text.contains("no failover: nothing was acknowledged by whoever"), "{text}");
}

#[test]
fn a_record_that_no_member_of_the_group_got_is_missing() {
    let mut history = good();
    history.group.reads.retain(|read| (read.partition, read.offset) != (0, 1));
    let verdict = judge(&history);
    assert_eq!((verdict.missing(), verdict.lost()), (1, 0));
    assert_eq!(verdict.violations, [Violation::Missing("nobody got 0:1".to_owned())]);
    assert!(verdict.to_string().ends_with("by the group: missing 1"), "{verdict}");
}

#[test]
fn a_record_that_the_group_got_twice_is_none_too_many() {
    let mut history = good();
    let again = history.group.reads.clone();
    history.group.reads.extend(again);
    assert!(judge(&history).is_good());
}

#[test]
fn what_the_group_got_and_is_not_there_is_told() {
    let mut history = good();
    history.group.reads[0].offset = 99;
    let verdict = judge(&history);
    let alien = Violation::Alien("the group got 0:99, where nothing is".to_owned());
    assert!(verdict.violations.contains(&alien), "{verdict:?}");
    assert_eq!(verdict.missing(), 1);
}

#[test]
fn a_group_that_lost_nobody_was_not_put_to_the_test() {
    let mut history = good();
    history.group.killed = None;
    let nobody = Violation::Missing("no consumer was killed".to_owned());
    assert_eq!(judge(&history).violations, [nobody]);
}
