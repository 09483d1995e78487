//! The simulator's command line: run seeds, replay and shrink what failed, check that runs repeat,
//! visit the zoo.
//!
//! Exit codes: 0 all is well; 1 a promise was broken, a run did not repeat, or a planted bug was
//! not caught; 2 wrong usage, or the simulator itself failed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use jepsen_style_tests::checkers::differential::Comparison;
use jepsen_style_tests::cuts;
use jepsen_style_tests::determinism::{Comparison as Runs, compare};
use jepsen_style_tests::live_for;
use jepsen_style_tests::plan::{FaultChoice, Plan, Wishes, Workload};
use jepsen_style_tests::report::{Report, read_plan, write_plan};
use jepsen_style_tests::run::{RunOptions, run};
use jepsen_style_tests::shrink::shrink;
use jepsen_style_tests::summary::Summary;
use jepsen_style_tests::sweep::{ONE_RUN, Sweep};
use jepsen_style_tests::zoo::{self, SPECIMENS, Specimen, Visit};
use tokio::time::Instant;

/// Lines of evidence shown for one violation; all of them are in the report.
const EVIDENCE_LINES_MAX: usize = 8;
/// Characters shown of one of them.
const EVIDENCE_COLUMNS_MAX: usize = 300;

/// Runs a Quipu cluster under faults, in simulated time, and checks that it keeps its promises.
///
/// Without a command: run. Exit codes: 0 all is well; 1 a promise was broken, a run did not repeat,
/// or a planted bug was not caught; 2 wrong usage, or the simulator itself failed.
#[derive(Parser)]
#[command(name = "quipu-sim", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    run: SeedArgs,
}

#[derive(Subcommand)]
enum Task {
    /// Run seeds and check every promise
    Run(SeedArgs),
    /// Run the plan that an earlier run has left, or one that you changed
    Replay(PlanArgs),
    /// Look for a smaller plan that breaks the same promise
    Shrink(ShrinkArgs),
    /// Run each seed twice, each in a fresh process, and compare the two runs byte for byte
    CheckDeterminism(SeedArgs),
    /// Plant bugs in the nodes and see that each is caught
    #[command(subcommand)]
    Zoo(ZooTask),
    /// Compare the fast checkers with a search through every order, on short random histories
    CheckCheckers(CheckersArgs),
    /// Cut the power of one node's storage at every write and every sync
    Cuts(CutsArgs),
    /// Real processes on this machine: `--for 2m` runs one check after the other for so long, any
    /// other arguments go to quipu-live
    #[command(disable_help_flag = true)]
    Live {
        /// See `quipu-sim live --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// The plan of a folder in this process; the other commands start it
    #[command(name = ONE_RUN, hide = true)]
    OneRun(OneRunArgs),
}

#[derive(Args, Clone)]
struct SeedArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, from the first one on
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How long clients work under faults, in simulated time: 30s, 500ms, 2m
    #[arg(long, default_value = "30s")]
    until: String,
    /// How many nodes, 3 to 7; by default the seed says
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=7))]
    nodes: Option<u64>,
    /// Which faults: `all` (each seed has some of them), `none`, or names with commas between them
    #[arg(long, default_value = "all")]
    faults: String,
    /// What clients do
    #[arg(long, value_enum, default_value_t)]
    workload: Workload,
    /// Runs at a time; by default one for each processor
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Begin no further run after so long in real time: 12m
    #[arg(long)]
    within: Option<String>,
    /// Also write trace.txt: everything that arrived at a socket or was logged
    #[arg(long)]
    trace: bool,
    /// Where the files of each run go, in a folder named by its seed
    #[arg(long, default_value_os_t = default_folder())]
    out: PathBuf,
}

#[derive(Args)]
struct PlanArgs {
    /// The folder of a run, or its plan.json
    plan: PathBuf,
    /// Also write trace.txt: everything that arrived at a socket or was logged
    #[arg(long)]
    trace: bool,
    /// Where the files go
    #[arg(long, default_value_os_t = default_folder().join("replay"))]
    out: PathBuf,
}

#[derive(Args)]
struct ShrinkArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Give up after so many runs
    #[arg(long, default_value_t = 200)]
    tries: u32,
}

#[derive(Args)]
struct CutsArgs {
    /// Workload N has this seed + N
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many workloads
    #[arg(long, default_value_t = 1)]
    workloads: u64,
    /// Operations of one workload
    #[arg(long, default_value_t = 200)]
    operations: usize,
    /// Cuts of RocksDB's log at drawn bytes, for each workload; 0 leaves RocksDB out
    #[arg(long, default_value_t = 40)]
    rocks_cuts: usize,
}

#[derive(Subcommand)]
enum ZooTask {
    /// Tell which bugs there are and which check must catch each
    List,
    /// Run seeds on nodes with each bug until it is caught; needs the build of `make zoo`
    Run(ZooArgs),
}

#[derive(Args)]
struct ZooArgs {
    /// Only these bugs
    bugs: Vec<String>,
    /// Only those that are caught in a few runs
    #[arg(long)]
    quick: bool,
    /// The first seed for each bug
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seeds for each bug, at most
    #[arg(long, default_value_t = 60)]
    runs: u64,
    /// Seeds without a bug, which must raise no alarm
    #[arg(long, default_value_t = 10)]
    clean_runs: u64,
    /// How long clients work under faults, in simulated time
    #[arg(long, default_value = "20s")]
    until: String,
    /// Look under these faults instead of those that each bug needs
    #[arg(long)]
    faults: Option<String>,
    /// Runs at a time; by default one for each processor
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Where the files of each run go
    #[arg(long, default_value_os_t = default_folder())]
    out: PathBuf,
}

#[derive(Args)]
struct CheckersArgs {
    /// Decides all histories
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many
    #[arg(long, default_value_t = 50_000)]
    histories: u64,
}

#[derive(Args)]
struct OneRunArgs {
    folder: PathBuf,
    #[arg(long)]
    trace_text: bool,
    #[arg(long)]
    to_the_end: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Task::Run(cli.run)) {
        Task::Run(seeds) => run_seeds(&seeds),
        Task::Replay(plan) => replay(&plan),
        Task::Shrink(args) => shrink_plan(&args),
        Task::CheckDeterminism(seeds) => check_determinism(&seeds),
        Task::Zoo(task) => zoo(&task),
        Task::CheckCheckers(args) => check_checkers(&args),
        Task::Cuts(args) => cut(&args),
        Task::Live { arguments } => live(&arguments),
        Task::OneRun(one) => one_run(&one),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_seeds(args: &SeedArgs) -> anyhow::Result<bool> {
    let sweep = args.sweep()?;
    println!("seeds {} to {}, {} of faults each", args.seed, args.last_seed()?, args.until);
    let within = args.within.as_deref().map(duration).transpose()?;
    let started = Instant::now();
    let mut summary = Summary::default();
    sweep.run(|report| {
        print_run(report, &sweep.folder);
        summary.add(report);
        within.is_none_or(|within| started.elapsed() < within)
    })?;
    println!("\n{}", summary.table(started.elapsed()));
    for seed in summary.failed() {
        println!("REPRODUCE WITH: {}", args.reproduce(*seed));
    }
    Ok(summary.failed().is_empty())
}

fn print_run(report: &Report, folder: &Path) {
    let operations: u64 = report.operations.values().sum();
    let faults: u64 = report.faults.installed.values().sum();
    let seconds = report.simulated_ms / 1_000;
    let verdict = if report.violations.is_empty() { "ok" } else { "BROKEN" };
    println!(
        "seed {}: {verdict}, {} nodes, {seconds} s, {operations} operations, {faults} faults",
        report.seed, report.nodes
    );
    for found in &report.violations {
        println!("  {}", found.what);
        for line in found.evidence.iter().take(EVIDENCE_LINES_MAX) {
            let shown: String = line.chars().take(EVIDENCE_COLUMNS_MAX).collect();
            println!("    {shown}");
        }
    }
    if !report.violations.is_empty() {
        println!("  plan and history: {}", folder.join(report.seed.to_string()).display());
    }
}

fn replay(args: &PlanArgs) -> anyhow::Result<bool> {
    let plan = args.read()?;
    let mut clean = true;
    let mut summary = Summary::default();
    let started = Instant::now();
    args.sweep(plan).run(|report| {
        print_run(report, &args.out);
        summary.add(report);
        clean = report.violations.is_empty();
        true
    })?;
    println!("\n{}", summary.table(started.elapsed()));
    Ok(clean)
}

fn shrink_plan(args: &ShrinkArgs) -> anyhow::Result<bool> {
    let plan = args.plan.read()?;
    let kinds_of = |plan: &Plan| -> anyhow::Result<Vec<String>> {
        let mut kinds = Vec::new();
        args.plan.sweep(plan.clone()).run(|report| {
            kinds.extend(report.violations.iter().map(|found| found.kind.clone()));
            true
        })?;
        Ok(kinds)
    };
    let Some(kind) = kinds_of(&plan)?.into_iter().next() else {
        bail!("{} breaks no promise, with this code", args.plan.plan.display());
    };
    println!("the plan breaks `{kind}`; looking for smaller ones that do");
    let (smallest, tries) = shrink(&plan, args.tries, |smaller| {
        let fails = kinds_of(smaller)?.contains(&kind);
        if fails {
            println!("  {} faults in {} ms", smaller.faults.len(), smaller.until_ms);
        }
        anyhow::Ok(fails)
    })?;
    let folder = args.plan.out.join("smallest");
    std::fs::create_dir_all(&folder)?;
    write_plan(&folder, &smallest)?;
    println!("after {tries} runs: {} faults in {} ms", smallest.faults.len(), smallest.until_ms);
    println!("REPRODUCE WITH: cargo sim replay {}", folder.display());
    Ok(true)
}

fn cut(args: &CutsArgs) -> anyhow::Result<bool> {
    let CutsArgs { seed, workloads, operations, rocks_cuts } = *args;
    let report = cuts::run(&cuts::Args { seed, workloads, operations, rocks_cuts })?;
    println!("{report}");
    Ok(report.is_clean())
}

fn live(arguments: &[std::ffi::OsString]) -> anyhow::Result<bool> {
    let beside = std::env::current_exe()?.with_file_name("quipu-live");
    if let [flag, time, more @ ..] = arguments
        && flag == "--for"
    {
        let time = time.to_str().context("--for: no time")?;
        return live_for::run(&beside, duration(time)?, more);
    }
    let status = Command::new(&beside).args(arguments).status();
    let status = status.with_context(|| format!("can't start {}", beside.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("quipu-live ended with {status}"),
    }
}

fn check_determinism(args: &SeedArgs) -> anyhow::Result<bool> {
    let mut all_same = true;
    for plan in args.sweep()?.plans {
        let seed = plan.seed;
        let mut runs: Vec<(Report, PathBuf)> = Vec::new();
        for name in ["first", "second"] {
            let folder = args.out.join("determinism").join(name);
            let sweep = Sweep {
                plans: vec![plan.clone()],
                trace_text: true,
                folder: folder.clone(),
                ..args.sweep()?
            };
            sweep.run(|report| {
                runs.push((report.clone(), folder.join(seed.to_string())));
                true
            })?;
        }
        let [(one, one_folder), (other, other_folder)] = runs.as_slice() else {
            bail!("seed {seed} has {} reports instead of two", runs.len());
        };
        match compare((one, one_folder), (other, other_folder)) {
            Runs::Same => {
                println!("seed {seed}: same, {} events, {}", one.trace_events, one.trace_hash);
            }
            Runs::Different(place) => {
                all_same = false;
                println!("seed {seed}: DIFFERENT, first here:\n{place}");
                let reproduce = args.reproduce(seed).replace("sim run", "sim check-determinism");
                println!("REPRODUCE WITH: {reproduce}");
            }
        }
        // A trace is hundreds of megabytes.
        for (_, folder) in &runs {
            drop(std::fs::remove_file(folder.join("trace.txt")));
        }
    }
    Ok(all_same)
}

fn zoo(task: &ZooTask) -> anyhow::Result<bool> {
    match task {
        ZooTask::List => println!("{}", zoo::list()),
        ZooTask::Run(args) => return visit_zoo(args),
    }
    Ok(true)
}

fn visit_zoo(args: &ZooArgs) -> anyhow::Result<bool> {
    if !node::version::BUG_ZOO {
        bail!("this build has no planted bugs; use `make zoo`");
    }
    let named =
        |it: &Specimen| args.bugs.is_empty() || args.bugs.iter().any(|a| a == it.bug.name());
    let known = |name: &&String| SPECIMENS.iter().any(|it| it.bug.name() == **name);
    if let Some(unknown) = args.bugs.iter().find(|name| !known(name)) {
        bail!("no bug is called {unknown:?}; `quipu-sim zoo list` tells which there are");
    }
    let visit = Visit {
        seed: args.seed,
        runs: args.runs,
        until: duration(&args.until)?,
        faults: args.faults.clone(),
        jobs: jobs(args.jobs),
        folder: args.out.join("zoo"),
    };
    let chosen = SPECIMENS.iter().filter(|it| named(it) && (it.quick || !args.quick));
    visit.run(chosen, args.clean_runs)
}

fn check_checkers(args: &CheckersArgs) -> anyhow::Result<bool> {
    let comparison = Comparison { seed: args.seed, histories: args.histories };
    match comparison.run() {
        Ok(tally) => {
            println!("{tally}\nverdict: the checkers and the search agree on every history");
            Ok(true)
        }
        Err(disagreement) => {
            println!("{disagreement}");
            println!("verdict: THEY DISAGREE");
            Ok(false)
        }
    }
}

fn one_run(args: &OneRunArgs) -> anyhow::Result<bool> {
    let options = RunOptions {
        plan: read_plan(&args.folder).context("can't read the plan")?,
        folder: args.folder.clone(),
        trace_text: args.trace_text,
        to_the_end: args.to_the_end,
    };
    let report = run(&options).context("can't write the files of the run")?;
    Ok(report.violations.is_empty())
}

impl SeedArgs {
    fn last_seed(&self) -> anyhow::Result<u64> {
        let more = self.runs.checked_sub(1).context("--runs: at least one")?;
        self.seed.checked_add(more).context("--runs: seeds end at 2^64 - 1")
    }

    fn sweep(&self) -> anyhow::Result<Sweep> {
        let (until, faults) = (duration(&self.until)?, FaultChoice::parse(&self.faults)?);
        let (nodes, workload, faults) = (self.nodes, self.workload, &faults);
        let wishes = |seed| Wishes { seed, until, nodes, faults: faults.clone(), workload };
        Ok(Sweep {
            plans: (self.seed..=self.last_seed()?).map(|seed| Plan::draw(&wishes(seed))).collect(),
            folder: self.out.clone(),
            jobs: jobs(self.jobs).get(),
            trace_text: self.trace,
            planted: None,
            to_the_end: false,
        })
    }

    /// The command that runs one of the seeds again.
    fn reproduce(&self, seed: u64) -> String {
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let named = Some(&self.faults).filter(|faults| *faults != "all");
        let faults = named.map(|faults| format!(" --faults {faults}")).unwrap_or_default();
        let workload = match self.workload {
            Workload::Mixed => "",
            Workload::Groups => " --workload groups",
        };
        format!("cargo sim run --seed {seed} --until {}{nodes}{faults}{workload}", self.until)
    }
}

impl PlanArgs {
    fn read(&self) -> anyhow::Result<Plan> {
        read_plan(&self.plan).with_context(|| format!("no plan at {}", self.plan.display()))
    }

    fn sweep(&self, plan: Plan) -> Sweep {
        let (plans, folder) = (vec![plan], self.out.clone());
        Sweep { plans, folder, jobs: 1, trace_text: self.trace, planted: None, to_the_end: false }
    }
}

/// Runs at a time.
fn jobs(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or_else(processors)
}

fn default_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(&target).join("sim")
}

/// A time such as 30s, 500ms or 2m.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => bail!("{text:?} is no time; write one such as 30s, 500ms or 2m"),
    };
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no time"))?;
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=86_400_000).contains(ms));
    Ok(Duration::from_millis(ms.with_context(|| format!("{text:?}: 1 ms to 24 h"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("30s").expect("a time"), Duration::from_secs(30));
        assert_eq!(duration("500ms").expect("a time"), Duration::from_millis(500));
        for bad in ["", "30", "s", "-1s", "0s", "1h", "99999999999999999999s", "1.5s", "é"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn seeds_may_be_run_with_or_without_the_command() {
        for line in [vec!["quipu-sim", "--seed", "42"], vec!["quipu-sim", "run", "--seed", "42"]] {
            let cli = Cli::try_parse_from(&line).expect("both are accepted");
            let Task::Run(args) = cli.command.unwrap_or(Task::Run(cli.run)) else {
                panic!("{line:?} is a run");
            };
            assert_eq!((args.seed, args.runs), (42, 1));
        }
    }
}
