//! The simulator: the real nodes and the real client library in a world that one seed decides.
//!
//! A run is a world × a workload × a nemesis × checkers:
//!
//! - `plan`: what the seed decides before the run begins;
//! - `world`: hosts with node code, network, disks, clocks, on turmoil;
//! - `workload`: what clients do, `operator`: forms the cluster and looks at the end;
//! - `nemesis`: what breaks, when, and whether it did; `atlas`: what may be damaged;
//! - `history`: what was asked and answered; `observations`: the same, sorted for checking;
//! - `checkers`: the promises, one a file; `violation`: how one was broken;
//! - `cuts`: one node's storage, its power cut at every write and every sync;
//! - `effects`: what came of the faults; `shrink`: a smaller plan that fails the same way;
//! - `trace`, `log_lines`: everything that can be seen of a run as one hash, so that a run can be
//!   shown to be repeatable.
//!
//! docs/TESTING.md says what is tested and what is not, and how to read a failure.

#[cfg(not(tokio_unstable))]
compile_error!(
    "turmoil seeds tokio only under `--cfg tokio_unstable`, which .cargo/config.toml sets; an \
     environment RUSTFLAGS (for documentation: RUSTDOCFLAGS) overrides it: unset it"
);

pub mod atlas;
pub mod checkers;
pub mod cuts;
pub mod determinism;
pub mod effects;
pub mod history;
pub mod live;
pub mod live_for;
pub mod log_lines;
pub mod nemesis;
pub mod observations;
pub mod operator;
pub mod plan;
pub mod report;
pub mod run;
pub mod shrink;
pub mod summary;
pub mod sweep;
pub mod trace;
pub mod violation;
pub mod workload;
pub mod world;
pub mod zoo;
