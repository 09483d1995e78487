//! The live line of a demo: acknowledged, read, leader, p99. For the eye only; the verdict never
//! looks at these counts.

use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::latency::Latencies;
use crate::output::live::progress;
use crate::output::table::grouped;

/// Shared by those who count and the one who shows.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    events: u64,
    started: Instant,
    acked: AtomicU64,
    read: AtomicU64,
    leader: Mutex<String>,
    latencies: Mutex<Latencies>,
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn begin(events: usize) -> Progress {
        Progress(Arc::new(Shown {
            events: u64::try_from(events).unwrap_or(u64::MAX),
            started: Instant::now(),
            acked: AtomicU64::new(0),
            read: AtomicU64::new(0),
            leader: Mutex::new(String::new()),
            latencies: Mutex::new(Latencies::new()),
            bar: progress(None),
        }))
    }

    pub(super) fn acked(&self, latency: Duration) {
        self.0.acked.fetch_add(1, Ordering::Relaxed);
        self.latencies().record(latency);
    }

    pub(super) fn read(&self, count: usize) {
        self.0.read.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    /// Who leads the partition that is watched.
    pub(super) fn leader(&self, what: String) {
        *self.0.leader.lock().expect("no panic while the lock is held") = what;
    }

    /// A line of its own: something happened.
    #[allow(clippy::print_stderr, reason = "what happens is told beside the verdict")]
    pub(super) fn say(&self, what: &str) {
        let line = format!("{:>5.1} s  {what}", self.0.started.elapsed().as_secs_f64());
        if stderr().is_terminal() {
            self.0.bar.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    /// Shows how far it is: at a terminal in place, else as a line where `is_line` says so. The
    /// p99 is that of the records acknowledged since the last line.
    pub(super) fn show(&self, is_line: bool) {
        let leader = self.0.leader.lock().expect("no panic while the lock is held").clone();
        let mut latencies = self.latencies();
        let line = format!(
            "acked {} of {}, read {}, {leader}, p99 {} ms",
            grouped(self.0.acked.load(Ordering::Relaxed)),
            grouped(self.0.events),
            grouped(self.0.read.load(Ordering::Relaxed)),
            latencies.percentile_ms(0.99)
        );
        if is_line {
            latencies.clear();
        }
        drop(latencies);
        if stderr().is_terminal() {
            self.0.bar.set_message(line);
        } else if is_line {
            self.say(&line);
        }
    }

    /// Takes the live line away.
    pub(super) fn end(&self) {
        self.0.bar.finish_and_clear();
    }

    fn latencies(&self) -> std::sync::MutexGuard<'_, Latencies> {
        self.0.latencies.lock().expect("no panic while the lock is held")
    }
}
