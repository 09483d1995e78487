//! Clusters of real `quipud` processes on this machine.
//!
//! - `layout`: the folder of a cluster and the file by which it remembers its nodes;
//! - `processes`: start, find again and signal a process, and never another one;
//! - `ports`: which ports the nodes take, and whether they are free;
//! - `quipud`: where the binary is;
//! - `start`: from a layout to a healthy cluster.
//!
//! **Invariant:** a signal is sent only to a process that this module started, checked by its
//! start time at the moment of sending.

pub(crate) mod layout;
pub(crate) mod ports;
pub(crate) mod processes;
pub(crate) mod quipud;
pub(crate) mod start;
