//! Everything a bench can report, by name. What each means is told in docs/benchmarks.md, and a
//! test compares the two.

/// A number that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figure {
    /// Its key in JSON.
    pub(super) key: &'static str,
    /// Its name in tables.
    pub(super) label: &'static str,
}

macro_rules! figures {
    ($($name:ident $key:literal $label:literal)+) => {
        $(pub(super) const $name: Figure = Figure { key: $key, label: $label };)+

        /// All of them.
        #[cfg(test)]
        const ALL: &[Figure] = &[$($name),+];
    };
}

figures! {
    RECORDS_PER_S "records_per_s" "records/s"
    BYTES_PER_S "bytes_per_s" "bytes of values/s"
    READS_PER_S "reads_per_s" "reads/s"
    P50_MS "p50_ms" "p50, ms"
    P90_MS "p90_ms" "p90, ms"
    P99_MS "p99_ms" "p99, ms"
    P999_MS "p999_ms" "p99.9, ms"
    MAX_MS "max_ms" "max, ms"
    ACKED "acked" "records acknowledged, all in all"
    FAILED "failed" "records failed"
    UNSENT "unsent" "records due and not sent"
    SERVER_CPU "server_cpu" "server processors busy"
    SERVER_CPU_S_PER_MILLION "server_cpu_s_per_million" "server CPU-s per million"
    CLIENT_CPU_S_PER_MILLION "client_cpu_s_per_million" "load CPU-s per million"
    RSS_BYTES_MAX "rss_bytes_max" "memory of the largest node, bytes"
    DISK_BYTES_PER_BYTE "disk_bytes_per_byte" "bytes to disk per byte appended, all nodes"
    DISK_BYTES_PER_BYTE_AND_REPLICA "disk_bytes_per_byte_and_replica" "the same for each replica"
    SYNCS_PER_S "syncs_per_s" "syncs/s, all nodes"
    ROUNDS "rounds" "faults"
    FAILOVERS "failovers" "partitions that lost their leader, all faults"
    ELECTIONS_LOST "elections_lost" "partitions not back in time"
    UNMOVED_PAUSE_P99_MS "unmoved_pause_p99_ms" "partition that stays, longest wait, p99, ms"
    UNMOVED_PAUSE_MAX_MS "unmoved_pause_max_ms" "the same, max, ms"
    STEADY_PAUSE_P99_MS "steady_pause_p99_ms" "the same while nothing changes, p99, ms"
    LEAVE_PAUSE_P50_MS "leave_pause_p50_ms" "partition of one that leaves, p50, ms"
    LEAVE_PAUSE_MAX_MS "leave_pause_max_ms" "the same, max, ms"
    JOIN_PAUSE_P50_MS "join_pause_p50_ms" "partition that goes to a new member, p50, ms"
    JOIN_PAUSE_MAX_MS "join_pause_max_ms" "the same, max, ms"
    CRASH_PAUSE_P50_MS "crash_pause_p50_ms" "partition of one that died, p50, ms"
    CRASH_PAUSE_MAX_MS "crash_pause_max_ms" "the same, max, ms"
    NOT_MOVED "not_moved" "changes after which partitions did not move in time"
    COMMITS_PER_S "commits_per_s" "offset commits/s"
    CPU_ALL_NODES_EMPTY "cpu_all_nodes_empty" "all nodes without idle groups, processors"
    CPU_ALL_NODES_IDLE_GROUPS "cpu_all_nodes_idle_groups" "all nodes with them, processors"
    CPU_PER_NODE_EMPTY "cpu_per_node_empty" "busiest node without partitions, processors"
    CPU_PER_NODE "cpu_per_node" "busiest node with them, processors"
    RSS_BYTES_EMPTY "rss_bytes_empty" "largest node without partitions, bytes"
    CREATE_S "create_s" "creating them, s"
    OVERWRITE_P50_MS "overwrite_p50_ms" "sync after overwriting, p50, ms"
    OVERWRITE_P99_MS "overwrite_p99_ms" "sync after overwriting, p99, ms"
    WRITE_BYTES_PER_S "write_bytes_per_s" "written in sequence, bytes/s"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_is_explained_and_every_explained_figure_is_there() {
        let page = include_str!("../../../docs/benchmarks.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let explained: BTreeSet<&str> =
            rows.filter_map(|row| row.split_once("` |")).map(|(key, _)| key).collect();
        let known: BTreeSet<&str> = ALL.iter().map(|figure| figure.key).collect();
        assert_eq!(explained, known);
        assert_eq!(known.len(), ALL.len(), "two figures share a key");
    }
}
