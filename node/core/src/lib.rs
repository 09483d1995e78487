//! What every replica must compute identically: the log, the group offsets and the cluster's
//! metadata as replicated state machines.
//!
//! The rules of this crate: no I/O, no clock, no randomness, no async, and nothing whose order
//! depends on a hash seed. Time is an argument, state changes only in `apply`, and the same
//! commands in the same order give the same bytes on every replica.
//!
//! Code map:
//! - [`ids`], [`time`], [`position`]: the vocabulary.
//! - [`codec`]: bounded reading and writing, used by each stored or sent encoding.
//! - [`limits`]: every bound, with its unit and reason.
//! - [`features`]: which levels a build speaks, and what each adds.
//! - [`partition`]: one partition's log: offsets, idempotence, conditions, index, checkpoints.
//! - [`groups`]: what consumer groups have consumed.
//! - [`metadata`]: nodes, topics and which node holds which replica.
//! - [`topic_config`]: the settings of a topic.
//! - [`survey`]: what all nodes say at one moment, and what follows from it.
//! - [`liveness`]: is a peer alive, from what was heard of it.
//! - [`zoo`]: bugs on purpose, in builds of their own.

pub mod codec;
pub mod features;
pub mod groups;
pub mod ids;
pub mod limits;
pub mod liveness;
pub mod metadata;
pub mod partition;
pub mod position;
pub mod survey;
pub mod time;
pub mod topic_config;
pub mod zoo;
