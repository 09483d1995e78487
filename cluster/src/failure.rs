//! How a command ends: its exit code, and the errors that have one of their own.

use std::fmt;

use quipu_client::{
    AdminError, AppendError, CallError, Code, ConnectError, ConsumeError, GroupConsumeError,
    GroupError, Outcome, ProduceError, ReadError,
};

use crate::output::PipeClosed;

/// The operation or the verdict failed.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// No node could be reached, or what was asked for may have happened.
const UNKNOWN: u8 = 3;
/// By Ctrl-C or SIGTERM: as shells report a process that an interrupt ended.
const INTERRUPTED: u8 = 130;

/// An error that is no other's: the command line, an interrupt, or a failure told in full already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line makes no sense in a way that clap can't see.
    Usage(String),
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// What went wrong is printed; only the exit code is left to say.
    Reported,
    /// As `Reported`, and what was asked for may have happened.
    ReportedUnknown,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(what) => f.write_str(what),
            Failure::Interrupted => f.write_str("interrupted"),
            Failure::Reported | Failure::ReportedUnknown => f.write_str("failed, as told above"),
        }
    }
}

impl std::error::Error for Failure {}

/// A usage error.
pub(crate) fn usage<T>(what: impl Into<String>) -> anyhow::Result<T> {
    Err(Failure::Usage(what.into()).into())
}

/// The exit code of a command that ended in `error`.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<PipeClosed>() {
            return 0;
        }
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return match failure {
                Failure::Usage(_) => USAGE,
                Failure::Interrupted => INTERRUPTED,
                Failure::Reported => FAILED,
                Failure::ReportedUnknown => UNKNOWN,
            };
        }
        if let Some((code, outcome)) = facts(cause) {
            let is_unknown = outcome == Outcome::Unknown || code == Code::Unreachable;
            return if is_unknown { UNKNOWN } else { FAILED };
        }
    }
    FAILED
}

/// Whether there is anything left to say about an error.
pub(crate) fn is_told(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let failure = cause.downcast_ref::<Failure>();
        cause.is::<PipeClosed>()
            || matches!(failure, Some(Failure::Reported | Failure::ReportedUnknown))
    })
}

/// What the client library says of an error of its own.
fn facts(cause: &(dyn std::error::Error + 'static)) -> Option<(Code, Outcome)> {
    macro_rules! first_of {
        ($($error:ty),+) => {
            None$(.or_else(|| {
                cause.downcast_ref::<$error>().map(|error| (error.code(), error.outcome()))
            }))+
        };
    }
    first_of!(
        CallError,
        ConnectError,
        AppendError,
        ProduceError,
        ReadError,
        ConsumeError,
        GroupError,
        GroupConsumeError,
        AdminError
    )
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    fn call_error(code: Code, outcome: Outcome) -> CallError {
        CallError {
            code,
            outcome,
            retriable: false,
            retry_after: None,
            message: String::new(),
            detail: None,
        }
    }

    #[test]
    fn an_unknown_outcome_and_an_unreachable_cluster_are_told_apart_from_a_failure() {
        let timed_out = call_error(Code::DeadlinePassed, Outcome::Unknown);
        assert_eq!(exit_code(&AppendError::Call(timed_out).into()), 3);
        let unreachable = call_error(Code::Unreachable, Outcome::Definite);
        assert_eq!(exit_code(&AdminError::Call(unreachable).into()), 3);
        let closed = call_error(Code::Closed, Outcome::Definite);
        let error = Err::<(), _>(ReadError::Call(closed)).context("reading").unwrap_err();
        assert_eq!(exit_code(&error), 1);
        assert_eq!(exit_code(&anyhow!("anything else")), 1);
    }

    #[test]
    fn usage_interrupts_and_closed_pipes_have_their_codes() {
        assert_eq!(exit_code(&usage::<()>("no").unwrap_err()), 2);
        assert_eq!(exit_code(&Failure::Interrupted.into()), 130);
        let closed: anyhow::Error = PipeClosed.into();
        assert_eq!(exit_code(&closed), 0);
        assert!(is_told(&closed));
        assert!(!is_told(&anyhow!("news")));
    }
}
