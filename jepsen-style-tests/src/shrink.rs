//! Makes a failing plan smaller as long as it fails in the same way.
//!
//! First whole kinds of faults go, then half of the faults, a quarter and so on down to single
//! ones, then clients, then time. Each smaller plan is a run of its own: another plan is another
//! run, so a smaller one may fail for another reason or not at all, and luck decides how far this
//! goes. It stops after a number of tries.

use crate::nemesis::KINDS;
use crate::plan::Plan;

/// Tries smaller plans. `fails` runs one and says whether it breaks the same promise. Returns the
/// smallest that did, and how many were tried.
///
/// # Errors
/// Of `fails`.
pub fn shrink<E>(
    plan: &Plan,
    tries_max: u32,
    mut fails: impl FnMut(&Plan) -> Result<bool, E>,
) -> Result<(Plan, u32), E> {
    let (mut best, mut tries) = (plan.clone(), 0);
    let mut progress = true;
    while progress {
        progress = false;
        for smaller in candidates(&best) {
            if tries == tries_max {
                return Ok((best, tries));
            }
            tries += 1;
            if fails(&smaller)? {
                best = smaller;
                progress = true;
                break;
            }
        }
    }
    Ok((best, tries))
}

/// Plans that are smaller by one step, the boldest first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut smaller = Vec::new();
    let with_faults = |keep: &dyn Fn(usize) -> bool| {
        let faults = plan.faults.iter().enumerate().filter(|(index, _)| keep(*index));
        Plan { faults: faults.map(|(_, fault)| fault.clone()).collect(), ..plan.clone() }
    };
    for kind in KINDS {
        let is_other = |index: usize| plan.faults[index].fault.name() != kind.name;
        smaller.push(with_faults(&is_other));
    }
    let mut size = plan.faults.len() / 2;
    while size > 0 {
        for start in (0..plan.faults.len()).step_by(size) {
            smaller.push(with_faults(&|index| !(start..start + size).contains(&index)));
        }
        size /= 2;
    }
    smaller.push(Plan { stay_dead: [].into(), ..plan.clone() });
    smaller.push(Plan { churns_topics: false, ..plan.clone() });
    smaller.push(Plan { consumers: 0, ..plan.clone() });
    smaller.push(Plan { readers: plan.readers.min(1), ..plan.clone() });
    for index in 0..plan.producers.len() {
        let mut producers = plan.producers.clone();
        producers.remove(index);
        smaller.push(Plan { producers, ..plan.clone() });
    }
    for until_ms in [plan.until_ms / 2, plan.until_ms * 3 / 4] {
        let mut shorter = Plan { until_ms, ..plan.clone() };
        shorter.faults.retain(|fault| fault.at_ms < until_ms);
        smaller.push(shorter);
    }
    smaller.retain(|it| it != plan && it.until_ms >= 500 && !it.producers.is_empty());
    smaller
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::plan::{FaultChoice, Wishes, Workload};

    fn plan() -> Plan {
        let (until, faults) = (Duration::from_secs(60), FaultChoice::Swarm);
        Plan::draw(&Wishes { seed: 5, until, nodes: None, faults, workload: Workload::Mixed })
    }

    #[test]
    fn what_the_failure_does_not_need_goes() {
        let whole = plan();
        let needed = whole.faults[whole.faults.len() / 2].clone();
        let fails = |plan: &Plan| Ok::<_, Infallible>(plan.faults.contains(&needed));
        let (small, tries) = shrink(&whole, 1_000, fails).expect("it can't fail");
        assert_eq!(small.faults, [needed]);
        assert_eq!((small.producers.len(), small.readers), (1, 1));
        assert!(tries < 300, "{tries}");
    }

    #[test]
    fn it_stops_after_so_many_tries() {
        let (_, tries) = shrink(&plan(), 7, |_| Ok::<_, Infallible>(true)).expect("it can't fail");
        assert_eq!(tries, 7);
    }
}
