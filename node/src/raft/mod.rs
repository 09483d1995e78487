//! Consensus. The only folder that names openraft.
//!
//! [`RaftGroup`] is one replica of one group in our own words; `serve.rs` is what other replicas
//! ask of it, `handover` passes a leadership on under load, `rounds` lets readers share a question.
//! Behind it: `log_store` (entries and votes through the one log writer), `machine` (what applies
//! entries), `network` (the way to the other replicas), `wire` (sent and stored forms), `runtime`
//! (tokio, with the environment's randomness), `types` (the one type configuration), `unanswered`
//! (when a pipelined append counts as sent).

mod fallen;
mod group;
mod handover;
mod log_store;
mod machine;
mod network;
mod open;
#[cfg(quipu_zoo)]
mod planted;
pub mod probe;
pub mod rig;
mod rounds;
mod runtime;
mod serve;
mod tail;
mod types;
mod unanswered;
mod wire;

pub(crate) use group::{Brief, GroupStatus, Place, RaftFailure, RaftGroup, Role};
pub(crate) use log_store::{EntrySource, GroupLog, LogCommandBytes, Unrepaired};
pub(crate) use open::{GroupContext, OpenLog, RaftTiming, open_log, open_partition, open_table};
pub(crate) use serve::{Refusal, entry_for_repair, serve_stored_entry};
pub(crate) use types::{Applied, ReplicaNode};

/// What the node's log leaves out of openraft's lines: those of what it also answers to its caller
/// (every message to a replica that was closed), and of every heartbeat that failed. The node has
/// its own words for what an operator should know of that.
pub(crate) const LEFT_OUT_OF_THE_LOG: &str = "openraft::raft::=off,openraft::core::heartbeat=off";
