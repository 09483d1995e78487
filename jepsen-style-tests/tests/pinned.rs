//! One test for each bug that the simulator found in the nodes or the client library, named by what
//! was wrong, with its seed.
//!
//! A change of the code maps its seed to another run, so a seed alone is a weak guard: whoever
//! fixes a bug also writes a direct test beside the code, and names it here; `plans/` has the plans
//! that showed it.
//!
//! - Seed 312, `plans/snapshot-below-the-end.json`: a late snapshot counted back what a replica had
//!   stored. `a_snapshot_of_what_the_log_has_already_takes_nothing_from_it` (package `node`).
