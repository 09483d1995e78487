//! The values of records: random bytes, which nothing can compress, or real events.

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::args::{PayloadArg, ValueArgs};

/// See cluster/data/README.md for what they are and where they come from.
const FLIGHTS: &[u8] = include_bytes!("../../data/flights.ndjson.zst");

/// Random bytes that values are cut from: many times what a block or a batch holds, so that cuts
/// that overlap don't meet in one.
const POOL_BYTES: usize = 8 << 20;

/// A stamp in front of a value: when its record was due, nanoseconds since the begin of the run.
pub(super) const STAMP_BYTES: usize = 8;

/// Where values come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Random { pool: Bytes, record_bytes: usize },
    Flights(Vec<Bytes>),
}

impl Payload {
    pub(super) fn new(args: &ValueArgs) -> anyhow::Result<Payload> {
        match args.payload {
            PayloadArg::Random => {
                let record_bytes = usize::try_from(args.record_bytes)?;
                let mut pool = vec![0; POOL_BYTES.max(record_bytes)];
                // Seeded, so that two runs append the same.
                fastrand::Rng::with_seed(1).fill(&mut pool);
                Ok(Payload::Random { pool: pool.into(), record_bytes })
            }
            PayloadArg::Flights => {
                let text = zstd::decode_all(FLIGHTS).context("the flights built in are damaged")?;
                let text = Bytes::from(text);
                let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                Ok(Payload::Flights(lines.map(|line| text.slice_ref(line)).collect()))
            }
        }
    }

    /// Bytes of a value, on average.
    pub(super) fn record_bytes(&self) -> usize {
        match self {
            Payload::Random { record_bytes, .. } => *record_bytes,
            Payload::Flights(lines) => {
                lines.iter().map(Bytes::len).sum::<usize>() / lines.len().max(1)
            }
        }
    }

    /// All values have the same size.
    pub(super) fn is_even(&self) -> bool {
        matches!(self, Payload::Random { .. })
    }

    /// A value.
    pub(super) fn value(&self, rng: &mut fastrand::Rng) -> Bytes {
        match self {
            Payload::Random { pool, record_bytes } => {
                let start = rng.usize(..=pool.len() - record_bytes);
                pool.slice(start..start + record_bytes)
            }
            Payload::Flights(lines) => rng.choice(lines).cloned().unwrap_or_default(),
        }
    }
}

/// A value that begins with when it was due.
pub(super) fn stamped(value: &Bytes, origin: Instant, due: Instant) -> Bytes {
    let nanos = due.saturating_duration_since(origin).as_nanos();
    let stamp = u64::try_from(nanos).unwrap_or(u64::MAX).to_le_bytes();
    let mut bytes = BytesMut::with_capacity(value.len().max(STAMP_BYTES));
    bytes.extend_from_slice(&stamp);
    bytes.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
    bytes.freeze()
}

/// When a stamped value was due; `None` if it is too short for a stamp.
pub(super) fn due_of(value: &[u8], origin: Instant) -> Option<Instant> {
    let stamp: [u8; STAMP_BYTES] = value.get(..STAMP_BYTES)?.try_into().ok()?;
    origin.checked_add(std::time::Duration::from_nanos(u64::from_le_bytes(stamp)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn random_values_have_the_size_asked_for_and_differ() {
        let args = ValueArgs { record_bytes: 100, payload: PayloadArg::Random };
        let payload = Payload::new(&args).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let (one, other) = (payload.value(&mut rng), payload.value(&mut rng));
        assert_eq!((one.len(), other.len(), payload.record_bytes()), (100, 100, 100));
        assert_ne!(one, other);
    }

    #[test]
    fn flights_are_json() {
        let args = ValueArgs { record_bytes: 1, payload: PayloadArg::Flights };
        let payload = Payload::new(&args).unwrap();
        let value = payload.value(&mut fastrand::Rng::with_seed(1));
        assert!(serde_json::from_slice::<serde_json::Value>(&value).unwrap().is_object());
        assert!((200..1_000).contains(&payload.record_bytes()));
    }

    #[tokio::test]
    async fn a_stamp_is_found_again() {
        let origin = Instant::now();
        let due = origin + Duration::from_nanos(123_456_789);
        let value = stamped(&Bytes::from_static(&[7; 20]), origin, due);
        assert_eq!(value.len(), 20);
        assert_eq!(due_of(&value, origin), Some(due));
        assert_eq!(due_of(&value[..7], origin), None);
    }
}
