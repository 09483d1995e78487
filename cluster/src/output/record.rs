//! One record as text: a line of JSON, a CloudEvent, or a format of the caller's.
//!
//! Writes into a buffer that the caller reuses, since `read` prints millions of records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quipu_client::ConsumedRecord;

use crate::cloudevents::{EventError, line_of_record};
use crate::output::template::Template;

/// How records are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    /// By escapes, `%t/%p:%o %k %s\n`.
    Template(Template),
    /// One object a line with stable keys (docs/cli.md).
    Json,
    /// One CloudEvent a line; a record that is none is an error.
    CloudEvents,
}

impl RecordFormat {
    /// Adds the record's text to `out`.
    pub(crate) fn print(
        &self,
        record: &ConsumedRecord,
        out: &mut Vec<u8>,
    ) -> Result<(), EventError> {
        match self {
            RecordFormat::Template(template) => template.print(record, out),
            RecordFormat::Json => print_json(record, out),
            RecordFormat::CloudEvents => {
                let line = line_of_record(&record.headers, record.value.as_deref())?;
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

fn print_json(record: &ConsumedRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    push_text(out, &record.topic);
    out.extend_from_slice(
        format!(
            ",\"partition\":{},\"offset\":{},\"timestamp_ms\":{}",
            record.partition, record.offset, record.timestamp_ms
        )
        .as_bytes(),
    );
    push_bytes(out, "key", record.key.as_deref());
    out.extend_from_slice(b",\"headers\":[");
    for (index, header) in record.headers.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        push_text(out, &header.name_lossy());
        out.push(b',');
        push_header_value(out, header.value.as_deref());
        out.push(b']');
    }
    out.push(b']');
    push_bytes(out, "value", record.value.as_deref());
    out.extend_from_slice(b"}\n");
}

/// `"name":"text"`, or `"name_base64":"…"` for bytes that are no text, or `"name":null`.
fn push_bytes(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| bytes)) {
        None => out.extend_from_slice(format!(",\"{name}\":null").as_bytes()),
        Some(Ok(text)) => {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            push_text(out, text);
        }
        Some(Err(bytes)) => {
            out.extend_from_slice(format!(",\"{name}_base64\":").as_bytes());
            push_text(out, &BASE64.encode(bytes));
        }
    }
}

fn push_header_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value.map(|bytes| str::from_utf8(bytes).map_err(|_| bytes)) {
        None => out.extend_from_slice(b"null"),
        Some(Ok(text)) => push_text(out, text),
        Some(Err(bytes)) => {
            out.extend_from_slice(b"{\"base64\":");
            push_text(out, &BASE64.encode(bytes));
            out.push(b'}');
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory can't fail");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quipu_batch::Header;

    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            topic: "flights".to_owned(),
            partition: 3,
            offset: 17,
            timestamp_ms: 1_357_035_420_000,
            key: Some(Bytes::from_static(b"N14228")),
            headers: vec![
                Header::new("ce_type", "flight.departed"),
                Header { name: Bytes::from_static(b"x"), value: None },
                Header::new("x", &b"\xff"[..]),
            ],
            value: Some(Bytes::from_static(b"{\"a\":\"\n\"}")),
            leader_epoch: 1,
        }
    }

    fn printed(format: &RecordFormat, record: &ConsumedRecord) -> String {
        let mut out = Vec::new();
        format.print(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_line_of_json_with_stable_keys() {
        assert_eq!(
            printed(&RecordFormat::Json, &record()),
            concat!(
                r#"{"topic":"flights","partition":3,"offset":17,"timestamp_ms":1357035420000,"#,
                r#""key":"N14228","headers":[["ce_type","flight.departed"],["x",null],"#,
                r#"["x",{"base64":"/w=="}]],"value":"{\"a\":\"\n\"}"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_under_another_key() {
        let mut record = record();
        record.key = None;
        record.value = Some(Bytes::from_static(b"\xff"));
        let line: serde_json::Value =
            serde_json::from_str(&printed(&RecordFormat::Json, &record)).unwrap();
        assert_eq!(line["key"], serde_json::Value::Null);
        assert_eq!(line["value_base64"], "/w==");
        assert!(line.get("value").is_none());
    }

    #[test]
    fn a_record_that_is_no_event_can_not_be_printed_as_one() {
        let mut out = Vec::new();
        assert!(RecordFormat::CloudEvents.print(&record(), &mut out).is_err());
    }
}
