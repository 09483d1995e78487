//! Every bound of the process, with its unit and the reason for its size.
//!
//! What lies beyond is answered (OVERLOADED, INVALID_ARGUMENT), held back or cut, never queued
//! without end. Elsewhere: bounds of the batch format are in `quipu_batch`, bounds that replicas
//! must share in `node_core::limits`; a bound that a user may set is in
//! [`crate::config::NodeConfig`], and here is only how far it may be moved.

use std::ops::RangeInclusive;
use std::time::Duration;

use quipu_batch::BATCH_BYTES_MAX;
use quipu_proto::MESSAGE_BYTES_MAX;

// How far settings may be moved.

/// Greatest value of a setting in bytes (1 TiB): beyond what any node has, far below an overflow.
pub const SETTING_BYTES_MAX: u64 = 1 << 40;
/// Least room for appends in flight, in bytes (24 MiB): three of the greatest batches, so that
/// one large append does not stop all others.
pub const APPEND_IN_FLIGHT_BYTES_MIN: u64 = 24 << 20;
/// Least disk reserve in bytes (16 MiB): what was acknowledged to be written must still fit.
pub const DISK_RESERVE_BYTES_MIN: u64 = 16 << 20;
/// Least cache and least write buffer in bytes (1 MiB). Smaller ones make thousands of files.
pub const STORAGE_BUFFER_BYTES_MIN: u64 = 1 << 20;
/// Election timeout in milliseconds. Below, a busy processor looks like a dead leader; above, a
/// dead one costs a minute.
pub const ELECTION_TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;
/// Heartbeat in milliseconds. Below, the beats of an idle cluster are load.
pub const HEARTBEAT_MS: RangeInclusive<u64> = 10..=10_000;
/// Heartbeats in one election timeout, at least: two may be late or lost.
pub const HEARTBEATS_PER_ELECTION_TIMEOUT_MIN: u32 = 3;
/// Addresses in `join`. One that answers is enough.
pub const JOIN_ADDRESSES_MAX: usize = 64;
/// Bytes of the configuration file (1 MiB). A path to something else is not read to its end.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

// The process.

/// Time for handing leaderships over and closing the store. What is not done by then is what a
/// crash would leave, and is recovered the same way. Service managers wait longer (systemd: 90 s,
/// Kubernetes: 30 s).
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

// Metrics and health over HTTP.

/// Connections served at once; a further one is closed. A scraper uses one or two.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Time for the whole head of a request, and how long a connection may rest between two requests.
pub const HTTP_HEAD_WITHIN: Duration = Duration::from_secs(90);
/// Files of the data directory that a scrape looks at. Past it the sizes add up to too little.
pub const SCRAPE_FILES_MAX: usize = 100_000;

// Calls of clients.

/// Requests of one append stream without an answer; the stream is not read while there are more.
pub const APPEND_STREAM_UNANSWERED_MAX: usize = 256;
/// Time for an append whose request names none.
pub const APPEND_WITHIN_DEFAULT: Duration = Duration::from_secs(30);
/// Longest time that an append may ask for. It holds its bytes in memory for so long.
pub const APPEND_WITHIN_MAX: Duration = Duration::from_secs(120);
/// Bytes of a fetch whose request names none (1 MiB).
pub const FETCH_BYTES_DEFAULT: usize = 1 << 20;
/// Bytes that one fetch may ask for (8 MiB). At least one batch is returned all the same.
pub const FETCH_BYTES_MAX: usize = 8 << 20;
/// Longest time that a fetch may wait for data. Below what proxies call a dead connection.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(30);
/// Group offsets in one commit: a member of a group over 1,000 partitions commits them all.
pub const GROUP_OFFSETS_PER_COMMIT_MAX: usize = 1_000;
/// Bytes of the text that may go with a group offset (4 KiB). The API says so too.
pub const GROUP_OFFSET_METADATA_BYTES_MAX: usize = 4 << 10;

// A fetch may answer FETCH_BYTES_MAX without its last batch, and that batch on top.
const _: () = assert!(FETCH_BYTES_MAX + BATCH_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(APPEND_IN_FLIGHT_BYTES_MIN >= BATCH_BYTES_MAX as u64);

// The log of a group.

/// Bytes of entries that one group keeps in memory after they are on disk and applied, so that
/// readers at the end and followers that keep up never read from disk.
pub const TAIL_BYTES_MAX: usize = 2 << 20;
/// Entries kept likewise.
pub const TAIL_ENTRIES_MAX: usize = 4_096;
/// Entries that one scan of the store reads.
pub const SCAN_ENTRIES_MAX: usize = 4_096;
/// Bytes of entries in one append to a follower; at least one entry goes, whatever its size.
pub const REPLICATE_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries read ahead of applying them.
pub const APPLY_BYTES_MAX: usize = 2 << 20;
/// Entries in one append to a follower.
pub const REPLICATE_ENTRIES_MAX: u64 = 1_024;

// Between nodes.

/// Bytes of the largest message between nodes: one append, or a checkpoint.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// HTTP/2 window of one stream between nodes: bounds what one group has in flight to one peer.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 window of one connection between nodes.
pub const PEER_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Heartbeats that wait for one call; more wait in their groups.
pub const HEARTBEATS_QUEUED_MAX: usize = 1_024;
/// A call of many heartbeats is given up after this long.
pub const HEARTBEATS_ANSWER_MAX: Duration = Duration::from_millis(1_000);
/// An append that a peer leaves unanswered for so long ends the stream: the peer hangs.
pub const APPEND_ANSWER_MAX: Duration = Duration::from_secs(5);
/// A checkpoint is sent and installed within this time, or sent again.
pub const SNAPSHOT_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Connecting to a peer is given up after this long.
pub const CONNECT_MAX: Duration = Duration::from_millis(1_000);
/// HTTP/2 pings on an idle connection; generous, since two busy cores delay them.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A ping unanswered for so long ends the connection.
pub const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause before a failed replication stream is opened again.
pub const REPLICATION_BACKOFF: Duration = Duration::from_millis(100);

// Leadership.

/// A leader whose last word from a majority is older than this asks again before it takes a
/// write. Below openraft's lease, which is the greatest election time-out.
pub const QUORUM_FRESH: Duration = Duration::from_millis(1_000);
/// How often the answer to that is looked for.
pub const QUORUM_POLL: Duration = Duration::from_millis(5);

// Reading partitions.

/// Index records of a partition that stay in memory after the store has them.
pub const INDEX_RECORDS_RECENT_MAX: usize = 1_024;
/// Index records that one scan of the store reads.
pub const INDEX_RECORDS_SCANNED_MAX: usize = 256;
/// Entries that a search by event time reads before it settles for the place it reached.
pub const TIME_SEARCH_ENTRIES_MAX: usize = 10_000;
/// Entries applied before their effects are shown and their rows queued.
pub const APPLY_ENTRIES_MAX: usize = 256;
/// Entries of a metadata or coordinator group's log after which a snapshot is made.
pub const TABLE_SNAPSHOT_ENTRIES: u64 = 10_000;
/// Entries kept before a table's snapshot, for followers that are just a little behind.
pub const TABLE_ENTRIES_KEPT: u64 = 1_000;
