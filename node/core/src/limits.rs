//! Every bound of this crate, with its unit and the reason for its size.
//!
//! A bound that apply looks at is part of the replicated behaviour: changing it between versions
//! makes replicas differ unless a feature level guards the change.

use std::ops::RangeInclusive;

use crate::ids::GroupId;

/// Bytes of a topic's name, as in Kafka.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Bytes of a node's address; the longest name of the domain name system, and a port.
pub const NODE_ADDRESS_BYTES_MAX: usize = 255;
/// Bytes of a node's version text.
pub const NODE_VERSION_BYTES_MAX: usize = 64;
/// Bytes of the name of a node's rack.
pub const RACK_NAME_BYTES_MAX: usize = 64;
/// Bytes of a consumer group's name.
pub const GROUP_NAME_BYTES_MAX: usize = 255;
/// Bytes of a group member's id, of its instance id and of the name of its client.
pub const GROUP_MEMBER_NAME_BYTES_MAX: usize = 255;

/// Batches that one log entry may hold. Apply visits each, so this bounds the work of an entry.
pub const ENTRY_BATCHES_MAX: usize = 4_096;
/// Bytes of one encoded log command. The largest batch and its neighbours fit, and one entry
/// still fits a message between nodes.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Records that one batch may claim to hold. Bounds how far one batch can move a sequence.
pub const BATCH_RECORDS_MAX: u32 = 1_000_000;

/// Greatest offset, and greatest total of bytes, that a stored state may claim: 2^62. No
/// partition gets there, so sums beyond it need not be checked for overflow everywhere.
pub const OFFSET_MAX: u64 = 1 << 62;

/// Batches remembered per producer and partition: twice what a client may have in flight (32),
/// so that a retry finds its first copy.
pub const PRODUCER_BATCHES_REMEMBERED: usize = 64;
/// Log time after which an idle producer is forgotten: 7 days.
pub const PRODUCER_IDLE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Producers remembered per partition; past it the one idle for longest is forgotten. Keeps a
/// checkpoint small where every short-lived process is a producer of its own.
pub const PRODUCERS_MAX: usize = 10_000;
/// Idle producers forgotten by one entry. Bounds what the first entry after a long pause writes.
pub const PRODUCERS_FORGOTTEN_PER_ENTRY: usize = 100;

/// The newest rungs of a ladder that are all kept; older ones thin out. At one rung in 10 minutes
/// that is three and a half days.
pub const RUNGS_FINE: u64 = 512;
/// Rungs a stored ladder may have. Thinning keeps it far below: 2^24 rungs ever made (30 years of
/// one in a minute) leave about 4,400.
pub const RUNGS_MAX: usize = 16_384;
/// Bytes of a Raft membership as stored beside the state.
pub const MEMBERSHIP_BYTES_MAX: usize = 64 * 1024;

/// Offsets that one commit of a group may have.
pub const COMMIT_OFFSETS_MAX: usize = 10_000;
/// Bytes of one encoded commit; it is one log entry.
pub const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the text that a consumer may leave with an offset.
pub const OFFSET_METADATA_BYTES_MAX: usize = 4 * 1024;
/// Bytes of one coordinator's table by its own account: its snapshot travels in one message.
pub const GROUP_TABLE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rows a stored table may have. Each takes over 64 bytes of the table's account.
pub const GROUP_TABLE_ROWS_MAX: usize = GROUP_TABLE_BYTES_MAX / 64;
/// Members of one consumer group. One entry computes what all of them should have.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Topics that one member subscribes to; the list travels with each of its heartbeats.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 1_000;
/// Topics that one command tells a coordinator about.
pub const TOPIC_NEWS_MAX: usize = 10_000;
/// Silence after which a member is expired: at least a pause of a busy process, at most what a
/// slow restart of a member with an instance id takes.
pub const SESSION_MS: RangeInclusive<u32> = 1_000..=30 * 60 * 1_000;
/// Time that a member may take to give up a partition, the record in hand included.
pub const REBALANCE_MS: RangeInclusive<u32> = 1_000..=24 * 60 * 60 * 1_000;

/// Nodes of a cluster. Each beats with each other, so the work grows with the square.
pub const NODES_MAX: usize = 256;
/// Nodes known, with those that were replaced and still have retiring replicas.
pub const NODE_RECORDS_MAX: usize = 2 * NODES_MAX;
/// Removed nodes that are remembered, so that their old disks are refused; then the first is
/// forgotten.
pub const REMOVED_NODES_MAX: usize = 1_024;
/// Voters of the metadata group; further nodes learn. Five survive two losses, and more would
/// only make its commits slower.
pub const METADATA_VOTERS_MAX: usize = 5;
/// Coordinator groups; their ids lie below those of partitions.
pub const COORDINATORS_MAX: u32 = 900;
/// Partitions of one topic. One command makes them all.
pub const TOPIC_PARTITIONS_MAX: u32 = 4_096;
/// Raft groups of a cluster that exist at one time.
pub const GROUPS_MAX: usize = 100_000;
/// Replicas of one group, and likewise those that are retiring.
pub const GROUP_REPLICAS_MAX: usize = NODE_RECORDS_MAX;
/// Replicas of one group that retire while another one is replaced on its node. Half of what a
/// group may have at all, so that lost nodes can be replaced beside it.
pub const GROUP_RETIRING_MAX: usize = GROUP_REPLICAS_MAX / 2;
/// Settings changed by one command.
pub const CONFIG_CHANGES_MAX: usize = 100;
/// Producer ids given out at once. A node takes a block and hands them out from memory.
pub const PRODUCER_IDS_PER_BLOCK_MAX: u32 = 100_000;

// One batch of the greatest size fits into an entry, with room for its row.
const _: () = assert!(ENTRY_BYTES_MAX >= quipu_batch::BATCH_BYTES_MAX + 1_024);
const _: () = assert!(COMMIT_BYTES_MAX <= ENTRY_BYTES_MAX);
// Coordinators are numbered from 2, partitions from 1,000.
const _: () =
    assert!(GroupId::COORDINATOR_FIRST.0 + COORDINATORS_MAX <= GroupId::PARTITION_FIRST.0);
// Apply must not refuse what the edge lets in.
const _: () = assert!(BATCH_RECORDS_MAX >= quipu_batch::RECORDS_MAX);
// A window must stay far below half the sequence space, or old and new could not be told apart.
const _: () = assert!(PRODUCER_BATCHES_REMEMBERED as u64 * (BATCH_RECORDS_MAX as u64) < 1 << 30);
