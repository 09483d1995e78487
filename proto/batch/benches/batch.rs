//! What a batch costs: the node's check, the producer's encoding, the consumer's decoding.
//!
//! 100 records of about 160 bytes with three headers each, 16 KB together: the case of ADR 0003.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quipu_batch::{
    BATCH_BYTES_MAX, BatchBuilder, Compression, Header, Record, decode, patch, verify,
};

const RECORD_COUNT: u32 = 100;

fn record(n: u32) -> Record {
    let payload = format!(r#"{{"order":{n},"total_cents":{},"currency":"EUR"}}"#, n * 317);
    Record {
        timestamp_ms: 1_700_000_000_000 + i64::from(n),
        key: Some(Bytes::from(format!("order-{n}"))),
        value: Some(Bytes::from(payload)),
        headers: vec![
            Header::new("ce_id", format!("018bcfe5-6800-7000-8000-{n:012}")),
            Header::new("ce_type", "com.example.order.placed"),
            Header::new("ce_source", "/orders"),
        ],
    }
}

fn build(compression: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, BATCH_BYTES_MAX);
    for record in records {
        builder.push(record).expect("100 small records fit");
    }
    builder.build(None).expect("there are records")
}

fn bench(criterion: &mut Criterion) {
    let records: Vec<Record> = (0..RECORD_COUNT).map(record).collect();
    let plain = build(Compression::None, &records);
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("verify", |bencher| bencher.iter(|| verify(black_box(&plain))));
    group.bench_function("verify_copy_patch", |bencher| {
        bencher.iter(|| {
            let mut stored = black_box(&plain).to_vec();
            patch(&mut stored, 1_000_000, 3);
            verify(&stored).map(|_| stored)
        });
    });
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let batch = build(compression, &records);
        group.bench_function(format!("encode_{compression}"), |bencher| {
            bencher.iter(|| build(compression, black_box(&records)));
        });
        group.bench_function(format!("decode_{compression}"), |bencher| {
            bencher.iter(|| decode(black_box(&batch).clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
