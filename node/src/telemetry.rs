//! The log of the process: `tracing` events on standard error, as text or as JSON.
//!
//! Installed once, by `main`. Everything else only emits events; tests and simulations install
//! what they like. Also here: a panic anywhere ends the process. A task that died alone would
//! leave a node that answers its peers and does nothing, which is worse than one that is gone.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::process;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogConfig, LogFormat};

/// Why the log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// See [`filter`].
    #[error("log-level: {0}")]
    Level(#[from] ParseError),
    /// Somebody has set up a log before.
    #[error(transparent)]
    Installed(#[from] TryInitError),
}

/// Reads a level, in the syntax of `EnvFilter`. Unlike there, nothing is skipped in silence.
///
/// openraft tells sixty lines of each election of each group at level info; of it only warnings
/// are kept, unless the text names it.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    if level.contains("openraft") || matches!(level.trim(), "off" | "error") {
        EnvFilter::builder().parse(level)
    } else {
        EnvFilter::builder().parse(format!("openraft=warn,{level}"))
    }
}

/// Sends all events of this process to standard error.
pub fn install(config: &LogConfig) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.level)?)
        // The fallback prints, and printing to a closed standard error panics.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match config.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// Makes every panic of this process, in whatever task or thread, log itself and abort.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|panic| {
        log_panic(panic);
        process::abort();
    }));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, %backtrace, "panic: {message}");
    } else {
        tracing::error!(thread, location, "panic: {message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_one_bad_part_is_refused_whole() {
        assert!(filter("info,node=debug").is_ok());
        assert!(filter("info,node=loud").is_err());
    }

    #[test]
    fn openraft_is_quiet_unless_it_is_named() {
        let filter = |level| filter(level).expect("well-formed").to_string();
        assert_eq!(filter("debug"), "openraft=warn,debug");
        assert_eq!(filter("info,openraft=debug"), "openraft=debug,info");
        assert_eq!(filter("off"), "off");
    }
}
