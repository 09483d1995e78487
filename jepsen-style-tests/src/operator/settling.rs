//! What is demanded of a cluster whose members changed: that every change came to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use quipu_client::{AdminError, Client, Standing};

use super::Operator;
use super::demands::demand;
use crate::plan::Plan;
use crate::violation::Violation;

/// Replicas that were on their way when the faults ended are where they belong after so long.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

impl Operator {
    /// Demands that no replica is on its way any more, that nobody is being removed, that those who
    /// belong to the cluster are those who run, and that each partition has all its replicas. Then
    /// asks for the last placement.
    pub(super) async fn demand_settled(
        &self,
        client: &Client,
        plan: &Plan,
    ) -> Result<(), Violation> {
        demand("the end of all changes of members", SETTLES_WITHIN, async || {
            self.look_for_changes(client).await
        })
        .await?;
        demand("the last placement", SETTLES_WITHIN, async || self.look(client).await).await?;
        for partition in 0..plan.topic.partitions {
            let replicas = self.leaders.replicas(partition);
            let nodes: BTreeSet<u64> = replicas.iter().copied().collect();
            let wanted = usize::try_from(plan.topic.replication_factor).unwrap_or(usize::MAX);
            if nodes.len() < wanted || nodes.len() != replicas.len() {
                let what = format!(
                    "partition {partition} shall have {wanted} replicas; it has them on nodes \
                     {replicas:?}"
                );
                return Err(Violation::NotServing { what });
            }
        }
        Ok(())
    }

    async fn look_for_changes(&self, client: &Client) -> Result<(), String> {
        let said = |error: AdminError| error.to_string();
        let nodes = client.admin().describe_nodes(&[]).await.map_err(said)?;
        let leaving = nodes.iter().filter(|node| node.standing == Standing::Removing);
        let leaving: Vec<u64> = leaving.map(|node| node.node_id).collect();
        if !leaving.is_empty() {
            return Err(format!("nodes {leaving:?} are being removed"));
        }
        let members: BTreeSet<u64> = nodes.iter().map(|node| node.node_id).collect();
        let running = self.running.labels();
        if members != running {
            return Err(format!("nodes {members:?} belong to the cluster, and {running:?} run"));
        }
        match client.admin().plan_rebalance(0).await.map_err(said)?.under_way {
            0 => Ok(()),
            moving => Err(format!("{moving} groups have replicas on their way")),
        }
    }
}
