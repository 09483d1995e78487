//! A rolling upgrade under appends, as an operator does it: with the command `quipu`.
//!
//! Some nodes are exchanged, taken back, all are exchanged, and the new feature level is finalized;
//! at the end an old node must be refused. Without `--from` the old release is this very build,
//! told to act as it: what it announces, refuses and writes is that of the old release, while its
//! code is not. A build of the old release can be named instead.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use quipu_client::{Client, ClientConfig, NewTopic};

use crate::live::NODES;
use crate::live::judge::judge;
use crate::live::load::{Load, Plan};
use crate::live::promptness::Promptness;
use crate::live::stage::{Report, Stage};
use crate::live::survey::survey_nodes;

const TOPIC: &str = "upgrade";
const PARTITIONS: u32 = 6;
const PRODUCERS: u32 = 3;

/// First ports that are tried for the local cluster.
const BASE_PORTS: std::ops::Range<u16> = 20_000..31_000;
const BASE_PORTS_TRIED_MAX: usize = 8;

/// The load runs for so long before the first node is touched, and after the last.
const AROUND: Duration = Duration::from_secs(2);

/// The old release goes to the new one, back, and forward again.
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// Records per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// A quipud of the old release; default: the new one, acting as 0.1
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Seconds for which each exchanged node is watched
    #[arg(long, default_value_t = 1)]
    soak: u64,
    /// Seconds after which an append that is not acknowledged has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    within: u64,
}

/// The command, and the cluster it has started. Dropping it ends the nodes.
struct Operator<'a> {
    stage: &'a Stage,
    quipu: PathBuf,
    dir: PathBuf,
}

impl Upgrade {
    /// Nine exchanges of a node, each of which is bounded by the command's patience.
    pub(super) fn bound(&self) -> Duration {
        Duration::from_secs(400 + 9 * self.soak)
    }

    /// Carries it out.
    pub(super) async fn run(&self, stage: &Stage) -> anyhow::Result<Report> {
        let new = stage.quipud().canonicalize().context("the node's binary")?;
        let old = match &self.from {
            Some(old) => old.clone(),
            None => acting_as(&new, "0.1", stage.dir())?,
        };
        let operator = Operator::start(stage, &old).await?;
        let addresses = operator.addresses().await?;
        let config =
            |purpose| ClientConfig { nodes: addresses.clone(), ..stage.client_config(purpose) };
        let client = Client::connect(config(1)).await?;
        let topic = NewTopic { replication_factor: 3, ..NewTopic::new(TOPIC, PARTITIONS) };
        client.admin().create_topic(topic).await?;
        let mut clients = Vec::new();
        for producer in 0..PRODUCERS {
            clients.push(Client::connect(config(10 + u64::from(producer))).await?);
        }
        let recorder = stage.recorder()?;
        let plan = Plan {
            topic: TOPIC,
            partitions: PARTITIONS,
            producers: PRODUCERS,
            rate: self.rate,
            value_bytes: self.value_bytes,
        };
        let load = Load::start(&clients, &plan, &recorder)?;
        tokio::time::sleep(AROUND).await;
        let mut misses = Vec::new();
        let moved = self.there_and_back_and_there(&operator, &old, &new, &mut misses).await;
        tokio::time::sleep(AROUND).await;
        load.stop().await?;
        moved?;
        let nodes: Vec<u64> = (1..=NODES).collect();
        let mut violations = survey_nodes(&nodes, &client, (TOPIC, PARTITIONS), &recorder).await;
        let history = recorder.finish()?;
        let promptness = Promptness::of(&history, Duration::from_secs(self.within));
        let judgement = judge(&history);
        violations.extend(judgement.violations);
        let line = format!(
            "{}, failed {} of {} ({} s), longest stall {} ms",
            judgement.counts.line(None),
            promptness.late,
            promptness.asked,
            self.within,
            promptness.stall.as_millis()
        );
        let mut report = Report { line, violations, misses, history, ..Report::default() };
        let (late, agree) = (promptness.late, judgement.counts.replicas_agree);
        report
            .demand(late == 0, || format!("{late} appends were not done within {} s", self.within));
        report.demand(agree, || "the replicas do not agree".to_owned());
        report.demand(judgement.counts.acked > 0, || "nothing was appended".to_owned());
        Ok(report)
    }

    async fn there_and_back_and_there(
        &self,
        operator: &Operator<'_>,
        old: &Path,
        new: &Path,
        misses: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let first = operator.stage.rng(2).u64(1..NODES);
        operator.stage.say(format_args!(
            "plan: {first} of {NODES} nodes forward, rollback, all forward, finalize"
        ));
        let (old, new) = (old.display().to_string(), new.display().to_string());
        let (soak, first) = (self.soak.to_string(), first.to_string());
        operator.quipu(&["upgrade", "plan", "--to", &new]).await?;
        let run = ["upgrade", "run", "--soak", &soak, "--to", &new, "--from", &old];
        operator.quipu(&[&run[..], &["--count", &first]].concat()).await?;
        if operator.quipu(&["upgrade", "finalize", "--level", "2"]).await.is_ok() {
            misses.push("a level was finalized that an old node does not speak".to_owned());
        }
        operator.quipu(&["upgrade", "rollback", "--soak", &soak]).await?;
        operator.quipu(&run).await?;
        operator.quipu(&["cluster", "features"]).await?;
        operator.quipu(&["upgrade", "finalize"]).await?;
        if operator.quipu(&["upgrade", "rollback", "--soak", "0", "--patience", "1"]).await.is_ok()
        {
            misses.push("nodes were taken back after the level was finalized".to_owned());
        }
        Ok(())
    }
}

impl<'a> Operator<'a> {
    async fn start(stage: &'a Stage, quipud: &Path) -> anyhow::Result<Self> {
        let beside = std::env::current_exe().context("this binary")?;
        let quipu = beside.with_file_name("quipu");
        if !quipu.is_file() {
            bail!("there is no {}; build it with `cargo build -p cluster`", quipu.display());
        }
        let operator = Self { stage, quipu, dir: stage.dir().join("cluster") };
        let (count, quipud) = (NODES.to_string(), quipud.display().to_string());
        let mut rng = fastrand::Rng::new();
        let mut last = None;
        for _ in 0..BASE_PORTS_TRIED_MAX {
            let port = rng.u16(BASE_PORTS).to_string();
            let up = ["cluster", "up", "-n", &count, "--base-port", &port, "--quipud", &quipud];
            match operator.quipu(&up).await {
                Ok(_) => {
                    stage.formed();
                    return Ok(operator);
                }
                // Ports that are taken are told before anything was started.
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no ports were tried")?)
    }

    /// "host:port" of each node.
    async fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let said = self.quipu(&["cluster", "status", "-o", "json"]).await?;
        let mut addresses = Vec::new();
        for line in said.lines() {
            let node: serde_json::Value = serde_json::from_str(line)?;
            let address = node["address"].as_str().context("a node without an address")?;
            addresses.push(address.to_owned());
        }
        Ok(addresses)
    }

    /// Runs the command to its end, and answers what it printed.
    async fn quipu(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let shown = arguments.join(" ");
        self.stage.say(format_args!("$ quipu {shown}"));
        let mut command = tokio::process::Command::new(&self.quipu);
        command.args(arguments).arg("--dir").arg(&self.dir).stdin(Stdio::null());
        let output = command.env_remove("QUIPU_NODES").kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        for line in said.lines().chain(errors.lines()) {
            self.stage.say(format_args!("  {line}"));
        }
        match output.status.success() {
            true => Ok(said),
            false => bail!("quipu {shown}: {}: {}", output.status, errors.trim()),
        }
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        // Nothing is left to do where it fails: the folder says which processes there were.
        let _ = std::process::Command::new(&self.quipu)
            .args(["cluster", "down", "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// A file that starts the binary as another release.
fn acting_as(quipud: &Path, release: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join(format!("quipud-{release}"));
    let quoted = quipud.display().to_string().replace('\'', r"'\''");
    let text = format!("#!/bin/sh\nQUIPU_ACT_AS={release} exec '{quoted}' \"$@\"\n");
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}
