//! Node to node: who the other nodes are, and the few connections that all groups share.
//!
//! Between two nodes there are three connections a direction, whatever the number of groups:
//! appends, control (beats, heartbeats, votes, read index) and bulk (snapshots, repairs), so that
//! no vote waits behind a megabyte of entries. Heartbeats of many groups travel in one call.

mod error;
mod link;
mod server;
pub(crate) mod survey;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use node_core::ids::NodeUuid;

pub(crate) use error::PeerError;
pub(crate) use link::PeerLink;
pub(crate) use server::{NOT_LEADER, PURGED, PeerServer, UNREADABLE};

use crate::env::Network;

/// Every other node that this one knows, and how to reach it.
pub(crate) struct Peers {
    network: Arc<dyn Network>,
    // Ordered: it is walked when beats are sent.
    links: Mutex<BTreeMap<NodeUuid, Arc<PeerLink>>>,
}

impl Peers {
    pub(crate) fn new(network: Arc<dyn Network>) -> Self {
        Self { network, links: Mutex::default() }
    }

    /// The link to a node; `address` is used where the directory knows none.
    pub(crate) fn link(&self, node: NodeUuid, address: &str) -> Arc<PeerLink> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(node).or_insert_with(|| self.link_to(address));
        link.clone()
    }

    /// Sets where a node is, as the metadata or the node itself says.
    pub(crate) fn set_address(&self, node: NodeUuid, address: &str) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&node) {
            Some(link) if link.address() == address => {}
            _ => drop(links.insert(node, self.link_to(address))),
        }
    }

    /// The links to all known nodes.
    pub(crate) fn all(&self) -> Vec<Arc<PeerLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The link to a known node.
    pub(crate) fn get(&self, node: NodeUuid) -> Option<Arc<PeerLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Forgets a node that has left.
    pub(crate) fn forget(&self, node: NodeUuid) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// A link to an address of which nothing is known yet.
    pub(crate) fn link_to(&self, address: &str) -> Arc<PeerLink> {
        PeerLink::new(self.network.clone(), address.to_owned())
    }
}
