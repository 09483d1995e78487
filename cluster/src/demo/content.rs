//! One encoding of a record's content, for what was sent and for what was found.

use bytes::Bytes;
use quipu_client::{ConsumedRecord, Header};

use crate::demo::events::Event;
use crate::demo::history::{Content, Found};

/// What an event is sent as.
pub(super) fn of_event(event: &Event) -> Content {
    let record = &event.record;
    Content {
        id: event.id.clone(),
        key: event.key.clone(),
        body: body(event.timestamp_ms, &record.headers, record.value.as_ref()),
    }
}

/// A record where it was found. One that is no event of ours gets an id that none of ours has.
pub(super) fn of_record(record: &ConsumedRecord) -> Found {
    let id = record.headers.iter().find(|header| header.name == "ce_id");
    let id = id.and_then(|header| header.value.as_deref());
    let id = match id {
        Some(id) => String::from_utf8_lossy(id).into_owned(),
        None => format!("(no id) {}:{}", record.partition, record.offset),
    };
    Found {
        partition: record.partition,
        offset: record.offset,
        content: Content {
            id,
            key: record.key.clone().unwrap_or_default(),
            body: body(record.timestamp_ms, &record.headers, record.value.as_ref()),
        },
    }
}

/// Each part with its length before it, so that no two contents have the same encoding.
fn body(timestamp_ms: i64, headers: &[Header], value: Option<&Bytes>) -> Bytes {
    let mut body = timestamp_ms.to_be_bytes().to_vec();
    push(&mut body, value);
    for header in headers {
        push(&mut body, Some(&header.name));
        push(&mut body, header.value.as_ref());
    }
    Bytes::from(body)
}

fn push(body: &mut Vec<u8>, part: Option<&Bytes>) {
    let length = part.map_or(-1, |part| i64::try_from(part.len()).unwrap_or(i64::MAX));
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(part.map_or(&[], |part| &part[..]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_and_its_record_have_the_same_content_and_a_change_shows() {
        let event = crate::demo::events::load(None).unwrap().swap_remove(0);
        let mut record = ConsumedRecord {
            topic: "t".to_owned(),
            partition: 1,
            offset: 2,
            timestamp_ms: event.timestamp_ms,
            key: Some(event.key.clone()),
            value: event.record.value.clone(),
            headers: event.record.headers.clone(),
            leader_epoch: 1,
        };
        assert_eq!(of_record(&record).content, of_event(&event));
        record.value = None;
        assert_ne!(of_record(&record).content, of_event(&event));
        record.value = event.record.value.clone();
        record.timestamp_ms += 1;
        assert_ne!(of_record(&record).content, of_event(&event));
        record.headers.clear();
        assert_eq!(of_record(&record).content.id, "(no id) 1:2");
    }
}
