//! What crosses a wire: the public API (`quipu.v1`) and node to node (`quipu.peer.v1`).
//!
//! Definitions only, and the one way in which an [`v1::Error`] travels inside a gRPC status.
//! Fields are never renumbered. What is inside a record set is the crate `quipu-batch`.

mod status;

pub use status::{error_of_status, status_of_error};

/// The public API.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated from quipu/v1/*.proto"
)]
#[allow(unreachable_pub, unused_qualifications, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("quipu.v1");
}

/// Node to node.
pub mod peer {
    /// Version 1.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated from peer.proto"
    )]
    #[allow(unreachable_pub, unused_qualifications, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("quipu.peer.v1");
    }
}

/// All descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of the largest gRPC message that either side takes: the largest batch and room around it.
pub const MESSAGE_BYTES_MAX: usize = 24 << 20;
