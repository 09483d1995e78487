//! One run of one seed, from the first step of its world to the verdict.
//!
//! At most one run per process, because some state below us is kept per process or thread.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use tokio::sync::watch;

use crate::checkers::check_all;
use crate::history::Recorder;
use crate::log_lines::{ErrorLines, LogLines};
use crate::nemesis::{FaultCounts, LeaderBoard, Nemesis};
use crate::observations::Observations;
use crate::operator::{Complaints, Operator};
use crate::plan::{Plan, ProducerPlan};
use crate::report::{self, Finding, Report};
use crate::trace::Trace;
use crate::violation::Violation;
use crate::workload::{Attendance, Phase, Worker, groups, produce, read};
use crate::world::World;

/// Simulated time after which a run that should have ended has not, beside the time of the plan.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Decides everything.
    pub seed: u64,
    /// How long clients work under faults, in simulated time.
    pub until: Duration,
    /// Where the files of the run go.
    pub folder: PathBuf,
    /// Also write every event of the trace as text.
    pub trace_text: bool,
}

/// Runs a seed and writes its files.
///
/// # Errors
/// If the files can't be written. What is wrong with the cluster stands in the report.
pub fn run(options: &RunOptions) -> io::Result<Report> {
    fs::create_dir_all(&options.folder)?;
    let trace = match options.trace_text {
        true => Trace::to_file(&options.folder.join("trace.txt"))?,
        false => Trace::new(),
    };
    let errors = ErrorLines::default();
    let lines = LogLines::new(trace.clone(), errors.clone());
    let _lines = tracing::subscriber::set_default(lines);
    let plan = Plan::draw(options.seed, options.until);
    let mut stage = Stage::set(&plan, trace.clone());
    let faults = stage.play(&plan);

    let history = stage.recorder.history();
    let mut violations = stage.complaints.take();
    violations.extend(check_all(&Observations::of(&history)));
    let errors = errors.take().into_iter();
    violations.extend(errors.map(|line| Violation::ErrorLogged { line }));
    let findings = violations.iter().map(|violation| Finding {
        kind: violation.kind().to_owned(),
        what: violation.to_string(),
        evidence: history.about(&violation.operations()),
    });
    let hosts = stage.world.nodes().iter();
    let disk_hashes = hosts.map(|host| format!("{:032x}", host.disk_hash())).collect();
    let (trace_hash, trace_events) = trace.hash();
    let report = Report {
        seed: options.seed,
        simulated_ms: u64::try_from(stage.world.now().as_millis()).unwrap_or(u64::MAX),
        trace_hash: format!("{trace_hash:032x}"),
        trace_events,
        disk_hashes,
        operations: history.counts(),
        faults,
        violations: findings.collect(),
    };
    report::write(&options.folder, &plan, &history, &report)?;
    Ok(report)
}

/// A world with its clients.
struct Stage {
    world: World,
    phase: watch::Sender<Phase>,
    leaders: LeaderBoard,
    recorder: Recorder,
    complaints: Complaints,
}

impl Stage {
    fn set(plan: &Plan, trace: Trace) -> Self {
        let recorder = Recorder::new(trace.clone());
        let stage = Self {
            world: World::new(plan, trace),
            phase: watch::Sender::new(Phase::Forming),
            leaders: LeaderBoard::default(),
            recorder,
            complaints: Complaints::default(),
        };
        stage.with_clients(plan)
    }

    fn with_clients(mut self, plan: &Plan) -> Self {
        let labels: Vec<u64> = plan.nodes.iter().map(|node| node.label).collect();
        let groups: Vec<String> = (1..=plan.committers).map(|it| format!("group-{it}")).collect();
        let hosts = plan.producers.len().max(labels.len()).max(groups.len());
        let mut workers = Workers { values: Rc::default(), count: 0 };
        let attendance = Attendance::new();
        for index in 0..hosts {
            let mut tasks: Vec<LocalBoxFuture<'static, ()>> = Vec::new();
            if let Some(producer) = plan.producers.get(index) {
                let worker = workers.hire(&self, plan, &format!("producer-{}", index + 1));
                tasks.push(match producer {
                    ProducerPlan::OneShot => produce::one_shot(worker).boxed_local(),
                    ProducerPlan::Pipelined => produce::pipelined(worker).boxed_local(),
                });
            }
            if let Some(label) = labels.get(index) {
                let worker = workers.hire(&self, plan, &format!("reader-{label}"));
                tasks.push(read::at_node(worker, *label).boxed_local());
            }
            if let Some(group) = groups.get(index) {
                let worker = workers.hire(&self, plan, &format!("committer-{}", index + 1));
                tasks.push(groups::commit(worker, group.clone()).boxed_local());
            }
            let tasks = futures::future::join_all(tasks).map(drop);
            self.world.add_client(&format!("client-{}", index + 1), attendance.attend(tasks));
        }
        let fetcher = workers.hire(&self, plan, "fetcher");
        let fetching = attendance.attend(groups::fetch(fetcher, groups.clone()));
        self.world.add_client("client-groups", fetching);
        let operator = Operator {
            worker: workers.hire(&self, plan, "operator"),
            phase: self.phase.clone(),
            addresses: self.world.addresses(),
            labels,
            groups,
            leaders: self.leaders.clone(),
            others: attendance,
            complaints: self.complaints.clone(),
        };
        self.world.add_client("operator", operator.run(plan.clone()));
        self
    }

    /// Steps the world to the end of the run. What goes wrong on the way is complained about.
    fn play(&mut self, plan: &Plan) -> FaultCounts {
        let until = Duration::from_millis(plan.until_ms);
        let mut nemesis: Option<(Nemesis, Duration)> = None;
        loop {
            match self.world.step() {
                Ok(true) => break,
                Ok(false) => {}
                Err(violation) => {
                    self.complaints.borrow_mut().push(violation);
                    break;
                }
            }
            let now = self.world.now();
            let phase = *self.phase.borrow();
            match &mut nemesis {
                None if phase == Phase::Working => {
                    let (leaders, recorder) = (self.leaders.clone(), self.recorder.clone());
                    let faults = plan.faults.clone();
                    nemesis = Some((Nemesis::new(faults, now, leaders, recorder), now));
                }
                Some((nemesis, since)) if phase == Phase::Working => {
                    nemesis.act(&mut self.world);
                    if now >= *since + until {
                        nemesis.heal(&mut self.world);
                        self.phase.send_replace(Phase::Ending);
                    }
                }
                None | Some(_) => {}
            }
            if now > until + ENDS_WITHIN {
                let what = format!("the run had not ended after {} s", now.as_secs());
                self.complaints.borrow_mut().push(Violation::NotServing { what });
                break;
            }
        }
        nemesis.map(|(nemesis, _)| nemesis.counts().clone()).unwrap_or_default()
    }
}

/// Gives each client task what it needs.
struct Workers {
    values: Rc<Cell<u64>>,
    count: u64,
}

impl Workers {
    fn hire(&mut self, stage: &Stage, plan: &Plan, process: &str) -> Worker {
        self.count += 1;
        let seed = plan.seed.wrapping_mul(0x9e37_79b9).wrapping_add(self.count);
        Worker {
            process: process.to_owned(),
            recorder: stage.recorder.clone(),
            phase: stage.phase.subscribe(),
            rng: fastrand::Rng::with_seed(seed),
            partitions: plan.partitions,
            values: self.values.clone(),
            config: stage.world.client_config(self.count),
        }
    }
}
