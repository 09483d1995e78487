//! What holds for every batch, and for bytes that are no batch.

#![allow(clippy::unwrap_used, reason = "a test that cannot arrange its input fails")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quipu_batch::{
    BATCH_BYTES_MAX, BatchBuilder, BatchError, BatchHeader, CHECKSUM_START, Compression,
    HEADER_BYTES, Header, ProducerIdentity, PushError, Record, SEQUENCE_MAX, content, decode,
    patch, records, split, verify,
};

fn bytes(size: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), size).prop_map(Bytes::from)
}

fn header() -> impl Strategy<Value = Header> {
    ("[a-z_]{0,12}", option::of(bytes(0..40)))
        .prop_map(|(name, value)| Header { name: name.into(), value })
}

fn record() -> impl Strategy<Value = Record> {
    let fields = (
        -62_000_000_000_000_i64..253_000_000_000_000,
        option::of(bytes(0..40)),
        option::of(bytes(0..300)),
        vec(header(), 0..4),
    );
    fields.prop_map(|(timestamp_ms, key, value, headers)| Record {
        timestamp_ms,
        key,
        value,
        headers,
    })
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn producer() -> impl Strategy<Value = ProducerIdentity> {
    (0..=u64::MAX >> 1, 0..=u16::MAX >> 1, 0..=SEQUENCE_MAX)
        .prop_map(|(id, epoch, sequence_first)| ProducerIdentity { id, epoch, sequence_first })
}

fn build(
    compression: Compression,
    records: &[Record],
    producer: Option<ProducerIdentity>,
) -> Bytes {
    let mut builder = BatchBuilder::new(compression, BATCH_BYTES_MAX);
    for record in records {
        builder.push(record).expect("few small records fit");
    }
    let estimated_bytes = builder.estimated_bytes();
    let batch = builder.build(producer).expect("there are records");
    assert!(batch.len() <= estimated_bytes);
    batch
}

fn batch() -> impl Strategy<Value = Bytes> {
    (compression(), vec(record(), 1..12), option::of(producer()))
        .prop_map(|(compression, records, producer)| build(compression, &records, producer))
}

/// Makes the checksum right again, so that damage reaches the code behind it.
fn seal(batch: &mut [u8]) {
    if batch.len() >= HEADER_BYTES {
        let sum = crc32c::crc32c(&batch[CHECKSUM_START..]);
        batch[17..21].copy_from_slice(&sum.to_be_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read(
        compression in compression(),
        written in vec(record(), 1..12),
        producer in option::of(producer()),
        base_offset in 0_u64..1 << 62,
    ) {
        let mut batch = build(compression, &written, producer).to_vec();
        patch(&mut batch, base_offset, 3);
        let header = verify(&batch).unwrap();
        prop_assert_eq!(header.producer(), producer);
        prop_assert_eq!(header.size_bytes(), batch.len());
        prop_assert_eq!(header.base_timestamp_ms, written[0].timestamp_ms);
        let newest = written.iter().map(|record| record.timestamp_ms).max();
        prop_assert_eq!(Some(header.max_timestamp_ms), newest);

        let read = decode(batch.into()).unwrap();
        prop_assert_eq!(read.len(), written.len());
        for (offset, (read, written)) in (base_offset..).zip(read.into_iter().zip(written)) {
            prop_assert_eq!(read.offset, offset);
            prop_assert_eq!(read.record, written);
        }
    }

    #[test]
    fn a_patch_changes_neither_validity_nor_content(
        batch in batch(),
        base_offset in 0_u64..1 << 62,
        leader_epoch in 0_u32..1 << 31,
    ) {
        let mut patched = batch.to_vec();
        patch(&mut patched, base_offset, leader_epoch);
        let header = verify(&patched).unwrap();
        prop_assert_eq!(header.base_offset, base_offset);
        prop_assert_eq!(i64::from(header.partition_leader_epoch), i64::from(leader_epoch));
        prop_assert_eq!(content(&patched), content(&batch));
        prop_assert_eq!(&patched[16..], &batch[16..]);
    }

    #[test]
    fn a_flipped_bit_outside_offset_and_epoch_is_always_found(
        batch in batch(),
        position in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let at = position.index(batch.len());
        prop_assume!(!(0..8).contains(&at) && !(12..16).contains(&at));
        let mut flipped = batch.to_vec();
        flipped[at] ^= 1_u8 << bit;
        prop_assert!(verify(&flipped).is_err());
    }

    #[test]
    fn a_set_of_batches_is_split_into_them(batches in vec(batch(), 0..5)) {
        let found: Result<Vec<Bytes>, BatchError> = split(batches.concat().into()).collect();
        prop_assert_eq!(found.unwrap(), batches);
    }

    #[test]
    fn arbitrary_bytes_never_make_a_reader_panic(garbage in vec(any::<u8>(), 0..400)) {
        let _ = BatchHeader::parse(&garbage);
        let _ = verify(&garbage);
        prop_assert!(split(garbage.clone().into()).count() <= garbage.len());
        prop_assert!(decode(garbage.into()).is_err());
    }

    #[test]
    fn damage_behind_a_right_checksum_never_makes_a_reader_panic(
        batch in batch(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        whole_body in option::of(vec(any::<u8>(), 0..200)),
    ) {
        let mut damaged = batch.to_vec();
        if let Some(body) = whole_body {
            damaged.truncate(HEADER_BYTES);
            damaged.extend_from_slice(&body);
            let length = u32::try_from(damaged.len() - 12).unwrap();
            damaged[8..12].copy_from_slice(&length.to_be_bytes());
        }
        let damaged_bytes = damaged.len();
        for (position, byte) in damage {
            // Length and magic stay, or nothing behind them would be reached.
            let at = 17 + position.index(damaged_bytes - 17);
            damaged[at] = byte;
        }
        seal(&mut damaged);
        if let Ok(mut found) = records(damaged.into()) {
            let record_count = found.header().records();
            let read = found.by_ref().count();
            prop_assert!(read <= usize::try_from(record_count).unwrap() + 1);
            prop_assert!(found.next().is_none());
        }
    }

    #[test]
    fn a_batch_never_grows_beyond_the_builders_limit(
        compression in compression(),
        bytes_max in 0_usize..2_000,
        written in vec(record(), 1..30),
    ) {
        let mut builder = BatchBuilder::new(compression, bytes_max);
        let mut pushed = Vec::new();
        for record in &written {
            let before = builder.estimated_bytes();
            match builder.push(record) {
                Ok(()) => pushed.push(record.clone()),
                Err(PushError::Full) => prop_assert!(!builder.is_empty()),
                Err(error) => {
                    prop_assert!(matches!(error, PushError::RecordTooLarge { .. }), "{error}");
                }
            }
            prop_assert!(builder.estimated_bytes() <= bytes_max.max(HEADER_BYTES));
            prop_assert!(builder.estimated_bytes() >= before);
        }
        if !pushed.is_empty() {
            let batch = builder.build(None).unwrap();
            prop_assert!(batch.len() <= bytes_max);
            let read: Vec<Record> =
                decode(batch).unwrap().into_iter().map(|found| found.record).collect();
            prop_assert_eq!(read, pushed);
        }
    }
}
