//! The client: what all its parts share, and the doors to them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::Admin;
use crate::calls::Patience;
use crate::config::{Backoff, ClientConfig, Clock};
use crate::connections::Connections;
use crate::consumer::{Consumer, ConsumerConfig};
use crate::error::{CallError, ConnectError};
use crate::group::{GroupConfig, GroupConsumer};
use crate::groups::Groups;
use crate::producer::{Producer, ProducerConfig};
use crate::routing::Routing;

/// A connection to a cluster: appends, reads, and makes producers and consumers.
///
/// Cheap to clone; clones share connections and what is known of the cluster.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Clock,
    pub(crate) connections: Connections,
    routing: Mutex<Routing>,
    rng: Mutex<fastrand::Rng>,
    /// Held while a node is asked about topics, so that a thousand calls that lost one leader ask
    /// once and not a thousand times.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects to the first of `config.nodes` that answers, and learns of the other nodes.
    ///
    /// Works with nodes that have not formed a cluster yet, so that
    /// [`Admin::init_cluster`](crate::Admin::init_cluster) can be called.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] if none answers, [`ConnectError::InvalidConfig`] before
    /// anything is opened.
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        config.validate()?;
        let mut rng = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let turn = rng.usize(..config.nodes.len());
        let shared = Shared {
            clock: config.clock.clone().unwrap_or_else(Clock::system),
            connections: Connections::new(&config),
            routing: Mutex::new(Routing::new(config.nodes.clone(), turn)),
            rng: Mutex::new(rng),
            refreshing: tokio::sync::Mutex::new(()),
            config,
        };
        let mut tried = Vec::new();
        let nodes = shared.routing().nodes_in_turn(Instant::now());
        for address in nodes {
            match shared.learn_cluster(&address).await {
                Ok(()) => return Ok(Client { shared: Arc::new(shared) }),
                Err(error) => tried.push((address, error)),
            }
        }
        Err(ConnectError::Unreachable { tried })
    }

    /// A producer: many records, batched, in order, each written once.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`].
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, ConnectError> {
        Producer::start(self.clone(), config)
    }

    /// A consumer, to which partitions can be assigned.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`].
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ConnectError> {
        Consumer::start(self.clone(), config)
    }

    /// A consumer that shares topics with the other members of a group. It joins by itself.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`].
    pub fn group_consumer(&self, config: GroupConfig) -> Result<GroupConsumer, ConnectError> {
        GroupConsumer::start(self.clone(), config)
    }

    /// Group offsets.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(self.clone())
    }

    /// Topics, partitions, nodes.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// How many partitions the topic has. Asks the cluster if it is not known yet.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, or what prevents asking.
    pub async fn partition_count(&self, topic: &str) -> Result<u32, CallError> {
        self.shared.partition_count(topic, self.shared.deadline()).await
    }

    /// The configuration as given.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }
}

impl Shared {
    pub(crate) fn routing(&self) -> std::sync::MutexGuard<'_, Routing> {
        self.routing.lock().expect("no panic while the lock is held")
    }

    /// A generator of its own for a part of the client.
    pub(crate) fn fork_rng(&self) -> fastrand::Rng {
        self.rng.lock().expect("no panic while the lock is held").fork()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.config.backoff
    }

    /// When a call that begins now gives up.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.retry_timeout
    }

    /// The limits of an ordinary call that begins now.
    pub(crate) fn patience(&self, repeatable: bool) -> Patience {
        Patience {
            repeatable,
            request_timeout: self.config.request_timeout,
            deadline: self.deadline(),
            may_wait: Duration::ZERO,
            once: false,
        }
    }

    /// What a node is told of our patience: it answers a little earlier than we give up, so that
    /// we hear from it what happened.
    pub(crate) fn request_timeout_ms(&self) -> u32 {
        millis_u32(self.config.request_timeout.mul_f64(0.9)).max(1)
    }

    pub(crate) fn rng(&self) -> std::sync::MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().expect("no panic while the lock is held")
    }
}

/// Whole milliseconds; what is beyond the field's range counts as its greatest value.
pub(crate) fn millis_u32(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}
