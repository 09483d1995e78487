//! What a kind of fault draws from.

/// The generator, and what a fault can be aimed at.
pub struct Draw<'a> {
    /// Where choices come from.
    pub rng: &'a mut fastrand::Rng,
    /// Nodes are labelled 1 to this.
    pub nodes: u64,
    /// Partitions are numbered from 0 to below this.
    pub partitions: u32,
}

impl Draw<'_> {
    /// Any node.
    pub fn label(&mut self) -> u64 {
        self.rng.u64(1..=self.nodes)
    }

    /// Any partition of the standing topic.
    pub fn partition(&mut self) -> u32 {
        self.rng.u32(..self.partitions)
    }

    /// A number whose order of magnitude is drawn evenly, so that small and great are both met.
    pub fn log_uniform(&mut self, min: u64, max: u64) -> u64 {
        log_uniform(self.rng, min, max)
    }
}

/// See [`Draw::log_uniform`]. `min` is at least 1.
pub(super) fn log_uniform(rng: &mut fastrand::Rng, min: u64, max: u64) -> u64 {
    // In whole numbers, so that every machine draws the same: first the doubling, then within it.
    let (low, high) = (min.max(1).ilog2(), max.max(1).ilog2());
    let doubling = rng.u32(low..=high);
    let least = (1_u64 << doubling).max(min);
    let most = (1_u64 << doubling).saturating_mul(2).saturating_sub(1).min(max);
    rng.u64(least..=most.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_great_numbers_are_drawn_as_often() {
        let mut rng = fastrand::Rng::with_seed(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| log_uniform(&mut rng, 10, 10_000)).collect();
        assert!(drawn.iter().all(|it| (10..=10_000).contains(it)));
        let small = drawn.iter().filter(|it| **it < 316).count();
        assert!((350..=650).contains(&small), "{small}");
    }

    #[test]
    fn bounds_may_be_equal() {
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(log_uniform(&mut rng, 5, 5), 5);
    }
}
