//! `quipu group describe`, `lag` and `members`: one description of a group, shown in three ways.

use std::time::Duration;

use jiff::Timestamp;
use quipu_client::{GroupDescription, GroupMember, GroupOffset, PartitionLag, TopicPartition};
use serde_json::{Value, json};

use crate::args::{GlobalArgs, LagArgs};
use crate::commands::{connect, is_json};
use crate::output::table::{Column, NONE, grouped, table};
use crate::output::{print, print_json};

/// Characters of a member id that a table shows; enough to tell a thousand apart.
const ID_CHARS: usize = 8;

pub(super) async fn describe(global: &GlobalArgs, group: &str) -> anyhow::Result<()> {
    let description = connect(global).await?.groups().describe(group).await?;
    if is_json(global) {
        return print_json(&description_json(&description));
    }
    print(description_text(&description).as_bytes())
}

pub(super) async fn lag(global: &GlobalArgs, args: &LagArgs) -> anyhow::Result<()> {
    let groups = connect(global).await?.groups();
    loop {
        let lags = groups.lag(&args.group).await?;
        if is_json(global) {
            for lag in &lags {
                print_json(&lag_json(&args.group, lag))?;
            }
        } else {
            print(lag_text(&args.group, &lags).as_bytes())?;
        }
        let Some(every) = args.watch else { return Ok(()) };
        tokio::time::sleep(every).await;
        if !is_json(global) {
            print(b"\n")?;
        }
    }
}

pub(super) async fn members(global: &GlobalArgs, group: &str) -> anyhow::Result<()> {
    let description = connect(global).await?.groups().describe(group).await?;
    if is_json(global) {
        for member in &description.members {
            print_json(&member_json(member))?;
        }
        return Ok(());
    }
    print(members_text(&description.members).as_bytes())
}

fn description_json(description: &GroupDescription) -> Value {
    let committed = |offset: &GroupOffset| {
        let is_it = |lag: &&PartitionLag| is_of(lag, offset);
        let lag = description.lags.iter().find(is_it);
        json!({
            "topic": offset.topic,
            "partition": offset.partition,
            "offset": offset.offset,
            "log_start_offset": lag.and_then(|lag| lag.log_start_offset),
            "high_watermark": lag.and_then(|lag| lag.high_watermark),
            "lag": lag.and_then(|lag| lag.lag),
            "metadata": offset.metadata,
            "committed_at_ms": offset.committed_at_ms,
        })
    };
    let lags = description.lags.iter().map(|lag| lag_json(&description.group, lag));
    json!({
        "group": description.group,
        "coordinator": description.coordinator,
        "leader_node": description.leader_node,
        "generation": description.generation,
        "settled": description.settled,
        "members": description.members.iter().map(member_json).collect::<Vec<_>>(),
        "offsets": description.offsets.iter().map(committed).collect::<Vec<_>>(),
        "lags": lags.collect::<Vec<_>>(),
    })
}

fn is_of(lag: &PartitionLag, offset: &GroupOffset) -> bool {
    lag.topic == offset.topic && lag.partition == offset.partition
}

fn lag_json(group: &str, lag: &PartitionLag) -> Value {
    json!({
        "group": group,
        "topic": lag.topic,
        "partition": lag.partition,
        "offset": lag.group_offset,
        "log_start_offset": lag.log_start_offset,
        "high_watermark": lag.high_watermark,
        "lag": lag.lag,
        "lag_ms": lag.lag_time.map(|time| time.as_millis()),
        "member_id": lag.member_id,
    })
}

fn member_json(member: &GroupMember) -> Value {
    let places = |places: &[TopicPartition]| {
        let place = |it: &TopicPartition| json!({ "topic": it.topic, "partition": it.partition });
        places.iter().map(place).collect::<Vec<_>>()
    };
    json!({
        "member_id": member.member_id,
        "instance_id": member.instance_id,
        "client": member.client,
        "generation": member.generation,
        "session_timeout_ms": member.session_timeout.as_millis(),
        "max_processing_ms": member.max_processing.as_millis(),
        "joined_at_ms": member.joined_at_ms,
        "away": member.away,
        "topics": member.topics,
        "assigned": places(&member.assigned),
        "giving_up": places(&member.giving_up),
        "waiting_for": places(&member.waiting_for),
    })
}

fn description_text(description: &GroupDescription) -> String {
    let kept_by = match description.leader_node {
        Some(node) => format!("kept by node {node}"),
        None => "kept by no node at this moment".to_owned(),
    };
    let settled = if description.settled { "" } else { ", partitions are moving" };
    let mut text = format!(
        "group {}, {kept_by}, {} members, lag {}{settled}\n\n",
        description.group,
        description.members.len(),
        grouped(total(&description.lags)),
    );
    if !description.members.is_empty() {
        text += &members_text(&description.members);
        text.push('\n');
    }
    let columns = [
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("offset"),
        Column::Number("end"),
        Column::Number("lag"),
        Column::Text("member"),
        Column::Text("committed"),
        Column::Text("metadata"),
    ];
    let gone = description
        .offsets
        .iter()
        .filter(|offset| !description.lags.iter().any(|lag| is_of(lag, offset)));
    let rows = description.lags.iter().map(|lag| {
        let committed = description.offsets.iter().find(|offset| is_of(lag, offset));
        description_row(lag, committed)
    });
    let gone = gone.map(|offset| {
        let GroupOffset { topic, partition, offset: at, .. } = offset.clone();
        let lag = PartitionLag { group_offset: Some(at), ..unknown(topic, partition) };
        description_row(&lag, Some(offset))
    });
    text + &table(&columns, rows.chain(gone))
}

/// A partition of which nothing is known.
fn unknown(topic: String, partition: u32) -> PartitionLag {
    PartitionLag {
        topic,
        partition,
        group_offset: None,
        log_start_offset: None,
        high_watermark: None,
        lag: None,
        lag_time: None,
        member_id: None,
    }
}

fn description_row(lag: &PartitionLag, committed: Option<&GroupOffset>) -> Vec<String> {
    vec![
        lag.topic.clone(),
        lag.partition.to_string(),
        number(lag.group_offset),
        number(lag.high_watermark),
        number(lag.lag),
        id_text(lag.member_id.as_deref()),
        committed.and_then(|it| it.committed_at_ms).map_or(NONE.to_owned(), time_text),
        committed.and_then(|it| it.metadata.clone()).unwrap_or_default(),
    ]
}

fn lag_text(group: &str, lags: &[PartitionLag]) -> String {
    let columns = [
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("offset"),
        Column::Number("end"),
        Column::Number("lag"),
        Column::Number("waiting"),
        Column::Text("member"),
    ];
    let rows = lags.iter().map(|lag| {
        vec![
            lag.topic.clone(),
            lag.partition.to_string(),
            number(lag.group_offset),
            number(lag.high_watermark),
            number(lag.lag),
            lag.lag_time.map_or(NONE.to_owned(), waiting_text),
            id_text(lag.member_id.as_deref()),
        ]
    });
    format!("group {group}, lag {}\n\n{}", grouped(total(lags)), table(&columns, rows))
}

fn members_text(members: &[GroupMember]) -> String {
    let columns = [
        Column::Text("member"),
        Column::Text("instance"),
        Column::Text("client"),
        Column::Text("joined"),
        Column::Text("has"),
        Column::Text("gives up"),
        Column::Text("waits for"),
    ];
    let rows = members.iter().map(|member| {
        let joined = time_text(member.joined_at_ms);
        vec![
            id_text(Some(&member.member_id)),
            member.instance_id.clone().unwrap_or(NONE.to_owned()),
            if member.client.is_empty() { NONE.to_owned() } else { member.client.clone() },
            if member.away { format!("{joined}, away") } else { joined },
            places_text(&member.assigned),
            places_text(&member.giving_up),
            places_text(&member.waiting_for),
        ]
    });
    table(&columns, rows)
}

/// `flights/0-2,5`: topics with their partitions, runs of them as ranges.
pub(crate) fn places_text(places: &[TopicPartition]) -> String {
    let mut places = places.to_vec();
    places.sort();
    let mut text = String::new();
    let mut at = 0;
    while let Some(first) = places.get(at) {
        let is_run = |(index, place): (usize, &TopicPartition)| {
            let count = u32::try_from(index).unwrap_or(u32::MAX);
            place.topic == first.topic
                && first.partition.checked_add(count) == Some(place.partition)
        };
        let length = places[at..].iter().enumerate().take_while(|it| is_run(*it)).count();
        let is_same_topic = at > 0 && places[at - 1].topic == first.topic;
        match (is_same_topic, text.is_empty()) {
            (true, _) => text.push(','),
            (false, false) => text += &format!(" {}/", first.topic),
            (false, true) => text += &format!("{}/", first.topic),
        }
        let last = &places[at + length - 1];
        match length {
            1 => text += &first.partition.to_string(),
            _ => text += &format!("{}-{}", first.partition, last.partition),
        }
        at += length;
    }
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn total(lags: &[PartitionLag]) -> u64 {
    lags.iter().filter_map(|lag| lag.lag).sum()
}

fn number(value: Option<u64>) -> String {
    value.map_or(NONE.to_owned(), grouped)
}

fn id_text(id: Option<&str>) -> String {
    id.map_or(NONE.to_owned(), |id| id.chars().take(ID_CHARS).collect())
}

fn waiting_text(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn time_text(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn lag(partition: u32, offset: Option<u64>, member: Option<&str>) -> PartitionLag {
        PartitionLag {
            group_offset: offset,
            log_start_offset: Some(0),
            high_watermark: Some(2_011),
            lag: Some(2_011 - offset.unwrap_or(0)),
            lag_time: Some(Duration::from_millis(1_500)),
            member_id: member.map(str::to_owned),
            ..unknown("flights".to_owned(), partition)
        }
    }

    fn member() -> GroupMember {
        GroupMember {
            member_id: "0123456789abcdef".to_owned(),
            instance_id: None,
            client: "billing@a".to_owned(),
            generation: 7,
            session_timeout: Duration::from_secs(10),
            max_processing: Duration::from_secs(300),
            joined_at_ms: 1_357_035_420_000,
            away: false,
            topics: vec!["flights".to_owned()],
            assigned: vec![TopicPartition::new("flights", 0), TopicPartition::new("flights", 1)],
            giving_up: vec![TopicPartition::new("flights", 4)],
            waiting_for: Vec::new(),
        }
    }

    fn description() -> GroupDescription {
        let committed = GroupOffset {
            metadata: Some("host a".to_owned()),
            committed_at_ms: Some(1_357_035_420_000),
            ..GroupOffset::new("flights", 0, 1_500)
        };
        GroupDescription {
            group: "billing".to_owned(),
            coordinator: 2,
            leader_node: Some(3),
            generation: 7,
            settled: false,
            members: vec![member()],
            offsets: vec![committed, GroupOffset::new("gone", 7, 3)],
            lags: vec![lag(0, Some(1_500), Some("0123456789abcdef")), lag(1, None, None)],
        }
    }

    #[test]
    fn a_group_is_described_with_its_members_and_its_lag() {
        expect![[r#"
            group billing, kept by node 3, 1 members, lag 2,522, partitions are moving

            MEMBER    INSTANCE  CLIENT     JOINED                HAS          GIVES UP   WAITS FOR
            01234567  -         billing@a  2013-01-01T10:17:00Z  flights/0-1  flights/4  -

            TOPIC    PARTITION  OFFSET    END    LAG  MEMBER    COMMITTED             METADATA
            flights          0   1,500  2,011    511  01234567  2013-01-01T10:17:00Z  host a
            flights          1       -  2,011  2,011  -         -
            gone             7       3      -      -  -         -
        "#]]
        .assert_eq(&description_text(&description()));
    }

    #[test]
    fn the_lag_is_told_in_records_and_in_time() {
        let mut lags = description().lags;
        lags[1].lag_time = Some(Duration::from_secs(600));
        expect![[r#"
            group billing, lag 2,522

            TOPIC    PARTITION  OFFSET    END    LAG  WAITING  MEMBER
            flights          0   1,500  2,011    511      1 s  01234567
            flights          1       -  2,011  2,011   10 min  -
        "#]]
        .assert_eq(&lag_text("billing", &lags));
        let value = lag_json("billing", &lags[0]);
        assert_eq!((&value["offset"], &value["lag"]), (&json!(1_500), &json!(511)));
        assert_eq!((&value["lag_ms"], &value["partition"]), (&json!(1_500), &json!(0)));
    }

    #[test]
    fn a_description_has_stable_keys() {
        let value = description_json(&description());
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        let mut expected = [
            "group",
            "coordinator",
            "leader_node",
            "generation",
            "settled",
            "members",
            "offsets",
            "lags",
        ];
        expected.sort_unstable();
        let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(value["offsets"][1]["lag"], Value::Null);
        assert_eq!(value["members"][0]["assigned"][1]["partition"], 1);
    }

    #[test]
    fn runs_of_partitions_are_shown_as_ranges() {
        let places = [("b", 1), ("a", 0), ("a", 2), ("a", 1), ("a", 9), ("a", 7)];
        let places: Vec<TopicPartition> =
            places.iter().map(|(topic, number)| TopicPartition::new(*topic, *number)).collect();
        assert_eq!(places_text(&places), "a/0-2,7,9 b/1");
        assert_eq!(places_text(&[]), "-");
    }
}
