//! Runs seeds on nodes with one bug until the check that is meant for it finds it.

#![allow(clippy::print_stdout, reason = "a command prints")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use tokio::time::Instant;

use super::{CUTS, Habitat, SPECIMENS, Specimen, check_of};
use crate::plan::{FaultChoice, Plan, Wishes, Workload};
use crate::report::Report;
use crate::sweep::Sweep;

/// How far a visit goes.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The first seed for each bug.
    pub seed: u64,
    /// Seeds for each bug, at most.
    pub runs: u64,
    /// How long clients work under faults.
    pub until: Duration,
    /// Instead of the faults that each bug needs.
    pub faults: Option<String>,
    /// Runs at a time.
    pub jobs: NonZeroUsize,
    /// Where the files of runs go.
    pub folder: PathBuf,
}

/// What became of a bug.
#[derive(Debug, Clone)]
struct Verdict {
    specimen: &'static Specimen,
    /// The check that found it, at which seed and in which words.
    caught: Option<(&'static str, u64, String)>,
    /// Runs until then.
    runs: u64,
    /// Other checks that were red.
    others: BTreeSet<&'static str>,
    /// Real time.
    took: Duration,
}

impl Visit {
    /// Looks for bugs, then runs seeds without one; tells all of it. Answers whether every bug was
    /// caught and nothing raised an alarm without one.
    ///
    /// # Errors
    /// If a run can't be started or leaves no report.
    pub fn run(
        &self,
        chosen: impl Iterator<Item = &'static Specimen>,
        clean_runs: u64,
    ) -> anyhow::Result<bool> {
        let mut verdicts = Vec::new();
        for specimen in chosen {
            let verdict = self.look_for(specimen)?;
            let (name, runs) = (specimen.bug.name(), verdict.runs);
            match &verdict.caught {
                Some((check, seed, what)) => {
                    println!("{name}: caught by {check}, seed {seed}, {runs} runs\n  {what}");
                }
                None => println!("{name}: NOT CAUGHT in {runs} runs"),
            }
            verdicts.push(verdict);
        }
        let mut alarms: u64 = 0;
        let clean = Self { runs: clean_runs, ..self.clone() };
        clean.without_a_bug(|report| {
            alarms += u64::from(!report.violations.is_empty());
            report.violations.iter().for_each(|it| println!("without a bug: {}", it.what));
            true
        })?;
        println!("\n{}", table(&verdicts));
        let caught = verdicts.iter().filter(|it| it.caught.is_some()).count();
        println!("caught: {caught} of {}", verdicts.len());
        println!("without a bug: {alarms} alarms in {clean_runs} runs");
        Ok(caught == verdicts.len() && alarms == 0)
    }

    /// Looks for one bug.
    ///
    /// # Errors
    /// If a run can't be started or leaves no report.
    fn look_for(&self, specimen: &'static Specimen) -> anyhow::Result<Verdict> {
        let started = Instant::now();
        let (caught, others) = (None, BTreeSet::new());
        let mut verdict = Verdict { specimen, caught, runs: 0, others, took: Duration::ZERO };
        match specimen.habitat {
            Habitat::Seeds(faults) => self.run_seeds(faults, Workload::Mixed, &mut verdict)?,
            Habitat::Groups(faults) => self.run_seeds(faults, Workload::Groups, &mut verdict)?,
            Habitat::Cuts => cut(&mut verdict)?,
        }
        verdict.took = started.elapsed();
        Ok(verdict)
    }

    fn run_seeds(
        &self,
        faults: &str,
        workload: Workload,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let bug = verdict.specimen.bug.name();
        let faults = self.faults.as_deref().unwrap_or(faults);
        let planted = Some(bug.to_owned());
        // Raft is looked at first, and other checks are to be seen red, too.
        let to_the_end = !verdict.specimen.checks.contains(&"raft_safety");
        let sweep = self.sweep(faults, workload, planted, self.folder.join(bug))?;
        let sweep = Sweep { to_the_end, ..sweep };
        sweep.run(|report| {
            verdict.add(report);
            verdict.caught.is_none()
        })
    }

    /// Runs seeds without a bug: `each` gets every report.
    ///
    /// # Errors
    /// If a run can't be started or leaves no report.
    fn without_a_bug(&self, each: impl FnMut(&Report) -> bool) -> anyhow::Result<()> {
        self.sweep("all", Workload::Mixed, None, self.folder.join("clean"))?.run(each)
    }

    fn sweep(
        &self,
        faults: &str,
        workload: Workload,
        planted: Option<String>,
        folder: PathBuf,
    ) -> anyhow::Result<Sweep> {
        let faults = FaultChoice::parse(faults)?;
        let (until, faults) = (self.until, &faults);
        let wishes = |seed| Wishes { seed, until, nodes: None, faults: faults.clone(), workload };
        let seeds = self.seed..self.seed.saturating_add(self.runs);
        Ok(Sweep {
            plans: seeds.map(|seed| Plan::draw(&wishes(seed))).collect(),
            folder,
            jobs: self.jobs.get(),
            trace_text: false,
            planted,
            to_the_end: false,
        })
    }
}

impl Verdict {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        for found in &report.violations {
            let Some(check) = check_of(&found.kind) else { continue };
            if !self.specimen.checks.contains(&check) {
                self.others.insert(check);
            } else if self.caught.is_none() {
                self.caught = Some((check, report.seed, found.what.clone()));
            }
        }
    }
}

/// Cuts the power of one node that has the bug, in a process of its own.
fn cut(verdict: &mut Verdict) -> anyhow::Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args(["cuts", "--rocks-cuts", "0"])
        .env("QUIPU_ZOO", verdict.specimen.bug.name())
        .stdin(Stdio::null())
        .output()
        .context("can't start a process for the cuts")?;
    verdict.runs = 1;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(broken) = text.lines().find_map(|line| line.strip_prefix("BROKEN: ")) {
        verdict.caught = Some((CUTS, 1, broken.to_owned()));
    }
    Ok(())
}

/// What became of all of them.
fn table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["bug", "breaks", "caught by", "seed", "runs", "seconds", "faults"]);
    for it in verdicts {
        let (check, seed) = match &it.caught {
            Some((check, seed, _)) => ((*check).to_owned(), seed.to_string()),
            None if it.others.is_empty() => ("NOT CAUGHT".to_owned(), String::new()),
            None => {
                let others: Vec<&str> = it.others.iter().copied().collect();
                (format!("NOT CAUGHT, but {}", others.join(", ")), String::new())
            }
        };
        let faults = match it.specimen.habitat {
            Habitat::Seeds(faults) => faults.to_owned(),
            Habitat::Groups(faults) => format!("{faults}; groups"),
            Habitat::Cuts => "every write and sync of one node".to_owned(),
        };
        table.add_row([
            it.specimen.bug.name().to_owned(),
            it.specimen.breaks.to_owned(),
            check,
            seed,
            it.runs.to_string(),
            format!("{:.0}", it.took.as_secs_f64()),
            faults,
        ]);
    }
    table.to_string()
}

/// What there is, and what must find it.
pub fn list() -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["bug", "what is wrong", "breaks", "must be caught by"]);
    for it in SPECIMENS {
        let quick = if it.quick { " (quick)" } else { "" };
        table.add_row([
            format!("{}{quick}", it.bug.name()),
            it.bug.what().to_owned(),
            it.breaks.to_owned(),
            it.checks.join(" or "),
        ]);
    }
    table.to_string()
}
