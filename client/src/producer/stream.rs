//! One append stream to one node: requests in, answers and its end out.
//!
//! The task decides nothing. It opens the stream, passes what comes, and reports once why the
//! stream ended; the sender then knows which requests were never answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quipu_proto::v1::{AppendStreamRequest, AppendStreamResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::calls::SUSPECT_AFTER;
use crate::client::Shared;
use crate::connections::Connection;
use crate::error::{CallError, Code, Outcome};
use crate::read::log_client;

/// Requests of one stream that may be unanswered. The node limits them too, by not reading.
pub(crate) const UNANSWERED_MAX: usize = 1024;

/// The sender's end of a stream.
#[derive(Debug)]
pub(crate) struct AppendStream {
    pub(crate) number: u64,
    requests: mpsc::Sender<AppendStreamRequest>,
    /// Request to what it carries. Requests are numbered upwards, so the first is the oldest.
    pub(crate) unanswered: BTreeMap<u64, Carried>,
    /// Partitions that wait for room in this stream.
    pub(crate) held_up: BTreeSet<usize>,
    /// Takes the reason for ending the stream. `None`: it was given.
    give_up: Option<oneshot::Sender<CallError>>,
    /// When the other nodes were last asked whether this one still leads.
    suspected_at: Option<Instant>,
    /// When an answer came last.
    heard_at: Instant,
    /// When a younger request than the oldest one was first answered.
    overtaken_at: Option<Instant>,
    task: AbortHandle,
}

/// What a request carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    pub(crate) lane: usize,
    pub(crate) batch: u64,
    pub(crate) sent_at: Instant,
}

/// What a stream reports.
#[derive(Debug)]
pub(crate) struct StreamEvent {
    pub(crate) address: String,
    pub(crate) number: u64,
    pub(crate) what: StreamNews,
}

#[derive(Debug)]
pub(crate) enum StreamNews {
    Answer(AppendStreamResponse),
    /// The last event: nothing more comes.
    Ended(CallError),
}

impl AppendStream {
    /// Opens a stream to `address`; its events go to `events`.
    pub(crate) fn open<E>(
        shared: Arc<Shared>,
        address: String,
        number: u64,
        events: mpsc::Sender<E>,
        tasks: &mut JoinSet<()>,
    ) -> AppendStream
    where
        E: From<StreamEvent> + Send + 'static,
    {
        let (requests, receiver) = mpsc::channel(UNANSWERED_MAX);
        let (give_up, told) = oneshot::channel();
        let line = Line { shared, address, number, events };
        let task = tasks.spawn(async move {
            let why = line.converse(receiver, told).await;
            line.report(StreamNews::Ended(why)).await;
        });
        AppendStream {
            number,
            requests,
            unanswered: BTreeMap::new(),
            held_up: BTreeSet::new(),
            give_up: Some(give_up),
            suspected_at: None,
            heard_at: Instant::now(),
            overtaken_at: None,
            task,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.unanswered.len() < UNANSWERED_MAX
    }

    /// Sends a request. A stream that has ended takes it in silence: its end is reported, and all
    /// that is unanswered then counts as sent.
    pub(crate) fn send(&mut self, request: AppendStreamRequest, carried: Carried) {
        assert!(self.has_room(), "the sender asks first");
        self.unanswered.insert(request.request_id, carried);
        // Never full: the channel holds as many as may be unanswered.
        let _ = self.requests.try_send(request);
    }

    /// Takes the request that was answered; `None`: there is no such request.
    pub(crate) fn answered(&mut self, request: u64, now: Instant) -> Option<Carried> {
        self.heard_at = now;
        let is_oldest = self.unanswered.keys().next() == Some(&request);
        let carried = self.unanswered.remove(&request)?;
        if is_oldest {
            self.overtaken_at = None;
        } else {
            self.overtaken_at.get_or_insert(now);
        }
        Some(carried)
    }

    /// When the stream counts as stuck if nothing is heard until then. `None`: nothing is owed.
    ///
    /// A node that answers something is slow and not stuck, because requests may wait long in a
    /// full stream. But it takes them in order, and answers each within `timeout` of taking it: so
    /// long after a younger one was answered, the oldest is lost.
    pub(crate) fn stuck_at(&self, timeout: Duration) -> Option<Instant> {
        let oldest = self.unanswered.values().next().filter(|_| self.give_up.is_some())?;
        let since = self.overtaken_at.unwrap_or(oldest.sent_at.max(self.heard_at));
        Some(since + timeout)
    }

    /// When to ask the other nodes whether this one still leads, if nothing is heard until then.
    pub(crate) fn suspect_at(&self) -> Option<Instant> {
        let oldest = self.unanswered.values().next().filter(|_| self.give_up.is_some())?;
        let heard_at = oldest.sent_at.max(self.heard_at);
        Some(self.suspected_at.map_or(heard_at, |at| at.max(heard_at)) + SUSPECT_AFTER)
    }

    /// Remembers that the others are being asked.
    pub(crate) fn suspect(&mut self, now: Instant) {
        self.suspected_at = Some(now);
    }

    /// The node was suspected since it was heard last.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected_at.is_some_and(|at| at > self.heard_at)
    }

    /// Ends the stream, which is then reported as ended by `why`.
    pub(crate) fn give_up(&mut self, why: CallError) {
        if let Some(give_up) = self.give_up.take() {
            // A stream that has ended by itself reports that.
            let _ = give_up.send(why);
        }
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's end of a stream.
struct Line<E> {
    shared: Arc<Shared>,
    address: String,
    number: u64,
    events: mpsc::Sender<E>,
}

impl<E: From<StreamEvent>> Line<E> {
    /// Runs the stream until it ends, and says why it did.
    async fn converse(
        &self,
        requests: mpsc::Receiver<AppendStreamRequest>,
        mut give_up: oneshot::Receiver<CallError>,
    ) -> CallError {
        let gone = || CallError::local(Code::Closed, "the producer is gone".to_owned());
        let connected = tokio::select! {
            biased;
            why = &mut give_up => return why.unwrap_or_else(|_| gone()),
            connected = self.shared.connection(&self.address) => connected,
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let why = tokio::select! {
            biased;
            why = give_up => why.unwrap_or_else(|_| gone()),
            why = self.pass_answers(&connection, requests) => why,
        };
        if why.is_about_the_connection() {
            self.shared.on_broken(&self.address, &connection);
        }
        why
    }

    async fn pass_answers(
        &self,
        connection: &Connection,
        requests: mpsc::Receiver<AppendStreamRequest>,
    ) -> CallError {
        let mut log = log_client(connection.channel.clone());
        let opened = log.append_stream(ReceiverStream::new(requests)).await;
        let mut answers = match opened {
            Ok(answers) => answers.into_inner(),
            Err(status) => return ended_by(&self.address, &status),
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => self.report(StreamNews::Answer(answer)).await,
                Ok(None) => {
                    let message = format!("{}: the node ended the stream", self.address);
                    return CallError::local(Code::ConnectionLost, message);
                }
                Err(status) => return ended_by(&self.address, &status),
            }
        }
    }

    async fn report(&self, what: StreamNews) {
        let event = StreamEvent { address: self.address.clone(), number: self.number, what };
        // A sender that is gone has aborted this task.
        let _ = self.events.send(event.into()).await;
    }
}

/// What ended the stream. However definite a node is about that, it says nothing about the
/// requests that it has taken out of the stream before.
fn ended_by(address: &str, status: &tonic::Status) -> CallError {
    let error = CallError::of_status(address, status);
    match error.code {
        Code::Unreachable => error,
        _ => CallError { outcome: Outcome::Unknown, ..error },
    }
}
