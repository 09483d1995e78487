//! One unary call to the right node, with its retries.
//!
//! `call` is the one place where a unary call meets time limits, routing and retries. Whoever
//! uses it says what the call is about ([`Target`]) and whether sending it twice does harm.
//! What is not known about the cluster yet is asked by `discovery`.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::Shared;
use crate::connections::Connection;
use crate::error::{CallError, ErrorCode};
use crate::retry::{Attempts, Next};
use crate::routing::Lookup;

/// What a call is about, and so which node can answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The leader of a partition.
    Leader(String, u32),
    /// The leader of the Raft group that keeps this consumer group.
    Coordinator(String),
    /// The leader of the metadata group.
    Metadata,
    /// Any node.
    Any,
    /// The node of this label and no other.
    Node(u64),
    /// The node at this address and no other.
    Address(String),
}

/// A leader that has not answered for so long is suspected: the others are asked whether it leads.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Sending the call twice does no harm.
    pub(crate) repeatable: bool,
    /// For one attempt, besides `may_wait`.
    pub(crate) request_timeout: Duration,
    /// How long the node is asked to wait before it answers.
    pub(crate) may_wait: Duration,
    /// For all of them.
    pub(crate) deadline: Instant,
    /// One attempt is all.
    pub(crate) once: bool,
}

impl Shared {
    /// Sends a call to the node that can answer it, follows redirects, retries what may be
    /// retried.
    ///
    /// # Errors
    /// The last failure; unknown if any attempt may have had its effect.
    pub(crate) async fn call<T, F, R>(
        &self,
        target: &Target,
        patience: Patience,
        request: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Channel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = Attempts::new(self.backoff(), patience.deadline, patience.repeatable);
        let mut strangers = 0;
        loop {
            let error = match self.attempt(target, patience, &request).await {
                Ok(answer) => return Ok(answer),
                Err(error) if patience.once => return Err(error),
                // A node may not have joined yet; that no cluster is there all must say.
                Err(error) if error.is(ErrorCode::NotInitialized) => {
                    strangers += 1;
                    if strangers < self.routing().nodes_count() {
                        continue;
                    }
                    error
                }
                Err(error) => error,
            };
            match self.after_failure(&mut attempts, error) {
                Next::RetryAt(at) => sleep_until(at).await,
                Next::GiveUp(error) => return Err(error),
            }
        }
    }

    pub(crate) fn after_failure(&self, attempts: &mut Attempts, error: CallError) -> Next {
        attempts.on_failure(error, Instant::now(), &mut self.rng())
    }

    async fn attempt<T, F, R>(
        &self,
        target: &Target,
        patience: Patience,
        request: &F,
    ) -> Result<T, CallError>
    where
        F: Fn(Channel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let address = self.resolve(target, patience.deadline).await?;
        let attempt = self.attempt_at(&address, patience, request);
        let answer = match target {
            Target::Leader(topic, partition) if patience.repeatable => {
                tokio::select! {
                    biased;
                    answer = attempt => answer,
                    deposed = self.deposed(topic, *partition, &address, patience) => Err(deposed),
                }
            }
            _ => attempt.await,
        };
        self.learn_from(target, &address, answer.as_ref().err());
        answer.map_err(|error| match target {
            Target::Leader(..) => error.doubted(),
            _ => error,
        })
    }

    /// Returns when another node is said to lead instead of `address`, which does not answer. So a
    /// failover is noticed though the old leader was cut off and no connection breaks.
    async fn deposed(
        &self,
        topic: &str,
        partition: u32,
        address: &str,
        patience: Patience,
    ) -> CallError {
        sleep(patience.may_wait).await;
        loop {
            sleep(SUSPECT_AFTER).await;
            self.routing().on_suspected(address, Instant::now());
            // Where nobody knows, there is nobody else to ask.
            let _ = self.refresh_topic(topic, Instant::now(), patience.deadline).await;
            let lookup = self.routing().leader(topic, partition);
            if matches!(lookup, Lookup::Leader(leader) if leader != address) {
                return CallError::deposed(address);
            }
        }
    }

    /// One attempt at one node.
    pub(crate) async fn attempt_at<T, F, R>(
        &self,
        address: &str,
        patience: Patience,
        request: &F,
    ) -> Result<T, CallError>
    where
        F: Fn(Channel) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = self.connection(address).await?;
        let begun_at = Instant::now();
        let limit = begun_at + patience.request_timeout + patience.may_wait;
        let limit = limit.min(patience.deadline);
        let answer = match timeout_at(limit, request(connection.channel.clone())).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CallError::of_status(address, &status)),
            Err(_) => Err(CallError::deadline_passed(address, limit - begun_at)),
        };
        match &answer {
            Err(error) if error.is_about_the_connection() => self.on_broken(address, &connection),
            Err(error) if error.is(ErrorCode::NotInitialized) => {
                self.routing().on_unreachable(address, Instant::now());
            }
            Ok(_) | Err(_) => self.routing().on_reachable(address),
        }
        answer
    }

    /// The connection to a node; remembers when it cannot be reached.
    pub(crate) async fn connection(&self, address: &str) -> Result<Connection, CallError> {
        let connected = self.connections.get(address).await;
        if connected.is_err() {
            self.routing().on_unreachable(address, Instant::now());
        }
        connected
    }

    /// The node or its connection failed.
    pub(crate) fn on_broken(&self, address: &str, connection: &Connection) {
        self.connections.discard(address, connection);
        self.routing().on_unreachable(address, Instant::now());
    }

    /// What the answer of `address` says about who is responsible for `target`.
    fn learn_from(&self, target: &Target, address: &str, error: Option<&CallError>) {
        if error.is_some_and(CallError::is_about_the_connection) {
            return;
        }
        let mut routing = self.routing();
        let hint = error.and_then(CallError::leader_address);
        let moved = error.is_some_and(CallError::is_about_leadership);
        match target {
            Target::Leader(topic, partition) if moved => {
                routing.on_refused((topic, *partition), address, hint, Instant::now());
            }
            Target::Leader(topic, _) => {
                if error.is_some_and(CallError::is_about_existence) {
                    routing.forget_topic(topic);
                }
            }
            Target::Coordinator(group) => {
                routing.set_coordinator(group, if moved { hint } else { Some(address) });
            }
            Target::Metadata => {
                routing.set_metadata_leader(if moved { hint } else { Some(address) });
            }
            Target::Any | Target::Node(_) | Target::Address(_) => {}
        }
    }

    async fn resolve(&self, target: &Target, deadline: Instant) -> Result<String, CallError> {
        let known = match target {
            Target::Leader(topic, partition) => {
                return self.leader(topic, *partition, deadline).await;
            }
            Target::Node(node) => return self.node(*node).await,
            Target::Address(address) => Some(address.clone()),
            Target::Coordinator(group) => self.routing().coordinator(group),
            Target::Metadata => self.routing().metadata_leader(),
            Target::Any => None,
        };
        Ok(known.unwrap_or_else(|| self.any_node()))
    }

    pub(crate) fn any_node(&self) -> String {
        let nodes = self.routing().nodes_in_turn(Instant::now());
        nodes.into_iter().next().expect("there is at least the seed")
    }
}
