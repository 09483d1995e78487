//! Beats: each node asks each other ten times a second, and learns from the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use node_core::ids::NodeUuid;
use node_core::liveness::Liveness as Opinion;
use quipu_proto::peer::v1 as pb;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::directory::Word;
use super::{Liveness, Watched, lock};
use crate::config::Address;
use crate::limits;
use crate::peer::PeerError;

impl Liveness {
    /// Begins to watch another node. Answers `false` if it was watched already.
    pub(crate) fn watch_node(self: &Arc<Self>, node: NodeUuid) -> bool {
        if node == self.me {
            return false;
        }
        let beat_now = {
            let mut watched = lock(&self.watched);
            if watched.contains_key(&node) {
                return false;
            }
            let peer = Watched::new(self.now_ms());
            let beat_now = peer.beat_now.clone();
            watched.insert(node, peer);
            beat_now
        };
        crate::env::spawn(self.clone().beat_on(node, beat_now));
        true
    }

    /// Watches a node no longer.
    pub(crate) fn forget_node(&self, node: NodeUuid) {
        if let Some(peer) = lock(&self.watched).remove(&node) {
            peer.beat_now.notify_one();
        }
        // AFTER it is watched no longer: an answer on its way is not heard any more.
        lock(&self.directory).forget(node);
        self.peers.forget(node);
    }

    /// Watches nobody and no group any longer.
    pub(crate) fn forget_all(&self) {
        lock(&self.pulses).clear();
        for peer in std::mem::take(&mut *lock(&self.watched)).values() {
            peer.beat_now.notify_one();
        }
    }

    /// Asks one node until it is forgotten.
    async fn beat_on(self: Arc<Self>, node: NodeUuid, beat_now: Arc<Notify>) {
        while lock(&self.watched).contains_key(&node) {
            let pause = match self.beat(node).await {
                Ok(()) => limits::BEAT_INTERVAL,
                Err(PeerError::Unreachable { .. }) if self.is_alive(node) => limits::BEAT_RETRY,
                Err(_) => limits::BEAT_INTERVAL,
            };
            drop(tokio::time::timeout(pause, beat_now.notified()).await);
        }
    }

    async fn beat(&self, node: NodeUuid) -> Result<(), PeerError> {
        let Some(link) = self.peers.get(node) else { return Ok(()) };
        let asked = Instant::now();
        let parked_version =
            lock(&self.watched).get(&node).map_or(0, |peer| peer.parked_version_seen);
        let request = pb::BeatRequest {
            cluster_id: Bytes::copy_from_slice(self.cluster_id.as_bytes()),
            from_node: Bytes::copy_from_slice(self.me.0.as_bytes()),
            incarnation: self.incarnation,
            address: self.address.clone(),
            clock_ms: self.clock.now_ms(),
            parked_version,
            unreachable: self.unreachable(),
        };
        let answer = link.beat(request, limits::BEAT_ANSWER_MAX).await;
        match &answer {
            Ok(answer) => {
                self.metrics.peer.beats.inc();
                if answer.removed {
                    self.removed.send_replace(true);
                }
                self.hear(node, asked, answer);
            }
            Err(error) => {
                self.metrics.peer.beats_missed.inc();
                match error {
                    PeerError::Unreachable { .. } => {
                        if let Some(peer) = lock(&self.watched).get_mut(&node) {
                            peer.opinion.unreachable(self.now_ms());
                        }
                    }
                    // A connection that was made while messages were lost one way hangs on when
                    // they are not: the next beat has a new one.
                    PeerError::TimedOut { .. } if self.was_found_dead(node) => link.reset(),
                    PeerError::TimedOut { .. } | PeerError::Refused { .. } => {}
                }
            }
        }
        self.note_opinion(node, answer.is_err());
        answer.map(drop)
    }

    fn hear(&self, node: NodeUuid, asked: Instant, answer: &pb::BeatResponse) {
        let parked = answer.parked_included.then_some(answer.parked.as_slice());
        let word = Word { node, asked, active: &answer.active, parked };
        let restarted;
        {
            let mut watched = lock(&self.watched);
            let Some(peer) = watched.get_mut(&node) else { return };
            restarted = peer.incarnation.is_some_and(|known| known != answer.incarnation);
            // BEFORE another beat to it can be heard: this is the first word of a new process.
            match restarted {
                true => lock(&self.directory).hear_restarted(&word),
                false => lock(&self.directory).hear(&word),
            }
            peer.opinion.answered(self.now_ms(), millis(asked.elapsed()));
            peer.incarnation = Some(answer.incarnation);
            if answer.parked_included {
                peer.parked_version_seen = answer.parked_version;
            }
            peer.unreachable = nodes_of(&answer.unreachable);
            peer.disk_low = answer.disk_low;
            let half = asked.elapsed() / 2;
            let expected = i128::from(self.clock.now_ms()) - half_ms(half);
            let skew = i128::from(answer.clock_ms) - expected;
            peer.clock_skew_ms = i64::try_from(skew).ok();
        }
        self.note_disks();
        if restarted {
            self.wake_groups_of(node);
        }
    }

    /// Looks at a node after a beat to it has ended.
    fn note_opinion(&self, node: NodeUuid, failed: bool) {
        let changed = self.note_change(node);
        if changed || failed || self.someone_is_dead() {
            self.look_now.notify_one();
        }
    }

    /// A node that hangs answers no beat, and its last one ends long after it was found dead.
    pub(super) fn note_silence(&self) {
        let nodes: Vec<NodeUuid> = lock(&self.watched).keys().copied().collect();
        for node in nodes {
            self.note_change(node);
        }
    }

    /// Acts when a node is found dead, or alive again. Answers whether it was.
    fn note_change(&self, node: NodeUuid) -> bool {
        let now = self.now_ms();
        let (died, came_back, silent_ms) = {
            let mut watched = lock(&self.watched);
            let Some(peer) = watched.get_mut(&node) else { return false };
            let dead = peer.opinion.state(now) == Opinion::Dead;
            let (died, came_back) = (dead && !peer.was_dead, !dead && peer.was_dead);
            peer.was_dead = dead;
            if died {
                peer.dead_since = Some(Instant::now());
                // Old news. What a majority does without it must not wait for its disk.
                peer.disk_low = false;
            } else if came_back {
                peer.dead_since = None;
            }
            (died, came_back, peer.opinion.silent_ms(now))
        };
        if died {
            self.note_disks();
            tracing::warn!(%node, silent_ms, "a node is gone; its groups will elect new leaders");
            if let Some(link) = self.peers.get(node) {
                link.reset();
            }
            // The others should look for themselves: a take-over needs a majority's opinion.
            for peer in lock(&self.watched).values() {
                peer.beat_now.notify_one();
            }
        }
        if came_back {
            tracing::info!(%node, "a node is back");
            self.wake_groups_of(node);
        }
        died || came_back
    }

    fn someone_is_dead(&self) -> bool {
        lock(&self.watched).values().any(|peer| peer.was_dead)
    }

    fn unreachable(&self) -> Vec<Bytes> {
        let watched = lock(&self.watched);
        let dead = watched.iter().filter(|(_, peer)| peer.was_dead);
        dead.map(|(node, _)| Bytes::copy_from_slice(node.0.as_bytes()))
            .take(limits::UNREACHABLE_MAX)
            .collect()
    }

    /// Answers another node's beat.
    pub(crate) fn answer(self: &Arc<Self>, request: &pb::BeatRequest) -> pb::BeatResponse {
        if let Ok(uuid) = Uuid::from_slice(&request.from_node) {
            self.heard_from(NodeUuid(uuid), request);
        }
        let leads = lock(&self.leads);
        let age = u32::try_from(leads.made.elapsed().as_millis()).unwrap_or(u32::MAX);
        let older = |lead: &pb::GroupLead| {
            let mut lead = *lead;
            lead.quorum_age_ms = lead.quorum_age_ms.map(|ms| ms.saturating_add(age));
            lead
        };
        let parked_included = request.parked_version != leads.parked_version;
        pb::BeatResponse {
            node_uuid: Bytes::copy_from_slice(self.me.0.as_bytes()),
            incarnation: self.incarnation,
            clock_ms: self.clock.now_ms(),
            active: leads.active.iter().map(older).collect(),
            parked_version: leads.parked_version,
            parked_included,
            parked: if parked_included { leads.parked.clone() } else { Vec::new() },
            unreachable: self.unreachable(),
            disk_low: self.disk_low.load(Ordering::Relaxed),
            // Whoever has the metadata says so.
            removed: false,
        }
    }

    /// A beat from a node is word of it, too; and its hints make this one look.
    fn heard_from(&self, node: NodeUuid, request: &pb::BeatRequest) {
        let mut watched = lock(&self.watched);
        let unreachable = nodes_of(&request.unreachable);
        for dead in &unreachable {
            match watched.get(dead) {
                Some(peer) if !peer.was_dead => peer.beat_now.notify_one(),
                // Its opinion may be the one that a take-over waits for.
                Some(_) => self.look_now.notify_one(),
                None => {}
            }
        }
        let Some(peer) = watched.get_mut(&node) else {
            drop(watched);
            return self.note_stranger(node, &request.address);
        };
        peer.unreachable = unreachable;
        if peer.was_dead {
            peer.beat_now.notify_one();
        }
    }
}

impl Liveness {
    fn note_stranger(&self, node: NodeUuid, address: &str) {
        let mut strangers = lock(&self.strangers);
        let has_room = strangers.len() < limits::STRANGERS_MAX || strangers.contains_key(&node);
        if has_room && node != self.me && address.parse::<Address>().is_ok() {
            strangers.insert(node, address.to_owned());
        }
    }
}

fn nodes_of(uuids: &[Bytes]) -> std::collections::BTreeSet<NodeUuid> {
    let uuids = uuids.iter().take(limits::UNREACHABLE_MAX);
    uuids.filter_map(|uuid| Uuid::from_slice(uuid).ok()).map(NodeUuid).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn half_ms(half: Duration) -> i128 {
    i128::try_from(half.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::env::{Env, Listener, Network, Socket};
    use crate::liveness::LivenessParts;
    use crate::metrics::Metrics;
    use crate::peer::Peers;

    const OTHER: NodeUuid = NodeUuid(Uuid::from_u128(2));

    /// Every connection is made, and then hangs.
    #[derive(Default)]
    struct Hanging(Mutex<Vec<tokio::io::DuplexStream>>);

    impl Hanging {
        fn connections(&self) -> usize {
            self.0.lock().expect("whole").len()
        }
    }

    impl Network for Hanging {
        fn listen(&self, _: String) -> BoxFuture<'static, io::Result<Listener>> {
            std::future::ready(Err(io::ErrorKind::Unsupported.into())).boxed()
        }

        fn connect(&self, _: String) -> BoxFuture<'static, io::Result<Socket>> {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            self.0.lock().expect("whole").push(theirs);
            std::future::ready(Ok(Socket::new(ours))).boxed()
        }
    }

    /// Watches one other node, which is asked only when a test says so.
    fn watching(network: Arc<dyn Network>) -> Arc<Liveness> {
        let peers = Arc::new(Peers::new(network));
        peers.set_address(OTHER, "other:1");
        let liveness = Liveness::new(LivenessParts {
            me: NodeUuid(Uuid::from_u128(1)),
            cluster_id: Uuid::from_u128(7),
            address: "me:1".to_owned(),
            clock: Env::real(PathBuf::new()).clock,
            peers,
            metrics: Arc::new(Metrics::default()),
        });
        lock(&liveness.watched).insert(OTHER, Watched::new(liveness.now_ms()));
        liveness
    }

    fn finds_dead(liveness: &Liveness) {
        let now = liveness.now_ms();
        for _ in 0..2 {
            let mut watched = lock(&liveness.watched);
            watched.get_mut(&OTHER).expect("it is watched").opinion.unreachable(now);
        }
        liveness.note_silence();
        assert!(liveness.was_found_dead(OTHER));
    }

    #[tokio::test]
    async fn a_dead_node_s_full_disk_holds_up_nobody() {
        let liveness = watching(Arc::new(Hanging::default()));
        let says = |disk_low| pb::BeatResponse { disk_low, ..pb::BeatResponse::default() };
        let is_low = || (liveness.any_disk_low(), liveness.disk_low([OTHER].into_iter()));
        liveness.hear(OTHER, Instant::now(), &says(true));
        assert_eq!(is_low(), (true, true));
        finds_dead(&liveness);
        assert_eq!(is_low(), (false, false));
        liveness.hear(OTHER, Instant::now(), &says(true));
        assert_eq!(is_low(), (true, true), "back, it has its say again");
    }

    #[tokio::test]
    async fn whoever_asks_and_is_not_watched_is_known_by_where_it_says_it_is() {
        let liveness = watching(Arc::new(Hanging::default()));
        let asks = |node: u128, address: &str| pb::BeatRequest {
            from_node: Bytes::copy_from_slice(Uuid::from_u128(node).as_bytes()),
            address: address.to_owned(),
            ..pb::BeatRequest::default()
        };
        liveness.answer(&asks(2, "watched:1"));
        liveness.answer(&asks(1, "itself:1"));
        liveness.answer(&asks(3, "no address"));
        liveness.answer(&asks(4, "four:9400"));
        for node in 5..500 {
            liveness.answer(&asks(node, "many:9400"));
        }
        liveness.answer(&asks(4, "moved:9400"));
        let strangers = liveness.strangers();
        assert_eq!(strangers.len(), limits::STRANGERS_MAX);
        let four = strangers.get(&NodeUuid(Uuid::from_u128(4))).map(String::as_str);
        assert_eq!(four, Some("moved:9400"));
        assert!((1..=3).all(|node| !strangers.contains_key(&NodeUuid(Uuid::from_u128(node)))));
    }

    #[tokio::test]
    async fn a_dead_node_is_asked_on_a_new_connection_when_one_hangs() {
        let network = Arc::new(Hanging::default());
        let liveness = watching(network.clone());
        finds_dead(&liveness);
        for connections in 1..=2 {
            let answer = liveness.beat(OTHER).await;
            assert!(matches!(answer, Err(PeerError::TimedOut { .. })), "{answer:?}");
            assert_eq!(network.connections(), connections);
        }
    }
}
