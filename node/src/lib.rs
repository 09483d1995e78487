//! One node of a Quipu cluster: a library, so that a simulation can run the very code of `quipud`.
//!
//! The way of an append: `edge` (limits, checks) → `partition` (waits, becomes part of an entry)
//! → `raft` (order, majority) → `storage` (one fsync for all groups) → `node_core` (apply).
//! docs/ARCHITECTURE.md leads along it, file by file.

pub mod config;
pub mod env;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod storage;
pub mod telemetry;
pub mod version;

mod date_header;
mod edge;
mod formation;
mod levels;
mod linearize;
mod liveness;
mod member;
mod node;
mod partition;
mod peer;
mod raft;
mod tables;

pub use node::{Node, StartError};
pub use raft::{probe, rig};

#[cfg(test)]
mod cluster_tests;
