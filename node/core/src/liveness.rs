//! Decides whether a peer is alive, from what was heard of it. Pure: time is an argument.
//!
//! A peer beats every few hundred milliseconds. Silence makes it suspect, then dead; that is all
//! there is when a machine or its network stops. A process that died is known sooner: its host
//! refuses connections. One refusal may be chance (a connection made just while it restarts), two
//! in a row are not.
//!
//! Where answers take long, silence means less: on nodes that have more to do than they can, a beat
//! waits its turn like everything else. So a peer whose answers were slow of late is given several
//! times as long as they took (the idea of accrual detectors: Hayashibara et al., The phi accrual
//! failure detector, 2004).
//!
//! Dead is an opinion, not a fact: it starts elections early, and elections are safe whoever is
//! wrong. Hearing the peer again makes it alive at once.

/// Of a slow answer, half is forgotten after about 44 answers that were quick.
const SLOW_FADES: u64 = 64;

/// Parts of a millisecond in which slowness is kept, so that little of it fades, too.
const SLOW_UNIT: u64 = 64;

/// When to think what. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence that makes a peer dead; several missed beats. Half of it makes it suspect.
    pub dead_after_ms: u64,
    /// The same of a peer that answers slowly, at most.
    pub dead_after_max_ms: u64,
    /// A peer is given so many times as long as its slowest answer of late took.
    pub slow_factor: u64,
    /// Two refusals in a row, no further apart than this, make a peer dead at once.
    pub refusals_within_ms: u64,
}

impl Default for LivenessConfig {
    fn default() -> LivenessConfig {
        LivenessConfig {
            dead_after_ms: 1_200,
            dead_after_max_ms: 6_000,
            slow_factor: 4,
            refusals_within_ms: 250,
        }
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
    /// The slowest answer of late, in 64ths of a millisecond; fades with each answer.
    slow: u64,
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
        PeerLiveness { config, heard_ms: now_ms, slow: 0, refusals: Refusals::None }
    }

    /// Something of the peer arrived.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
        self.refusals = Refusals::None;
    }

    /// The peer answered a beat, `round_trip_ms` after it was sent.
    pub fn answered(&mut self, now_ms: u64, round_trip_ms: u64) {
        self.heard(now_ms);
        let faded = self.slow - self.slow / SLOW_FADES;
        self.slow = faded.max(round_trip_ms.saturating_mul(SLOW_UNIT));
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
        let dead_after_ms = self.dead_after_ms();
        match self.refusals {
            Refusals::Enough => Liveness::Dead,
            _ if silent_ms >= dead_after_ms => Liveness::Dead,
            Refusals::One { .. } => Liveness::Suspect,
            Refusals::None if silent_ms >= dead_after_ms / 2 => Liveness::Suspect,
            Refusals::None => Liveness::Alive,
        }
    }

    /// How long the peer may be silent before it counts as dead.
    #[must_use]
    pub fn dead_after_ms(&self) -> u64 {
        let patient = (self.slow / SLOW_UNIT).saturating_mul(self.config.slow_factor);
        patient.min(self.config.dead_after_max_ms).max(self.config.dead_after_ms)
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
    fn a_peer_that_answers_slowly_may_be_silent_for_longer_until_it_is_quick_again() {
        let mut peer = peer();
        peer.answered(2_000, 500);
        assert_eq!(peer.dead_after_ms(), 2_000);
        assert_eq!(peer.state(3_999), Liveness::Suspect);
        assert_eq!(peer.state(4_000), Liveness::Dead);
        for beat in 1..=200 {
            peer.answered(4_000 + beat * 100, 1);
        }
        assert_eq!(peer.dead_after_ms(), 1_200);
    }

    #[test]
    fn no_peer_is_waited_for_without_end() {
        let mut peer = peer();
        peer.answered(2_000, u64::MAX);
        assert_eq!(peer.dead_after_ms(), LivenessConfig::default().dead_after_max_ms);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nobody_dead() {
        let mut peer = peer();
        assert_eq!(peer.state(0), Liveness::Alive);
        peer.heard(500);
        assert_eq!(peer.silent_ms(1_200), 200, "an older report does not replace a newer one");
    }
}
