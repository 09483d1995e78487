//! Compresses the records of a batch, and decompresses them within a limit.
//!
//! What is decompressed was made by a stranger: a few kilobytes may claim to be gigabytes. So the
//! output grows with what really comes out, and stops at [`DECOMPRESSED_BYTES_MAX`].
//!
//! LZ4 frames have independent blocks of 64 KiB, because Kafka's Java client reads no other kind.

use std::io::{BufRead, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe;

use crate::error::BatchError;
use crate::header::Compression;
use crate::limits::DECOMPRESSED_BYTES_MAX;

/// Level 1 is about as fast as LZ4 is with better ratio; producers are not kept waiting for more.
const ZSTD_LEVEL: i32 = 1;

/// First bytes of an LZ4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// Output room in the first attempt at a Zstandard frame: this, or this many times the input.
const ZSTD_ROOM_BYTES: usize = 64 * 1024;
const ZSTD_ROOM_RATIO: usize = 8;
/// Growth of the room from attempt to attempt: all attempts but the last cost a third of it.
const ZSTD_ROOM_GROWTH: usize = 4;

/// Compresses `records`; `None` if the codec saves nothing or fails, so that they stay as they are.
pub(crate) fn compress(compression: Compression, records: &[u8]) -> Option<Vec<u8>> {
    let compressed = match compression {
        Compression::None => None,
        Compression::Lz4 => compress_lz4(records),
        Compression::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL).ok(),
    };
    compressed.filter(|compressed| compressed.len() < records.len())
}

/// The plain records. Without compression they share the memory of `records`.
pub(crate) fn decompress(compression: Compression, records: Bytes) -> Result<Bytes, BatchError> {
    match compression {
        Compression::None => Ok(records),
        Compression::Lz4 => decompress_lz4(&records).map(Bytes::from),
        Compression::Zstd => decompress_zstd(&records).map(Bytes::from),
    }
}

fn compress_lz4(records: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(records).ok()?;
    encoder.finish().ok()
}

fn decompress_lz4(frame: &[u8]) -> Result<Vec<u8>, BatchError> {
    // The library would also read the old format without a header, and frames to be skipped.
    if !frame.starts_with(&LZ4_MAGIC) {
        return Err(refused(Compression::Lz4, "not an LZ4 frame"));
    }
    let mut decoder = FrameDecoder::new(frame);
    let mut plain = Vec::new();
    loop {
        let block = decoder.fill_buf().map_err(|error| refused(Compression::Lz4, error))?;
        if block.is_empty() {
            break;
        }
        if block.len() > DECOMPRESSED_BYTES_MAX - plain.len() {
            return Err(BatchError::DecompressedTooLarge { bytes_max: DECOMPRESSED_BYTES_MAX });
        }
        plain.extend_from_slice(block);
        let taken = block.len();
        decoder.consume(taken);
    }
    if !decoder.get_ref().is_empty() {
        return Err(refused(Compression::Lz4, "bytes follow the frame"));
    }
    Ok(plain)
}

/// Decompresses in one call per attempt: unlike a stream, that needs no window, whose size a
/// frame may set to gigabytes in six bytes.
fn decompress_zstd(frame: &[u8]) -> Result<Vec<u8>, BatchError> {
    let too_large = BatchError::DecompressedTooLarge { bytes_max: DECOMPRESSED_BYTES_MAX };
    let claimed = zstd_safe::get_frame_content_size(frame)
        .map_err(|_| refused(Compression::Zstd, "not a Zstandard frame"))?;
    let claimed = match claimed.map(usize::try_from) {
        None => DECOMPRESSED_BYTES_MAX,
        Some(Ok(bytes)) if bytes <= DECOMPRESSED_BYTES_MAX => bytes,
        Some(_) => return Err(too_large),
    };
    let mut context = zstd_safe::DCtx::try_create()
        .ok_or_else(|| refused(Compression::Zstd, "no memory for its context"))?;
    let mut room = ZSTD_ROOM_BYTES.max(frame.len().saturating_mul(ZSTD_ROOM_RATIO)).min(claimed);
    loop {
        let mut plain = Vec::with_capacity(room);
        match context.decompress(&mut plain, frame) {
            Ok(_) if plain.len() > DECOMPRESSED_BYTES_MAX => return Err(too_large),
            Ok(_) => return Ok(plain),
            Err(code) if !is_out_of_room(code) => {
                return Err(refused(Compression::Zstd, zstd_safe::get_error_name(code)));
            }
            Err(_) if room >= DECOMPRESSED_BYTES_MAX => return Err(too_large),
            Err(_) => {
                room = room.saturating_mul(ZSTD_ROOM_GROWTH).clamp(1, DECOMPRESSED_BYTES_MAX);
            }
        }
    }
}

/// The library's error numbers below 100 are stable; they come back as negative sizes.
fn is_out_of_room(code: usize) -> bool {
    code == (zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize)
        .wrapping_neg()
}

fn refused(codec: Compression, reason: impl ToString) -> BatchError {
    BatchError::Decompress { codec, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4(info: FrameInfo, plain: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// Text that compresses a little, longer than two blocks.
    fn text() -> Vec<u8> {
        let words = (0..20_000_u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) >> 12));
        words.collect::<String>().into_bytes()
    }

    #[test]
    fn every_kind_of_lz4_frame_that_a_client_may_send_is_read() {
        let plain = text();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max4MB] {
                let info = FrameInfo::new()
                    .block_mode(mode)
                    .block_size(size)
                    .block_checksums(true)
                    .content_checksum(true)
                    .content_size(Some(plain.len() as u64));
                assert_eq!(decompress_lz4(&lz4(info, &plain)).unwrap(), plain);
            }
        }
    }

    #[test]
    fn zstandard_is_read_with_and_without_its_size_in_the_frame() {
        let plain = text();
        let sized = zstd::bulk::compress(&plain, 19).unwrap();
        assert_eq!(decompress_zstd(&sized).unwrap(), plain);
        // A stream does not know its size when it writes the head of the frame.
        let stream = zstd::stream::encode_all(plain.as_slice(), 19).unwrap();
        assert!(matches!(zstd_safe::get_frame_content_size(&stream), Ok(None)));
        assert_eq!(decompress_zstd(&stream).unwrap(), plain);
    }

    #[test]
    fn a_window_greater_than_the_limit_costs_no_memory_and_is_read() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"small").unwrap();
        assert_eq!(decompress_zstd(&encoder.finish().unwrap()).unwrap(), b"small");
    }

    #[test]
    fn what_expands_beyond_the_limit_is_refused() {
        let bomb = vec![0; DECOMPRESSED_BYTES_MAX + 1];
        let info = FrameInfo::new().block_size(BlockSize::Max4MB);
        let sized = zstd::bulk::compress(&bomb, ZSTD_LEVEL).unwrap();
        let stream = zstd::stream::encode_all(bomb.as_slice(), ZSTD_LEVEL).unwrap();
        let refused = Err(BatchError::DecompressedTooLarge { bytes_max: DECOMPRESSED_BYTES_MAX });
        assert_eq!(decompress_lz4(&lz4(info, &bomb)), refused);
        assert_eq!(decompress_zstd(&sized), refused);
        assert_eq!(decompress_zstd(&stream), refused);
    }

    #[test]
    fn what_expands_to_the_limit_is_read() {
        let most = vec![0; DECOMPRESSED_BYTES_MAX];
        let stream = zstd::stream::encode_all(most.as_slice(), ZSTD_LEVEL).unwrap();
        assert_eq!(decompress_zstd(&stream).unwrap().len(), DECOMPRESSED_BYTES_MAX);
    }

    #[test]
    fn frames_of_another_kind_and_second_frames_are_refused() {
        let frame = lz4(FrameInfo::new(), b"placed");
        let legacy = [0x02, 0x21, 0x4c, 0x18, 7, 0, 0, 0, 0x60, b'p', b'l', b'a', b'c', b'e', b'd'];
        let twice = [frame.as_slice(), &frame].concat();
        assert_eq!(decompress_lz4(&legacy), Err(refused(Compression::Lz4, "not an LZ4 frame")));
        assert_eq!(decompress_lz4(b""), Err(refused(Compression::Lz4, "not an LZ4 frame")));
        let second = Err(refused(Compression::Lz4, "bytes follow the frame"));
        assert_eq!(decompress_lz4(&twice), second);
        let none = Err(refused(Compression::Zstd, "not a Zstandard frame"));
        assert_eq!(decompress_zstd(b"placed"), none);
    }

    #[test]
    fn compression_that_saves_nothing_is_not_used() {
        assert_eq!(compress(Compression::Lz4, b"ab"), None);
        assert_eq!(compress(Compression::Zstd, b"ab"), None);
        assert_eq!(compress(Compression::None, &[0; 100]), None);
        assert!(compress(Compression::Lz4, &[0; 100]).is_some());
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_frame_never_makes_a_reader_panic(
            linked: bool,
            at in proptest::collection::vec((7_usize..100_000, 0_u8..=255), 1..4),
        ) {
            let mode = if linked { BlockMode::Linked } else { BlockMode::Independent };
            let info = FrameInfo::new().block_mode(mode).block_size(BlockSize::Max64KB);
            let mut frame = lz4(info, &text());
            let mut zstd = zstd::bulk::compress(&text(), ZSTD_LEVEL).unwrap();
            for (at, byte) in at {
                let (lz4_bytes, zstd_bytes) = (frame.len(), zstd.len());
                frame[at % lz4_bytes] = byte;
                zstd[at % zstd_bytes] = byte;
            }
            let _ = decompress_lz4(&frame);
            let _ = decompress_zstd(&zstd);
        }
    }
}
