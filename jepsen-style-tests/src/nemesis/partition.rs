//! Cuts a leader off from the other nodes, so that it leads nobody and may not know it.

use super::{Nemesis, Undo};
use crate::world::{Isolation, World};

impl Nemesis {
    pub(super) fn partition_leader(
        &mut self,
        world: &mut World,
        partition: u32,
        isolation: Isolation,
        lasts_ms: u64,
    ) -> Result<String, &'static str> {
        let leader = self.leaders.leader(partition).ok_or("no leader is known")?;
        world.isolate(leader, isolation);
        self.undo_at(world, lasts_ms, Undo::Reconnect(leader));
        let clients = if isolation.clients_too { " and clients" } else { "" };
        let loss = isolation.loss;
        Ok(format!(
            "node {leader}, leader of partition {partition}, from its peers{clients}: {loss:?}"
        ))
    }
}
