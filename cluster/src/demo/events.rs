//! The events of a demo: the flights that are built in, or a file of the caller's.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use jiff::Timestamp;

use crate::cloudevents::{self, EventRecord};
use crate::key_path::KeyPath;

/// See cluster/data/README.md for what they are and where they come from.
const FLIGHTS: &[u8] = include_bytes!("../../data/flights.ndjson.zst");

/// Fewer events don't reach every partition while a node is down.
const EVENTS_MIN: usize = 600;

/// More events than this would only make the verdict slow.
const EVENTS_MAX: usize = 1_000_000;

/// One event, as it is appended.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    /// The event's subject.
    pub(crate) key: Bytes,
    /// The event's time; for an event without one, when it was loaded.
    pub(crate) timestamp_ms: i64,
    pub(crate) record: EventRecord,
}

/// Reads the events of `file`, or the flights.
pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Vec<Event>> {
    let text = match file {
        None => zstd::decode_all(FLIGHTS).context("the flights that are built in are damaged")?,
        Some(file) => {
            std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?
        }
    };
    let events = parse(&text)?;
    if events.len() < EVENTS_MIN {
        bail!("a demo needs {EVENTS_MIN} events or more, there are {}", events.len());
    }
    Ok(events)
}

/// Events need ids that differ, since a verdict about duplicates needs to tell them apart.
fn parse(text: &[u8]) -> anyhow::Result<Vec<Event>> {
    let subject: KeyPath = ".subject".parse().expect("it is a path");
    let id_path: KeyPath = ".id".parse().expect("it is a path");
    let now_ms = Timestamp::now().as_millisecond();
    let mut events = Vec::new();
    let mut ids = BTreeSet::new();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (number, line) in (1..).zip(lines) {
        if events.len() == EVENTS_MAX {
            bail!("more than {EVENTS_MAX} events are more than a demo needs");
        }
        let event = || -> anyhow::Result<Event> {
            let record = cloudevents::record_of_line(line)?;
            let key = Bytes::from(subject.key_of(line)?);
            let id = String::from_utf8(id_path.key_of(line)?).context("the id is not UTF-8")?;
            let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
            Ok(Event { id, key, timestamp_ms, record })
        };
        let event = event().with_context(|| format!("event {number}"))?;
        if !ids.insert(event.id.clone()) {
            bail!("event {number} has the id {} of an earlier one", event.id);
        }
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flights_are_complete() {
        let events = load(None).unwrap();
        assert_eq!(events.len(), 12_134);
        let keys: BTreeSet<&Bytes> = events.iter().map(|event| &event.key).collect();
        assert_eq!(keys.len(), 2_048);
    }

    #[test]
    fn events_of_one_id_are_refused() {
        let line = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"k"}"#;
        let error = parse(format!("{line}\n{line}\n").as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "event 2 has the id 1 of an earlier one");
        let no_subject = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;
        assert_eq!(parse(no_subject.as_bytes()).unwrap_err().to_string(), "event 1");
    }
}
