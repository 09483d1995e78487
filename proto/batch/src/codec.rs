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
