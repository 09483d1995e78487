//! Every bound of the storage layer, with its unit and the answer when it is reached.

/// Requests are gathered into one write and one fsync until they hold this many bytes; the rest
/// waits for the next write. Chosen: 10 to 20 ms of a disk that writes 500 MB/s.
pub const GROUP_COMMIT_BYTES_MAX: usize = 8 << 20;

/// Requests gathered into one write at most, so that one round of callbacks stays short.
pub const GROUP_COMMIT_REQUESTS_MAX: usize = 4096;

/// Bytes that may wait in the log writer's queue. When they are reached `room()` waits; `submit`
/// itself never refuses, so the queue exceeds this by what callers send without asking for room.
pub const WRITER_QUEUE_BYTES_MAX: usize = 32 << 20;

/// What a waiting request costs in the queue beyond its batch.
pub const WRITER_REQUEST_BYTES: usize = 128;

const _: () = assert!(GROUP_COMMIT_BYTES_MAX < WRITER_QUEUE_BYTES_MAX);
