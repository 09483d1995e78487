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
use crate::raft::LEFT_OUT_OF_THE_LOG;

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
/// are kept, and those not all, unless the text names it.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    if level.contains("openraft") || level.trim() == "off" {
        return EnvFilter::builder().parse(level);
    }
    let most = if level.trim() == "error" { "error" } else { "warn" };
    EnvFilter::builder().parse(format!("openraft={most},{LEFT_OUT_OF_THE_LOG},{level}"))
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
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("whole").clone()).expect("text")
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_with_one_bad_part_is_refused_whole() {
        assert!(filter("info,node=debug").is_ok());
        assert!(filter("info,node=loud").is_err());
    }

    #[test]
    fn openraft_is_quiet_unless_it_is_named() {
        let filter = |level| filter(level).expect("well-formed").to_string();
        assert!(filter("debug").ends_with("openraft=warn,debug"), "{}", filter("debug"));
        assert!(filter("error").ends_with("openraft=error,error"), "{}", filter("error"));
        assert_eq!(filter("info,openraft=debug"), "openraft=debug,info");
        assert_eq!(filter("off"), "off");
    }

    #[test]
    fn what_openraft_answers_as_well_as_logs_is_not_logged() {
        let log = Log::default();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter("info").expect("well-formed"))
            .with_writer({
                let log = log.clone();
                move || log.clone()
            })
            .finish();
        tracing::subscriber::with_default(lines, || {
            tracing::error!(target: "openraft::raft::raft_inner", "a closed replica");
            tracing::warn!(target: "openraft::core::heartbeat::worker", "a heartbeat");
            tracing::error!(target: "openraft::core::raft_core", "a storage error");
        });
        let text = log.text();
        assert!(text.contains("storage error"), "{text}");
        assert!(!text.contains("a closed replica") && !text.contains("a heartbeat"), "{text}");
    }
}
