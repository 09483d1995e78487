//! Asks before something is deleted for good.

use std::io::{IsTerminal as _, stdin};

use crate::failure::usage;

/// Goes on only if `--yes` was given or the name is typed again. `what` says what `name` is.
#[allow(clippy::print_stderr, reason = "the question is not part of the answer")]
pub(super) fn deletion(what: &str, name: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return usage(format!("deleting {what} {name} needs --yes where nobody can be asked"));
    }
    eprint!("This deletes {what} {name} for good. Type its name to go on: ");
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if answer.trim_end_matches('\n') == name {
        return Ok(());
    }
    anyhow::bail!("that is not its name; nothing was deleted")
}
