//! Going to another version node by node, and back: what may be done next, and doing it.
//!
//! - `binary`: what a node's binary says it is;
//! - `facts`: what the nodes say of themselves and of the groups they lead;
//! - `gate`: may this node be stopped now? Pure;
//! - `progress`: which node is next, forwards or backwards, as a file. Pure but for the file;
//! - `drive`: exchanges one node after the other, and halts by itself.
//!
//! Nothing is decided by what an earlier step is remembered to have seen: before each node the
//! cluster is asked again. docs/operating/upgrading.md leads an operator through it.

pub(crate) mod binary;
pub(crate) mod drive;
pub(crate) mod facts;
pub(crate) mod gate;
pub(crate) mod progress;
