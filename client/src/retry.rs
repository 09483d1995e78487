//! Decides whether a failed attempt is followed by another one, and when.
//!
//! Pure: time and randomness are arguments. The one rule that must not be broken: a call that may
//! have had its effect is sent again only if sending it twice does no harm.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Backoff;
use crate::error::{CallError, ErrorCode, Outcome};

/// The attempts of one call.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    backoff: Backoff,
    deadline: Instant,
    /// Sending the call twice does no harm.
    repeatable: bool,
    failures: u32,
    /// An attempt ended without a definite answer.
    unresolved: bool,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Attempt again, not before this.
    RetryAt(Instant),
    /// Report this.
    GiveUp(CallError),
}

impl Attempts {
    /// Of a call that must end by `deadline`.
    pub(crate) fn new(backoff: Backoff, deadline: Instant, repeatable: bool) -> Attempts {
        Attempts { backoff, deadline, repeatable, failures: 0, unresolved: false }
    }

    /// Takes the failure of an attempt.
    pub(crate) fn on_failure(
        &mut self,
        error: CallError,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Next {
        self.failures = self.failures.saturating_add(1);
        self.unresolved |= error.outcome == Outcome::Unknown;
        let may_repeat = error.retriable && (self.repeatable || !self.unresolved);
        if !may_repeat {
            return Next::GiveUp(self.told_to_the_caller(error));
        }
        let at = now + wait_after(&error, self.backoff, self.failures, rng);
        if at >= self.deadline {
            return Next::GiveUp(self.told_to_the_caller(error));
        }
        Next::RetryAt(at)
    }

    /// A definite answer to the last attempt says nothing about an earlier one that was never
    /// answered.
    fn told_to_the_caller(&self, mut error: CallError) -> CallError {
        if self.unresolved {
            error.outcome = Outcome::Unknown;
        }
        error
    }
}

/// Longest pause before asking again who leads.
const ELECTION_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Redirects followed without waiting. More in a row mean that two nodes point at each other.
const REDIRECTS_AT_ONCE: u32 = 2;

/// How long to wait after `error`, the `failures`-th failure in a row. A node that names the leader
/// is believed at once, unless this has happened several times; a node that asks for time gets it.
pub(crate) fn wait_after(
    error: &CallError,
    backoff: Backoff,
    failures: u32,
    rng: &mut fastrand::Rng,
) -> Duration {
    let is_redirect = error.is(ErrorCode::NotLeader) && error.leader_address().is_some();
    let wait = if is_redirect && failures <= REDIRECTS_AT_ONCE {
        Duration::ZERO
    } else if error.is_about_leadership() {
        // An election is short, and asking who won it costs little.
        delay(Backoff { max: backoff.max.min(ELECTION_PAUSE_MAX), ..backoff }, failures, rng)
    } else {
        delay(backoff, failures, rng)
    };
    wait.max(error.retry_after.unwrap_or_default())
}

/// The wait after the `failures`-th failure in a row: doubled each time up to the greatest, then
/// drawn between half of it and all of it, so that many clients do not come back together.
fn delay(backoff: Backoff, failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = backoff.initial.saturating_mul(1 << doublings).min(backoff.max);
    full.mul_f64(0.5 + rng.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quipu_proto::v1;

    use super::*;
    use crate::error::Code;

    const BACKOFF: Backoff =
        Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(500) };

    fn failure(outcome: Outcome, retriable: bool) -> CallError {
        CallError {
            code: Code::ConnectionLost,
            outcome,
            retriable,
            retry_after: None,
            message: String::new(),
            detail: None,
        }
    }

    fn attempts(repeatable: bool) -> (Attempts, Instant) {
        let now = Instant::now();
        (Attempts::new(BACKOFF, now + Duration::from_secs(10), repeatable), now)
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    #[test]
    fn a_call_of_unknown_outcome_is_not_sent_again() {
        let (mut attempts, now) = attempts(false);
        let error = failure(Outcome::Unknown, true);
        let next = attempts.on_failure(error.clone(), now, &mut rng());
        assert_eq!(next, Next::GiveUp(error));
    }

    #[test]
    fn a_repeatable_call_of_unknown_outcome_is_sent_again() {
        let (mut attempts, now) = attempts(true);
        let next = attempts.on_failure(failure(Outcome::Unknown, true), now, &mut rng());
        assert!(matches!(next, Next::RetryAt(at) if at > now));
    }

    #[test]
    fn a_definite_refusal_after_an_unanswered_attempt_is_reported_as_unknown() {
        let (mut attempts, now) = attempts(true);
        attempts.on_failure(failure(Outcome::Unknown, true), now, &mut rng());
        let refusal = failure(Outcome::Definite, false);
        let Next::GiveUp(error) = attempts.on_failure(refusal, now, &mut rng()) else {
            panic!("a refusal is final");
        };
        assert_eq!(error.outcome, Outcome::Unknown);
    }

    #[test]
    fn a_redirect_is_followed_at_once_but_not_for_ever() {
        let (mut attempts, now) = attempts(false);
        let redirect = CallError::of_node(v1::Error {
            code: ErrorCode::NotLeader.into(),
            outcome: v1::Outcome::Definite.into(),
            retriable: true,
            leader_address: "b:1".to_owned(),
            ..v1::Error::default()
        });
        let mut waits = Vec::new();
        for _ in 0..4 {
            match attempts.on_failure(redirect.clone(), now, &mut rng()) {
                Next::RetryAt(at) => waits.push(at - now),
                Next::GiveUp(error) => panic!("gave up: {error}"),
            }
        }
        assert_eq!(waits[..2], [Duration::ZERO; 2]);
        assert!(waits[2..].iter().all(|wait| !wait.is_zero()), "{waits:?}");
    }

    #[test]
    fn the_node_s_wish_to_wait_longer_is_honoured() {
        let (mut attempts, now) = attempts(false);
        let mut error = failure(Outcome::Definite, true);
        error.retry_after = Some(Duration::from_secs(3));
        let next = attempts.on_failure(error, now, &mut rng());
        assert_eq!(next, Next::RetryAt(now + Duration::from_secs(3)));
    }

    #[test]
    fn nothing_is_attempted_after_the_deadline() {
        let (mut attempts, now) = attempts(true);
        let late = now + Duration::from_secs(10);
        let next = attempts.on_failure(failure(Outcome::Definite, true), late, &mut rng());
        assert!(matches!(next, Next::GiveUp(_)));
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_half_the_step_and_the_greatest(
            failures in 1_u32..100, seed: u64,
        ) {
            let wait = delay(BACKOFF, failures, &mut fastrand::Rng::with_seed(seed));
            let step = BACKOFF.initial * (1 << (failures - 1).min(5));
            prop_assert!(wait >= step.min(BACKOFF.max) / 2, "{wait:?}");
            prop_assert!(wait <= BACKOFF.max, "{wait:?}");
        }
    }
}
