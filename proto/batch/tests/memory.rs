//! A reader's memory follows the bytes it finds, not the numbers that a batch claims.
//!
//! Measured as the greatest address space this process ever had, which also counts memory that
//! was reserved and never touched. Hence a process of its own with a single test.

#![allow(clippy::unwrap_used, reason = "a test that cannot arrange its input fails")]
#![cfg(target_os = "linux")]

use std::io::Write;

use bytes::Bytes;
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use quipu_batch::{
    BATCH_BYTES_MAX, BatchBuilder, BatchError, CHECKSUM_START, Compression, DECOMPRESSED_BYTES_MAX,
    HEADER_BYTES, HEADERS_MAX, RECORDS_MAX, Record, RecordFault, decode, records,
};

/// The growing output and, while it moves to a greater one, its copy; and the codec's buffers.
const PEAK_BYTES_MAX: usize = 4 * DECOMPRESSED_BYTES_MAX;

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A batch that passes `verify`, claims `record_count` records and has `body` behind its header.
fn batch(codec: u8, record_count: u32, body: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
    builder.push(&Record::default()).unwrap();
    let mut batch = builder.build(None).unwrap()[..HEADER_BYTES].to_vec();
    batch.extend_from_slice(body);
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec;
    batch[23..27].copy_from_slice(&(record_count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&record_count.to_be_bytes());
    let sum = crc32c::crc32c(&batch[CHECKSUM_START..]);
    batch[17..21].copy_from_slice(&sum.to_be_bytes());
    Bytes::from(batch)
}

fn bombs() -> [Bytes; 2] {
    // 1 GiB of zeros in a few megabytes and in some tens of kilobytes.
    static MEBIBYTE: [u8; 1024 * 1024] = [0; 1024 * 1024];
    let info = FrameInfo::new().block_size(BlockSize::Max4MB);
    let mut lz4 = FrameEncoder::with_frame_info(info, Vec::new());
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..1024 {
        lz4.write_all(&MEBIBYTE).unwrap();
        zstd.write_all(&MEBIBYTE).unwrap();
    }
    [batch(3, 1, &lz4.finish().unwrap()), batch(4, 1, &zstd.finish().unwrap())]
}

#[test]
fn memory_follows_the_bytes_found_and_not_the_numbers_claimed() {
    let bombs = bombs();
    let before = peak_bytes();

    for bomb in bombs {
        let refused = BatchError::DecompressedTooLarge { bytes_max: DECOMPRESSED_BYTES_MAX };
        assert_eq!(decode(bomb).unwrap_err(), refused);
    }

    // The greatest count, and nothing behind it.
    let empty = zstd::bulk::compress(&[], 1).unwrap();
    let index_0 = records(batch(4, RECORDS_MAX, &empty)).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(index_0, BatchError::Record { index: 0, .. }), "{index_0}");

    // A header count of 2^31-1 in a record of 12 bytes, and a key of as many bytes.
    let headers = [24, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let too_many = RecordFault::TooManyHeaders { header_count_max: HEADERS_MAX };
    let refused = BatchError::Record { index: 0, fault: too_many };
    assert_eq!(decode(batch(0, 1, &headers)).unwrap_err(), refused);
    let key = [18, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0];
    let cut = RecordFault::Truncated { needed_bytes: 0x7fff_ffff, actual_bytes: 1 };
    let refused = BatchError::Record { index: 0, fault: cut };
    assert_eq!(decode(batch(0, 1, &key)).unwrap_err(), refused);

    // A Zstandard frame that asks for a window of 2 GiB and holds five bytes.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3][..], &[0x29, 0x00, 0x00, 1, 2, 3, 4, 5]];
    let _ = decode(batch(4, 1, &window.concat())).unwrap_err();

    let grown_bytes = peak_bytes() - before;
    assert!(grown_bytes < PEAK_BYTES_MAX, "address space grew by {grown_bytes} bytes");
}
