//! When a pipelined append counts as sent: no later than the oldest one before it without an
//! answer.
//!
//! openraft takes the time at which an acknowledged request was sent as proof that its sender led
//! then; read indices and staleness are told by that. But an acknowledgement of an entry also
//! counts for requests behind it that carry no further entry, and one is sent whenever the commit
//! index grows. So an answer that was on its way for seconds, while others elected a new leader,
//! counts for a request that has just been sent. Where such requests count as sent with the oldest
//! unanswered one, an answer proves no more than it can; heartbeats prove the rest.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use openraft::Instant as _;

use super::runtime::{Moment, counting_as};

/// The requests of one stream that are not answered yet. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Unanswered(Arc<Mutex<Sent>>);

#[derive(Debug, Default)]
struct Sent {
    /// When, the oldest first.
    at: VecDeque<Moment>,
    /// The oldest is answered, and openraft may be about to act on it.
    answered: bool,
}

impl Unanswered {
    /// Requests on their way out.
    pub(super) fn requests<S>(&self, requests: S) -> Requests<S> {
        Requests { requests, unanswered: self.clone() }
    }

    /// Their answers: one each, in order.
    pub(super) fn answers<S>(&self, answers: S) -> Answers<S> {
        Answers { answers, unanswered: self.clone() }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Unanswered::requests`].
pub(super) struct Requests<S> {
    requests: S,
    unanswered: Unanswered,
}

/// See [`Unanswered::answers`].
pub(super) struct Answers<S> {
    answers: S,
    unanswered: Unanswered,
}

impl<S: Stream + Unpin> Stream for Requests<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let (now, oldest) = (Moment::now(), self.unanswered.sent().at.front().copied());
        let polled = counting_as(oldest, || self.requests.poll_next_unpin(cx));
        if let Poll::Ready(Some(_)) = &polled {
            self.unanswered.sent().at.push_back(now);
        }
        polled
    }
}

impl<S: Stream + Unpin> Stream for Answers<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        {
            let mut sent = self.unanswered.sent();
            // Not before: what is sent until openraft has acted on an answer may count by it.
            if std::mem::take(&mut sent.answered) {
                sent.at.pop_front();
            }
        }
        let polled = self.answers.poll_next_unpin(cx);
        if let Poll::Ready(Some(_)) = &polled {
            self.unanswered.sent().answered = true;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt as _, stream};

    use super::*;

    #[test]
    fn what_is_sent_behind_an_unanswered_request_counts_as_sent_with_it() {
        let unanswered = Unanswered::default();
        let mut sent = unanswered.requests(stream::repeat_with(Moment::now));
        let mut answers = unanswered.answers(stream::repeat(()));
        let start = Moment::now();
        let mut sent_at = |ms| {
            let at = start + Duration::from_millis(ms);
            let counts_as = counting_as(Some(at), || sent.next().now_or_never());
            counts_as.flatten().expect("there is always one") - start
        };
        let mut answer = || answers.next().now_or_never();

        assert_eq!(sent_at(0), Duration::ZERO);
        // Its answer is on its way for long, may come at any moment, and would count for this one.
        assert_eq!(sent_at(3_600), Duration::ZERO);
        answer();
        assert_eq!(sent_at(3_605), Duration::ZERO, "openraft may not have acted on it yet");
        // Waiting for the next answer it has.
        answer();
        assert_eq!(sent_at(3_610), Duration::from_millis(3_600));
        assert_eq!([answer(), answer()], [Some(Some(())); 2]);
        assert_eq!(sent_at(3_620), Duration::from_millis(3_610), "the last is not acted on");
    }
}
