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
