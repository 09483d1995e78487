//! One connection for each node, opened when first needed and shared by all calls.
//!
//! A connection that failed is discarded, so that the next call opens a new one and learns at once
//! whether the node can be reached: what fails before a connection is there has certainly not been
//! sent.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tonic::transport::{Channel, Endpoint};

use crate::config::{ClientConfig, Connector, uri_of};
use crate::error::CallError;

/// The connections of one client.
#[derive(Debug)]
pub(crate) struct Connections {
    connect_timeout: Duration,
    keep_alive: Duration,
    connector: Option<Connector>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_address: BTreeMap<String, Slot>,
    /// Numbers the slots, so that a late failure does not discard a newer connection.
    slots: u64,
}

#[derive(Debug, Clone)]
struct Slot {
    number: u64,
    /// Shared: many calls wait for one connection, and for one refusal.
    connecting: Shared<BoxFuture<'static, Result<Channel, CallError>>>,
}

/// A connection to a node.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    number: u64,
}

impl Connections {
    pub(crate) fn new(config: &ClientConfig) -> Connections {
        Connections {
            connect_timeout: config.connect_timeout,
            keep_alive: config.keep_alive,
            connector: config.connector.clone(),
            open: Mutex::default(),
        }
    }

    /// The connection to `address`, opened if there is none.
    ///
    /// # Errors
    /// Always definite: nothing has been sent.
    pub(crate) async fn get(&self, address: &str) -> Result<Connection, CallError> {
        let slot = self.slot(address);
        match slot.connecting.await {
            Ok(channel) => Ok(Connection { channel, number: slot.number }),
            Err(error) => {
                self.discard_slot(address, slot.number);
                Err(error)
            }
        }
    }

    /// The connection failed a call: open another one next time.
    pub(crate) fn discard(&self, address: &str, connection: &Connection) {
        self.discard_slot(address, connection.number);
    }

    fn slot(&self, address: &str) -> Slot {
        let mut open = self.open.lock().expect("no panic while the lock is held");
        if let Some(slot) = open.by_address.get(address) {
            return slot.clone();
        }
        let connecting = connect(
            address.to_owned(),
            self.connector.clone(),
            self.connect_timeout,
            self.keep_alive,
        );
        open.slots += 1;
        let slot = Slot { number: open.slots, connecting: connecting.boxed().shared() };
        open.by_address.insert(address.to_owned(), slot.clone());
        slot
    }

    fn discard_slot(&self, address: &str, number: u64) {
        let mut open = self.open.lock().expect("no panic while the lock is held");
        if open.by_address.get(address).is_some_and(|slot| slot.number == number) {
            open.by_address.remove(address);
        }
    }
}

async fn connect(
    address: String,
    connector: Option<Connector>,
    connect_timeout: Duration,
    keep_alive: Duration,
) -> Result<Channel, CallError> {
    let uri =
        uri_of(&address).map_err(|error| CallError::unreachable(&address, &error.to_string()))?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .keep_alive_while_idle(false);
    let connecting = async {
        match connector {
            None => endpoint.connect().await,
            Some(connector) => {
                let open = tower::service_fn(move |uri| connector.connect(uri));
                endpoint.connect_with_connector(open).await
            }
        }
    };
    // The endpoint's own limit does not cover the handshake after the socket is open.
    match tokio::time::timeout(connect_timeout, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(CallError::unreachable(&address, &innermost(&error))),
        Err(_) => {
            let reason = format!("no connection within {connect_timeout:?}");
            Err(CallError::unreachable(&address, &reason))
        }
    }
}

fn innermost(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
