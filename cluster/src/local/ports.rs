//! Which ports the nodes of a local cluster take, and whether they are free.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use anyhow::bail;

/// Where `cluster up` begins if nothing else is said.
pub(crate) const BASE_PORT: u16 = 9400;

/// Metrics and health are served so many ports above gRPC.
const HTTP_PORT_DISTANCE: u16 = 100;

/// Below the range from which the system gives ports to outgoing connections: one of those could
/// otherwise take the port of a node that is down for a moment.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports that are tried until enough are found to be free.
const FREE_PORTS_TRIED_MAX: usize = 1_000;

/// The two ports of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodePorts {
    /// gRPC, for clients and for the other nodes.
    pub(crate) listen: u16,
    /// Metrics and health.
    pub(crate) http: u16,
}

/// Ports of `count` nodes, counted from `base_port`.
pub(crate) fn counted_from(base_port: u16, count: u16) -> anyhow::Result<Vec<NodePorts>> {
    (0..count)
        .map(|index| {
            let listen = base_port.checked_add(index);
            let http = listen.and_then(|port| port.checked_add(HTTP_PORT_DISTANCE));
            match (listen, http) {
                (Some(listen), Some(http)) => Ok(NodePorts { listen, http }),
                _ => bail!("{count} nodes from port {base_port} on go beyond port 65535"),
            }
        })
        .collect()
}

/// Ports that nothing listens on at this moment. All are held until the last is known, so that
/// they differ.
pub(crate) fn free(count: u16) -> anyhow::Result<Vec<NodePorts>> {
    let wanted = usize::from(count) * 2;
    let mut held = Vec::new();
    for _ in 0..FREE_PORTS_TRIED_MAX {
        if held.len() == wanted {
            break;
        }
        let port = fastrand::u16(FREE_PORTS);
        held.extend(listener(port).map(|listener| (port, listener)));
    }
    if held.len() < wanted {
        bail!("no {wanted} free ports between {} and {}", FREE_PORTS.start, FREE_PORTS.end);
    }
    let ports = |pair: &[(u16, TcpListener)]| NodePorts { listen: pair[0].0, http: pair[1].0 };
    Ok(held.chunks_exact(2).map(ports).collect())
}

/// Refuses ports that something listens on, before anything is started.
pub(crate) fn check_free(ports: impl IntoIterator<Item = u16>) -> anyhow::Result<()> {
    for port in ports {
        if let Err(error) = listener(port) {
            bail!(
                "port {port} on 127.0.0.1 is busy ({error}); nothing was started. Stop what \
                 listens there, or choose other ports with --base-port"
            );
        }
    }
    Ok(())
}

fn listener(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_from_the_base() {
        let ports = counted_from(9400, 2).unwrap();
        assert_eq!(ports[1], NodePorts { listen: 9401, http: 9501 });
        assert!(counted_from(65_500, 3).is_err());
    }

    #[test]
    fn free_ports_differ_from_each_other() {
        let mut ports: Vec<u16> =
            free(3).unwrap().iter().flat_map(|ports| [ports.listen, ports.http]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }

    #[test]
    fn a_busy_port_is_named_before_anything_starts() {
        let taken = listener(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_free([port]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} on 127.0.0.1 is busy")), "{error}");
        drop(taken);
        assert!(check_free([port]).is_ok());
    }
}
