//! What panicked first, while a world stands.
//!
//! turmoil ends a run when a task of a host panics, but tells only that one did.

use std::panic;
use std::sync::{Mutex, PoisonError};

static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Begins to remember, for the rest of the process.
pub(super) fn remember() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(format!("{message}, at {place}"));
        }
        drop(first);
        print(panic);
    }));
}

/// The first panic.
pub(super) fn first() -> String {
    let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    first.clone().unwrap_or_else(|| "something panicked without a word".to_owned())
}
