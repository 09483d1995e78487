//! Decides whether a peer is alive, from what was heard of it. Pure: time is an argument.
//!
//! A peer beats every few hundred milliseconds. Silence makes it suspect, then dead; that is all
//! there is when a machine or its network stops. A process that died is known sooner: its host
//! refuses connections. One refusal may be chance (a connection made just while it restarts), two
//! in a row are not.
//!
//! Dead is an opinion, not a fact: it starts elections early, and elections are safe whoever is
//! wrong. Hearing the peer again makes it alive at once.

/// When to think what. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence that makes a peer suspect.
    pub suspect_after_ms: u64,
    /// Silence that makes a peer dead; several missed beats.
    pub dead_after_ms: u64,
    /// Two refusals in a row, no further apart than this, make a peer dead at once.
    pub refusals_within_ms: u64,
}

impl Default for LivenessConfig {
    fn default() -> LivenessConfig {
        LivenessConfig { suspect_after_ms: 600, dead_after_ms: 1_200, refusals_within_ms: 250 }
    }
}

/// What to think of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Heard of lately.
    Alive,
    /// Overdue, or refused once: prefer others, but start nothing.
    Suspect,
    /// Elections without it should start.
    Dead,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLiveness {
    config: LivenessConfig,
    heard_ms: u64,
    refusals: Refusals,
}

/// Refused connections since the peer was heard last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusals {
    None,
    One {
        at_ms: u64,
    },
    /// Two in a row, close together.
    Enough,
}

impl PeerLiveness {
    /// A peer not heard of yet counts as heard at `now_ms`: it gets its time to say something.
    #[must_use]
    pub fn new(now_ms: u64, config: LivenessConfig) -> PeerLiveness {
        PeerLiveness { config, heard_ms: now_ms, refusals: Refusals::None }
    }

    /// Something of the peer arrived.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
        self.refusals = Refusals::None;
    }

    /// A connection to the peer was refused or reset. Time-outs are not reported here: they are
    /// silence.
    pub fn unreachable(&mut self, now_ms: u64) {
        self.refusals = match self.refusals {
            Refusals::One { at_ms }
                if now_ms.saturating_sub(at_ms) <= self.config.refusals_within_ms =>
            {
                Refusals::Enough
            }
            Refusals::None | Refusals::One { .. } => Refusals::One { at_ms: now_ms },
            Refusals::Enough => Refusals::Enough,
        };
    }

    /// What to think of the peer at `now_ms`.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> Liveness {
        let silent_ms = self.silent_ms(now_ms);
        match self.refusals {
            Refusals::Enough => Liveness::Dead,
            _ if silent_ms >= self.config.dead_after_ms => Liveness::Dead,
            Refusals::One { .. } => Liveness::Suspect,
            Refusals::None if silent_ms >= self.config.suspect_after_ms => Liveness::Suspect,
            Refusals::None => Liveness::Alive,
        }
    }

    /// How long nothing was heard.
    #[must_use]
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerLiveness {
        PeerLiveness::new(1_000, LivenessConfig::default())
    }

    #[test]
    fn silence_makes_suspect_and_then_dead() {
        let peer = peer();
        assert_eq!(peer.state(1_599), Liveness::Alive);
        assert_eq!(peer.state(1_600), Liveness::Suspect);
        assert_eq!(peer.state(2_199), Liveness::Suspect);
        assert_eq!(peer.state(2_200), Liveness::Dead);
    }

    #[test]
    fn a_peer_heard_again_is_alive_at_once() {
        let mut peer = peer();
        peer.unreachable(1_100);
        peer.unreachable(1_200);
        assert_eq!(peer.state(1_200), Liveness::Dead);
        peer.heard(9_000);
        assert_eq!(peer.state(9_000), Liveness::Alive);
    }

    #[test]
    fn two_refusals_close_together_mean_dead() {
        let mut peer = peer();
        peer.unreachable(1_100);
        assert_eq!(peer.state(1_100), Liveness::Suspect);
        peer.unreachable(1_350);
        assert_eq!(peer.state(1_350), Liveness::Dead);
    }

    #[test]
    fn two_refusals_far_apart_are_only_suspect() {
        let mut peer = peer();
        peer.unreachable(1_100);
        peer.unreachable(1_351);
        assert_eq!(peer.state(1_351), Liveness::Suspect);
        peer.unreachable(1_400);
        assert_eq!(peer.state(1_400), Liveness::Dead);
    }

    #[test]
    fn a_beat_between_two_refusals_separates_them() {
        let mut peer = peer();
        peer.unreachable(1_100);
        peer.heard(1_150);
        peer.unreachable(1_200);
        assert_eq!(peer.state(1_200), Liveness::Suspect);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_dead() {
        let mut peer = peer();
        assert_eq!(peer.state(0), Liveness::Alive);
        peer.heard(500);
        assert_eq!(peer.silent_ms(1_200), 200, "an older report does not replace a newer one");
    }
}
