//! One append stream: requests are taken in the order they come, answered in the order they are
//! done, and no refusal of one ends the stream.
//!
//! Pulled by HTTP/2: nothing runs but when the client takes answers, so a client that does not is
//! not read either. There is no task to stop; when the client goes, the stream is dropped, and
//! what was proposed goes its way.

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use quipu_proto::v1;
use quipu_proto::v1::append_stream_response::Result as StreamResult;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::Refusal;
use crate::limits;

/// The answer to one append.
pub(super) type Answer = Result<v1::AppendResponse, Refusal>;
/// The wait for an answer, of an append that has its place in line.
pub(super) type Answering = BoxFuture<'static, Answer>;
/// An append on its way into the line.
pub(super) type Taking = BoxFuture<'static, Result<Answering, Refusal>>;

/// What the stream needs of the rest of the node.
pub(super) trait Taker: Send + 'static {
    /// Takes an append in. The next one is taken when the future is done.
    fn take(&mut self, request: v1::AppendRequest) -> Taking;
}

/// The answers to `requests`.
pub(super) fn answers(
    requests: impl Stream<Item = Result<v1::AppendStreamRequest, Status>> + Send + 'static,
    taker: impl Taker,
    stop: CancellationToken,
) -> impl Stream<Item = Result<v1::AppendStreamResponse, Status>> + Send {
    let conversation = Conversation {
        requests: Some(requests.boxed()),
        taker,
        stop,
        taking: None,
        unanswered: FuturesUnordered::new(),
        end: None,
    };
    futures::stream::unfold(conversation, |mut conversation| async move {
        let next = conversation.next().await?;
        Some((next, conversation))
    })
}

struct Conversation<T> {
    /// `None` when no more are read: the client has closed its side, or the stream must end.
    requests: Option<futures::stream::BoxStream<'static, Result<v1::AppendStreamRequest, Status>>>,
    taker: T,
    stop: CancellationToken,
    /// The one request that has no place in line yet.
    taking: Option<(u64, Taking)>,
    unanswered: FuturesUnordered<BoxFuture<'static, v1::AppendStreamResponse>>,
    /// How the stream ends when everything is answered; `None`: well.
    end: Option<Status>,
}

impl<T: Taker> Conversation<T> {
    async fn next(&mut self) -> Option<Result<v1::AppendStreamResponse, Status>> {
        loop {
            let has_room = self.unanswered.len() < limits::APPEND_STREAM_UNANSWERED_MAX;
            let may_read = has_room && self.taking.is_none();
            tokio::select! {
                // Answers first: they make room.
                biased;
                Some(answer) = self.unanswered.next(), if !self.unanswered.is_empty() => {
                    return Some(Ok(answer));
                }
                (request_id, taken) = taken(&mut self.taking), if self.taking.is_some() => {
                    self.taking = None;
                    match taken {
                        Ok(answering) => self.unanswered.push(numbered(request_id, answering)),
                        Err(refusal) => return Some(Ok(response(request_id, Err(refusal)))),
                    }
                }
                () = self.stop.cancelled(), if self.requests.is_some() => {
                    self.requests = None;
                    self.end = Some(Refusal::stopping().into_status());
                }
                request = read(&mut self.requests), if may_read && self.requests.is_some() => {
                    if let Some(refused) = self.on_request(request) {
                        return Some(Ok(refused));
                    }
                }
                else => return self.end.take().map(Err),
            }
        }
    }

    fn on_request(
        &mut self,
        request: Option<Result<v1::AppendStreamRequest, Status>>,
    ) -> Option<v1::AppendStreamResponse> {
        match request {
            Some(Ok(v1::AppendStreamRequest { request_id, append: Some(append) })) => {
                self.taking = Some((request_id, self.taker.take(append)));
                None
            }
            Some(Ok(v1::AppendStreamRequest { request_id, append: None })) => {
                let refusal = Refusal::invalid("append: is missing");
                Some(response(request_id, Err(refusal)))
            }
            // What can't be read as a request ends the stream, for nobody knows where the next
            // one begins. What was read before is answered all the same.
            Some(Err(status)) => {
                self.requests = None;
                self.end = Some(status);
                None
            }
            None => {
                self.requests = None;
                None
            }
        }
    }
}

async fn taken(taking: &mut Option<(u64, Taking)>) -> (u64, Result<Answering, Refusal>) {
    match taking {
        Some((request_id, taking)) => (*request_id, taking.await),
        None => std::future::pending().await,
    }
}

async fn read<S: Stream + Unpin>(requests: &mut Option<S>) -> Option<S::Item> {
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

fn numbered(request_id: u64, answering: Answering) -> BoxFuture<'static, v1::AppendStreamResponse> {
    Box::pin(async move { response(request_id, answering.await) })
}

fn response(request_id: u64, answer: Answer) -> v1::AppendStreamResponse {
    let result = match answer {
        Ok(appended) => StreamResult::Appended(appended),
        Err(refusal) => StreamResult::Error(refusal.into_error()),
    };
    v1::AppendStreamResponse { request_id, result: Some(result) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;
    use quipu_proto::v1::ErrorCode;
    use tokio::sync::{mpsc, oneshot};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// Takes everything at once, and answers when it is told to. A request for topic "bad" is
    /// refused; one for "later" is taken only when it is told to.
    #[derive(Clone, Default)]
    struct Bench {
        /// In the order taken.
        taken: Arc<Mutex<Vec<Taken>>>,
        held: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    }

    /// The offset expected, used as a name, and what answers it.
    type Taken = (u64, oneshot::Sender<Answer>);

    impl Taker for Bench {
        fn take(&mut self, request: v1::AppendRequest) -> Taking {
            if request.topic == "bad" {
                let refusal = Refusal::invalid("bad");
                return futures::future::ready(Err(refusal)).boxed();
            }
            let bench = self.clone();
            let (release, released) = oneshot::channel();
            if request.topic == "later" {
                *self.held.lock().unwrap() = Some(release);
            } else {
                drop(release);
            }
            async move {
                drop(released.await);
                let (sender, answer) = oneshot::channel();
                let name = request.expect_end_offset.unwrap();
                bench.taken.lock().unwrap().push((name, sender));
                Ok(answer.map(|answer| answer.unwrap()).boxed())
            }
            .boxed()
        }
    }

    impl Bench {
        fn names(&self) -> Vec<u64> {
            self.taken.lock().unwrap().iter().map(|(name, _)| *name).collect()
        }

        fn answer(&self, name: u64) {
            let mut taken = self.taken.lock().unwrap();
            let at = taken.iter().position(|(it, _)| *it == name).unwrap();
            let response = v1::AppendResponse::default();
            taken.remove(at).1.send(Ok(response)).unwrap();
        }
    }

    fn request(request_id: u64, topic: &str) -> Result<v1::AppendStreamRequest, Status> {
        let append = v1::AppendRequest {
            topic: topic.to_owned(),
            expect_end_offset: Some(request_id),
            ..v1::AppendRequest::default()
        };
        Ok(v1::AppendStreamRequest { request_id, append: Some(append) })
    }

    type Requests = mpsc::Sender<Result<v1::AppendStreamRequest, Status>>;
    type Answers = futures::stream::BoxStream<'static, Result<v1::AppendStreamResponse, Status>>;

    fn open() -> (Bench, Requests, Answers, CancellationToken) {
        let (sender, requests) = mpsc::channel(1_000);
        let (bench, stop) = (Bench::default(), CancellationToken::new());
        let answers = answers(ReceiverStream::new(requests), bench.clone(), stop.clone()).boxed();
        (bench, sender, answers, stop)
    }

    /// Lets the stream do all it can, and shows what it gives. Each round is a fresh budget of
    /// tokio's, which would stop it after some dozens of requests.
    async fn poll(answers: &mut Answers) -> Option<v1::AppendStreamResponse> {
        for _ in 0..16 {
            if let Some(answer) = answers.next().now_or_never().flatten() {
                return Some(answer.unwrap());
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn id(answer: Option<v1::AppendStreamResponse>) -> Option<u64> {
        answer.map(|answer| answer.request_id)
    }

    #[tokio::test]
    async fn requests_are_taken_in_order_and_answered_as_they_are_done() {
        let (bench, requests, mut answers, _stop) = open();
        for number in 1..=3 {
            requests.try_send(request(number, "t")).unwrap();
        }
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names(), [1, 2, 3]);
        bench.answer(3);
        bench.answer(1);
        let mut answered = [id(poll(&mut answers).await), id(poll(&mut answers).await)];
        answered.sort_unstable();
        assert_eq!(answered, [Some(1), Some(3)]);
        assert_eq!(poll(&mut answers).await, None);
        bench.answer(2);
        assert_eq!(id(poll(&mut answers).await), Some(2));
    }

    #[tokio::test]
    async fn the_next_request_waits_until_the_one_before_it_is_in_line() {
        let (bench, requests, mut answers, _stop) = open();
        requests.try_send(request(1, "later")).unwrap();
        requests.try_send(request(2, "t")).unwrap();
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names(), [0_u64; 0]);
        bench.held.lock().unwrap().take().unwrap().send(()).unwrap();
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names(), [1, 2]);
    }

    #[tokio::test]
    async fn a_refused_request_does_not_end_the_stream() {
        let (bench, requests, mut answers, _stop) = open();
        requests.try_send(request(1, "bad")).unwrap();
        let nothing = v1::AppendStreamRequest { request_id: 2, append: None };
        requests.try_send(Ok(nothing)).unwrap();
        requests.try_send(request(3, "t")).unwrap();
        for number in [1, 2] {
            let refused = poll(&mut answers).await.unwrap();
            assert_eq!(refused.request_id, number);
            let Some(StreamResult::Error(error)) = refused.result else { panic!("{refused:?}") };
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
        }
        assert_eq!(poll(&mut answers).await, None);
        bench.answer(3);
        assert_eq!(id(poll(&mut answers).await), Some(3));
    }

    #[tokio::test]
    async fn no_more_are_read_than_may_be_unanswered() {
        let (bench, requests, mut answers, _stop) = open();
        let most = u64::try_from(limits::APPEND_STREAM_UNANSWERED_MAX).unwrap();
        for number in 0..most + 10 {
            requests.try_send(request(number, "t")).unwrap();
        }
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names().len(), limits::APPEND_STREAM_UNANSWERED_MAX);
        bench.answer(0);
        assert_eq!(id(poll(&mut answers).await), Some(0));
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names().last(), Some(&most));
    }

    #[tokio::test]
    async fn what_is_open_is_answered_after_the_client_has_closed_its_side() {
        let (bench, requests, mut answers, _stop) = open();
        requests.try_send(request(1, "t")).unwrap();
        drop(requests);
        assert_eq!(poll(&mut answers).await, None);
        bench.answer(1);
        assert_eq!(id(poll(&mut answers).await), Some(1));
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn what_was_read_is_answered_before_the_stream_ends_with_an_error() {
        let (bench, requests, mut answers, _stop) = open();
        requests.try_send(request(1, "t")).unwrap();
        requests.try_send(Err(Status::internal("no request"))).unwrap();
        assert_eq!(poll(&mut answers).await, None);
        bench.answer(1);
        assert_eq!(id(poll(&mut answers).await), Some(1));
        let end = answers.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "no request");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_node_that_stops_answers_what_it_has_taken_and_says_why_it_ends() {
        let (bench, requests, mut answers, stop) = open();
        requests.try_send(request(1, "t")).unwrap();
        assert_eq!(poll(&mut answers).await, None);
        stop.cancel();
        requests.try_send(request(2, "t")).unwrap();
        assert_eq!(poll(&mut answers).await, None);
        assert_eq!(bench.names(), [1]);
        bench.answer(1);
        assert_eq!(id(poll(&mut answers).await), Some(1));
        let end = answers.next().await.unwrap().unwrap_err();
        let error = quipu_proto::error_of_status(&end).unwrap();
        assert_eq!(error.code(), ErrorCode::Stopping);
    }
}
