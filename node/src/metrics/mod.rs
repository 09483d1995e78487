//! What the node counts: one struct with a field for each metric, incremented where it happens.
//!
//! docs/operating/monitoring.md has a row for each, and a test compares the page with this file.
//! Units are base units (seconds, bytes). No label takes a value that a user chooses (topic, key,
//! group), so the number of series does not grow with the data.
//!
//! - here: the struct; `kinds`: the few kinds of metric, and the labels;
//! - `process`: what is read from the system at each scrape, and the text that is served.

mod kinds;
mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use kinds::{ByCode, ByLevel, Count, InFlight, Level, Now, Seconds};
pub use process::Exposition;

use crate::version;
use kinds::Registrar;

/// All metrics of one node. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Appends of clients.
    pub append: AppendMetrics,
    /// Reads of clients.
    pub fetch: FetchMetrics,
    /// Consensus, over all groups of this node.
    pub raft: RaftMetrics,
    /// The writer that syncs for all groups.
    pub log_writer: LogWriterMetrics,
    /// Other nodes.
    pub peer: PeerMetrics,
    /// Stored entries that were not as they had been written.
    pub repair: RepairMetrics,
    /// Opening the replicas that this node has.
    pub opening: OpeningMetrics,
    /// Commits of group offsets that were acknowledged.
    pub group_offset_commits: Count,
    /// Raft groups with a replica on this node.
    pub groups_hosted: Now,
    /// Those of them that this node leads.
    pub groups_led: Now,
    /// Those of them that rest, because nothing happens in them.
    pub groups_parked: Now,
}

/// Appends of clients, on the node that led the partition.
#[derive(Clone)]
pub struct AppendMetrics {
    /// Batches acknowledged; without duplicates.
    pub batches: Count,
    /// Records in them.
    pub records: Count,
    /// Bytes of them, as sent.
    pub bytes: Count,
    /// Retries that found their first copy in the log.
    pub duplicates: Count,
    /// Appends refused or failed.
    pub errors: ByCode,
    /// From a batch's arrival to its acknowledgement.
    pub duration: Seconds,
    /// Bytes of batches between arrival and answer.
    pub in_flight_bytes: Now,
}

/// Reads of clients, on the node that was asked.
#[derive(Clone)]
pub struct FetchMetrics {
    /// Fetches answered, and messages of follow streams.
    pub requests: ByLevel,
    /// Bytes of record batches served from this node's own replica.
    pub bytes: ByLevel,
    /// Reads refused or failed.
    pub errors: ByCode,
    /// Fetches that wait for data.
    pub waiting: Now,
}

/// Consensus, over all groups of this node.
#[derive(Clone)]
pub struct RaftMetrics {
    /// Times that a group's leader, as this node knows it, became another.
    pub leader_changes: Count,
    /// Elections that this node called.
    pub elections: Count,
    /// Leaderships that this node gave away on purpose.
    pub handed_over: Count,
    /// Moves of replicas that this node had begun, as leader of the metadata.
    pub moves_begun: Count,
    /// Entries proposed here and not yet applied.
    pub proposals_in_flight: Now,
    /// Read indices that this node asked leaders for, to serve linearizable reads as a follower.
    pub read_index_asked: Count,
    /// Read indices that this node gave as leader, to itself too.
    pub read_index_given: Count,
    /// Snapshots sent.
    pub snapshots_sent: Count,
    /// Bytes of them.
    pub snapshots_sent_bytes: Count,
    /// Snapshots received and installed.
    pub snapshots_installed: Count,
    /// Bytes of them.
    pub snapshots_installed_bytes: Count,
}

/// The writer that syncs for all groups.
#[derive(Clone)]
pub struct LogWriterMetrics {
    /// Synced writes. Appends divided by these is how well the groups share a sync.
    pub syncs: Count,
    /// Bytes of entries in them.
    pub bytes: Count,
    /// Time of one write with its sync.
    pub sync_duration: Seconds,
}

/// Other nodes.
#[derive(Clone)]
pub struct PeerMetrics {
    /// Beats answered in time.
    pub beats: Count,
    /// Beats that failed or were late.
    pub beats_missed: Count,
    /// Other nodes that are heard.
    pub alive: Now,
}

/// Stored entries that were not as they had been written.
#[derive(Clone)]
pub struct RepairMetrics {
    /// Entries whose checksum was wrong when they were read.
    pub corrupt: Count,
    /// Those of them that were fetched again from another replica.
    pub repaired: Count,
}

/// Opening the replicas that this node has.
#[derive(Clone)]
pub struct OpeningMetrics {
    /// Attempts to open a replica.
    pub attempts: Count,
    /// Those of them that failed.
    pub failures: Count,
    /// Replicas whose disk could not be trusted, and that begin anew under another id.
    pub replaced: Count,
    /// Replicas that are not open at the moment.
    pub closed: Now,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// New metrics, all at 0. Reads nothing of the system, so a simulated node can have its own.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("quipu");
        let build = Info::new([
            ("version", version::VERSION),
            ("zoo", if version::BUG_ZOO { "yes" } else { "no" }),
        ]);
        registry.register("build", "What this node is built from", build);

        let mut to = Registrar(&mut registry);
        let append = AppendMetrics::register(&mut to);
        let fetch = FetchMetrics::register(&mut to);
        let raft = RaftMetrics::register(&mut to);
        let log_writer = LogWriterMetrics::register(&mut to);
        let peer = PeerMetrics::register(&mut to);
        let repair = RepairMetrics::register(&mut to);
        let opening = OpeningMetrics::register(&mut to);
        Metrics {
            append,
            fetch,
            raft,
            log_writer,
            peer,
            repair,
            opening,
            group_offset_commits: to
                .count("group_offset_commits", "Commits of group offsets acknowledged"),
            groups_hosted: to.now("groups_hosted", "Raft groups with a replica on this node"),
            groups_led: to.now("groups_led", "Raft groups that this node leads"),
            groups_parked: to.now("groups_parked", "Raft groups at rest on this node"),
            registry: Arc::new(registry),
        }
    }
}

impl AppendMetrics {
    fn register(to: &mut Registrar<'_>) -> AppendMetrics {
        AppendMetrics {
            batches: to.count("append_batches", "Batches acknowledged, without duplicates"),
            records: to.count("append_records", "Records acknowledged, without duplicates"),
            bytes: to.bytes("append", "Bytes of acknowledged batches, as sent"),
            duplicates: to.count("append_duplicates", "Retries that were in the log already"),
            errors: to.by_code("append_errors", "Appends refused or failed, by error code"),
            duration: to.seconds("append_duration", "From a batch's arrival to its answer"),
            in_flight_bytes: to.now_in(
                "append_in_flight",
                "Batches between arrival and answer",
                Unit::Bytes,
            ),
        }
    }
}

impl FetchMetrics {
    fn register(to: &mut Registrar<'_>) -> FetchMetrics {
        FetchMetrics {
            requests: to.by_level("fetch_requests", "Answered reads, by level", None),
            bytes: to.by_level(
                "fetch",
                "Bytes of batches served from this node's own replica, by level",
                Some(Unit::Bytes),
            ),
            errors: to.by_code("fetch_errors", "Reads refused or failed, by error code"),
            waiting: to.now("fetch_waiting", "Reads that wait for data"),
        }
    }
}

impl RaftMetrics {
    fn register(to: &mut Registrar<'_>) -> RaftMetrics {
        RaftMetrics {
            leader_changes: to.count("raft_leader_changes", "Changes of a group's known leader"),
            elections: to.count("raft_elections", "Elections called by this node"),
            handed_over: to.count("raft_handed_over", "Leaderships given away on purpose"),
            moves_begun: to.count("raft_moves_begun", "Moves of replicas begun"),
            proposals_in_flight: to
                .now("raft_proposals_in_flight", "Entries proposed and not yet applied"),
            read_index_asked: to
                .count("read_index_asked", "Read indices asked of leaders, for reads on followers"),
            read_index_given: to.count("read_index_given", "Read indices given as leader"),
            snapshots_sent: to.count("snapshots_sent", "Snapshots sent to other replicas"),
            snapshots_sent_bytes: to.bytes("snapshots_sent", "Bytes of snapshots sent"),
            snapshots_installed: to.count("snapshots_installed", "Snapshots installed"),
            snapshots_installed_bytes: to
                .bytes("snapshots_installed", "Bytes of snapshots installed"),
        }
    }
}

impl LogWriterMetrics {
    fn register(to: &mut Registrar<'_>) -> LogWriterMetrics {
        LogWriterMetrics {
            syncs: to.count("log_writer_syncs", "Synced writes, each for all waiting groups"),
            bytes: to.bytes("log_writer", "Bytes of entries written and synced"),
            sync_duration: to.seconds("log_writer_sync_duration", "One write with its sync"),
        }
    }
}

impl PeerMetrics {
    fn register(to: &mut Registrar<'_>) -> PeerMetrics {
        PeerMetrics {
            beats: to.count("peer_beats", "Beats to other nodes answered in time"),
            beats_missed: to.count("peer_beats_missed", "Beats that failed or were late"),
            alive: to.now("peers_alive", "Other nodes that are heard"),
        }
    }
}

impl RepairMetrics {
    fn register(to: &mut Registrar<'_>) -> RepairMetrics {
        RepairMetrics {
            corrupt: to.count("corrupt_entries", "Stored entries with a wrong checksum"),
            repaired: to.count("repaired_entries", "Corrupt entries fetched again from a peer"),
        }
    }
}

impl OpeningMetrics {
    fn register(to: &mut Registrar<'_>) -> OpeningMetrics {
        OpeningMetrics {
            attempts: to.count("replica_open_attempts", "Attempts to open a replica"),
            failures: to.count("replica_open_failures", "Attempts that failed"),
            replaced: to.count("replicas_replaced", "Damaged replicas that begin anew"),
            closed: to.now("groups_closed", "Raft groups whose replica here is not open"),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
