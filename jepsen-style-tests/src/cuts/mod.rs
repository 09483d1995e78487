//! Crash points: one node's storage code, its power cut at every write and at every fsync.
//!
//! Replicas of three groups vote, append, truncate, apply, make checkpoints, purge and install
//! snapshots through one log writer: the real code from openraft's storage traits down, on the
//! simulated disk. The power goes before step N, for every N, and the disk keeps nothing of what
//! was not synced, or a drawn first part of it, or all of it but the write that was under way.
//! After each cut the disk is opened again and `check` says what must be true. If the disk kept a
//! later write and not an earlier one, the store must refuse to open.
//!
//! `controls` are disks that break the rules; the same checks must find each of them out, or they
//! prove nothing. `rocks` does the same on RocksDB, at fewer points, and cuts its log at bytes.
//!
//! - `story`: the log that leaders wrote; `workload`: what a replica is asked; `check`: what must
//!   be true.

mod check;
mod rocks;
mod story;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use node::storage::Engine;
use node::storage::log_writer::{LogWriter, SyncDelay};
use node::storage::memory::{MemoryEngine, PowerCut, Tear};
use node_core::ids::GroupId;

use self::check::check;
use self::story::Story;
use self::workload::{Fact, Journal, Step, draw, drive};

/// Groups: two of partitions, one of a table.
const GROUPS: [(GroupId, bool); 3] =
    [(GroupId(1_000), true), (GroupId(2), false), (GroupId(1_001), true)];

/// Violations that are told; one says enough.
const VIOLATIONS_MAX: usize = 10;

/// What to cut.
#[derive(Debug, Clone)]
pub struct Args {
    /// Where workloads and drawn cuts come from; workload N has seed + N.
    pub seed: u64,
    /// How many workloads.
    pub workloads: u64,
    /// Operations of one workload, over all groups.
    pub operations: usize,
    /// Cuts of RocksDB's log at drawn bytes, for each workload; 0 leaves RocksDB out.
    pub rocks_cuts: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self { seed: 1, workloads: 1, operations: 200, rocks_cuts: 40 }
    }
}

/// What was cut and what was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Operations of all workloads.
    pub operations: u64,
    /// Writes and syncs at which the power was cut.
    pub steps: u64,
    /// Cuts of the simulated disk by what it kept.
    pub cuts: BTreeMap<&'static str, u64>,
    /// Writes that the cuts took.
    pub writes_lost: u64,
    /// Cuts after which the store refused to open, as it must.
    pub refused: u64,
    /// Processes killed on RocksDB, each opened again.
    pub rocks_kills: u64,
    /// Cuts of RocksDB's log at a byte, each opened again.
    pub rocks_log_cuts: u64,
    /// What a control was found out by, or `None`: it went unseen.
    pub controls: BTreeMap<&'static str, Option<String>>,
    /// What was wrong.
    pub violations: Vec<String>,
}

impl Report {
    /// No violation, and every control was found out.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.controls.values().all(Option::is_some)
    }

    fn violated(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} operations, {} writes and syncs", self.operations, self.steps)?;
        for (mode, count) in &self.cuts {
            writeln!(f, "power cuts, {mode}: {count}")?;
        }
        writeln!(f, "un-synced writes lost: {}", self.writes_lost)?;
        writeln!(f, "stores that refused to open, as they must: {}", self.refused)?;
        let (kills, cuts) = (self.rocks_kills, self.rocks_log_cuts);
        writeln!(f, "RocksDB: {kills} kills, {cuts} cuts of its log at a byte")?;
        for (control, found) in &self.controls {
            match found {
                Some(found) => writeln!(f, "control, {control}: found out ({found})")?,
                None => writeln!(f, "control, {control}: NOT FOUND OUT")?,
            }
        }
        for violation in &self.violations {
            writeln!(f, "BROKEN: {violation}")?;
        }
        match self.is_clean() {
            true => write!(f, "verdict: every cut kept what was acknowledged"),
            false => write!(f, "verdict: BROKEN"),
        }
    }
}

/// Cuts everywhere and tells what was found.
///
/// # Errors
/// If a directory for RocksDB can't be made or read.
pub fn run(args: &Args) -> std::io::Result<Report> {
    let mut report = Report::default();
    for seed in args.seed..args.seed + args.workloads {
        let workload = Workload::draw(seed, args.operations);
        report.operations += workload.operations();
        cut_everywhere(&workload, seed, &mut report);
        if args.rocks_cuts > 0 {
            rocks::cut(&workload, seed, args.rocks_cuts, &mut report)?;
        }
    }
    for control in Control::ALL {
        let found = (args.seed..args.seed + CONTROL_SEEDS).find_map(|seed| {
            let workload = Workload::draw(seed, args.operations.min(CONTROL_OPERATIONS));
            control.find_out(&workload)
        });
        report.controls.insert(control.name(), found);
    }
    Ok(report)
}

/// Workloads that a control may take to be found out, and their length.
const CONTROL_SEEDS: u64 = 5;
const CONTROL_OPERATIONS: usize = 80;

/// What three replicas are asked.
struct Workload {
    replicas: Vec<(Arc<Story>, Vec<Step>)>,
}

/// What they were told.
type Journals = Vec<Journal>;

impl Workload {
    fn draw(seed: u64, operations: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x6375_7473);
        let each = (operations / GROUPS.len()).max(1);
        let length = u64::try_from(2 * each).expect("a usize fits 64 bits");
        let replicas = GROUPS.map(|(group, is_partition)| {
            let story = Story::draw(group, is_partition, length, &mut rng);
            let steps = draw(&story, each, &mut rng);
            (Arc::new(story), steps)
        });
        Self { replicas: replicas.into() }
    }

    fn operations(&self) -> u64 {
        let steps: usize = self.replicas.iter().map(|(_, steps)| steps.len()).sum();
        u64::try_from(steps).expect("a usize fits 64 bits")
    }

    /// Runs all replicas on `engine` until they end or the disk fails.
    async fn run(
        &self,
        engine: Arc<dyn Engine>,
        writer: LogWriter,
        journals: &Journals,
        writes: &Arc<AtomicU64>,
    ) {
        let replicas = self.replicas.iter().zip(journals).map(|((story, steps), journal)| {
            let disk = (engine.clone(), writer.clone());
            tokio::spawn(drive(disk, story.clone(), steps.clone(), journal.clone(), writes.clone()))
        });
        let replicas: Vec<_> = replicas.collect();
        for replica in replicas {
            replica.await.expect("a replica ends with its disk and does not panic");
        }
        writer.close().await;
    }

    fn journals(&self) -> Journals {
        self.replicas.iter().map(|_| Journal::default()).collect()
    }

    /// Runs all replicas on a simulated disk as far as it lets them.
    fn run_on(&self, disk: &MemoryEngine) -> Vec<Vec<Fact>> {
        let journals = self.journals();
        on_one_thread(async {
            let engine: Arc<dyn Engine> = Arc::new(disk.clone());
            let writer = LogWriter::on_task(engine.clone(), SyncDelay::fixed(Duration::ZERO));
            self.run(engine, writer, &journals, &Arc::default()).await;
        });
        journals.iter().map(Journal::copy).collect()
    }

    /// Opens all replicas again and checks them.
    async fn check(
        &self,
        engine: Arc<dyn Engine>,
        facts: &[Vec<Fact>],
        writes: u64,
    ) -> Result<(), String> {
        for ((story, _), facts) in self.replicas.iter().zip(facts) {
            check(&engine, story, facts, writes).await?;
        }
        Ok(())
    }

    fn check_on(&self, disk: &MemoryEngine, facts: &[Vec<Fact>]) -> Result<(), String> {
        on_one_thread(self.check(Arc::new(disk.clone()), facts, u64::MAX))
    }
}

/// The same order of tasks every time.
fn on_one_thread<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without sockets can be had").block_on(run)
}

fn cut_everywhere(workload: &Workload, seed: u64, report: &mut Report) {
    let whole = MemoryEngine::new();
    let facts = workload.run_on(&whole);
    if let Err(what) = workload.check_on(&whole, &facts) {
        report.violated(format!("seed {seed}, without a cut: {what}"));
        return;
    }
    let unfinished = facts
        .iter()
        .zip(&workload.replicas)
        .find(|(facts, replica)| facts.len() != replica.1.len());
    if unfinished.is_some() {
        report.violated(format!("seed {seed}: a replica stopped on a sound disk"));
    }
    let steps = MemoryEngine::clone(&whole).counts().steps;
    let mut rng = fastrand::Rng::with_seed(seed);
    for step in 0..steps {
        report.steps += 1;
        let disk = MemoryEngine::new();
        disk.die_at_step(step);
        let facts = workload.run_on(&disk);
        cut_at(workload, (&disk, &facts), rng.usize(..), &mut |mode, outcome| {
            *report.cuts.entry(mode).or_default() += 1;
            match outcome {
                Ok(Reopened::Refused) => report.refused += 1,
                Ok(Reopened::Whole { lost }) => report.writes_lost += lost,
                Err(what) => {
                    report.violated(format!("seed {seed}, cut at step {step}, {mode}: {what}"));
                }
            }
        });
    }
}

enum Reopened {
    Whole { lost: u64 },
    Refused,
}

/// Cuts a disk that died, in each way.
fn cut_at(
    workload: &Workload,
    (disk, facts): (&MemoryEngine, &[Vec<Fact>]),
    drawn: usize,
    tell: &mut dyn FnMut(&'static str, Result<Reopened, String>),
) {
    let pending = disk.pending_batches();
    let mut modes = vec![("nothing un-synced kept", 0), ("all kept but the last write", pending)];
    if pending > 1 {
        modes.push(("a first part kept", 1 + drawn % (pending - 1)));
    }
    for (mode, keep_batches) in modes {
        let disk = disk.duplicate();
        let lost = disk.cut(PowerCut { keep_batches, tear: Tear::Dropped });
        let lost = u64::try_from(lost).expect("a usize fits 64 bits");
        let checked = workload.check_on(&disk, facts);
        tell(mode, checked.map(|()| Reopened::Whole { lost }));
    }
    if pending > 1 {
        let disk = disk.duplicate();
        disk.cut(PowerCut { keep_batches: drawn % (pending - 1), tear: Tear::Hole });
        let outcome = match workload.check_on(&disk, facts) {
            Err(what) if what.contains("count this disk as lost") => Ok(Reopened::Refused),
            Err(what) => Err(format!("it is not refused for what it is: {what}")),
            Ok(()) => Err("a store with a hole in its log was opened".to_owned()),
        };
        tell("a later write kept and not an earlier one", outcome);
    }
}

/// A disk that breaks the rules.
#[derive(Debug, Clone, Copy)]
enum Control {
    AnswersBeforeItSyncs,
    KeepsHalfAWrite,
    HidesAHole,
}

impl Control {
    const ALL: [Self; 3] = [Self::AnswersBeforeItSyncs, Self::KeepsHalfAWrite, Self::HidesAHole];

    fn name(self) -> &'static str {
        match self {
            Self::AnswersBeforeItSyncs => "a disk that answers before it syncs",
            Self::KeepsHalfAWrite => "a disk that keeps half a write",
            Self::HidesAHole => "a disk that keeps a later write and not an earlier one, unseen",
        }
    }

    fn tear(self) -> Tear {
        match self {
            Self::AnswersBeforeItSyncs => Tear::Dropped,
            Self::KeepsHalfAWrite => Tear::HalfRecord,
            Self::HidesAHole => Tear::UnseenHole,
        }
    }

    /// The first violation over all cuts.
    fn find_out(self, workload: &Workload) -> Option<String> {
        let whole = MemoryEngine::new();
        workload.run_on(&whole);
        (0..whole.counts().steps).find_map(|step| {
            let disk = MemoryEngine::new();
            disk.die_at_step(step);
            if matches!(self, Self::AnswersBeforeItSyncs) {
                disk.lose_next_syncs(u64::MAX);
            }
            let facts = workload.run_on(&disk);
            disk.cut(PowerCut { keep_batches: 0, tear: self.tear() });
            let found = workload.check_on(&disk, &facts).err();
            found.map(|what| format!("at step {step}: {what}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acknowledged_is_lost_wherever_one_nodes_power_is_cut() {
        let report = run(&Args { seed: 1, workloads: 1, operations: 90, rocks_cuts: 6 });
        let report = report.expect("a temporary directory");
        assert!(report.is_clean(), "{report}");
        assert!(report.steps > 50 && report.writes_lost > 20 && report.refused > 0, "{report}");
        assert!(report.rocks_kills > 1 && report.rocks_log_cuts > 1, "{report}");
    }

    #[test]
    fn a_workload_meets_every_kind_of_step() {
        let drawn: Vec<Step> = (1..5)
            .flat_map(|seed| Workload::draw(seed, 200).replicas)
            .flat_map(|(_, steps)| steps)
            .collect();
        let meets = |is: fn(&Step) -> bool| drawn.iter().any(is);
        assert!(meets(|step| matches!(step, Step::Vote(term) if *term > 1)));
        assert!(meets(|step| matches!(step, Step::TruncateAfter(_))));
        assert!(meets(|step| matches!(step, Step::Install(_))));
        assert!(meets(|step| matches!(step, Step::Snapshot)));
    }
}
