//! Variable-length integers inside records: zigzag, then seven bits a byte, lowest first.
//!
//! As in Protocol Buffers' sint32 and sint64. A reader takes at most five or ten bytes; an
//! encoding longer than needed is accepted, one that does not fit its type is not.

use crate::error::RecordFault;

/// Most bytes that a 32-bit number takes.
pub(crate) const VARINT_BYTES_MAX: usize = 5;
/// Most bytes that a 64-bit number takes.
const VARLONG_BYTES_MAX: usize = 10;

const MORE: u8 = 0x80;

/// Appends a 32-bit number, or a 64-bit one: the encodings of equal numbers are equal.
pub(crate) fn write(value: i64, out: &mut Vec<u8>) {
    let mut rest = zigzag(value);
    while rest >= u64::from(MORE) {
        let low = u8::try_from(rest & 0x7f).expect("masked to 7 bits");
        out.push(low | MORE);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("below 128 after the loop"));
}

/// Bytes which [`write`] takes for `value`.
pub(crate) fn size_bytes(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most 10")
}

/// Reads a 32-bit number at the start of `bytes`; with it, how many bytes it took.
pub(crate) fn read_i32(bytes: &[u8]) -> Result<(i32, usize), RecordFault> {
    let (raw, taken) = read_raw(bytes, VARINT_BYTES_MAX, i32::BITS)?;
    let raw = u32::try_from(raw).map_err(|_| RecordFault::Varint { bits: i32::BITS })?;
    Ok(((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed(), taken))
}

/// Reads a 64-bit number at the start of `bytes`; with it, how many bytes it took.
pub(crate) fn read_i64(bytes: &[u8]) -> Result<(i64, usize), RecordFault> {
    let (raw, taken) = read_raw(bytes, VARLONG_BYTES_MAX, i64::BITS)?;
    Ok(((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed(), taken))
}

fn read_raw(bytes: &[u8], bytes_max: usize, bits: u32) -> Result<(u64, usize), RecordFault> {
    let mut value: u64 = 0;
    let mut shift: u32 = 0;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        let low = u64::from(byte & !MORE);
        let shifted = low << shift;
        if shifted >> shift != low {
            return Err(RecordFault::Varint { bits });
        }
        value |= shifted;
        if byte & MORE == 0 {
            return Ok((value, index + 1));
        }
        shift += 7;
    }
    if bytes.len() >= bytes_max {
        return Err(RecordFault::Varint { bits });
    }
    Err(RecordFault::Truncated { needed_bytes: bytes.len() + 1, actual_bytes: bytes.len() })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_of_either_sign_take_one_byte() {
        for (value, byte) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)] {
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(out, [byte]);
        }
    }

    #[test]
    fn a_number_of_33_bits_is_not_a_32_bit_number() {
        let fault = RecordFault::Varint { bits: 32 };
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok((i32::MIN, 5)));
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(fault));
        assert_eq!(read_i32(&[0x80; 9]), Err(fault));
    }

    #[test]
    fn a_number_of_65_bits_is_not_a_64_bit_number() {
        let mut longest = [0xff; 10];
        longest[9] = 0x01;
        assert_eq!(read_i64(&longest), Ok((i64::MIN, 10)));
        longest[9] = 0x03;
        assert_eq!(read_i64(&longest), Err(RecordFault::Varint { bits: 64 }));
    }

    #[test]
    fn an_unfinished_number_is_cut_short_and_not_malformed() {
        let fault = RecordFault::Truncated { needed_bytes: 3, actual_bytes: 2 };
        assert_eq!(read_i32(&[0x80, 0x80]), Err(fault));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(value: i64) {
            let mut out = Vec::new();
            write(value, &mut out);
            proptest::prop_assert_eq!(out.len(), size_bytes(value));
            proptest::prop_assert_eq!(read_i64(&out), Ok((value, out.len())));
            if let Ok(narrow) = i32::try_from(value) {
                proptest::prop_assert_eq!(read_i32(&out), Ok((narrow, out.len())));
            }
        }
    }
}
