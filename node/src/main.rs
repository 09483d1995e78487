//! `quipud`, the process: reads its configuration, runs one node until a signal, and says by its
//! exit code how that ended.
//!
//! 0: stopped as asked. 1: could not start, failed, or was cut off while stopping. 2: the command
//! line, the environment or the configuration file is wrong. What the node does is in the library.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use node::config::{self, ConfigError, NodeConfig};
use node::env::Env;
use node::http::{self, Readiness, Sources};
use node::metrics::{Exposition, Metrics};
use node::version::Release;
use node::{Node, limits, telemetry, version};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

const EXIT_USAGE: u8 = 2;

/// How a running node came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// By a signal, in order.
    Stopped,
    /// By a signal, but stopping took longer than the bound.
    StoppedLate,
    /// By a second signal while it was stopping.
    Interrupted,
    /// By itself; the text says why.
    Failed(String),
}

fn main() -> ExitCode {
    let mut loaded = match config::load(std::env::args_os(), std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(ConfigError::CommandLine(error)) => {
            // Also --help and --version, which clap prints and counts as 0. Where nobody reads
            // what is printed, the exit code still says it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
        Err(error) => return usage(&error),
    };
    if let Some(release) = std::env::var_os(version::ACT_AS_VARIABLE) {
        match Release::acting_as(&release.to_string_lossy()) {
            Ok(release) => loaded.config.release = release,
            Err(error) => return usage(&error),
        }
    }
    if loaded.print_versions {
        let printed = writeln!(io::stdout(), "{}", loaded.config.release.to_json());
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if loaded.print_config {
        let printed = io::stdout().write_all(loaded.to_toml().as_bytes());
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Err(error) = telemetry::install(&loaded.config.log) {
        return usage(&error);
    }
    telemetry::abort_on_panic();

    raise_open_files();

    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let ending = runtime.block_on(run(loaded.config));
    // Whatever still runs is what a crash would cut off too.
    runtime.shutdown_background();
    exit_code(ending)
}

/// Takes as many open files as the system lets this process have, up to a bound: RocksDB and the
/// connections of many clients need more than the usual 1,024.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(limits::OPEN_FILES_MAX).min(limits::OPEN_FILES_MAX);
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

fn usage(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "quipud: {error}");
    ExitCode::from(EXIT_USAGE)
}

fn exit_code(ending: anyhow::Result<Ending>) -> ExitCode {
    match ending {
        Ok(Ending::Stopped) => {
            tracing::info!("stopped");
            return ExitCode::SUCCESS;
        }
        Ok(Ending::StoppedLate) => tracing::error!(
            "stopping took longer than {} s; the rest is recovered at the next start",
            limits::STOP_WITHIN.as_secs()
        ),
        Ok(Ending::Interrupted) => tracing::error!("second signal: exits at once"),
        Ok(Ending::Failed(reason)) => tracing::error!(reason, "the node failed"),
        Err(error) => tracing::error!("cannot start: {error:#}"),
    }
    ExitCode::FAILURE
}

/// Runs one node from start to end.
async fn run(config: NodeConfig) -> anyhow::Result<Ending> {
    tracing::info!(version = version::VERSION, node_id = config.node_id, "starting");
    if config.release != Release::default() {
        tracing::warn!(release = config.release.build, "acts as another release, for a test");
    }
    if version::BUG_ZOO {
        tracing::error!("this build has planted bugs and loses data on purpose");
    }
    let mut signals = signals().context("cannot listen for signals")?;
    let metrics = Metrics::new();
    let (readiness, watched) = watch::channel(Readiness::NotReady("starting".into()));
    let exposition = Arc::new(Exposition::new(metrics.clone(), config.data_dir.clone()));
    let http = serve_http(&config, Sources { exposition, readiness: watched }).await?;

    let env = Env::real(config.data_dir.clone());
    let running = async {
        // A long recovery can be stopped by one signal, too.
        let node = tokio::select! {
            node = Node::start(config, env, metrics, readiness) => node?,
            Some(signal) = signals.recv() => {
                tracing::info!(signal, "stopping before the start was over");
                return Ok(Ending::Stopped);
            }
        };
        let ending = supervise(node.failed(), node.stop(), &mut signals, limits::STOP_WITHIN).await;
        node.close().await;
        Ok(ending)
    };
    tokio::select! {
        ending = running => ending,
        never = http => match never {},
    }
}

/// Binds the port of metrics and health, then serves it for as long as it is polled.
async fn serve_http(
    config: &NodeConfig,
    sources: Sources,
) -> anyhow::Result<impl Future<Output = Infallible> + use<>> {
    let listener = match config.http_listen {
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("http-listen: cannot listen on {address}"))?;
            tracing::info!(address = %listener.local_addr()?, "serves metrics and health");
            Some(listener)
        }
        None => None,
    };
    Ok(async {
        if let Some(listener) = listener {
            http::serve(listener, sources, std::future::pending()).await;
        }
        std::future::pending().await
    })
}

/// Waits for the end: a failure, or a signal and then the orderly stop within `bound`.
async fn supervise(
    failed: impl Future<Output = String>,
    stop: impl Future<Output = ()>,
    signals: &mut mpsc::Receiver<&'static str>,
    bound: Duration,
) -> Ending {
    tokio::select! {
        reason = failed => return Ending::Failed(reason),
        Some(signal) = signals.recv() => tracing::info!(signal, "stopping"),
    }
    tokio::select! {
        // In this order, so that what has just finished counts as finished.
        biased;
        () = stop => Ending::Stopped,
        Some(_) = signals.recv() => Ending::Interrupted,
        () = tokio::time::sleep(bound) => Ending::StoppedLate,
    }
}

/// Every SIGTERM and SIGINT from now on. Two are enough: the second one ends the process.
fn signals() -> io::Result<mpsc::Receiver<&'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    drop(tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    }));
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn received(count: usize) -> (mpsc::Sender<&'static str>, mpsc::Receiver<&'static str>) {
        let (sender, receiver) = mpsc::channel(2);
        for _ in 0..count {
            sender.try_send("SIGTERM").unwrap();
        }
        (sender, receiver)
    }

    #[tokio::test]
    async fn a_signal_stops_in_order() {
        let (_sender, mut signals) = received(1);
        let ending = supervise(pending(), ready(()), &mut signals, LONG).await;
        assert_eq!(ending, Ending::Stopped);
    }

    #[tokio::test]
    async fn a_second_signal_does_not_wait_for_the_stop() {
        let (_sender, mut signals) = received(2);
        let ending = supervise(pending(), pending(), &mut signals, LONG).await;
        assert_eq!(ending, Ending::Interrupted);
    }

    #[tokio::test]
    async fn a_stop_that_takes_too_long_is_cut_off() {
        let (_sender, mut signals) = received(1);
        let ending = supervise(pending(), pending(), &mut signals, Duration::ZERO).await;
        assert_eq!(ending, Ending::StoppedLate);
    }

    #[tokio::test]
    async fn a_failure_ends_the_node_without_a_signal() {
        let (_sender, mut signals) = received(0);
        let failed = ready("the disk said no".to_owned());
        let ending = supervise(failed, pending(), &mut signals, LONG).await;
        assert_eq!(ending, Ending::Failed("the disk said no".to_owned()));
    }
}
