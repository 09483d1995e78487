//! Everything that can be seen of a run, as one running hash.
//!
//! What goes in: bytes that arrive at a socket, events of the history, lines that nodes and clients
//! log, faults; each with the simulated time and the host. Two runs of one seed must give one hash.
//! If they don't, something reads a real clock, draws real randomness or depends on a thread, and
//! the traces written out as text show the first place where they part.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

/// A run's trace. Clones share it.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    hash: Xxh3,
    events: u64,
    /// Where the lines go, if somebody wants to read them.
    text: Option<BufWriter<File>>,
    /// Kept between events to save its allocation.
    line: String,
}

thread_local! {
    /// Simulated time for whatever runs outside of a host.
    static OUTSIDE_NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

impl Trace {
    /// An empty trace that is only hashed.
    pub fn new() -> Self {
        Self::with_text(None)
    }

    /// An empty trace whose lines are also written to a file.
    ///
    /// # Errors
    /// If the file can't be created.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self::with_text(Some(BufWriter::new(File::create(path)?))))
    }

    fn with_text(text: Option<BufWriter<File>>) -> Self {
        let inner = Inner { hash: Xxh3::new(), events: 0, text, line: String::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Simulated time since the start of the run.
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| OUTSIDE_NOW.get())
    }

    /// Tells what time it is while no host runs.
    pub fn set_outside_now(&self, now: Duration) {
        OUTSIDE_NOW.set(now);
    }

    /// Takes an event in.
    pub fn record(&self, kind: &str, what: fmt::Arguments<'_>) {
        let now = self.now();
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.events += 1;
        inner.line.clear();
        let (seconds, micros) = (now.as_secs(), now.subsec_micros());
        writeln!(inner.line, "{seconds}.{micros:06} #{} {kind} {what}", inner.events)
            .expect("a string takes all");
        inner.hash.update(inner.line.as_bytes());
        if let Some(text) = &mut inner.text
            && text.write_all(inner.line.as_bytes()).is_err()
        {
            // A full disk of the machine must not change the run; the text ends here.
            inner.text = None;
        }
    }

    /// The hash of all events so far, and their number.
    pub fn hash(&self) -> (u128, u64) {
        let mut inner = self.inner();
        if let Some(text) = &mut inner.text {
            // What can't be written is missing in the text only.
            drop(text.flush());
        }
        (inner.hash.digest128(), inner.events)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(lines: &[&str]) -> u128 {
        let trace = Trace::new();
        for line in lines {
            trace.record("test", format_args!("{line}"));
        }
        trace.hash().0
    }

    #[test]
    fn the_same_events_give_the_same_hash_and_another_order_another() {
        assert_eq!(hash_of(&["a", "b"]), hash_of(&["a", "b"]));
        assert_ne!(hash_of(&["a", "b"]), hash_of(&["b", "a"]));
        assert_ne!(hash_of(&["ab"]), hash_of(&["a", "b"]));
    }

    #[test]
    fn the_same_event_at_another_time_gives_another_hash() {
        let (early, late) = (Trace::new(), Trace::new());
        early.set_outside_now(Duration::from_millis(1));
        early.record("test", format_args!("x"));
        late.set_outside_now(Duration::from_millis(2));
        late.record("test", format_args!("x"));
        assert_ne!(early.hash().0, late.hash().0);
    }
}
