//! Where a node can be reached: "host:port", as it is written in a configuration and sent to peers.
//!
//! Only the form is checked here. A name is resolved at each connect, because a node that moves
//! keeps its name and not its number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest host name in bytes, as in DNS.
const HOST_BYTES_MAX: usize = 253;

/// A host name or IP address, and a port above 0. IPv6 addresses stand in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address; write host:port, such as 10.0.0.5:9400, node-1.example:9400 or [::1]:9400"
)]
pub struct NotAnAddress;

impl Address {
    /// Whether this is 0.0.0.0 or `[::]`: good to listen on, impossible to connect to.
    pub fn is_unspecified(&self) -> bool {
        matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }

    /// The port; 0 only where the address was made from a socket's.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for Address {
    fn from(socket: SocketAddr) -> Address {
        Address { host: Host::Ip(socket.ip()), port: socket.port() }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Address, NotAnAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        // `u16` also takes "+9400".
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAnAddress);
        }
        let port: u16 = port.parse().map_err(|_| NotAnAddress)?;
        if port == 0 {
            return Err(NotAnAddress);
        }
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(ip) => Host::Ip(ip.parse::<Ipv6Addr>().map_err(|_| NotAnAddress)?.into()),
            None => host_outside_brackets(host)?,
        };
        Ok(Address { host, port })
    }
}

fn host_outside_brackets(host: &str) -> Result<Host, NotAnAddress> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // A last label of digits is a mistyped IP address, never a name (RFC 3696, section 2).
    let last_label = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let numeric = last_label.bytes().all(|byte| byte.is_ascii_digit());
    if host.len() > HOST_BYTES_MAX || numeric || !host.bytes().all(allowed) {
        return Err(NotAnAddress);
    }
    Ok(Host::Name(host.to_owned()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_was_written() {
        for text in ["127.0.0.1:9400", "node-1.example:9400", "[::1]:65535", "quipu_1:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_nobody_could_connect_to_is_no_address() {
        let bad = [
            "",
            ":",
            "9400",
            "host",
            "host:",
            ":9400",
            "host:0",
            "host:65536",
            "host:+1",
            "http://host:9400",
            "a b:9400",
            "::1:9400",
            "[::1]",
            "[host]:9400",
            "10.0.0.256:9400",
            "10.0.0:9400",
            "höst:9400",
            ".:9400",
        ];
        for text in bad {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn only_the_two_wildcards_are_unspecified() {
        let unspecified = |text: &str| text.parse::<Address>().unwrap().is_unspecified();
        assert!(unspecified("0.0.0.0:1"));
        assert!(unspecified("[::]:1"));
        assert!(!unspecified("127.0.0.1:1"));
        assert!(!unspecified("host:1"));
    }
}
