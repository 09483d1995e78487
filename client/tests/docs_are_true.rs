//! docs/client.md names every setting with its true default, and every code of this library.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use quipu_client::{
    ClientConfig, Code, CommitMode, Compression, ConsumerConfig, GroupConfig, OutOfRange,
    ProducerConfig, ResetPolicy,
};

const PAGE: &str = include_str!("../../docs/client.md");

/// The second column of the row that begins with `field`.
fn default_of(field: &str) -> &'static str {
    let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{field}`")));
    let row = row.unwrap_or_else(|| panic!("docs/client.md has no row for {field}"));
    row.split('|').nth(2).unwrap().trim()
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_once(' ').unwrap();
    let number: u64 = number.parse().unwrap();
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        other => panic!("unit {other}"),
    }
}

fn bytes(text: &str) -> usize {
    let (number, unit) = text.split_once(' ').unwrap();
    let number: usize = number.parse().unwrap();
    match unit {
        "KiB" => number << 10,
        "MiB" => number << 20,
        other => panic!("unit {other}"),
    }
}

#[test]
fn the_page_tells_the_client_s_defaults() {
    let config = ClientConfig::default();
    for (field, actual) in [
        ("connect_timeout", config.connect_timeout),
        ("request_timeout", config.request_timeout),
        ("retry_timeout", config.retry_timeout),
        ("metadata_timeout", config.metadata_timeout),
        ("keep_alive", config.keep_alive),
    ] {
        assert_eq!(duration(default_of(field)), actual, "{field}");
    }
    let (initial, max) = default_of("backoff.initial").split_once(", ").unwrap();
    assert_eq!(duration(initial), config.backoff.initial);
    assert_eq!(duration(max), config.backoff.max);
}

#[test]
fn the_page_tells_the_producer_s_defaults() {
    let config = ProducerConfig::default();
    assert_eq!(duration(default_of("linger")), config.linger);
    assert_eq!(bytes(default_of("batch_bytes")), config.batch_bytes);
    assert_eq!(default_of("in_flight"), config.in_flight.to_string());
    assert_eq!(default_of("compression"), config.compression.to_string());
    assert_eq!(config.compression, Compression::None);
    assert_eq!(default_of("idempotent"), config.idempotent.to_string());
    assert_eq!(duration(default_of("delivery_timeout")), config.delivery_timeout);
    assert_eq!(bytes(default_of("buffer_bytes")), config.buffer_bytes);
}

#[test]
fn the_page_tells_the_consumer_s_defaults() {
    let config = ConsumerConfig::default();
    let to_usize = |bytes: u32| usize::try_from(bytes).unwrap();
    assert_eq!(bytes(default_of("prefetch_bytes")), to_usize(config.prefetch_bytes));
    assert_eq!(bytes(default_of("fetch_bytes")), to_usize(config.fetch_bytes));
    assert_eq!(duration(default_of("max_wait")), config.max_wait);
    assert_eq!((default_of("out_of_range"), config.out_of_range), ("error", OutOfRange::Error));
    assert_eq!(duration(default_of("report_after")), config.report_after);
}

#[test]
fn the_page_tells_the_group_consumer_s_defaults() {
    let config = GroupConfig::new("g", ["t"]);
    assert_eq!(duration(default_of("session_timeout")), config.session_timeout);
    assert_eq!(duration(default_of("max_processing")), config.max_processing);
    let interval = default_of("commit").strip_prefix("after processing, every ").unwrap();
    assert_eq!(config.commit, CommitMode::AfterProcessing(duration(interval)));
    assert_eq!((default_of("start"), config.start), ("earliest", ResetPolicy::Earliest));
}

#[test]
fn the_page_names_every_code_of_the_library() {
    for code in [
        Code::Unreachable,
        Code::ConnectionLost,
        Code::DeadlinePassed,
        Code::Closed,
        Code::InvalidInput,
        Code::BadAnswer,
    ] {
        assert!(PAGE.contains(&format!("| `{code}` |")), "{code}");
    }
}
