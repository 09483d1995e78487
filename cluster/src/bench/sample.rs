//! What a run costs: two looks at every process, before and after, and the difference.
//!
//! The processor time of this process, the load, is told beside that of the nodes: where they share
//! the processors, a greedy load makes slow nodes.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::scrape;
use super::stage::Stage;
use super::usage::{Usage, usage};

/// Counted by a node for each write that it synced.
const SYNCS: &str = "quipu_log_writer_syncs_total";

/// All processes at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    nodes: Vec<NodeSample>,
    client: NodeSample,
}

#[derive(Debug, Clone, Copy)]
struct NodeSample {
    node: u64,
    /// When exactly: each node is asked after the other.
    at: Instant,
    usage: Usage,
    syncs: Option<f64>,
}

/// What one node used between two samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NodeCost {
    /// The node's number.
    pub(super) node: u64,
    /// Processor time in a second: 1 is one processor.
    pub(super) cpu_per_s: f64,
    /// Bytes of memory at the end.
    pub(super) rss_bytes: u64,
    /// Bytes written to disk in a second.
    pub(super) written_bytes_per_s: f64,
    /// Synced writes in a second.
    pub(super) syncs_per_s: Option<f64>,
}

/// What all nodes and the load used between two samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Cost {
    /// By number; empty where the processes can't be seen.
    pub(super) nodes: Vec<NodeCost>,
    /// Processor time of this process in a second.
    pub(super) client_cpu_per_s: f64,
}

impl Sample {
    /// Looks at every process now.
    ///
    /// # Errors
    /// If a node's process is gone. A node that doesn't tell its metrics is no error: what is taken
    /// from them is then not told.
    pub(super) async fn take(stage: &Stage) -> anyhow::Result<Sample> {
        let mut nodes = Vec::new();
        for node in stage.nodes() {
            let Some(process) = &node.process else { continue };
            let syncs = scrape::counter(&node.http_address(), SYNCS).await.ok();
            nodes.push(NodeSample::of(node.node_id, process.pid, syncs)?);
        }
        Ok(Sample { nodes, client: NodeSample::of(0, std::process::id(), None)? })
    }

    /// What was used since an earlier sample.
    pub(super) fn since(&self, earlier: &Sample) -> Cost {
        let nodes = self.nodes.iter().filter_map(|after| {
            let before = earlier.nodes.iter().find(|before| before.node == after.node)?;
            Some(after.since(before))
        });
        Cost {
            nodes: nodes.collect(),
            client_cpu_per_s: self.client.since(&earlier.client).cpu_per_s,
        }
    }
}

impl NodeSample {
    fn of(node: u64, pid: u32, syncs: Option<f64>) -> anyhow::Result<NodeSample> {
        Ok(NodeSample { node, at: Instant::now(), usage: usage(pid)?, syncs })
    }

    fn since(&self, earlier: &NodeSample) -> NodeCost {
        let seconds = self.at.duration_since(earlier.at).max(Duration::from_millis(1));
        let seconds = seconds.as_secs_f64();
        let cpu = self.usage.cpu.saturating_sub(earlier.usage.cpu);
        let written = self.usage.written_bytes.saturating_sub(earlier.usage.written_bytes);
        let syncs = self.syncs.zip(earlier.syncs).map(|(after, before)| after - before);
        NodeCost {
            node: self.node,
            cpu_per_s: cpu.as_secs_f64() / seconds,
            rss_bytes: self.usage.rss_bytes,
            written_bytes_per_s: written as f64 / seconds,
            syncs_per_s: syncs.map(|syncs| syncs / seconds),
        }
    }
}

impl Cost {
    /// Sum over the nodes; `None` where they can't be seen.
    pub(super) fn sum(&self, of: impl Fn(&NodeCost) -> Option<f64>) -> Option<f64> {
        if self.nodes.is_empty() {
            return None;
        }
        self.nodes.iter().map(of).sum()
    }

    /// Memory of the node that has most.
    pub(super) fn rss_bytes_max(&self) -> Option<f64> {
        self.nodes.iter().map(|node| node.rss_bytes as f64).max_by(f64::total_cmp)
    }

    /// Processor time in a second of the node that uses most.
    pub(super) fn cpu_per_s_max(&self) -> Option<f64> {
        self.nodes.iter().map(|node| node.cpu_per_s).max_by(f64::total_cmp)
    }

    /// Processor time of all nodes in a second.
    pub(super) fn cpu_per_s(&self) -> Option<f64> {
        self.sum(|node| Some(node.cpu_per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cost_is_a_rate_over_the_time_between_the_samples_of_that_node() {
        let usage = |cpu_ms, written_bytes| Usage {
            cpu: Duration::from_millis(cpu_ms),
            rss_bytes: 7,
            written_bytes,
        };
        let sample = |usage, syncs| Sample {
            nodes: vec![NodeSample { node: 2, at: Instant::now(), usage, syncs }],
            client: NodeSample { node: 0, at: Instant::now(), usage, syncs: None },
        };
        let before = sample(usage(1_000, 100), Some(5.0));
        tokio::time::advance(Duration::from_secs(2)).await;
        let after = sample(usage(2_000, 300), Some(25.0));
        let cost = after.since(&before);
        assert_eq!(
            cost.nodes,
            [NodeCost {
                node: 2,
                cpu_per_s: 0.5,
                rss_bytes: 7,
                written_bytes_per_s: 100.0,
                syncs_per_s: Some(10.0),
            }]
        );
        assert_eq!(cost.cpu_per_s(), Some(0.5));
        let unseen = Cost { nodes: Vec::new(), client_cpu_per_s: 0.5 };
        assert_eq!(unseen.cpu_per_s(), None);
    }
}
