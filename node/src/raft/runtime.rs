//! The async runtime that openraft runs on: tokio's, with randomness from [`crate::env`].
//!
//! Seeded on a simulation's thread, entropy elsewhere: one type for both, so that what is simulated
//! is what is shipped. openraft's own seeded runtime panics outside its scope. Its clock can be
//! told to stand where something must count as older than it is (see `unanswered`).

use std::cell::Cell;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use openraft::type_config::AsyncRuntime;
use openraft_rt::OptionalSend;
use openraft_rt_tokio::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::StdRng;

thread_local! {
    /// What the clock says while it stands.
    static STANDS_AT: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// A moment of tokio's clock, by which openraft goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(TokioMoment);

type TokioMoment = <TokioRuntime as AsyncRuntime>::Instant;

/// Lets openraft's clock stand at `moment` on this thread while `run` runs; without one it goes on
/// as it does.
pub(super) fn counting_as<T>(moment: Option<Moment>, run: impl FnOnce() -> T) -> T {
    struct Goes(Option<Moment>);
    impl Drop for Goes {
        fn drop(&mut self) {
            STANDS_AT.set(self.0);
        }
    }
    let before = STANDS_AT.get();
    let _goes = Goes(before);
    STANDS_AT.set(moment.or(before));
    run()
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        STANDS_AT.get().unwrap_or_else(|| Self(TokioMoment::now()))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

/// Tokio with randomness from the node's environment.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = Moment;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }
    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline.0)
    }
    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }
    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline.0, future)
    }
    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }
    fn thread_rng() -> Self::ThreadLocalRng {
        StdRng::seed_from_u64(crate::env::random_u64())
    }
    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
