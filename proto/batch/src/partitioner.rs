//! The partition of a key, as Kafka's default partitioner chooses it.
//!
//! All doors and all clients must agree, or the records of one key lose their order. So this is
//! `org.apache.kafka.common.utils.Utils.murmur2` bit for bit, sign handling included.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The partition of `key` in a topic of `partition_count` partitions.
///
/// A topic has at least one partition; for the impossible 0 the answer is partition 0, which the
/// cluster then says it does not know.
#[must_use]
pub fn partition_of_key(key: &[u8], partition_count: u32) -> u32 {
    // Kafka's toPositive drops the sign bit; an absolute value would choose differently.
    let positive = murmur2(key) & 0x7fff_ffff;
    positive.checked_rem(partition_count).unwrap_or(0)
}

/// The bits of Kafka's murmur2, which calls them a signed number.
fn murmur2(data: &[u8]) -> u32 {
    // Keys are far below 4 GiB: a batch is; beyond, the low bits of the length serve as well.
    let length = u32::try_from(data.len() & 0xffff_ffff).expect("masked to 32 bits");
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_test() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        }
    }

    #[test]
    fn the_sign_bit_is_dropped_before_the_remainder() {
        // -973932308 without its sign bit is 1173551340.
        assert_eq!(partition_of_key(b"21", 1000), 340);
        assert_eq!(partition_of_key(b"21", 1), 0);
        assert_eq!(partition_of_key(b"", 4), partition_of_key(b"", 4));
    }

    #[test]
    fn a_topic_without_partitions_is_no_reason_to_panic() {
        assert_eq!(partition_of_key(b"21", 0), 0);
    }
}
