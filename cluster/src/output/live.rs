//! Progress on stderr while something takes long: a bar or a spinner at a terminal, nothing in a
//! pipe, so that logs of scripts stay clean.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws so often.
const TICK: Duration = Duration::from_millis(100);

/// A bar of `length` steps, or a spinner where the length is not known.
pub(crate) fn progress(length: Option<u64>) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    let template = match length {
        Some(_) => "{bar:30} {human_pos}/{human_len} {per_sec} {msg}",
        None => "{spinner} {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.enable_steady_tick(TICK);
    bar
}
