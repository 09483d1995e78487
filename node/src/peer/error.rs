//! Why a call to another node failed, as far as the caller can act on it.

use std::time::Duration;

/// A failed call to another node.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PeerError {
    /// Nobody listens there, or the connection broke: the process is probably gone.
    #[error("{address} can't be reached: {reason}")]
    Unreachable { address: String, reason: String },
    /// No answer in time: the node may be gone, or slow, or the network is.
    #[error("{address} did not answer within {after:?}")]
    TimedOut { address: String, after: Duration },
    /// The node answered that it will not.
    #[error("{address} refused: {reason}")]
    Refused { address: String, reason: String, code: tonic::Code },
}

impl PeerError {
    pub(super) fn of_status(address: &str, status: &tonic::Status) -> Self {
        let address = address.to_owned();
        let reason = status.message().to_owned();
        match status.code() {
            // The transport's own codes for a connection that failed or broke.
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
                Self::Unreachable { address, reason }
            }
            code => Self::Refused { address, reason, code },
        }
    }
}
