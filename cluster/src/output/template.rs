//! Record formats of the caller's: `-f '%t/%p:%o %k %s\n'`, with the escapes of kcat.
//!
//! Parsed once, so that an unknown escape is a usage error before anything is read.

use std::fmt;

use quipu_batch::Header;
use quipu_client::ConsumedRecord;

/// What the help says about formats.
pub(crate) const GRAMMAR: &str = "%t topic, %p partition, %o offset, %k key, %s value, \
    %T timestamp in ms, %h headers, %K and %S lengths of key and value in bytes (-1: none), \
    %% a percent sign; \\n \\r \\t \\\\ \\0 \\xHH";

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
    KeyBytes,
    ValueBytes,
}

/// Why a text is not a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError(String);

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateError {}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => literal.push(escaped_byte(&mut chars)?),
                '%' => match field(chars.next())? {
                    None => literal.push(b'%'),
                    Some(part) => {
                        if !literal.is_empty() {
                            parts.push(Part::Literal(std::mem::take(&mut literal)));
                        }
                        parts.push(part);
                    }
                },
                _ => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template(parts))
    }
}

/// What follows a percent sign; `None` is a percent sign itself.
fn field(c: Option<char>) -> Result<Option<Part>, TemplateError> {
    Ok(Some(match c {
        Some('t') => Part::Topic,
        Some('p') => Part::Partition,
        Some('o') => Part::Offset,
        Some('k') => Part::Key,
        Some('s') => Part::Value,
        Some('T') => Part::Timestamp,
        Some('h') => Part::Headers,
        Some('K') => Part::KeyBytes,
        Some('S') => Part::ValueBytes,
        Some('%') => return Ok(None),
        Some(other) => {
            return Err(TemplateError(format!("unknown escape `%{other}`; want {GRAMMAR}")));
        }
        None => return Err(TemplateError(format!("ends in a lone `%`; want {GRAMMAR}"))),
    }))
}

fn escaped_byte(chars: &mut std::str::Chars<'_>) -> Result<u8, TemplateError> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| is_hex)
                .ok_or_else(|| TemplateError(format!("`\\x{digits}` needs two hex digits")))
        }
        Some(other) => Err(TemplateError(format!("unknown escape `\\{other}`; want {GRAMMAR}"))),
        None => Err(TemplateError(format!("ends in a lone `\\`; want {GRAMMAR}"))),
    }
}

impl Template {
    /// Adds the record's text to `out`. Nothing is added that the format doesn't say, no line
    /// end either.
    pub(crate) fn print(&self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Part::Partition => push_number(out, record.partition),
                Part::Offset => push_number(out, record.offset),
                Part::Key => out.extend_from_slice(record.key.as_deref().unwrap_or_default()),
                Part::Value => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
                Part::Timestamp => push_number(out, record.timestamp_ms),
                Part::Headers => push_headers(out, &record.headers),
                Part::KeyBytes => push_length(out, record.key.as_deref()),
                Part::ValueBytes => push_length(out, record.value.as_deref()),
            }
        }
    }
}

/// `name=value,name=value`, as kcat prints them.
fn push_headers(out: &mut Vec<u8>, headers: &[Header]) {
    for (index, header) in headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&header.name);
        out.push(b'=');
        out.extend_from_slice(header.value.as_deref().unwrap_or(b"NULL"));
    }
}

fn push_length(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => push_number(out, bytes.len()),
        None => out.extend_from_slice(b"-1"),
    }
}

fn push_number(out: &mut Vec<u8>, number: impl fmt::Display) {
    use std::io::Write as _;
    write!(out, "{number}").expect("writing to memory can't fail");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn printed(format: &str) -> String {
        let record = ConsumedRecord {
            topic: "flights".to_owned(),
            partition: 3,
            offset: 17,
            timestamp_ms: 1_000,
            key: Some(Bytes::from_static(b"N1")),
            headers: vec![
                Header::new("a", "1"),
                Header { name: Bytes::from_static(b"b"), value: None },
            ],
            value: None,
            leader_epoch: 1,
        };
        let mut out = Vec::new();
        format.parse::<Template>().unwrap().print(&record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_become_the_parts_of_the_record() {
        assert_eq!(printed(r"%t/%p:%o %k %s\n"), "flights/3:17 N1 \n");
        assert_eq!(printed(r"%T\t%h %K %S"), "1000\ta=1,b=NULL 2 -1");
        assert_eq!(printed(r"100%% ✓ \x41\\"), "100% ✓ A\\");
        assert_eq!(printed(""), "");
    }

    #[test]
    fn an_unknown_escape_is_refused_with_the_list() {
        for format in ["%q", "%", r"\q", r"\", r"\x4", r"\x+1"] {
            assert!(format.parse::<Template>().is_err(), "{format}");
        }
        let error = "%q".parse::<Template>().unwrap_err().to_string();
        assert!(error.contains("unknown escape `%q`; want %t topic"), "{error}");
    }
}
