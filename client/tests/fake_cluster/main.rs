//! The client against a small cluster of its own: real gRPC over pipes in memory, on a paused
//! clock, with faults on demand.
//!
//! The clock moves only when everything waits, so that a test of a 30 s limit takes milliseconds,
//! and a test that passes once passes always.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]
#![allow(clippy::result_large_err, reason = "the fake passes the wire's error around as it is")]

mod calls;
mod consuming;
mod consuming_in_groups;
mod fake;
mod group_processing;
mod groups_and_admin;
mod producing;
mod random_trouble;
mod worked_example;
