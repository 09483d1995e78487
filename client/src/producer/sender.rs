//! The task of a producer: takes batches from the batcher, sends each to its leader, hears the
//! answers, and tells whoever waits.
//!
//! It only sequences. What is a batch is decided in `batcher`, what is sent and sent again in
//! `queue`, when to look where in `agenda`; who leads is `routing`'s guess.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quipu_batch::ProducerIdentity;
use quipu_proto::v1::{self, AppendRequest, AppendStreamRequest, append_stream_response};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::error::{CallError, ErrorCode};
use crate::producer::agenda::Agenda;
use crate::producer::config::ProducerConfig;
use crate::producer::intake::Intake;
use crate::producer::payload::Payload;
use crate::producer::queue::{Attempt, Queue, QueueConfig, Settled};
use crate::producer::stream::{AppendStream, Carried, StreamEvent, StreamNews};
use crate::routing::Lookup;

/// Events that wait for the sender; streams beyond wait with their answers.
const EVENTS_MAX: usize = 1024;

/// What happened while the sender waited.
#[derive(Debug)]
enum Event {
    Stream(StreamEvent),
    Identity(Result<ProducerIdentity, CallError>),
    Topic(Arc<str>, Result<(), CallError>),
}

impl From<StreamEvent> for Event {
    fn from(event: StreamEvent) -> Event {
        Event::Stream(event)
    }
}

/// The task's state.
pub(crate) struct Sender {
    client: Client,
    config: ProducerConfig,
    intake: Arc<Intake>,
    /// By lane of the batcher.
    partitions: Vec<Partition>,
    agenda: Agenda,
    streams: BTreeMap<String, AppendStream>,
    streams_opened: u64,
    requests_sent: u64,
    /// The newest producer id.
    identity: Option<ProducerIdentity>,
    asks_for_identity: bool,
    /// Topics about which the cluster is being asked.
    asked_topics: BTreeSet<Arc<str>>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    rng: fastrand::Rng,
}

struct Partition {
    topic: Arc<str>,
    partition: u32,
    queue: Queue<Payload>,
}

impl Sender {
    /// Runs until the producer is closed and nothing is left to send.
    pub(crate) async fn run(client: Client, config: ProducerConfig, intake: Arc<Intake>) {
        let (events, mut receiver) = mpsc::channel(EVENTS_MAX);
        let rng = client.shared.fork_rng();
        let mut sender = Sender {
            client,
            config,
            intake,
            partitions: Vec::new(),
            agenda: Agenda::default(),
            streams: BTreeMap::new(),
            streams_opened: 0,
            requests_sent: 0,
            identity: None,
            asks_for_identity: false,
            asked_topics: BTreeSet::new(),
            events,
            tasks: JoinSet::new(),
            rng,
        };
        let mut news = Vec::new();
        loop {
            sender.look();
            if sender.intake.room.is_closed() && sender.is_done() {
                return;
            }
            let wake_at = sender.wake_at();
            let intake = Arc::clone(&sender.intake);
            tokio::select! {
                biased;
                _ = receiver.recv_many(&mut news, EVENTS_MAX) => {}
                () = intake.wake.notified() => {}
                () = sleep_until_some(wake_at) => {}
            }
            for event in news.drain(..) {
                sender.take(event);
            }
        }
    }

    fn is_done(&self) -> bool {
        let batcher = self.intake.batcher();
        !batcher.has_unsettled()
    }

    fn wake_at(&self) -> Option<Instant> {
        let timeout = self.answer_timeout();
        let streams = self.streams.values();
        let stuck_at = streams.clone().filter_map(|stream| stream.stuck_at(timeout)).min();
        let suspect_at = streams.filter_map(AppendStream::suspect_at).min();
        [self.agenda.next(), stuck_at, suspect_at].into_iter().flatten().min()
    }

    /// A node answers before this, if only to say that it has not succeeded in time.
    fn answer_timeout(&self) -> Duration {
        self.client.shared.config.request_timeout
    }

    /// Looks at everything that is due.
    fn look(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let now = Instant::now();
        self.look_at_streams(now);
        let touched = self.intake.batcher().take_touched();
        for lane in touched {
            self.agenda.mark(lane);
        }
        loop {
            let due = self.agenda.take_due(now);
            if due.is_empty() {
                break;
            }
            for lane in due {
                self.look_at(lane, now);
            }
        }
        let settled_below = self.intake.batcher().settled_below();
        self.intake.settled_below.send_if_modified(|known| {
            let is_news = *known != settled_below;
            *known = settled_below;
            is_news
        });
    }

    /// Ends streams that are stuck, and asks about those that may be cut off from the others.
    fn look_at_streams(&mut self, now: Instant) {
        let timeout = self.answer_timeout();
        let mut suspicious: BTreeSet<Arc<str>> = BTreeSet::new();
        for (address, stream) in &mut self.streams {
            if stream.stuck_at(timeout).is_some_and(|at| at <= now) {
                stream.give_up(CallError::deadline_passed(address, timeout));
            } else if stream.suspect_at().is_some_and(|at| at <= now) {
                stream.suspect(now);
                self.client.shared.routing().on_suspected(address, now);
                let lanes = stream.unanswered.values().map(|carried| carried.lane);
                suspicious.extend(lanes.map(|lane| Arc::clone(&self.partitions[lane].topic)));
            }
        }
        for topic in suspicious {
            self.ask_about(topic);
        }
    }

    /// Ends suspected streams whose node does not lead any more, as the others say.
    fn leave_deposed(&mut self, topic: &Arc<str>) {
        for (address, stream) in &mut self.streams {
            let routing = self.client.shared.routing();
            let is_deposed = stream.is_suspected()
                && stream.unanswered.values().any(|carried| {
                    let Partition { topic: of, partition, .. } = &self.partitions[carried.lane];
                    let lookup = || routing.leader(of, *partition);
                    of == topic && matches!(lookup(), Lookup::Leader(leader) if leader != *address)
                });
            drop(routing);
            if is_deposed {
                stream.give_up(CallError::deposed(address));
            }
        }
    }

    fn look_at(&mut self, lane: usize, now: Instant) {
        self.meet(lane);
        self.take_batches(lane, now);
        let expired = self.partitions[lane].queue.expire(now);
        self.settle(lane, expired);
        if self.partitions[lane].queue.wants_session() {
            self.give_identity(lane);
        }
        self.send_from(lane, now);

        let queue = &self.partitions[lane].queue;
        let filling = self.intake.batcher().wake_at(lane, queue.has_room());
        if filling.is_some_and(|at| at <= now) {
            // Something came to its end just now and made room.
            self.agenda.mark(lane);
        }
        // A batch that may be sent but was not waits for an event, which marks the lane.
        let times = [filling, queue.wake_at()].into_iter().flatten();
        self.agenda.set(lane, times.filter(|at| *at > now).min());
    }

    /// Lanes are numbered without gaps; all up to `lane` are there after this.
    fn meet(&mut self, lane: usize) {
        let shared = &self.client.shared;
        let config = QueueConfig {
            in_flight: usize::try_from(self.config.in_flight).unwrap_or(1),
            idempotent: self.config.idempotent,
            delivery_timeout: self.config.delivery_timeout,
            backoff: shared.backoff(),
        };
        let batcher = self.intake.batcher();
        while self.partitions.len() <= lane {
            let place = batcher.place(self.partitions.len());
            let (topic, partition) = place.expect("only lanes of the batcher are looked at");
            self.partitions.push(Partition { topic, partition, queue: Queue::new(config) });
        }
    }

    fn take_batches(&mut self, lane: usize, now: Instant) {
        let queue = &mut self.partitions[lane].queue;
        let taken = self.intake.batcher().take(lane, queue.has_room(), now);
        for filling in taken {
            let (number, expires_at) = (filling.number, filling.expires_at);
            let record_count = filling.builder.record_count();
            let payload = Payload::new(
                filling.builder,
                self.config.compression,
                filling.waiting,
                filling.held_bytes,
            );
            queue.push(number, record_count, expires_at, payload);
        }
    }

    fn send_from(&mut self, lane: usize, now: Instant) {
        while self.partitions[lane].queue.can_send(now) {
            let Some(address) = self.leader_of(lane, now) else { return };
            self.open(&address);
            let stream = self.streams.get_mut(&address).expect("just opened");
            if !stream.has_room() {
                stream.held_up.insert(lane);
                return;
            }
            let Partition { topic, partition, queue } = &mut self.partitions[lane];
            let request = self.requests_sent;
            self.requests_sent += 1;
            let Some(outgoing) = queue.send_next(request, now) else { return };
            let batch = outgoing.number;
            let encoded = match outgoing.payload.encode(outgoing.identity) {
                Ok(encoded) => encoded,
                Err(error) => {
                    let ended =
                        queue.on_failed(Attempt { batch, request }, error, now, &mut self.rng);
                    self.settle(lane, ended);
                    continue;
                }
            };
            let append = AppendRequest {
                topic: topic.to_string(),
                partition: *partition,
                batch: encoded,
                expect_end_offset: None,
                timeout_ms: self.client.shared.request_timeout_ms(),
            };
            let request = AppendStreamRequest { request_id: request, append: Some(append) };
            stream.send(request, Carried { lane, batch, sent_at: now });
        }
    }

    /// The leader's address. Where it is not known, the cluster is asked and the lane looked at
    /// again after the answer.
    fn leader_of(&mut self, lane: usize, now: Instant) -> Option<String> {
        let Partition { topic, partition, .. } = &self.partitions[lane];
        let (topic, partition) = (Arc::clone(topic), *partition);
        let lookup = self.client.shared.routing().leader(&topic, partition);
        match lookup {
            Lookup::Leader(address) => Some(address),
            Lookup::LeaderUnknown | Lookup::TopicUnknown => {
                self.ask_about(topic);
                None
            }
            Lookup::NoSuchPartition(count) => {
                let message = format!("topic {topic} has {count} partitions, no {partition}");
                let error = CallError::refused_here(ErrorCode::UnknownPartition, message);
                self.block(lane, &error, now);
                None
            }
        }
    }

    fn open(&mut self, address: &str) {
        if self.streams.contains_key(address) {
            return;
        }
        self.streams_opened += 1;
        let shared = Arc::clone(&self.client.shared);
        let events = self.events.clone();
        let number = self.streams_opened;
        let stream =
            AppendStream::open(shared, address.to_owned(), number, events, &mut self.tasks);
        self.streams.insert(address.to_owned(), stream);
    }

    fn give_identity(&mut self, lane: usize) {
        let queue = &mut self.partitions[lane].queue;
        match self.identity {
            Some(identity) if queue.accepts(identity.id) => {
                queue.on_session(identity.id, identity.epoch);
            }
            _ if self.asks_for_identity => {}
            _ => {
                self.asks_for_identity = true;
                let (client, events) = (self.client.clone(), self.events.clone());
                self.tasks.spawn(async move {
                    let identity = client.new_producer().await;
                    let _ = events.send(Event::Identity(identity)).await;
                });
            }
        }
    }

    fn ask_about(&mut self, topic: Arc<str>) {
        if !self.asked_topics.insert(Arc::clone(&topic)) {
            return;
        }
        let (shared, events) = (Arc::clone(&self.client.shared), self.events.clone());
        self.tasks.spawn(async move {
            let asked = shared.refresh_topic(&topic, Instant::now(), shared.deadline()).await;
            let _ = events.send(Event::Topic(topic, asked)).await;
        });
    }

    fn take(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Stream(StreamEvent { address, number, what }) => {
                // A stream that was replaced has nothing to say any more: its end was reported.
                if self.streams.get(&address).is_some_and(|stream| stream.number == number) {
                    match what {
                        StreamNews::Answer(answer) => self.take_answer(&address, answer, now),
                        StreamNews::Ended(why) => self.take_end(&address, &why, now),
                    }
                }
            }
            Event::Identity(answer) => self.take_identity(answer, now),
            Event::Topic(topic, answer) => self.take_topic(&topic, answer.err(), now),
        }
    }

    fn take_answer(&mut self, address: &str, answer: v1::AppendStreamResponse, now: Instant) {
        let Some(stream) = self.streams.get_mut(address) else { return };
        let Some(carried) = stream.answered(answer.request_id, now) else {
            tracing::warn!(address, request = answer.request_id, "answer to no request of ours");
            return;
        };
        for lane in std::mem::take(&mut stream.held_up) {
            self.agenda.mark(lane);
        }
        let Carried { lane, batch, .. } = carried;
        self.agenda.mark(lane);
        let queue = &mut self.partitions[lane].queue;
        let error = match answer.result {
            Some(append_stream_response::Result::Appended(appended)) => {
                let settled = queue.on_appended(batch, appended);
                self.settle(lane, settled);
                return;
            }
            Some(append_stream_response::Result::Error(error)) => CallError::of_node(error),
            None => CallError::bad_answer(address, "neither an append nor an error"),
        };
        self.learn_from(lane, address, &error, now);
        let queue = &mut self.partitions[lane].queue;
        let error = error.doubted();
        let attempt = Attempt { batch, request: answer.request_id };
        let ended = queue.on_failed(attempt, error, now, &mut self.rng);
        self.settle(lane, ended);
    }

    fn learn_from(&self, lane: usize, address: &str, error: &CallError, now: Instant) {
        let Partition { topic, partition, .. } = &self.partitions[lane];
        let mut routing = self.client.shared.routing();
        if error.is_about_leadership() || error.is(ErrorCode::Stopping) {
            routing.on_refused((topic, *partition), address, error.leader_address(), now);
        } else if error.is_about_existence() {
            routing.forget_topic(topic);
        }
    }

    fn take_end(&mut self, address: &str, why: &CallError, now: Instant) {
        let Some(mut stream) = self.streams.remove(address) else { return };
        tracing::debug!(address, %why, unanswered = stream.unanswered.len(), "stream ended");
        for lane in std::mem::take(&mut stream.held_up) {
            self.agenda.mark(lane);
        }
        for (request, carried) in std::mem::take(&mut stream.unanswered) {
            let Carried { lane, batch, .. } = carried;
            self.agenda.mark(lane);
            let queue = &mut self.partitions[lane].queue;
            let ended =
                queue.on_failed(Attempt { batch, request }, why.clone(), now, &mut self.rng);
            self.settle(lane, ended);
        }
    }

    fn take_identity(&mut self, answer: Result<ProducerIdentity, CallError>, now: Instant) {
        self.asks_for_identity = false;
        let error = match answer {
            Ok(identity) => {
                self.identity = Some(identity);
                None
            }
            Err(error) => Some(error),
        };
        for lane in 0..self.partitions.len() {
            if self.partitions[lane].queue.wants_session() {
                match &error {
                    Some(error) => self.block(lane, error, now),
                    None => self.agenda.mark(lane),
                }
            }
        }
    }

    fn take_topic(&mut self, topic: &Arc<str>, error: Option<CallError>, now: Instant) {
        self.asked_topics.remove(topic);
        self.leave_deposed(topic);
        let unknown = CallError {
            retriable: true,
            ..CallError::refused_here(
                ErrorCode::LeaderUnknown,
                "the partition has no leader known".to_owned(),
            )
        };
        let error = error.unwrap_or(unknown);
        for lane in 0..self.partitions.len() {
            let Partition { topic: of, partition, queue } = &self.partitions[lane];
            if of != topic || !queue.can_send(now) {
                continue;
            }
            let lookup = self.client.shared.routing().leader(topic, *partition);
            match lookup {
                Lookup::Leader(_) | Lookup::NoSuchPartition(_) => self.agenda.mark(lane),
                Lookup::LeaderUnknown | Lookup::TopicUnknown => self.block(lane, &error, now),
            }
        }
    }

    /// Nothing can be sent from this lane now.
    fn block(&mut self, lane: usize, error: &CallError, now: Instant) {
        self.agenda.mark(lane);
        let ended = self.partitions[lane].queue.on_blocked(error, now, &mut self.rng);
        self.settle(lane, ended);
    }

    /// Tells how batches ended and frees their place.
    fn settle(&mut self, lane: usize, settled: impl IntoIterator<Item = Settled<Payload>>) {
        let Partition { topic, partition, .. } = &self.partitions[lane];
        for Settled { number, payload, result } in settled {
            self.intake.room.add_permits(payload.held_bytes);
            payload.tell(topic, *partition, &result);
            self.intake.batcher().settle(number);
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
