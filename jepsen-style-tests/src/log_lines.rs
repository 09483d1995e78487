//! Takes the log lines of simulated nodes and clients into the trace, each with its host.
//!
//! The text only of our own crates: others print what differs from run to run (real instants,
//! addresses of memory). Lines at level `ERROR` are kept: they ask a person to act, and no fault of
//! the simulation is one that a cluster can't mend by itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::effects::LOGGED;
use crate::trace::Trace;

/// Crates whose lines are taken from `DEBUG` on.
const OURS: [&str; 2] = ["node", "quipu_client"];

thread_local! {
    /// The host that runs, as turmoil's span says.
    static HOST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What was noticed of the lines. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LineNotes(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    errors: Vec<String>,
    /// By message.
    counts: BTreeMap<&'static str, u64>,
    /// Labels of nodes on which a replica was opened; nobody has asked for them yet.
    opened: Vec<u64>,
    /// Hosts whose errors are what is to be expected: their disks fail.
    excused: BTreeSet<String>,
}

/// What a node says when it has opened a replica.
const OPENED: &str = "a replica is open";

impl LineNotes {
    /// Lines at level `ERROR` that are kept.
    const COUNT_MAX: usize = 10;

    /// The first lines at level `ERROR`.
    pub fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut self.notes().errors)
    }

    /// How often nodes said this, of what is counted.
    pub fn count(&self, message: &str) -> u64 {
        self.notes().counts.get(message).copied().unwrap_or(0)
    }

    /// From now on errors of a host are to be expected, or no longer.
    pub fn excuse(&self, host: &str, excused: bool) {
        let mut notes = self.notes();
        match excused {
            true => notes.excused.insert(host.to_owned()),
            false => notes.excused.remove(host),
        };
    }

    /// Labels of the nodes on which a replica was opened since this was asked last.
    pub fn take_opened(&self) -> Vec<u64> {
        std::mem::take(&mut self.notes().opened)
    }

    fn take(&self, host: &str, level: Level, message: &str, line: impl FnOnce() -> String) {
        let mut notes = self.notes();
        if message.trim_start() == OPENED {
            notes.opened.extend(label_of(host));
        }
        let counts = level == Level::ERROR && !notes.excused.contains(host);
        if counts && notes.errors.len() < Self::COUNT_MAX {
            notes.errors.push(line());
        }
        let message = message.trim_start();
        if let Some((counted, _)) = LOGGED.iter().find(|(counted, _)| message == *counted) {
            *notes.counts.entry(counted).or_default() += 1;
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The label of the node that a host runs.
fn label_of(host: &str) -> Option<u64> {
    host.strip_prefix("node-")?.parse().ok()
}

/// A `tracing` subscriber that writes to a trace.
pub struct LogLines {
    trace: Trace,
    notes: LineNotes,
}

impl LogLines {
    /// Lines go into `trace`, and what is noticed of them into `notes`.
    pub fn new(trace: Trace, notes: LineNotes) -> Self {
        Self { trace, notes }
    }
}

/// turmoil runs each host inside a span that names it.
fn is_host_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == "node" && metadata.target().starts_with("turmoil")
}

fn wanted(metadata: &Metadata<'_>) -> bool {
    if metadata.is_span() {
        return is_host_span(metadata);
    }
    let least = if is_ours(metadata) { Level::DEBUG } else { Level::WARN };
    *metadata.level() <= least
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    OURS.contains(&krate)
}

/// openraft logs as errors what it also answers to the node, which acts on it: that a message was
/// for a replica that was closed on purpose, as when its topic is deleted (what ends a replica
/// otherwise is named in its place), and that a leader could not begin to change its members
/// because it had just lost touch with them, or lost its leadership while it did.
fn is_answered_to_the_node(message: &str) -> bool {
    let is_lost = message.contains("failed to send") || message.contains("failed to receive");
    is_lost && message.contains("RaftCore")
        || message.contains("error: raft stopped")
        || message.contains("RaftCore stopped: raft stopped")
        || message.contains("step error:") && message.contains("has to forward request")
}

/// openraft ends a replica that needs a damaged entry which nobody gives, as when a leader is cut
/// off from the one node that has it whole. The replica is opened again; if it stays damaged, the
/// node says so itself, and the demands at the end find it out.
fn is_about_damage_that_may_pass(message: &str) -> bool {
    message.contains("is damaged and no replica could give it")
}

impl Subscriber for LogLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        wanted(metadata)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        // Hosts run one after the other: the span that is made next is the one that is entered.
        HOST.with_borrow_mut(|host| {
            host.clear();
            span.record(&mut HostName(host));
        });
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (metadata.level(), metadata.target());
        let Fields { message, others } = &fields;
        let ours = is_ours(metadata);
        HOST.with_borrow(|host| {
            if ours {
                let what = format_args!("{host} {level} {target}:{message}{others}");
                self.trace.record("log", what);
            } else {
                self.trace.record("log", format_args!("{host} {level} {target}"));
                if is_answered_to_the_node(message) || is_about_damage_that_may_pass(message) {
                    return;
                }
            }
            let line = || format!("{host} {target}:{message}{others}");
            self.notes.take(host, *level, message, line);
        });
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {
        HOST.with_borrow_mut(String::clear);
    }
}

struct HostName<'a>(&'a mut String);

impl Visit for HostName<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => write!(self.message, " {value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        }
        .expect("a string takes all");
    }
}
