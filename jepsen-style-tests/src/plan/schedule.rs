//! When faults strike: each kind by itself, so that they overlap as they like.
//!
//! A seed that has every kind of fault finds less than one that has a few of them: they keep each
//! other from going far. So each seed has only some (swarm testing: Groce and others, 2012).

use super::Draw;
use crate::nemesis::{FaultPlan, KINDS, KindEntry};

/// Which kinds of faults a run has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultChoice {
    /// Each kind in half of the seeds, but those that must be named.
    Swarm,
    /// These and no others, in every seed; none of them: no faults.
    Only(Vec<&'static str>),
}

/// Somebody asked for faults that do not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault(pub String);

impl std::fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        write!(f, "no fault is called {:?}; there are all, none, {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownFault {}

impl FaultChoice {
    /// Reads `all`, `none`, or names with commas between them.
    ///
    /// # Errors
    /// For a name that no kind has.
    pub fn parse(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => return Ok(Self::Swarm),
            "none" => return Ok(Self::Only(Vec::new())),
            _ => {}
        }
        let find = |name: &str| {
            let kind = KINDS.iter().find(|kind| kind.name == name);
            kind.map(|kind| kind.name).ok_or_else(|| UnknownFault(name.to_owned()))
        };
        Ok(Self::Only(text.split(',').map(find).collect::<Result<_, _>>()?))
    }
}

/// Draws the faults of a run.
pub(super) fn draw(until_ms: u64, choice: &FaultChoice, draw: &mut Draw<'_>) -> Vec<FaultPlan> {
    let mut faults = Vec::new();
    for kind in KINDS {
        // Drawn in any case, so that a choice changes as little as possible.
        let drawn = draw_kind(kind, until_ms, draw);
        let tossed = draw.rng.bool();
        let is_on = match choice {
            FaultChoice::Swarm => tossed && !kind.on_request,
            FaultChoice::Only(names) => names.contains(&kind.name),
        };
        if is_on {
            faults.extend(drawn);
        }
    }
    faults.sort_by_key(|fault: &FaultPlan| fault.at_ms);
    faults
}

fn draw_kind(kind: &KindEntry, until_ms: u64, draw: &mut Draw<'_>) -> Vec<FaultPlan> {
    let mut rng = draw.rng.fork();
    let mut draw = Draw { rng: &mut rng, nodes: draw.nodes, partitions: draw.partitions };
    let (least, most) = kind.pause_ms;
    let mean_ms = draw.log_uniform(least, most);
    let mut faults = Vec::new();
    // The first one comes early, so that a short run meets it.
    let mut at_ms = draw.rng.u64(500..=3_000 + mean_ms / 4);
    while at_ms < until_ms {
        faults.push(FaultPlan { at_ms, fault: (kind.draw)(&mut draw) });
        at_ms += draw.rng.u64(mean_ms / 4..=mean_ms * 7 / 4);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(choice: &FaultChoice) -> Vec<FaultPlan> {
        let mut rng = fastrand::Rng::with_seed(3);
        draw(60_000, choice, &mut Draw { rng: &mut rng, nodes: 5, partitions: 4 })
    }

    #[test]
    fn a_list_of_kinds_is_kept_to() {
        let choice = FaultChoice::parse("pause,crash").expect("both exist");
        let faults = drawn(&choice);
        assert!(faults.iter().all(|it| ["pause", "crash"].contains(&it.fault.name())));
        assert!(faults.len() > 2, "{}", faults.len());
        assert_eq!(drawn(&FaultChoice::parse("none").expect("a word")), []);
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let error = FaultChoice::parse("pause,earthquake").expect_err("no such fault");
        assert!(error.to_string().contains("earthquake"), "{error}");
        assert!(error.to_string().contains("power-cut"), "{error}");
    }

    #[test]
    fn faults_come_in_the_order_of_time() {
        assert!(drawn(&FaultChoice::Swarm).is_sorted_by_key(|it| it.at_ms));
    }
}
