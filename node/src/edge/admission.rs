//! How many calls of clients are served at once, before their messages are read: each call may
//! hold a message of many megabytes, so that their number is what bounds the memory for them.
//!
//! A stream counts until it has begun; open streams are counted by the door.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tracing::Instrument as _;

use super::status::Refusal;

/// Room for calls, shared by all services.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    room: Arc<Semaphore>,
}

/// A service whose calls need room.
#[derive(Debug, Clone)]
pub(super) struct Admitted<S> {
    inner: S,
    room: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn new(calls_max: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(calls_max)) }
    }

    /// `service`, served only while there is room.
    pub(super) fn over<S>(&self, service: S) -> Admitted<S> {
        Admitted { inner: service, room: self.room.clone() }
    }
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Admitted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            let refusal = Refusal::overloaded(
                "too many calls wait on this node; try again later or ask another one",
            );
            return Box::pin(async { Ok(refusal.into_status().into_http()) });
        };
        let span = tracing::debug_span!("call", method = request.uri().path());
        let call = self.inner.call(request);
        let call = async move {
            let _room = room;
            call.await
        };
        Box::pin(call.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use quipu_proto::v1::ErrorCode;

    use super::*;

    /// Answers never.
    #[derive(Clone)]
    struct Stuck;

    impl Service<Request<Body>> for Stuck {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn a_call_too_many_is_told_so_and_room_comes_back_with_the_end_of_another() {
        let mut service = Admission::new(1).over(Stuck);
        let first = service.call(Request::new(Body::empty()));
        let second = service.call(Request::new(Body::empty())).await.unwrap();
        let status = tonic::Status::from_header_map(second.headers()).unwrap();
        let error = quipu_proto::error_of_status(&status).unwrap();
        assert_eq!(error.code(), ErrorCode::Overloaded);

        drop(first);
        let third = service.call(Request::new(Body::empty()));
        assert!(futures::poll!(third).is_pending());
    }
}
