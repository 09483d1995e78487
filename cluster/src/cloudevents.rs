//! CloudEvents 1.0: a JSON object on a line becomes a record, and the record the object again.
//!
//! Binary mode, as the Kafka binding has it: the value is the bytes of `data`, every attribute is
//! a header `ce_NAME`, `datacontenttype` is the header `content-type`, and `time` is the record's
//! timestamp. The JSON is kept as it was written (numbers are not read and printed again), so
//! that the object given back equals the one taken, up to the order of its keys.
//!
//! Two things have no place in the binding and get a header of our own, set only where needed:
//! which attributes were not strings (`quipu_ce_json`), and that the data came as `data_base64`
//! (`quipu_ce_data`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use quipu_batch::Header;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json_fault;

const ATTRIBUTE_PREFIX: &str = "ce_";
const CONTENT_TYPE: &str = "content-type";
/// Names, separated by commas, of the attributes whose header holds JSON instead of text.
const JSON_ATTRIBUTES: &str = "quipu_ce_json";
/// `base64` where the event had `data_base64`.
const DATA_FORM: &str = "quipu_ce_data";
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// An event as the parts of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRecord {
    /// `None` where the event has no data.
    pub(crate) value: Option<Bytes>,
    /// In the order of the object's keys.
    pub(crate) headers: Vec<Header>,
    /// From `time`, milliseconds since 1970.
    pub(crate) timestamp_ms: Option<i64>,
}

/// Why a line is not an event, or a record none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventError(String);

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EventError {}

fn refused<T>(why: impl Into<String>) -> Result<T, EventError> {
    Err(EventError(why.into()))
}

/// Makes a record of one JSON object.
pub(crate) fn record_of_line(line: &[u8]) -> Result<EventRecord, EventError> {
    let fields: Fields<'_> = serde_json::from_slice(line)
        .map_err(|error| EventError(format!("not a JSON object: {}", json_fault::text(&error))))?;
    fields.check_required()?;

    let mut record = EventRecord { value: None, headers: Vec::new(), timestamp_ms: None };
    let mut json_attributes = Vec::new();
    let mut data_base64 = false;
    for (name, raw) in &fields.0 {
        match name.as_str() {
            "data" => record.set_value(Bytes::copy_from_slice(raw.get().as_bytes()))?,
            "data_base64" => {
                let bytes = BASE64
                    .decode(text_of(name, raw)?)
                    .map_err(|error| EventError(format!("`data_base64` is not base64: {error}")))?;
                record.set_value(Bytes::from(bytes))?;
                data_base64 = true;
            }
            "datacontenttype" => {
                record.headers.push(Header::new(CONTENT_TYPE, text_of(name, raw)?));
            }
            _ => {
                if name == "time" {
                    record.timestamp_ms = Some(event_time_ms(&text_of(name, raw)?)?);
                }
                let (value, is_json) = attribute(name, raw)?;
                if is_json {
                    json_attributes.push(name.as_str());
                }
                record.headers.push(Header::new(format!("{ATTRIBUTE_PREFIX}{name}"), value));
            }
        }
    }
    if !json_attributes.is_empty() {
        record.headers.push(Header::new(JSON_ATTRIBUTES, json_attributes.join(",")));
    }
    if data_base64 {
        record.headers.push(Header::new(DATA_FORM, "base64"));
    }
    Ok(record)
}

/// Makes the JSON object of a record, without a line end.
pub(crate) fn line_of_record(
    headers: &[Header],
    value: Option<&[u8]>,
) -> Result<String, EventError> {
    let mut attributes = Vec::new();
    let mut json_attributes = "";
    let mut data_base64 = false;
    for header in headers {
        let (name, text) = header_text(header)?;
        match name {
            CONTENT_TYPE => attributes.push(("datacontenttype", text)),
            JSON_ATTRIBUTES => json_attributes = text,
            DATA_FORM => data_base64 = text == "base64",
            _ => {
                if let Some(attribute) = name.strip_prefix(ATTRIBUTE_PREFIX) {
                    attributes.push((attribute, text));
                }
            }
        }
    }
    if !attributes.iter().any(|(name, _)| *name == "specversion") {
        return refused("not a CloudEvent: the record has no header `ce_specversion`");
    }

    let mut line = String::from("{");
    for (name, text) in attributes {
        let is_json = json_attributes.split(',').any(|listed| listed == name);
        if is_json && serde_json::from_str::<&RawValue>(text).is_err() {
            return refused(format!("header `{ATTRIBUTE_PREFIX}{name}` is not JSON"));
        }
        let text = if is_json { text.to_owned() } else { json_string(text) };
        push_field(&mut line, name, &text);
    }
    if let Some(value) = value {
        push_data(&mut line, value, data_base64);
    }
    line.push('}');
    Ok(line)
}

fn header_text(header: &Header) -> Result<(&str, &str), EventError> {
    let name = str::from_utf8(&header.name);
    let text = str::from_utf8(header.value.as_deref().unwrap_or_default());
    match (name, text) {
        (Ok(name), Ok(text)) => Ok((name, text)),
        _ => refused(format!("header `{}` is not UTF-8", header.name_lossy())),
    }
}

fn push_data(line: &mut String, value: &[u8], as_base64: bool) {
    if !as_base64 && let Ok(raw) = serde_json::from_slice::<&RawValue>(value) {
        push_field(line, "data", raw.get());
    } else if !as_base64 && let Ok(text) = str::from_utf8(value) {
        // A record that some other producer made, with plain text for its value.
        push_field(line, "data", &json_string(text));
    } else {
        push_field(line, "data_base64", &json_string(&BASE64.encode(value)));
    }
}

fn push_field(line: &mut String, name: &str, json: &str) {
    if line.len() > 1 {
        line.push(',');
    }
    line.push_str(&json_string(name));
    line.push(':');
    line.push_str(json);
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The bytes of an attribute's header, and whether they are JSON (all but strings are).
fn attribute(name: &str, raw: &RawValue) -> Result<(Bytes, bool), EventError> {
    let is_name = !name.is_empty() && !name.contains([',', '"', '\n']);
    if !is_name {
        return refused(format!("`{name}` can't be the name of an attribute"));
    }
    match raw.get().as_bytes().first() {
        Some(b'"') => Ok((Bytes::from(text_of(name, raw)?), false)),
        Some(b'{' | b'[') => refused(format!(
            "attribute `{name}` is an object or a list; CloudEvents allows strings, numbers and \
             booleans, anything else belongs into `data`"
        )),
        _ => Ok((Bytes::copy_from_slice(raw.get().as_bytes()), true)),
    }
}

fn text_of(name: &str, raw: &RawValue) -> Result<String, EventError> {
    serde_json::from_str(raw.get()).or_else(|_| refused(format!("`{name}` is not a string")))
}

fn event_time_ms(text: &str) -> Result<i64, EventError> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| EventError(format!("`time` is `{text}`, want 2013-01-05T10:00:00Z")))?;
    Ok(time.as_millisecond())
}

impl EventRecord {
    fn set_value(&mut self, value: Bytes) -> Result<(), EventError> {
        if self.value.replace(value).is_some() {
            return refused("has both `data` and `data_base64`");
        }
        Ok(())
    }
}

/// The fields of an object in their order, their values as they are written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl Fields<'_> {
    fn check_required(&self) -> Result<(), EventError> {
        for required in REQUIRED {
            let Some((name, raw)) = self.0.iter().find(|(name, _)| name == required) else {
                return refused(format!("no attribute `{required}`, which CloudEvents requires"));
            };
            let text = text_of(name, raw)?;
            if text.is_empty() {
                return refused(format!("attribute `{required}` is empty"));
            }
            if required == "specversion" && text != "1.0" {
                return refused(format!("specversion `{text}` is not supported, only `1.0`"));
            }
        }
        Ok(())
    }
}

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(serde::de::Error::custom(format!("`{name}` is there twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(line: &str) -> String {
        let record = record_of_line(line.as_bytes()).unwrap();
        line_of_record(&record.headers, record.value.as_deref()).unwrap()
    }

    fn error_of(line: &str) -> String {
        record_of_line(line.as_bytes()).unwrap_err().to_string()
    }

    fn header<'a>(record: &'a EventRecord, name: &str) -> Option<&'a [u8]> {
        let found = record.headers.iter().find(|header| header.name == name)?;
        found.value.as_deref()
    }

    const DEPARTED: &str = concat!(
        r#"{"specversion":"1.0","id":"a-1","source":"/airports/EWR","type":"flight.departed","#,
        r#""subject":"N14228","time":"2013-01-01T10:17:00Z","datacontenttype":"application/json","#,
        r#""correlationid":"f-1","data":{"flight":1545, "delay":2.50}}"#
    );

    #[test]
    fn an_event_becomes_headers_data_and_a_timestamp() {
        let record = record_of_line(DEPARTED.as_bytes()).unwrap();
        assert_eq!(record.value.as_deref(), Some(&br#"{"flight":1545, "delay":2.50}"#[..]));
        assert_eq!(record.timestamp_ms, Some(1_357_035_420_000));
        assert_eq!(header(&record, "ce_type"), Some(&b"flight.departed"[..]));
        assert_eq!(header(&record, "ce_correlationid"), Some(&b"f-1"[..]));
        assert_eq!(header(&record, "content-type"), Some(&b"application/json"[..]));
        assert_eq!(header(&record, "quipu_ce_json"), None);
    }

    #[test]
    fn an_event_comes_back_as_it_was_written() {
        assert_eq!(there_and_back(DEPARTED), DEPARTED);
    }

    #[test]
    fn every_flights_event_comes_back_equal_to_its_line() {
        let flights = include_bytes!("../data/flights.ndjson.zst");
        let lines = String::from_utf8(zstd::decode_all(&flights[..]).unwrap()).unwrap();
        let mut count = 0;
        for line in lines.lines() {
            assert_eq!(there_and_back(line), line);
            count += 1;
        }
        assert_eq!(count, 12_134);
    }

    #[test]
    fn numbers_booleans_and_null_keep_their_type_and_spelling() {
        let line = concat!(
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","sequence":"7","n":1.50,"#,
            r#""urgent":true,"none":null}"#
        );
        assert_eq!(there_and_back(line), line);
    }

    #[test]
    fn data_of_any_form_survives() {
        let head = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#;
        for tail in [
            r#","data":"plain text"}"#,
            r#","data":null}"#,
            r#","data":[]}"#,
            r#","data_base64":"AP8="}"#,
            r#","data_base64":""}"#,
            r#","data_base64":"e30="}"#,
            "}",
        ] {
            let line = format!("{head}{tail}");
            assert_eq!(there_and_back(&line), line);
        }
    }

    #[test]
    fn a_value_that_is_no_json_is_given_as_text_or_base64() {
        let headers = [Header::new("ce_specversion", "1.0")];
        let text = line_of_record(&headers, Some(b"hi {")).unwrap();
        assert_eq!(text, r#"{"specversion":"1.0","data":"hi {"}"#);
        let binary = line_of_record(&headers, Some(b"\x00\xff")).unwrap();
        assert_eq!(binary, r#"{"specversion":"1.0","data_base64":"AP8="}"#);
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        assert!(error_of("[]").contains("not a JSON object"));
        assert!(error_of("{").contains("not a JSON object"));
        let no_type = r#"{"specversion":"1.0","id":"1","source":"s"}"#;
        assert_eq!(error_of(no_type), "no attribute `type`, which CloudEvents requires");
        let head = r#"{"specversion":"1.0","id":"1","source":"s","type":"t""#;
        for (tail, why) in [
            (r#","time":"yesterday"}"#, "`time` is `yesterday`"),
            (r#","ext":{}}"#, "attribute `ext` is an object"),
            (r#","data":1,"data_base64":"AA=="}"#, "has both"),
            (r#","data_base64":"A"}"#, "not base64"),
            (r#","id":"2"}"#, "`id` is there twice"),
        ] {
            let error = error_of(&format!("{head}{tail}"));
            assert!(error.contains(why), "{error}");
        }
        let old = r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#;
        assert!(error_of(old).contains("`0.3` is not supported"));
    }

    #[test]
    fn a_record_without_attributes_is_no_event() {
        let error = line_of_record(&[Header::new("a", "b")], None).unwrap_err();
        assert!(error.to_string().contains("ce_specversion"));
    }
}
