//! A gRPC status becomes a [`CallError`]: what happened, and whether it may have had its effect.
//!
//! A node says both itself, in the status details. For a status that the transport made there is
//! only one case in which certainly nothing was sent: the connection could not be made. Everything
//! else is `Unknown`, because a request may have left before its connection broke.

use std::error::Error as _;
use std::time::Duration;

use quipu_proto::v1;
use tonic::Status;

use crate::error::{CallError, Code, ErrorCode, Outcome};

impl CallError {
    /// What `address` said, or what the transport says about it.
    pub(crate) fn of_status(address: &str, status: &Status) -> CallError {
        match quipu_proto::error_of_status(status) {
            Some(error) => CallError::of_node(error),
            None => CallError::of_transport(address, status),
        }
    }

    /// What a node said. An outcome that it leaves open is unknown.
    pub(crate) fn of_node(error: v1::Error) -> CallError {
        let outcome = match error.outcome() {
            v1::Outcome::Definite => Outcome::Definite,
            v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
        };
        let wait = Duration::from_millis(error.retry_after_ms.into());
        CallError {
            code: Code::Server(error.code()),
            outcome,
            retriable: error.retriable,
            retry_after: (!wait.is_zero()).then_some(wait),
            message: error.message.clone(),
            detail: Some(Box::new(error)),
        }
    }

    fn of_transport(address: &str, status: &Status) -> CallError {
        if never_connected(status) {
            return CallError::unreachable(address, &reason(status));
        }
        let message = format!("{address}: {}", reason(status));
        match status.code() {
            tonic::Code::Unimplemented => CallError {
                code: Code::Server(ErrorCode::NotSupported),
                outcome: Outcome::Definite,
                retriable: false,
                retry_after: None,
                message: format!("{address} does not know this call: {}", reason(status)),
                detail: None,
            },
            tonic::Code::DeadlineExceeded => CallError::local(Code::DeadlinePassed, message),
            // A message over the size limit comes back as this, and does so each time.
            tonic::Code::OutOfRange | tonic::Code::InvalidArgument => {
                CallError { retriable: false, ..CallError::local(Code::BadAnswer, message) }
            }
            _ => CallError::local(Code::ConnectionLost, message),
        }
    }

    /// No connection could be made; nothing was sent.
    pub(crate) fn unreachable(address: &str, reason: &str) -> CallError {
        CallError {
            outcome: Outcome::Definite,
            ..CallError::local(Code::Unreachable, format!("{address}: {reason}"))
        }
    }

    /// No answer within `wait`.
    pub(crate) fn deadline_passed(address: &str, wait: Duration) -> CallError {
        CallError::local(Code::DeadlinePassed, format!("{address}: no answer within {wait:?}"))
    }

    /// `address` does not answer, and another node leads by now.
    pub(crate) fn deposed(address: &str) -> CallError {
        let message = format!("{address}: no answer, and another node leads by now");
        CallError::local(Code::ConnectionLost, message)
    }

    /// The answer of `address` makes no sense.
    pub(crate) fn bad_answer(address: &str, reason: &str) -> CallError {
        CallError {
            retriable: false,
            ..CallError::local(Code::BadAnswer, format!("{address}: {reason}"))
        }
    }

    /// Refused without asking a node, for a reason that a node would give too.
    pub(crate) fn refused_here(code: ErrorCode, message: String) -> CallError {
        CallError {
            outcome: Outcome::Definite,
            retriable: false,
            ..CallError::local(Code::Server(code), message)
        }
    }

    /// The caller's input cannot be sent.
    pub(crate) fn invalid_input(message: impl Into<String>) -> CallError {
        CallError {
            outcome: Outcome::Definite,
            retriable: false,
            ..CallError::local(Code::InvalidInput, message.into())
        }
    }

    /// Found by the client after sending: unknown, and worth another attempt where that is safe.
    pub(crate) fn local(code: Code, message: String) -> CallError {
        CallError {
            code,
            outcome: Outcome::Unknown,
            retriable: true,
            retry_after: None,
            message,
            detail: None,
        }
    }

    /// Where the leader is, if the node said so.
    pub(crate) fn leader_address(&self) -> Option<&str> {
        let address = self.detail.as_ref()?.leader_address.as_str();
        (!address.is_empty()).then_some(address)
    }

    /// The asked node is fine but does not lead; the leader is elsewhere or not known.
    pub(crate) fn is_about_leadership(&self) -> bool {
        use ErrorCode::{LeaderUnknown, LeadershipLost, NotLeader};
        [NotLeader, LeaderUnknown, LeadershipLost].iter().any(|code| self.is(*code))
    }

    /// The asked node has never heard of the topic or the partition.
    pub(crate) fn is_about_existence(&self) -> bool {
        self.is(ErrorCode::UnknownTopic) || self.is(ErrorCode::UnknownPartition)
    }

    /// A node that was believed to lead a partition has never heard of it. It may have lost its
    /// replica, or not have it yet, so that the last word is the metadata's: forget what is known
    /// of the topic, and ask again.
    pub(crate) fn doubted(mut self) -> CallError {
        self.retriable |= self.is_about_existence();
        self
    }

    /// The connection is of no use any more, or the node is stuck or about to stop.
    pub(crate) fn is_about_the_connection(&self) -> bool {
        matches!(self.code, Code::Unreachable | Code::ConnectionLost | Code::DeadlinePassed)
            || self.is(ErrorCode::Stopping)
    }
}

fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause says what happened; the layers above say only that something did.
fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        reason = error.to_string();
        cause = error.source();
    }
    if reason.is_empty() { status.code().to_string() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_taken_over() {
        let said = v1::Error {
            code: ErrorCode::Overloaded.into(),
            outcome: v1::Outcome::Definite.into(),
            retriable: true,
            retry_after_ms: 250,
            message: "too many appends wait".to_owned(),
            ..v1::Error::default()
        };
        let error = CallError::of_status("a:1", &quipu_proto::status_of_error(&said));
        assert_eq!(error.code, Code::Server(ErrorCode::Overloaded));
        assert_eq!(error.outcome, Outcome::Definite);
        assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
        assert!(error.retriable);
    }

    #[test]
    fn an_outcome_left_open_is_unknown() {
        let said = v1::Error { code: ErrorCode::Internal.into(), ..v1::Error::default() };
        assert_eq!(CallError::of_node(said).outcome, Outcome::Unknown);
    }

    #[test]
    fn a_refused_connection_is_definite() {
        let refused = tonic::ConnectError("connection refused".into());
        let status = Status::from_error(Box::new(refused));
        let error = CallError::of_status("a:1", &status);
        assert_eq!(error.code, Code::Unreachable);
        assert_eq!(error.outcome, Outcome::Definite);
    }

    #[test]
    fn a_broken_connection_is_unknown() {
        for status in [Status::unavailable("reset"), Status::cancelled(""), Status::unknown("")] {
            let error = CallError::of_status("a:1", &status);
            assert_eq!(error.code, Code::ConnectionLost);
            assert_eq!(error.outcome, Outcome::Unknown);
        }
    }

    #[test]
    fn a_call_that_the_node_does_not_know_is_not_supported() {
        let error = CallError::of_status("a:1", &Status::unimplemented(""));
        assert!(error.is(ErrorCode::NotSupported));
        assert_eq!((error.outcome, error.retriable), (Outcome::Definite, false));
    }
}
