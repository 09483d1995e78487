//! One test for each bug that the simulator found in the nodes or the client library, named by what
//! was wrong, with its seed.
//!
//! None is fixed yet: docs/simulation-ledger.md has what was found, `plans/` the plans that show it.
//! A change of the code maps its seed to another run, so a seed alone is a weak guard: whoever
//! fixes a bug also writes a direct test beside the code, and names it here.
