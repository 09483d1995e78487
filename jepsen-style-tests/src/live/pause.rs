//! An old leader that was stopped across an election must not serve what it remembers.
//!
//! SIGSTOP stops a process between two instructions, SIGCONT lets it go on there: it still believes
//! that it leads, and its timers have not run. Reads are sent while it is stopped, so that they lie
//! in its sockets when it wakes and are the first thing it finds; more follow as soon as it is
//! woken. Each of them began after appends were acknowledged elsewhere. An error is a good answer.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use quipu_client::{Client, ClientConfig};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::history::FaultResult;
use crate::live::cluster::LiveCluster;
use crate::live::linearizable::{Shared, TOPIC, conclude};
use crate::live::stage::{Report, Stage};
use crate::live::survey::survey;
use crate::violation::Violation;

/// Reads that wait in the sockets of a stopped node, on connections of their own.
const READERS: u64 = 8;

/// Appends acknowledged by the new leader while the old one is stopped.
const APPENDS: u32 = 10;

/// After SIGCONT, further reads begin for this long.
const READ_FOR: Duration = Duration::from_millis(500);

/// Longer than a node is stopped, so that no connection is given up meanwhile.
const PATIENCE: Duration = Duration::from_secs(45);

/// A stopped leader is replaced within this time.
const ELECTED_WITHIN: Duration = Duration::from_secs(30);

/// Further time for which the old leader stays stopped, once there is a new one.
const STOPPED_MS: std::ops::Range<u64> = 0..1_500;

const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// One pause.
struct Pause {
    partition: u32,
    node: u64,
}

/// Carries out so many pauses.
pub(super) async fn run(
    stage: &Stage,
    mut cluster: LiveCluster,
    shared: Shared,
    times: u32,
) -> anyhow::Result<Report> {
    let mut rng = stage.rng(4);
    let mut readers = Vec::new();
    for reader in 0..READERS {
        // A probe that a stopped node leaves unanswered must not end the connection.
        let config = ClientConfig {
            keep_alive: PATIENCE,
            request_timeout: PATIENCE,
            retry_timeout: PATIENCE,
            ..stage.client_config(200 + reader)
        };
        let client = cluster.client(config).await?;
        readers.push(Shared { client, ..shared.clone() });
    }
    let mut violations = Vec::new();
    let mut reads = BTreeMap::new();
    for round in 1..=times {
        let pause = choose(&shared, &mut rng).await?;
        let Some(told) = pause.carry_out(&cluster, &shared, &readers, &mut rng).await? else {
            let what = format!("node {} was stopped, and nobody took its place", pause.node);
            violations.push(Violation::NotServing { what });
            break;
        };
        stage.say(format_args!("pause {round}: {}", told.text));
        for (answered, count) in [(true, told.answered), (false, told.refused)] {
            *reads.entry(answered).or_insert(0) += count;
        }
        cluster.wait_healthy().await?;
    }
    let (answered, refused) = (reads.get(&true).unwrap_or(&0), reads.get(&false).unwrap_or(&0));
    stage.say(format_args!("reads on old leaders: {answered} answered, {refused} refused"));
    let found = survey(&cluster, &shared.client, (TOPIC, 4), &shared.recorder).await;
    violations.extend(found);
    violations.extend(cluster.violations());
    let history = shared.recorder.finish()?;
    let errors_logged = cluster.errors_logged();
    let mut report = conclude(stage, history, violations);
    report.errors_logged = errors_logged;
    report.demand(answered + refused > 0, || "no read reached an old leader".to_owned());
    Ok(report)
}

/// What came of one pause.
struct Told {
    text: String,
    answered: usize,
    refused: usize,
}

async fn choose(shared: &Shared, rng: &mut fastrand::Rng) -> anyhow::Result<Pause> {
    let topic = shared.client.admin().describe_topic(TOPIC).await?;
    let chosen = &topic.partitions[rng.usize(..topic.partitions.len())];
    let node = chosen.leader.context("a healthy partition has a leader")?;
    Ok(Pause { partition: chosen.partition, node })
}

impl Pause {
    /// `None`: no other node took over.
    async fn carry_out(
        &self,
        cluster: &LiveCluster,
        shared: &Shared,
        readers: &[Shared],
        rng: &mut fastrand::Rng,
    ) -> anyhow::Result<Option<Told>> {
        let Self { partition, node } = *self;
        let before = shared.append("appender", partition, None).await;
        let offset = before.ok().flatten().context("a healthy partition takes appends")?;
        // Opens the connections on which the reads will wait.
        let reads = |offset| {
            readers.iter().zip(1..).map(move |(reader, index): (&Shared, u64)| async move {
                let process = format!("reader-{index}");
                reader.read_at(&process, partition, node, offset).await
            })
        };
        join_all(reads(offset)).await;

        cluster.node(node).signal(Signal::STOP)?;
        shared.recorder.fault("pause", FaultResult::Installed, format!("node {node}"));
        let stopped_at = Instant::now();
        let Some((epoch, offset)) = self.append_elsewhere(shared).await? else {
            cluster.node(node).signal(Signal::CONT)?;
            return Ok(None);
        };
        let elected = stopped_at.elapsed();
        sleep(Duration::from_millis(rng.u64(STOPPED_MS))).await;

        let waiting = join_all(reads(offset));
        let following = async {
            // The reads are in the sockets by then; if one is not, it comes at once after.
            sleep(Duration::from_millis(50)).await;
            cluster.node(node).signal(Signal::CONT)?;
            shared.recorder.fault("pause", FaultResult::Removed, format!("node {node}"));
            let until = Instant::now() + READ_FOR;
            let mut answers = Vec::new();
            while Instant::now() < until {
                answers.push(shared.read_at("follower", partition, node, offset).await);
            }
            anyhow::Ok(answers)
        };
        let (waited, followed) = tokio::join!(waiting, following);
        let followed = followed?;
        let answers = waited.iter().chain(&followed);
        let answered = answers.clone().filter(|answered| **answered).count();
        let refused = answers.count() - answered;
        let text = format!(
            "node {node} led partition {partition}; another one acknowledged after {} ms (term \
             {epoch}); stopped for {} ms; {answered} reads answered, {refused} refused",
            elected.as_millis(),
            stopped_at.elapsed().saturating_sub(READ_FOR).as_millis(),
        );
        Ok(Some(Told { text, answered, refused }))
    }

    /// Appends until a new leader has acknowledged some. Returns its term and the last offset.
    async fn append_elsewhere(&self, shared: &Shared) -> anyhow::Result<Option<(u64, u64)>> {
        let deadline = Instant::now() + ELECTED_WITHIN;
        let (mut acked, mut last) = (0, None);
        while acked < APPENDS {
            match shared.append("appender", self.partition, None).await {
                Ok(offset) => {
                    acked += 1;
                    last = offset.or(last);
                }
                Err(_) if Instant::now() >= deadline => return Ok(None),
                Err(_) => sleep(AGAIN_AFTER).await,
            }
        }
        let epoch = leader_epoch(&shared.client, self.partition, self.node).await?;
        Ok(last.map(|offset| (epoch, offset)))
    }
}

/// The term of the leader, which must not be the stopped node.
async fn leader_epoch(client: &Client, partition: u32, stopped: u64) -> anyhow::Result<u64> {
    let topic = client.admin().describe_topic(TOPIC).await?;
    let found = topic.partitions.iter().find(|it| it.partition == partition);
    let found = found.context("the topic lacks a partition")?;
    anyhow::ensure!(found.leader != Some(stopped), "a stopped node acknowledged appends");
    Ok(found.leader_epoch)
}
