//! The command `quipu`: local clusters, topics, append, read, groups, benchmarks and the demo.
//!
//! `args` is the command line, `commands` what each command does with a cluster, `local` the
//! processes of clusters on this machine, `output` what is printed, `demo` the run with a verdict,
//! `bench` what is measured.
//! Everything that needs a cluster goes through the client library, as an application would.

mod args;
mod bench;
mod cloudevents;
mod commands;
mod deliveries;
mod demo;
mod failure;
mod interrupts;
mod json_fault;
mod key_path;
mod latency;
mod lines;
mod local;
mod output;
mod position;
mod upgrade;

use std::process::ExitCode;

use clap::Parser as _;

#[allow(clippy::print_stderr, reason = "errors of a command go to stderr")]
fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: can't start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(cli));
    // A read of stdin that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !failure::is_told(&error) {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
