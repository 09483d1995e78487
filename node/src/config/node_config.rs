//! What a node is told before it starts: one plain struct, in the units in which it is used.
//!
//! Where the values come from (flags, environment, file) is `settings` and its neighbours. A test
//! or a simulation writes `NodeConfig { node_id: 2, ..NodeConfig::default() }` and runs
//! [`NodeConfig::check`]; `quipud` does the same, so both run under the same rules.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use node_core::ids::RackName;

use crate::config::address::Address;
use crate::limits;
use crate::version::Release;

/// The configuration of one node. [`NodeConfig::check`] says whether it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Label of the node for people, at least 1. Its identity is a UUID in `data_dir`.
    pub node_id: u64,
    /// Where gRPC is served, for clients and peers alike. The port is above 0.
    pub listen: SocketAddr,
    /// What other nodes and clients are told to connect to.
    pub advertise: Address,
    /// The directory that the node owns. Created if it is missing.
    pub data_dir: PathBuf,
    /// Nodes to ask for the cluster. May name this node too, so that all nodes share one list.
    pub join: Vec<Address>,
    /// What may fail with this node at once: its rack, room or zone.
    pub rack: Option<RackName>,
    /// Where metrics and health are served over HTTP; `None`: nowhere. Port 0: any free port.
    pub http_listen: Option<SocketAddr>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Bytes of batches that may be between their arrival and their answer, over all connections.
    /// Beyond, appends are answered OVERLOADED.
    pub append_in_flight_bytes_max: u64,
    /// Free bytes on the disk of `data_dir` below which appends are answered DISK_FULL.
    pub disk_reserve_bytes: u64,
    /// Sizes of the storage engine.
    pub storage: StorageConfig,
    /// A follower that hears nothing for this long may call an election.
    pub election_timeout: Duration,
    /// Pause between two beats of a pair of nodes, and between heartbeats of a busy group.
    pub heartbeat: Duration,
    /// What the node says it is. Not a setting: only tests say anything but this build.
    pub release: Release,
}

/// What is logged on standard error, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// Which events, in the syntax of tracing-subscriber's `EnvFilter`: "info", "info,node=debug".
    pub level: String,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sizes of the storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageConfig {
    /// Memory for blocks that were read from disk, shared by all column families.
    pub cache_bytes: u64,
    /// Size of one write buffer; when it is full it is written out as a file.
    pub write_buffer_bytes: u64,
}

/// A rule that two settings break together, or one on its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidConfig {
    /// The setting to change.
    pub key: &'static str,
    /// What is wrong with its value, and what to do.
    pub reason: String,
}

impl Default for NodeConfig {
    /// A valid single node on loopback. `quipud` itself insists on `node_id` and `data_dir`.
    fn default() -> NodeConfig {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9400);
        NodeConfig {
            node_id: 1,
            listen,
            advertise: listen.into(),
            data_dir: PathBuf::from("quipu-data"),
            join: Vec::new(),
            rack: None,
            http_listen: None,
            log: LogConfig { format: LogFormat::Text, level: "info".to_owned() },
            append_in_flight_bytes_max: 64 << 20,
            disk_reserve_bytes: 512 << 20,
            storage: StorageConfig { cache_bytes: 64 << 20, write_buffer_bytes: 64 << 20 },
            election_timeout: Duration::from_millis(1500),
            heartbeat: Duration::from_millis(300),
            release: Release::default(),
        }
    }
}

impl NodeConfig {
    /// Checks every rule that `quipud` would not start without.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        self.check_addresses()?;
        if self.node_id == 0 {
            return invalid("node-id", "must be 1 or more");
        }
        if self.data_dir.as_os_str().is_empty() {
            return invalid("data-dir", "must not be empty");
        }
        if self.append_in_flight_bytes_max < limits::APPEND_IN_FLIGHT_BYTES_MIN {
            return invalid(
                "max-append-in-flight-bytes",
                format!(
                    "must be at least {}, so that the greatest batch can be appended at all",
                    limits::APPEND_IN_FLIGHT_BYTES_MIN
                ),
            );
        }
        if self.election_timeout < self.heartbeat * limits::HEARTBEATS_PER_ELECTION_TIMEOUT_MIN {
            return invalid(
                "election-timeout-ms",
                format!(
                    "must be at least {} times heartbeat-ms ({}), so that one late heartbeat does \
                     not cost the leader its place",
                    limits::HEARTBEATS_PER_ELECTION_TIMEOUT_MIN,
                    self.heartbeat.as_millis()
                ),
            );
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), InvalidConfig> {
        if self.listen.port() == 0 {
            return invalid("listen", "needs a port above 0, because other nodes must find it");
        }
        if self.advertise.is_unspecified() {
            let reason = format!(
                "{} can be listened on but not connected to; set advertise to an address of this \
                 host that the other nodes and the clients reach",
                self.advertise
            );
            return invalid("advertise", reason);
        }
        if self.advertise.port() == 0 {
            return invalid("advertise", "needs a port above 0");
        }
        if self.http_listen.is_some_and(|http| collide(http, self.listen)) {
            let reason = format!("{} is where gRPC is served; take another port", self.listen);
            return invalid("http-listen", reason);
        }
        Ok(())
    }
}

/// Whether both can't be bound at once. A wildcard covers the port on every address.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn invalid(key: &'static str, reason: impl Into<String>) -> Result<(), InvalidConfig> {
    Err(InvalidConfig { key, reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_key(config: &NodeConfig) -> &'static str {
        config.check().expect_err("refused").key
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(NodeConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_wildcard_may_be_listened_on_but_not_advertised() {
        let listen: SocketAddr = "0.0.0.0:9400".parse().unwrap();
        let config = NodeConfig { listen, ..NodeConfig::default() };
        assert_eq!(config.check(), Ok(()));
        let advertised = NodeConfig { advertise: listen.into(), ..config };
        assert_eq!(refused_key(&advertised), "advertise");
    }

    #[test]
    fn http_and_grpc_cannot_share_a_port() {
        let wildcard = NodeConfig {
            http_listen: Some("0.0.0.0:9400".parse().unwrap()),
            ..NodeConfig::default()
        };
        assert_eq!(refused_key(&wildcard), "http-listen");
        let other_host = NodeConfig {
            http_listen: Some("127.0.0.2:9400".parse().unwrap()),
            ..NodeConfig::default()
        };
        assert_eq!(other_host.check(), Ok(()));
    }

    #[test]
    fn an_election_timeout_close_to_the_heartbeat_is_refused() {
        let config = NodeConfig {
            election_timeout: Duration::from_millis(899),
            heartbeat: Duration::from_millis(300),
            ..NodeConfig::default()
        };
        assert_eq!(refused_key(&config), "election-timeout-ms");
    }

    #[test]
    fn the_greatest_batch_must_fit_in_flight() {
        let config = NodeConfig {
            append_in_flight_bytes_max: limits::APPEND_IN_FLIGHT_BYTES_MIN - 1,
            ..NodeConfig::default()
        };
        assert_eq!(refused_key(&config), "max-append-in-flight-bytes");
    }
}
