//! Kill -9 under appends: all nodes at once at random moments, or one after the other.
//!
//! Page caches survive kill -9, so this shows that a crash of the processes loses nothing, not
//! that a power cut doesn't; that is the simulator's business, with its disks that forget.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use quipu_client::{Client, NewTopic};
use tokio::time::{Instant, sleep};

use crate::history::{FaultResult, History, What};
use crate::live::NODES;
use crate::live::cluster::LiveCluster;
use crate::live::judge::judge;
use crate::live::load::{Acks, Load, Plan};
use crate::live::recorder::Recorder;
use crate::live::stage::{Report, Stage};
use crate::live::survey::survey;
use crate::violation::Violation;

const TOPIC: &str = "kills";
const PARTITIONS: u32 = 6;
const PRODUCERS: u32 = 3;

/// After the last node is back, every partition acknowledges within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// Between a round's recovery and its kill.
const UP_MS: std::ops::Range<u64> = 700..2_700;

/// Between a kill and the restart.
const DOWN_MS: std::ops::Range<u64> = 0..500;

/// From the restart to a second kill, in the rounds that have one: the time in which a node opens
/// its store and looks for a leader.
const SECOND_KILL_AFTER_MS: std::ops::Range<u64> = 20..900;

/// One round in so many kills the nodes again while they recover.
const SECOND_KILL_ONE_IN: u32 = 4;

/// What is appended.
#[derive(Debug, Args)]
struct Appends {
    /// Records per second, at least
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

/// Kills all nodes at once.
#[derive(Debug, Args)]
pub(super) struct KillAll {
    /// How often
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    appends: Appends,
}

/// Kills one node after the other.
#[derive(Debug, Args)]
pub(super) struct KillTurns {
    /// How long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    appends: Appends,
}

/// What a run measures besides its history.
#[derive(Debug, Default)]
struct Measured {
    /// From the restart to the first acknowledgement.
    first_ack: Vec<Duration>,
    /// From the kill to an acknowledgement in every partition that was hit.
    pause: Vec<Duration>,
    /// Time in which all partitions served, and what was acknowledged in it.
    up: Duration,
    acked_up: usize,
    violations: Vec<Violation>,
}

/// A cluster under load.
struct Scene<'a> {
    stage: &'a Stage,
    cluster: LiveCluster,
    client: Client,
    recorder: Recorder,
    load: Load,
    rng: fastrand::Rng,
    measured: Measured,
}

impl KillAll {
    /// Each round's recovery is bounded, and the rest takes about as long as it is told to.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(240) + Duration::from_secs(30) * self.rounds
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let mut scene = Scene::set(stage, &self.appends).await?;
        for round in 1..=self.rounds {
            if !scene.kill_all(round).await? {
                break;
            }
        }
        scene.end(&self.appends).await
    }
}

impl KillTurns {
    /// As long as it is told to, and time to end.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(300 + 2 * self.seconds)
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let mut scene = Scene::set(stage, &self.appends).await?;
        let until = Instant::now() + Duration::from_secs(self.seconds);
        for node in (1..=NODES).cycle() {
            if Instant::now() >= until || !scene.kill_one(node).await? {
                break;
            }
        }
        scene.end(&self.appends).await
    }
}

impl<'a> Scene<'a> {
    async fn set(stage: &'a Stage, appends: &Appends) -> anyhow::Result<Self> {
        let cluster = stage.cluster().await?;
        let client = cluster.client(stage.client_config(1)).await?;
        let topic = NewTopic { replication_factor: 3, ..NewTopic::new(TOPIC, PARTITIONS) };
        client.admin().create_topic(topic).await?;
        let recorder = stage.recorder()?;
        let mut clients = Vec::new();
        for producer in 0..PRODUCERS {
            clients.push(cluster.client(stage.client_config(10 + u64::from(producer))).await?);
        }
        let plan = Plan {
            topic: TOPIC,
            partitions: PARTITIONS,
            producers: PRODUCERS,
            // A little more than is demanded, so that a late tick doesn't miss it.
            rate: appends.rate + appends.rate / 10,
            value_bytes: appends.value_bytes,
        };
        let load = Load::start(&clients, &plan, &recorder)?;
        let rng = stage.rng(2);
        let measured = Measured::default();
        let mut scene = Self { stage, cluster, client, recorder, load, rng, measured };
        scene.serves_since(Instant::now()).await;
        Ok(scene)
    }

    /// Waits until every partition has acknowledged something at or after `since`. Tells when the
    /// first and the last of them did; `None` is a violation.
    async fn serves_since(&mut self, since: Instant) -> Option<(Instant, Instant)> {
        let deadline = Instant::now() + SERVES_WITHIN;
        loop {
            let first = self.load.acks.first_since(since, PARTITIONS);
            let times = || first.iter().map(|ack| ack.at);
            if first.len() == usize::try_from(PARTITIONS).expect("a u32 fits") {
                return times().min().zip(times().max());
            }
            if Instant::now() >= deadline {
                let served: Vec<u32> = first.iter().map(|ack| ack.partition).collect();
                let seconds = SERVES_WITHIN.as_secs();
                let what = format!("after {seconds} s only partitions {served:?} acknowledge");
                self.measured.violations.push(Violation::NotServing { what });
                return None;
            }
            sleep(POLL).await;
        }
    }

    /// Lets the load run for a random time, which counts for the rate that was reached.
    async fn stay_up(&mut self) {
        let from = Instant::now();
        sleep(Duration::from_millis(self.rng.u64(UP_MS))).await;
        let to = Instant::now();
        self.measured.up += to - from;
        self.measured.acked_up += self.load.acks.count_between(from, to);
    }

    /// One round. Says whether the cluster serves again.
    async fn kill_all(&mut self, round: u32) -> anyhow::Result<bool> {
        self.stay_up().await;
        let acked = self.load.acks.count();
        let ids = self.cluster.ids();
        let killed_at = Instant::now();
        self.kill(&ids, &format!("round {round}: all nodes")).await?;
        let mut restarted_at = self.restart_all().await?;
        let again = self.rng.u32(..SECOND_KILL_ONE_IN) == 0;
        if again {
            sleep(Duration::from_millis(self.rng.u64(SECOND_KILL_AFTER_MS))).await;
            self.kill(&ids, &format!("round {round}: all nodes, while they recover")).await?;
            restarted_at = self.restart_all().await?;
        }
        for id in ids {
            self.cluster.wait_ready(id).await?;
        }
        let ready = restarted_at.elapsed();
        let Some((first, all)) = self.serves_since(restarted_at).await else { return Ok(false) };
        self.measured.first_ack.push(first - restarted_at);
        self.measured.pause.push(all - killed_at);
        self.stage.say(format_args!(
            "round {round}: killed all{}, {acked} acked before; after the restart ready in {} ms, \
             first ack in {} ms, all partitions in {} ms",
            if again { " twice" } else { "" },
            ready.as_millis(),
            (first - restarted_at).as_millis(),
            (all - restarted_at).as_millis(),
        ));
        Ok(true)
    }

    /// Kills one node and starts it again. Says whether the cluster serves.
    async fn kill_one(&mut self, node: u64) -> anyhow::Result<bool> {
        self.stay_up().await;
        let topic = self.client.admin().describe_topic(TOPIC).await?;
        let led = topic.partitions.iter().filter(|it| it.leader == Some(node));
        let led: Vec<(u32, u64)> = led.map(|it| (it.partition, it.leader_epoch)).collect();
        let killed_at = Instant::now();
        self.kill(&[node], &format!("node {node}, which led {} partitions", led.len())).await?;
        let Some(pause) = self.taken_over(killed_at, &led).await else { return Ok(false) };
        if !led.is_empty() {
            self.measured.pause.push(pause);
        }
        sleep(Duration::from_millis(self.rng.u64(DOWN_MS))).await;
        let restarted_at = Instant::now();
        self.cluster.start_node(node)?;
        self.cluster.wait_ready(node).await?;
        let ready = restarted_at.elapsed();
        self.recorder.fault("kill", FaultResult::Removed, format!("node {node}"));
        let Some((_, all)) = self.serves_since(restarted_at).await else { return Ok(false) };
        self.stage.say(format_args!(
            "killed node {node}, which led {} partitions: taken over in {} ms; ready again in \
             {} ms, all partitions serve after {} ms",
            led.len(),
            pause.as_millis(),
            ready.as_millis(),
            (all - restarted_at).as_millis(),
        ));
        Ok(true)
    }

    /// From the kill to an acknowledgement by a new leader in each of these partitions.
    async fn taken_over(&mut self, killed_at: Instant, led: &[(u32, u64)]) -> Option<Duration> {
        let deadline = killed_at + SERVES_WITHIN;
        loop {
            let acks: &Acks = &self.load.acks;
            let first = led.iter().map(|(partition, epoch)| acks.first_above(*partition, *epoch));
            let first: Option<Vec<_>> = first.collect();
            if let Some(first) = first {
                let pauses = first.iter().map(|ack| ack.at.saturating_duration_since(killed_at));
                return Some(pauses.max().unwrap_or_default());
            }
            if Instant::now() >= deadline {
                let what = format!("nobody took over the partitions and terms {led:?}");
                self.measured.violations.push(Violation::NotServing { what });
                return None;
            }
            sleep(POLL).await;
        }
    }

    async fn kill(&mut self, ids: &[u64], detail: &str) -> anyhow::Result<()> {
        self.recorder.fault("kill", FaultResult::Installed, detail.to_owned());
        self.cluster.kill(ids)?;
        Ok(())
    }

    async fn restart_all(&mut self) -> anyhow::Result<Instant> {
        sleep(Duration::from_millis(self.rng.u64(DOWN_MS))).await;
        let restarted_at = Instant::now();
        for id in self.cluster.ids() {
            self.cluster.start_node(id)?;
        }
        self.recorder.fault("kill", FaultResult::Removed, "all nodes".to_owned());
        Ok(restarted_at)
    }

    /// Ends the load, asks every node, and judges.
    async fn end(mut self, appends: &Appends) -> anyhow::Result<Report> {
        for violation in &self.measured.violations {
            self.stage.say(format_args!("{violation}"));
        }
        // After a failure, too, all are asked.
        for id in self.cluster.ids() {
            if !self.cluster.node(id).is_up() {
                self.cluster.start_node(id)?;
                self.cluster.wait_ready(id).await?;
            }
        }
        self.load.stop().await?;
        self.stage.say("the load has ended; every node is read");
        let topic = (TOPIC, PARTITIONS);
        let mut violations = self.measured.violations;
        violations.extend(survey(&self.cluster, &self.client, topic, &self.recorder).await);
        violations.extend(self.cluster.violations());
        let history = self.recorder.finish()?;
        let judgement = judge(&history);
        violations.extend(judgement.violations);
        let counts = &judgement.counts;
        let rate = per_second(self.measured.acked_up, self.measured.up);
        self.stage.say(format_args!(
            "{rate} records/s acknowledged while up ({} s), {} unknown, {} refused",
            self.measured.up.as_secs(),
            counts.unknown,
            counts.refused,
        ));
        let first_ack = spread(&mut self.measured.first_ack);
        let pause = spread(&mut self.measured.pause);
        self.stage.say(format_args!("from a restart of all nodes to the first ack: {first_ack}"));
        self.stage.say(format_args!("from a kill to acks in every partition hit: {pause}"));
        let line = counts.line(self.measured.pause.last().copied());
        let errors_logged = self.cluster.errors_logged();
        let mut report = Report { line, violations, history, errors_logged, ..Report::default() };
        report.demand(rate >= u64::from(appends.rate), || {
            format!("{rate} records/s were reached while up, not {}", appends.rate)
        });
        let agree = judgement.counts.replicas_agree;
        report.demand(agree, || "not every replica told the same chain hash".to_owned());
        // Every pause is far shorter than a producer's patience.
        let given_up = failures(&report.history);
        report.misses.extend(given_up);
        Ok(report)
    }
}

/// Records that a patient producer gave up, by the reason.
fn failures(history: &History) -> Vec<String> {
    let mut reasons: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
    for event in &history.events {
        let (outcome, error) = match &event.what {
            What::Fail { error, .. } => ("refused", error),
            What::Unknown { error, .. } => ("of unknown outcome", error),
            _ => continue,
        };
        let entry = reasons.entry((outcome, &error.code)).or_insert((0, &error.message));
        entry.0 += 1;
    }
    let told = reasons.into_iter().map(|((outcome, code), (count, message))| {
        format!("{count} operations {outcome}, {code}, such as: {message}")
    });
    told.collect()
}

fn per_second(count: usize, time: Duration) -> u64 {
    let millis = time.as_millis().max(1);
    let count = u128::try_from(count).expect("a usize fits");
    u64::try_from(count * 1_000 / millis).unwrap_or(u64::MAX)
}

/// Least, middle and greatest, for people; sorts.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(least), Some(middle), Some(most)) => format!(
            "{} / {} / {} ms (least / median / most of {})",
            least.as_millis(),
            middle.as_millis(),
            most.as_millis(),
            times.len()
        ),
        _ => "none".to_owned(),
    }
}
