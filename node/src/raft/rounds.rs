//! Readers that ask at about the same time share one answer.
//!
//! A read index holds for whoever asked before the round of heartbeats began that proved it. So
//! while one round is under way, all further readers wait for the next, and that one serves them
//! all: a thousand readers cost as many rounds as there is time for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use node_core::position::RaftPosition;

use openraft::error::RaftError;
use openraft::raft::ReadPolicy;

use super::group::{Place, RaftFailure, failure_of, stopped};
use super::types::{Raft, term_of};
use crate::limits;

type Answer = Result<RaftPosition, RaftFailure>;
type Round = Shared<BoxFuture<'static, Answer>>;

/// The rounds of one replica, with whoever proves that it leads: another replica, or, as `None`,
/// this one. A leader that no longer answers holds up nobody who asks the next.
#[derive(Default)]
pub(super) struct ReadRounds(Mutex<(Option<Place>, Arc<Line>)>);

impl ReadRounds {
    /// The answer of a round that begins after this call. `ask` is used if nobody waits for the
    /// next round yet, and given up after [`limits::READ_INDEX_MAX`].
    pub(super) async fn join<A>(&self, leader: Option<Place>, ask: impl FnOnce() -> A) -> Answer
    where
        A: Future<Output = Answer> + Send + 'static,
    {
        let line = {
            let mut current = locked(&self.0);
            if current.0 != leader {
                *current = (leader, Arc::default());
            }
            current.1.clone()
        };
        line.join(ask).await
    }
}

/// Readers who ask the same leader: at most one round is under way, and one gathers readers.
#[derive(Default)]
struct Line {
    next: Arc<Mutex<Option<Round>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Line {
    /// A round ends when nobody waits for it any more.
    async fn join<A>(&self, ask: impl FnOnce() -> A) -> Answer
    where
        A: Future<Output = Answer> + Send + 'static,
    {
        let round = {
            let mut next = locked(&self.next);
            next.get_or_insert_with(|| self.round(ask())).clone()
        };
        round.await
    }

    fn round(&self, asked: impl Future<Output = Answer> + Send + 'static) -> Round {
        // Weak, or a round that nobody waits for would keep itself.
        let (next, turn): (Weak<_>, _) = (Arc::downgrade(&self.next), self.turn.clone());
        let round = async move {
            let _turn = turn.lock().await;
            // From here on it is too late to join.
            if let Some(next) = next.upgrade() {
                locked(&next).take();
            }
            let asked = tokio::time::timeout(limits::READ_INDEX_MAX, asked).await;
            asked.unwrap_or(Err(RaftFailure::NoQuorum))
        };
        round.boxed().shared()
    }
}

/// The read index, as a round of heartbeats that begins now proves it.
pub(super) async fn confirmed_index(raft: Raft) -> Result<RaftPosition, RaftFailure> {
    let linearizer = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
    let linearizer = linearizer.map_err(|error| match error {
        RaftError::APIError(error) => {
            use openraft::error::LinearizableReadError as Error;
            match error {
                Error::ForwardToLeader(forward) => failure_of(forward),
                _ => RaftFailure::NoQuorum,
            }
        }
        RaftError::Fatal(fatal) => stopped(fatal),
    })?;
    let log_id = linearizer.read_log_id().log_id();
    Ok(RaftPosition { term: term_of(log_id), index: log_id.index() })
}

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use node_core::ids::{NodeUuid, ReplicaId};
    use tokio::sync::Semaphore;

    use super::*;

    /// Rounds that answer how many were begun, once they are let go on.
    #[derive(Clone)]
    struct Asked {
        rounds: Arc<ReadRounds>,
        begun: Arc<AtomicU64>,
        allowed: Arc<Semaphore>,
    }

    impl Asked {
        fn new() -> Self {
            let allowed = Arc::new(Semaphore::new(0));
            Self { rounds: Arc::default(), begun: Arc::default(), allowed }
        }

        async fn read(&self) -> u64 {
            let (begun, allowed) = (self.begun.clone(), self.allowed.clone());
            let round = async move {
                let index = begun.fetch_add(1, Ordering::Relaxed) + 1;
                allowed.acquire().await.expect("never closed").forget();
                Ok(RaftPosition { term: 1, index })
            };
            self.rounds.join(None, || round).await.expect("rounds do not fail here").index
        }

        /// A reader that waits.
        async fn reader(&self) -> tokio::task::JoinHandle<u64> {
            let asked = self.clone();
            let reader = tokio::spawn(async move { asked.read().await });
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            reader
        }
    }

    #[tokio::test]
    async fn readers_that_come_during_a_round_share_the_next_and_never_that_one() {
        let asked = Asked::new();
        let first = asked.reader().await;
        let (second, third) = (asked.reader().await, asked.reader().await);
        assert_eq!(asked.begun.load(Ordering::Relaxed), 1, "one at a time");
        asked.allowed.add_permits(2);
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (2, 2));
        asked.allowed.add_permits(1);
        assert_eq!(asked.read().await, 3, "a round serves nobody who comes after it");
    }

    #[tokio::test]
    async fn a_leader_that_does_not_answer_holds_up_nobody_who_asks_the_next() {
        let asked = Asked::new();
        let waiting = asked.reader().await;
        let next = Place { replica: ReplicaId(2), node: NodeUuid(uuid::Uuid::nil()) };
        let given = RaftPosition { term: 2, index: 7 };
        let answer = asked.rounds.join(Some(next), || async move { Ok(given) }).await;
        assert_eq!(answer, Ok(given));
        waiting.abort();
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_holds_up_nobody() {
        let asked = Asked::new();
        let first = asked.reader().await;
        let second = asked.reader().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        asked.allowed.add_permits(1);
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_round_goes_on_for_those_who_still_wait() {
        let asked = Asked::new();
        let first = asked.reader().await;
        let (second, third) = (asked.reader().await, asked.reader().await);
        asked.allowed.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        asked.allowed.add_permits(1);
        assert_eq!(third.await.unwrap(), 2);
    }
}
