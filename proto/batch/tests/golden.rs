//! Batches made by another implementation are read, and ours are the same bytes.
//!
//! The hexadecimal below is what kafka-python 3.0 wrote. The bytes of the plain batches are
//! explained one by one in docs/formats/record-batch.md, and read from that page by a test here.

#![allow(clippy::unwrap_used, reason = "a test that cannot arrange its input fails")]

use std::path::Path;

use bytes::Bytes;
use quipu_batch::{
    BATCH_BYTES_MAX, BatchBuilder, Compression, Header, OffsetRecord, ProducerIdentity, Record,
    content, decode, verify,
};

const ONE_RECORD: &str = "\
    0000000000000000000000450000000002fd6e05fd0000000000000000018bcf\
    e568000000018bcfe56800000000000000000700010000002900000001260000\
    000e6f726465722d370c706c6163656400";

const THREE_RECORDS: &str = "\
    00000000000000000000008000000000021479df5d0000000000020000018bcf\
    e568000000018bcfe568faffffffffffffffffffffffffffff00000003660000\
    000e6f726465722d370c706c61636564060e63655f74797065186f726465722e\
    706c6163656406746167026106746167011c00f403020e6f726465722d370100\
    160001040100020674616700";

const THREE_RECORDS_LZ4: &str = "\
    00000000000000000000008e0000000002abea31310003000000020000018bcf\
    e568000000018bcfe5680200000000000000070000000000000000000304224d\
    186840e7000000000000003246000000f21796010000000e6f726465722d377c\
    7468652073616d6520776f72647320616761696e20616e640a002f2c2020000b\
    6f0096010002024d00382f04044d0030506761696e0000000000";

const THREE_RECORDS_ZSTD: &str = "\
    00000000000000000000007a0000000002ded258c00004000000020000018bcf\
    e568000000018bcfe5680200000000000000070000000000000000000328b52f\
    fd20e7050200040396010000000e6f726465722d377c7468652073616d652077\
    6f72647320616761696e20616e642c200096010002020404040005284628a065\
    28815dac3c01";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn text(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

fn placed() -> Record {
    Record {
        timestamp_ms: 1_700_000_000_000,
        key: text("order-7"),
        value: text("placed"),
        headers: Vec::new(),
    }
}

fn three_records() -> Vec<Record> {
    let no_value = Header { name: Bytes::from_static(b"tag"), value: None };
    let first = vec![Header::new("ce_type", "order.placed"), Header::new("tag", "a"), no_value];
    vec![
        Record { headers: first, ..placed() },
        Record { timestamp_ms: 1_700_000_000_250, value: None, ..placed() },
        Record {
            timestamp_ms: 1_699_999_999_999,
            key: None,
            value: text(""),
            headers: vec![Header::new("tag", "")],
        },
    ]
}

fn repetitive_records() -> Vec<Record> {
    let value = text("the same words again and again, the same words again and again");
    let record =
        |n: i64| Record { timestamp_ms: 1_700_000_000_000 + n, value: value.clone(), ..placed() };
    (0..3).map(record).collect()
}

fn with_offsets(records: &[Record]) -> Vec<OffsetRecord> {
    let numbered = (0..).zip(records);
    numbered.map(|(offset, record)| OffsetRecord { offset, record: record.clone() }).collect()
}

fn build(records: &[Record], producer: Option<ProducerIdentity>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
    for record in records {
        builder.push(record).unwrap();
    }
    builder.build(producer).unwrap()
}

#[test]
fn one_record_of_an_idempotent_producer_is_the_same_bytes_in_both_directions() {
    let golden = unhex(ONE_RECORD);
    let producer = ProducerIdentity { id: 7, epoch: 1, sequence_first: 41 };
    let header = verify(&golden).unwrap();
    assert_eq!(header.size_bytes(), 81);
    assert_eq!(header.crc, 0xfd6e_05fd);
    assert_eq!(header.producer(), Some(producer));

    assert_eq!(content(&build(&[placed()], Some(producer))), content(&golden));
    assert_eq!(decode(golden.into()).unwrap(), with_offsets(&[placed()]));
}

#[test]
fn three_records_with_repeated_headers_are_the_same_bytes_in_both_directions() {
    let golden = unhex(THREE_RECORDS);
    let header = verify(&golden).unwrap();
    assert_eq!(header.producer(), None);
    assert_eq!(header.records(), 3);
    assert_eq!(header.max_timestamp_ms, 1_700_000_000_250);

    assert_eq!(content(&build(&three_records(), None)), content(&golden));
    assert_eq!(decode(golden.into()).unwrap(), with_offsets(&three_records()));
}

#[test]
fn records_compressed_by_another_library_are_read() {
    for (hex, codec) in
        [(THREE_RECORDS_LZ4, Compression::Lz4), (THREE_RECORDS_ZSTD, Compression::Zstd)]
    {
        let golden = unhex(hex);
        assert_eq!(verify(&golden).unwrap().compression, codec);
        assert_eq!(decode(golden.into()).unwrap(), with_offsets(&repetitive_records()));
    }
}

/// The bytes of the block that the page calls `name`: pairs of digits, up to a bar on each line.
fn bytes_on_the_page(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/formats/record-batch.md")).unwrap();
    let (_, after) = page.split_once(&format!("```hex {name}\n")).expect("the page has the block");
    let (block, _) = after.split_once("```").expect("the block has an end");
    let pairs: String = block.lines().map(|line| line.split('|').next().unwrap()).collect();
    unhex(&pairs)
}

#[test]
fn the_format_page_shows_these_bytes() {
    assert_eq!(bytes_on_the_page("one-record"), unhex(ONE_RECORD));
    assert_eq!(bytes_on_the_page("three-records"), unhex(THREE_RECORDS));
    let one = decode(bytes_on_the_page("one-record").into()).unwrap();
    assert_eq!(one, with_offsets(&[placed()]));
    let three = decode(bytes_on_the_page("three-records").into()).unwrap();
    assert_eq!(three, with_offsets(&three_records()));
}
