//! A record's value from its number, so that a reader can tell whether it is what was sent without
//! anybody having kept what was sent.
//!
//! The number, then bytes drawn from it: a value that was cut, mixed up or shifted does not fit its
//! own number. The bytes don't compress, so that what is stored is as large as what was sent.

use bytes::Bytes;

/// The number and at least some of the drawn bytes.
pub(super) const VALUE_BYTES_MIN: usize = 16;

const NUMBER_BYTES: usize = size_of::<u64>();

/// The value of record `number`, `bytes` long or [`VALUE_BYTES_MIN`].
pub(super) fn value(number: u64, bytes: usize) -> Bytes {
    let bytes = bytes.max(VALUE_BYTES_MIN);
    let mut value = Vec::with_capacity(bytes + NUMBER_BYTES);
    value.extend_from_slice(&number.to_be_bytes());
    let mut rng = fastrand::Rng::with_seed(number);
    while value.len() < bytes {
        value.extend_from_slice(&rng.u64(..).to_be_bytes());
    }
    value.truncate(bytes);
    value.into()
}

/// The number of the record, if the value is what was sent.
pub(super) fn number(value: Option<&[u8]>) -> Option<u64> {
    let found = value?;
    let number = u64::from_be_bytes(*found.first_chunk::<NUMBER_BYTES>()?);
    (self::value(number, found.len()) == found).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_number() {
        for bytes in [0, 16, 17, 100, 1024] {
            assert_eq!(number(Some(&value(7, bytes))), Some(7), "{bytes} bytes");
        }
    }

    #[test]
    fn a_value_that_was_cut_or_changed_tells_nothing() {
        let sent = value(7, 100);
        let mut changed = sent.to_vec();
        changed[99] ^= 1;
        assert_eq!(number(Some(&changed)), None);
        assert_eq!(number(Some(&sent[8..])), None);
        assert_eq!(number(Some(&sent[..12])), None);
        assert_eq!(number(None), None);
    }
}
