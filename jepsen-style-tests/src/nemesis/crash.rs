//! Power cuts: of a leader, or of all nodes at once.
//!
//! A process that is killed leaves its writes to the kernel; only a lost power shows what was
//! acknowledged before it was on the disk. If all nodes lose it at once, nobody is left who knows.

use super::{Nemesis, Undo};
use crate::plan::PowerCut;
use crate::world::World;

impl Nemesis {
    pub(super) fn crash_leader(
        &mut self,
        world: &mut World,
        partition: u32,
        cut: PowerCut,
        down_ms: u64,
    ) -> Result<String, &'static str> {
        let leader = self.leaders.leader(partition).ok_or("no leader is known")?;
        let host = world.nodes().iter().find(|host| host.label() == leader);
        if !host.is_some_and(|host| host.is_up()) {
            return Err("the leader is down already");
        }
        let lost = self.cut(world, leader, cut, down_ms);
        let silent = if cut.silent { ", silently" } else { "" };
        Ok(format!("node {leader}, leader of partition {partition}{silent}: {lost} writes lost"))
    }

    pub(super) fn crash_all(
        &mut self,
        world: &mut World,
        cuts: &[PowerCut],
        down_ms: &[u64],
    ) -> Result<String, &'static str> {
        let hosts = world.nodes().iter();
        let up: Vec<u64> = hosts.filter(|host| host.is_up()).map(|host| host.label()).collect();
        let mut losses = Vec::new();
        for ((label, cut), down_ms) in up.iter().zip(cuts).zip(down_ms) {
            losses.push(self.cut(world, *label, *cut, *down_ms));
        }
        let lossy = losses.iter().filter(|lost| **lost > 0).count();
        if 2 * lossy > world.nodes().len() {
            self.counts.lossy_majorities += 1;
        }
        Ok(format!("nodes {up:?}: {losses:?} writes lost"))
    }

    fn cut(&mut self, world: &mut World, label: u64, cut: PowerCut, down_ms: u64) -> usize {
        let lost = world.crash(label, cut);
        self.undo_at(world, down_ms, Undo::Restart(label));
        self.counts.lossy_cuts += u64::from(lost > 0);
        self.counts.writes_lost += u64::try_from(lost).expect("a usize fits");
        lost
    }
}
