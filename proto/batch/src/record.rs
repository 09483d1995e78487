//! One record: what a producer writes and a consumer reads, and its bytes inside a batch.
//!
//! Keys, values and headers are bytes without meaning here. Header names may repeat and keep their
//! order, because Kafka's do and because the bytes are what the log promises to keep.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::RecordFault;
use crate::limits::HEADERS_MAX;
use crate::varint;

/// One event, before it has an offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Record {
    /// Milliseconds since 1970 by the producer's clock.
    pub timestamp_ms: i64,
    /// What orders this record among others; chooses the partition. An empty key is a key.
    pub key: Option<Bytes>,
    /// The payload. `None` says that the key has no value any more.
    pub value: Option<Bytes>,
    /// In the producer's order; names may repeat.
    pub headers: Vec<Header>,
}

/// A named attribute of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// UTF-8 by Kafka's rules, which a builder checks and a reader does not.
    pub name: Bytes,
    /// Any bytes.
    pub value: Option<Bytes>,
}

/// A record at its place in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OffsetRecord {
    /// Its offset.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Header {
        Header { name: name.into(), value: Some(value.into()) }
    }

    /// The name as text; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn name_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}

impl Record {
    /// The value of the last header called `name`, as Kafka's `lastHeader` chooses it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let last = self.headers.iter().rev().find(|header| header.name == name)?;
        last.value.as_ref()
    }
}

/// The place of a record relative to its batch; part of its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deltas {
    /// Less the batch's base timestamp, in milliseconds.
    pub(crate) timestamp_ms: i64,
    /// Less the base offset.
    pub(crate) offset: u32,
}

/// Bytes behind the length of `record`; saturating, so that a limit check is safe.
pub(crate) fn body_bytes(record: &Record, deltas: Deltas) -> usize {
    let headers = record.headers.iter().fold(varint_of(record.headers.len()), |sum, header| {
        sum.saturating_add(field_bytes(Some(&header.name)))
            .saturating_add(field_bytes(header.value.as_ref()))
    });
    1_usize
        .saturating_add(varint::size_bytes(deltas.timestamp_ms))
        .saturating_add(varint::size_bytes(i64::from(deltas.offset)))
        .saturating_add(field_bytes(record.key.as_ref()))
        .saturating_add(field_bytes(record.value.as_ref()))
        .saturating_add(headers)
}

/// Bytes of the whole record, its length included, for a body of `body_bytes`.
pub(crate) fn size_bytes(body_bytes: usize) -> usize {
    body_bytes.saturating_add(varint_of(body_bytes))
}

/// Appends the record. The caller has checked that it fits into a batch.
pub(crate) fn write(record: &Record, deltas: Deltas, body_bytes: usize, out: &mut Vec<u8>) {
    write_count(body_bytes, out);
    let body_start = out.len();
    out.push(0); // attributes: none are defined
    varint::write(deltas.timestamp_ms, out);
    varint::write(i64::from(deltas.offset), out);
    write_field(record.key.as_ref(), out);
    write_field(record.value.as_ref(), out);
    write_count(record.headers.len(), out);
    for header in &record.headers {
        write_field(Some(&header.name), out);
        write_field(header.value.as_ref(), out);
    }
    assert_eq!(out.len() - body_start, body_bytes, "a record's size and its bytes disagree");
}

fn write_count(count: usize, out: &mut Vec<u8>) {
    varint::write(i64::try_from(count).expect("checked against the limit of a batch"), out);
}

fn write_field(field: Option<&Bytes>, out: &mut Vec<u8>) {
    match field {
        None => varint::write(-1, out),
        Some(bytes) => {
            write_count(bytes.len(), out);
            out.extend_from_slice(bytes);
        }
    }
}

fn field_bytes(field: Option<&Bytes>) -> usize {
    field.map_or(1, |bytes| bytes.len().saturating_add(varint_of(bytes.len())))
}

fn varint_of(count: usize) -> usize {
    i64::try_from(count).map_or(usize::MAX, varint::size_bytes)
}

/// What the reader of one record must know of the batch around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Where the record begins in the records of the batch.
    pub(crate) start: usize,
    /// Which record of the batch it is.
    pub(crate) index: u32,
    /// Base timestamp of the batch.
    pub(crate) base_timestamp_ms: i64,
    /// Headers of the records before it.
    pub(crate) header_count: u32,
}

/// Reads the record at `place`, sharing the memory of `records`; with it, where it ends.
pub(crate) fn read(records: &Bytes, place: Place) -> Result<(Record, usize), RecordFault> {
    let mut cursor = Cursor { bytes: records, at: place.start, end: records.len() };
    let length = cursor.varint()?;
    let length = usize::try_from(length)
        .map_err(|_| RecordFault::Negative { field: "record length", value: length })?;
    cursor.end = cursor.reach(length)?;

    cursor.attributes()?;
    let delta_ms = cursor.varlong()?;
    let timestamp_ms = place
        .base_timestamp_ms
        .checked_add(delta_ms)
        .ok_or(RecordFault::Timestamp { base_timestamp_ms: place.base_timestamp_ms, delta_ms })?;
    let offset_delta = cursor.varint()?;
    if u32::try_from(offset_delta) != Ok(place.index) {
        return Err(RecordFault::OffsetDelta { offset_delta, expected: place.index });
    }
    let key = cursor.field("key length")?;
    let value = cursor.field("value length")?;
    let headers = cursor.headers(place.header_count)?;
    if cursor.at != cursor.end {
        return Err(RecordFault::BytesAfterFields { extra_bytes: cursor.end - cursor.at });
    }
    Ok((Record { timestamp_ms, key, value, headers }, cursor.end))
}

/// Invariant: `at <= end <= bytes.len()`.
struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    /// Where `needed_bytes` more bytes end.
    fn reach(&self, needed_bytes: usize) -> Result<usize, RecordFault> {
        let actual_bytes = self.end - self.at;
        if needed_bytes > actual_bytes {
            return Err(RecordFault::Truncated { needed_bytes, actual_bytes });
        }
        Ok(self.at + needed_bytes)
    }

    /// Kafka defines no attributes of a record and ignores what stands there.
    fn attributes(&mut self) -> Result<(), RecordFault> {
        self.at = self.reach(1)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<i32, RecordFault> {
        let (value, taken) = varint::read_i32(self.rest())?;
        self.at += taken;
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let (value, taken) = varint::read_i64(self.rest())?;
        self.at += taken;
        Ok(value)
    }

    /// A length and that many bytes; -1 stands for none.
    fn field(&mut self, name: &'static str) -> Result<Option<Bytes>, RecordFault> {
        let length = self.varint()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length)
            .map_err(|_| RecordFault::Negative { field: name, value: length })?;
        let end = self.reach(length)?;
        let field = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(Some(field))
    }

    fn headers(&mut self, header_count_before: u32) -> Result<Vec<Header>, RecordFault> {
        let count = self.varint()?;
        let count = u32::try_from(count)
            .map_err(|_| RecordFault::Negative { field: "header count", value: count })?;
        if count > HEADERS_MAX - header_count_before.min(HEADERS_MAX) {
            return Err(RecordFault::TooManyHeaders { header_count_max: HEADERS_MAX });
        }
        // Grown as headers are found: the count alone has bought no memory.
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = "header name length";
            let found = self.field(name)?;
            let name = found.ok_or(RecordFault::Negative { field: name, value: -1 })?;
            headers.push(Header { name, value: self.field("header value length")? });
        }
        Ok(headers)
    }
}
