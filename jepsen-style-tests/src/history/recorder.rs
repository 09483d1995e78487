//! Takes a history down while a simulation runs.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Answer, Call, Event, Failure, FaultResult, History, What};
use crate::log_lines::LineNotes;
use crate::trace::Trace;

/// Takes down what happens while a simulation runs. Clones write into one history.
#[derive(Clone)]
pub struct Recorder {
    history: Rc<RefCell<History>>,
    operations: Rc<RefCell<u64>>,
    trace: Trace,
    notes: LineNotes,
}

impl Recorder {
    /// An empty history; its events go into `trace` too.
    pub fn new(trace: Trace) -> Self {
        Self::with_notes(trace, LineNotes::default())
    }

    /// The same. It takes down each replica that a node opens, as `notes` know it: one that was
    /// moved away and back, or that had ended, may show less than before.
    pub fn with_notes(trace: Trace, notes: LineNotes) -> Self {
        Self { history: Rc::default(), operations: Rc::default(), trace, notes }
    }

    /// What is noticed of log lines.
    pub fn notes(&self) -> &LineNotes {
        &self.notes
    }

    /// An operation begins. Returns its number.
    pub fn invoke(&self, process: &str, call: Call) -> u64 {
        let op = {
            let mut operations = self.operations.borrow_mut();
            *operations += 1;
            *operations
        };
        self.push(process, What::Invoke { op, call });
        op
    }

    /// It was answered.
    pub fn ok(&self, process: &str, op: u64, answer: Answer) {
        self.push(process, What::Ok { op, answer });
    }

    /// It failed; `unknown` says that it may have had its effect all the same.
    pub fn failed(&self, process: &str, op: u64, unknown: bool, error: Failure) {
        let what = if unknown { What::Unknown { op, error } } else { What::Fail { op, error } };
        self.push(process, what);
    }

    /// The nemesis did something.
    pub fn fault(&self, name: &str, result: FaultResult, detail: String) {
        self.push("nemesis", What::Fault { name: name.to_owned(), result, detail });
    }

    /// A node begins to run.
    pub fn started(&self, node: u64) {
        self.push("nemesis", What::Started { node });
    }

    /// A copy of what was taken down so far.
    pub fn history(&self) -> History {
        self.history.borrow().clone()
    }

    fn push(&self, process: &str, what: What) {
        for node in self.notes.take_opened() {
            self.write("nemesis", What::Started { node });
        }
        self.write(process, what);
    }

    fn write(&self, process: &str, what: What) {
        let at_us = u64::try_from(self.trace.now().as_micros()).unwrap_or(u64::MAX);
        let event = Event { at_us, process: process.to_owned(), what };
        self.trace.record("history", format_args!("{process} {:?}", event.what));
        self.history.borrow_mut().events.push(event);
    }
}
