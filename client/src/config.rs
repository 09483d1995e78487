//! How a client behaves: addresses, time limits, the doors to network, clock and randomness.
//!
//! Plain structs with a `Default`; what contradicts itself is refused by `validate`, before
//! anything is opened.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ConnectError;

/// How to reach a cluster, and how patient to be.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// "host:port" of some nodes of the cluster. One that answers is enough: it tells of the
    /// others.
    pub nodes: Vec<String>,
    /// Longest wait for one connection. Default: 2 s.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to one attempt of a call. Default: 5 s.
    pub request_timeout: Duration,
    /// Longest wait for a call with all its retries. Default: 30 s.
    pub retry_timeout: Duration,
    /// Longest wait for one node's answer about who leads what, before another node is asked.
    /// Default: 1 s.
    pub metadata_timeout: Duration,
    /// Waits between the attempts of a call.
    pub backoff: Backoff,
    /// A connection on which calls wait is probed after so long a silence, and given up if the
    /// probe stays unanswered as long again. Default: 2 s: two busy processors delay a probe.
    pub keep_alive: Duration,
    /// Opens connections in place of TCP. For simulations and tests.
    pub connector: Option<Connector>,
    /// Seed of the jitter and of the choice of partitions and nodes. Without it: entropy.
    pub seed: Option<u64>,
    /// Gives records without a timestamp theirs. Without it: the machine's clock.
    pub clock: Option<Clock>,
}

/// Waits that grow from attempt to attempt, each drawn between half of it and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure. Default: 20 ms.
    pub initial: Duration,
    /// Never longer than this. Default: 250 ms.
    pub max: Duration,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            nodes: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            retry_timeout: Duration::from_secs(30),
            metadata_timeout: Duration::from_secs(1),
            backoff: Backoff::default(),
            keep_alive: Duration::from_secs(2),
            connector: None,
            seed: None,
            clock: None,
        }
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(250) }
    }
}

impl ClientConfig {
    /// The defaults, for these nodes.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = impl Into<String>>) -> ClientConfig {
        ClientConfig { nodes: nodes.into_iter().map(Into::into).collect(), ..Default::default() }
    }

    /// Checks that the configuration makes sense, without opening anything.
    ///
    /// # Errors
    /// [`ConnectError::InvalidConfig`] names the first field that does not.
    pub fn validate(&self) -> Result<(), ConnectError> {
        if self.nodes.is_empty() {
            return Err(invalid("nodes: at least one address is needed"));
        }
        for address in &self.nodes {
            uri_of(address)?;
        }
        let waits = [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("retry_timeout", self.retry_timeout),
            ("metadata_timeout", self.metadata_timeout),
            ("backoff.initial", self.backoff.initial),
            ("keep_alive", self.keep_alive),
        ];
        if let Some((name, _)) = waits.iter().find(|(_, wait)| wait.is_zero()) {
            return Err(invalid(format!("{name}: zero is no time to wait")));
        }
        if self.backoff.max < self.backoff.initial {
            return Err(invalid("backoff.max: less than backoff.initial"));
        }
        Ok(())
    }
}

/// The URI of a "host:port".
pub(crate) fn uri_of(address: &str) -> Result<Uri, ConnectError> {
    let uri: Uri = format!("http://{address}")
        .parse()
        .map_err(|error| invalid(format!("address {address:?}: {error}")))?;
    match uri.authority() {
        Some(authority)
            if !authority.host().is_empty()
                && authority.port_u16().is_some()
                && uri.path() == "/" =>
        {
            Ok(uri)
        }
        _ => Err(invalid(format!("address {address:?}: expected host:port"))),
    }
}

fn invalid(reason: impl Into<String>) -> ConnectError {
    ConnectError::InvalidConfig(reason.into())
}

/// A connection: bytes both ways.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

pub(crate) type BoxSocket = TokioIo<Box<dyn Socket>>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxSocket>> + Send>>;

/// Opens connections. A simulator passes its own sockets through it.
///
/// ```
/// use quipu_client::Connector;
///
/// let connector = Connector::new(|uri| async move {
///     let authority = uri.authority().expect("a node's address has one").as_str().to_owned();
///     tokio::net::TcpStream::connect(authority).await
/// });
/// ```
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn(Uri) -> Connecting + Send + Sync>);

impl Connector {
    /// A connector that calls `connect` with `http://host:port/` for each connection.
    pub fn new<C, F, S>(connect: C) -> Connector
    where
        C: Fn(Uri) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Socket + 'static,
    {
        Connector(Arc::new(move |uri| {
            let connecting = connect(uri);
            Box::pin(async move {
                let socket: Box<dyn Socket> = Box::new(connecting.await?);
                Ok(TokioIo::new(socket))
            })
        }))
    }

    pub(crate) fn connect(&self, uri: Uri) -> Connecting {
        (self.0)(uri)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Tells the time of day, in milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// A clock that asks `now_ms`.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now_ms))
    }

    /// The machine's clock; a time before 1970 reads as 0.
    #[must_use]
    pub fn system() -> Clock {
        Clock::new(|| {
            #[allow(clippy::disallowed_methods, reason = "the one place; simulations pass a Clock")]
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_once_a_node_is_named() {
        assert!(ClientConfig::default().validate().is_err());
        assert_eq!(ClientConfig::new(["127.0.0.1:9400"]).validate(), Ok(()));
    }

    #[test]
    fn an_address_needs_host_and_port_and_nothing_else() {
        for address in ["localhost", "localhost:", ":7", "a b:7", "host:7/path", "", "http://h:7"] {
            let refused = ClientConfig::new([address]).validate();
            assert!(refused.is_err(), "{address:?} was taken");
        }
        for address in ["localhost:7", "10.0.0.1:7000", "[::1]:7"] {
            assert_eq!(ClientConfig::new([address]).validate(), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_wait_of_zero_is_refused_by_name() {
        let config =
            ClientConfig { request_timeout: Duration::ZERO, ..ClientConfig::new(["localhost:7"]) };
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("request_timeout"), "{error}");
    }
}
