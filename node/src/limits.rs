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

/// Open files that the process asks for: 400 of RocksDB, and connections of clients and nodes.
pub const OPEN_FILES_MAX: u64 = 65_536;

/// Time for handing leaderships over and closing the store. What is not done by then is what a
/// crash would leave, and is recovered the same way. Service managers wait longer (systemd: 90 s,
/// Kubernetes: 30 s).
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Calls under way when the node stops have so long to be answered.
pub const CALLS_END_WITHIN: Duration = Duration::from_millis(200);
/// How often, and how many times, a stopping process looks whether its store is closed: 2 s.
pub const STORE_CLOSE_POLL: Duration = Duration::from_millis(10);
/// See [`STORE_CLOSE_POLL`].
pub const STORE_CLOSE_POLLS: usize = 200;

// Metrics and health over HTTP.

/// Connections served at once; a further one is closed. A scraper uses one or two.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// Time for the whole head of a request, and how long a connection may rest between two requests.
pub const HTTP_HEAD_WITHIN: Duration = Duration::from_secs(90);
/// Files of the data directory that a scrape looks at. Past it the sizes add up to too little.
pub const SCRAPE_FILES_MAX: usize = 100_000;

// Calls of clients.

/// Calls of clients served at once, over all connections; further ones are told OVERLOADED.
/// A thousand consumers that wait at ten partitions each.
pub const CALLS_AT_ONCE_MAX: usize = 10_000;
/// Streams of clients (append, follow) open at once; further ones are told OVERLOADED.
pub const STREAMS_OPEN_MAX: usize = 10_000;
/// Bytes of a request about groups (6 MiB): the largest commit, with room around it. A repeated
/// field can take forty times its bytes in memory, so it is no larger than it must be.
pub const GROUPS_REQUEST_BYTES_MAX: usize = 6 << 20;
/// Bytes of an administrative request (1 MiB).
pub const ADMIN_REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of an error's text. It travels in HTTP headers, three times over, and a client takes
/// 16 KiB of them; and it may quote what the caller sent.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1_000;
/// Time for a call that names none of its own. Below the 5 s for which the client library waits,
/// so that it is told why.
pub const CALL_WITHIN: Duration = Duration::from_secs(4);
/// How long describing a topic waits for the newest metadata before it answers with what this
/// node knows. A healthy leader needs a few milliseconds; a failover must not wait for this.
pub const METADATA_FRESH_WITHIN: Duration = Duration::from_millis(100);
/// How often creating a topic looks whether its partitions have leaders.
pub const LEADERS_POLL: Duration = Duration::from_millis(20);
/// How often a bounded follow looks again whether the replica is fresh enough, at most.
pub const FOLLOW_LOOK_MIN: Duration = Duration::from_millis(100);
/// Partitions that one fetch of group offsets may name.
pub const GROUP_PARTITIONS_PER_FETCH_MAX: usize = 10_000;
/// Names of groups in one answer. There is another page.
pub const GROUPS_LISTED_MAX: usize = 10_000;
/// Time in which the ends of partitions are found out, to say how far a group is behind and to
/// check a commit. Longer than an election takes; a commit waits no longer for one.
pub const POSITIONS_WITHIN: Duration = Duration::from_millis(1_000);
/// Ends of partitions looked up at once.
pub const POSITIONS_AT_ONCE: usize = 256;
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
/// A fetch that waits makes sure so often that its level's condition still holds, and that this
/// node still leads if it did.
pub const FETCH_LOOK: Duration = Duration::from_secs(1);
/// Group offsets in one commit: a member of a group over 1,000 partitions commits them all.
pub const GROUP_OFFSETS_PER_COMMIT_MAX: usize = 1_000;
/// Bytes of the text that may go with a group offset (4 KiB). The API says so too.
pub const GROUP_OFFSET_METADATA_BYTES_MAX: usize = 4 << 10;

// A fetch may answer FETCH_BYTES_MAX without its last batch, and that batch on top.
const _: () = assert!(FETCH_BYTES_MAX + BATCH_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(APPEND_IN_FLIGHT_BYTES_MIN >= BATCH_BYTES_MAX as u64);
const _: () = assert!(
    GROUP_OFFSETS_PER_COMMIT_MAX * (GROUP_OFFSET_METADATA_BYTES_MAX + 512)
        < GROUPS_REQUEST_BYTES_MAX
);

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
/// A damaged entry is asked for at all other nodes for so long before it counts as lost: two
/// seconds of each hung one, and some for the others to find a leader and commit it.
pub const REPAIR_WITHIN: Duration = Duration::from_secs(3);
/// The same once a node has said that the entry went with the log's beginning.
pub const REPAIR_OF_PURGED_WITHIN: Duration = Duration::from_millis(500);
/// A node is asked again after this long.
pub const REPAIR_PAUSE: Duration = Duration::from_millis(100);
/// A node that was asked for an entry is given up after this long, and asked again.
pub const REPAIR_ANSWER_MAX: Duration = Duration::from_secs(2);
/// Entries looked at before a damaged one that is not known to be committed, for a whole one that
/// shows where this log parts from the others.
pub const REPAIR_LOOK_BACK_MAX: u64 = 64;
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
/// Bytes of one group's append stream that a follower has taken and not yet answered.
pub const APPEND_STREAM_BYTES_MAX: usize = 8 << 20;
/// A checkpoint is sent and installed within this time, or sent again.
pub const SNAPSHOT_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Connecting to a peer is given up after this long.
pub const CONNECT_MAX: Duration = Duration::from_millis(1_000);
/// After a connection to a node failed, calls to it but beats are refused for so long. Beats come
/// as often, so a node that is back is noticed no later.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// The same for calls that waited for that very connection. Less than [`BEAT_RETRY`], so that two
/// beats in a row are never refused by one attempt.
pub const CONNECT_AGAIN_IN_LINE: Duration = Duration::from_millis(10);
/// HTTP/2 pings on an idle connection; generous, since two busy cores delay them.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A ping unanswered for so long ends the connection.
pub const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause before a failed replication stream is opened again.
pub const REPLICATION_BACKOFF: Duration = Duration::from_millis(100);

// Leadership.

/// A leader whose last word from a majority is older than this, or than the least election
/// time-out, asks again before it takes a write: openraft's lease ends at twice that time-out.
pub const QUORUM_FRESH_MAX: Duration = Duration::from_millis(1_000);
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

// Appending.

/// Appends that wait in front of one partition; bytes are bounded for the whole node beside it.
pub const APPENDS_WAITING_MAX: usize = 4_096;
/// Entries of one partition proposed and not yet answered. More would not be faster, only later.
pub const ENTRIES_UNDER_WAY_MAX: usize = 8;
/// Batches gathered into one entry.
pub const ENTRY_BATCHES_MAX: usize = 1_024;
/// Bytes gathered into one entry; a single batch may be larger.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// How often a leader whose entries stay unanswered looks whether it still leads.
pub const LEADERSHIP_LOOK: Duration = Duration::from_millis(100);
/// A proposal of the node itself is given up after this long.
pub const PROPOSAL_MAX: Duration = Duration::from_secs(5);

// Read index.

/// One question for the read index is given up after this long, and asked again.
pub const READ_INDEX_MAX: Duration = Duration::from_millis(1_500);
/// Pause before it is asked again while leadership is unclear.
pub const READ_INDEX_RETRY: Duration = Duration::from_millis(20);

// Liveness.

/// Between two beats of a pair of nodes.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(100);
/// A beat is given up after this long. Silence counts, not the error.
pub const BEAT_ANSWER_MAX: Duration = Duration::from_millis(1_000);
/// After a refused beat the next follows sooner: two refusals make a node dead.
pub const BEAT_RETRY: Duration = Duration::from_millis(20);
const _: () = assert!(CONNECT_AGAIN_IN_LINE.as_millis() < BEAT_RETRY.as_millis());
/// Moments remembered per group for telling a follower's lag: 3 s of beats.
pub const LAG_MOMENTS_MAX: usize = 32;
/// A lag beyond this is told as not known. A bounded read that would allow it asks the leader.
pub const LAG_TOLD_MAX: Duration = Duration::from_secs(10);
/// Nodes remembered that ask this one though it does not know them.
pub const STRANGERS_MAX: usize = 64;
/// Nodes named as unreachable in one beat.
pub const UNREACHABLE_MAX: usize = 64;
/// How often the groups are looked after.
pub const TEND_INTERVAL: Duration = Duration::from_millis(100);
/// A group in which nothing happened for so long is parked.
pub const PARK_AFTER_MS: u64 = 5_000;
/// A group that was just opened waits so long for word of a leader before it elects one.
pub const LEADERLESS_GRACE: Duration = Duration::from_millis(400);
/// Each further replica waits so much longer, so that they do not split the vote.
pub const ELECTION_SPREAD: Duration = Duration::from_millis(200);
/// An election that came to nothing is called again after this long or up to twice that, then
/// after twice as long, [`ELECTION_DOUBLINGS`] times. Milliseconds.
pub const ELECTION_AGAIN_MS: u64 = 200;
/// How often the wait for the next election is doubled.
pub const ELECTION_DOUBLINGS: u32 = 3;
/// Retention goes by a clock that is no further than this from a majority's.
pub const CLOCK_SKEW_MAX_MS: u64 = 10_000;

// Opening replicas.

/// Replicas opened at once by what the disk has; each reads little.
pub const OPENINGS_MAX: usize = 16;
/// Replicas opened at once with entries of other nodes. Those that need them wait for each other,
/// and nobody waits for them.
pub const REPAIRING_OPENINGS_MAX: usize = 4;
/// One attempt to open a replica is given up after this long, so that others have their turn. What
/// was repaired by then stays repaired.
pub const OPEN_ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// Least and greatest pause before a replica that did not open is opened again.
pub const OPEN_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`OPEN_PAUSE_MIN`].
pub const OPEN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Attempts after which a damaged replica counts as lost. The first asks no other node, and others
/// may just be starting too.
pub const OPEN_ATTEMPTS_MIN: u32 = 3;
/// Attempts, with their pauses over a minute, after which a damaged replica that stays closed is
/// reported as an error.
pub const OPEN_ATTEMPTS_ALARM: u32 = 9;
/// A replica that ends sooner after it was opened did not really open.
pub const OPEN_LASTS: Duration = Duration::from_secs(120);
/// A starting node waits so long for its replicas before it says that it has started.
pub const OPEN_AT_START_MAX: Duration = Duration::from_secs(10);

// Membership and upkeep.

/// How often a node compares what it hosts with the metadata, beside every change of it.
pub const RECONCILE_INTERVAL: Duration = Duration::from_millis(1_000);
/// The same while a group that the node leads is being moved: its next step waits only for a
/// replica to catch up.
pub const RECONCILE_MOVING: Duration = Duration::from_millis(200);
/// A founder that is not the first waits so long for the first one to found the group.
pub const FOUNDER_PATIENCE: Duration = Duration::from_secs(3);
/// A node is asked who it is, and given up, within this time.
pub const HELLO_MAX: Duration = Duration::from_secs(2);
/// Coordinator groups of a new cluster.
pub const COORDINATORS: u32 = 4;
/// A new replica is promoted when no more than so many entries are missing.
pub const CAUGHT_UP_ENTRIES: u64 = 1_000;
/// A drained node looks so often for leaderships that it has got.
pub const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// Groups that a drained node hands over at once. Each stands still for a few milliseconds.
pub const HAND_OVERS_AT_ONCE: usize = 8;
/// Proposals of a group are held back for so long at most, for its next leader to catch up.
pub const HAND_OVER_HOLD: Duration = Duration::from_millis(100);
/// A handed over group is waited for so long, until this replica knows that it leads no more.
pub const HAND_OVER_SEEN_MAX: Duration = Duration::from_millis(1_000);
/// Groups of which a replica is moved at one time, in the whole cluster. Each reads its log on one
/// node and writes it on another, beside what clients append.
pub const MOVES_AT_ONCE: usize = 4;
/// A node that is asked what it has is given up after this long.
pub const SURVEY_MAX: Duration = Duration::from_secs(2);
/// Looks at the log writer, one each [`UPKEEP_INTERVAL`], that are remembered: a minute.
pub const SYNCS_REMEMBERED: usize = 60;
/// Nodes named in one request to place replicas: more than any group has.
pub const PLACES_MAX: usize = 64;
/// Names of groups in one answer about a node; the rest are counted.
pub const NAMES_TOLD_MAX: usize = 10;
/// Producer ids that a node takes from the metadata at once.
pub const PRODUCER_IDS_TAKEN: u32 = 1_000;
/// How often a coordinator's leader looks for sessions that have ended and for new topics.
pub const GROUPS_LOOK: Duration = Duration::from_millis(250);
/// A majority's word that this node leads a coordinator is asked for again after this long, before
/// heartbeats are answered from memory.
pub const GROUPS_LEAD_CONFIRMED: Duration = Duration::from_millis(1_000);
/// Longest time that a heartbeat of a group's member waits for news, and how often it looks
/// whether this node still leads. Below what proxies call a dead connection.
pub const GROUP_HEARTBEAT_WAIT_MAX: Duration = Duration::from_secs(10);
/// See above.
pub const GROUP_HEARTBEAT_LOOK: Duration = Duration::from_secs(1);
/// Pause between heartbeats that do not wait, at most; a third of the session time-out if less.
pub const GROUP_HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(3);
/// Session time-out of a member that names none: 10 s, for a crash to be noticed before a person
/// wonders.
pub const GROUP_SESSION_DEFAULT_MS: u32 = 10_000;
/// Rebalance time-out of a member that names none: 5 min, as in Kafka.
pub const GROUP_REBALANCE_DEFAULT_MS: u32 = 5 * 60 * 1_000;
/// Between two looks at the disk.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at what retention lets go of.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(5);
/// A fresh node that was told whom to join asks again after this long.
pub const JOIN_RETRY: Duration = Duration::from_millis(500);
