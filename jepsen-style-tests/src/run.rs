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

use crate::checkers::{check_all, serves_after_healing};
use crate::effects;
use crate::history::Recorder;
use crate::log_lines::{LineNotes, LogLines};
use crate::nemesis::{FaultCounts, Nemesis, Reach};
use crate::observations::Observations;
use crate::operator::{self, Complaints, Operator};
use crate::plan::Plan;
use crate::report::{self, Finding, Report};
use crate::trace::Trace;
use crate::violation::Violation;
use crate::workload::{
    Attendance, Phase, Worker, consume, groups, members, orders, produce, read, storm, topics,
};
use crate::world::World;

/// Simulated time after which a run that should have ended has not, beside the time of the plan.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Decides everything.
    pub plan: Plan,
    /// Where the files of the run go.
    pub folder: PathBuf,
    /// Also write every event of the trace as text.
    pub trace_text: bool,
    /// Goes on after Raft broke a promise, to see what clients make of it.
    pub to_the_end: bool,
}

/// Runs a plan and writes its files.
///
/// # Errors
/// If the files can't be written. What is wrong with the cluster stands in the report.
pub fn run(options: &RunOptions) -> io::Result<Report> {
    fs::create_dir_all(&options.folder)?;
    let trace = match options.trace_text {
        true => Trace::to_file(&options.folder.join("trace.txt"))?,
        false => Trace::new(),
    };
    let notes = LineNotes::default();
    let lines = LogLines::new(trace.clone(), notes.clone());
    let _lines = tracing::subscriber::set_default(lines);
    let plan = &options.plan;
    let mut stage = Stage::set(plan, trace.clone(), notes.clone());
    let mut faults = stage.play(plan, options.to_the_end);
    effects::count(&mut faults, stage.world.nodes(), &notes);
    faults.count("batches sent again in storms", stage.reach.clients.retries());

    let history = stage.recorder.history();
    let mut violations = stage.complaints.take();
    violations.extend(check_all(&Observations::of(&history)));
    if let Some(healed) = stage.healed {
        for healing in operator::healings(plan, &stage.reach.leaders, healed) {
            violations.extend(serves_after_healing::check(&history, &healing));
        }
    }
    let errors = notes.take_errors().into_iter();
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
        seed: plan.seed,
        nodes: plan.nodes.len(),
        simulated_ms: u64::try_from(stage.world.now().as_millis()).unwrap_or(u64::MAX),
        trace_hash: format!("{trace_hash:032x}"),
        trace_events,
        disk_hashes,
        operations: history.counts(),
        faults,
        violations: findings.collect(),
    };
    report::write(&options.folder, plan, &history, &report)?;
    Ok(report)
}

/// A world with its clients.
struct Stage {
    world: World,
    phase: watch::Sender<Phase>,
    reach: Reach,
    recorder: Recorder,
    complaints: Complaints,
    /// When the faults were over.
    healed: Option<Duration>,
}

impl Stage {
    fn set(plan: &Plan, trace: Trace, notes: LineNotes) -> Self {
        let recorder = Recorder::with_notes(trace.clone(), notes);
        let stage = Self {
            world: World::new(plan, trace, &recorder),
            phase: watch::Sender::new(Phase::Forming),
            reach: Reach::default(),
            recorder,
            complaints: Complaints::default(),
            healed: None,
        };
        stage.with_clients(plan)
    }

    fn with_clients(mut self, plan: &Plan) -> Self {
        let groups: Vec<String> = (1..=plan.committers).map(|it| format!("group-{it}")).collect();
        let mut workers = Workers { values: Rc::default(), count: 0 };
        let tasks = self.client_tasks(plan, &mut workers, &groups);
        let attendance = Attendance::new();
        for (number, tasks) in (1..).zip(tasks) {
            let tasks = futures::future::join_all(tasks).map(drop);
            self.world.add_client(&format!("client-{number}"), attendance.attend(tasks));
        }
        let last_members = Attendance::new();
        if !plan.groups.is_empty() {
            let last = self.last_members(plan, &mut workers);
            let last = futures::future::join_all(last).map(drop);
            self.world.add_client("last-members", last_members.attend(last));
        }
        let operator = Operator {
            worker: workers.hire(&self, plan, "operator"),
            phase: self.phase.clone(),
            founders: self.world.founders(),
            groups,
            leaders: self.reach.leaders.clone(),
            running: self.world.census(),
            others: attendance,
            last_members,
            complaints: self.complaints.clone(),
        };
        self.world.add_client("operator", operator.run(plan.clone()));
        self
    }

    /// What each client host does: few hosts, since each costs time in every step.
    fn client_tasks(
        &self,
        plan: &Plan,
        workers: &mut Workers,
        groups: &[String],
    ) -> Vec<Vec<LocalBoxFuture<'static, ()>>> {
        let mut all: Vec<LocalBoxFuture<'static, ()>> = Vec::new();
        for (number, producer) in (1..).zip(plan.producers.iter().copied()) {
            let worker = workers.hire(self, plan, &format!("producer-{number}"));
            let name = worker.process.clone();
            let lives = move |life| produce::run(worker.reborn(life), producer);
            all.push(self.reach.clients.live(&name, lives).boxed_local());
        }
        for (number, count) in (1..).zip(plan.groups.iter().copied()) {
            let group = format!("members-{number}");
            for member in 1..=count {
                let worker = workers.hire(self, plan, &format!("{group}-{member}"));
                let name = worker.process.clone();
                let of = group.clone();
                let lives = move |life| members::consume(worker.reborn(life), of.clone());
                all.push(self.reach.clients.live(&name, lives).boxed_local());
            }
        }
        for number in 1..=plan.readers {
            let worker = workers.hire(self, plan, &format!("reader-{number}"));
            all.push(read::everywhere(worker, self.reach.leaders.clone()).boxed_local());
        }
        for number in 1..=plan.consumers {
            let worker = workers.hire(self, plan, &format!("consumer-{number}"));
            let name = worker.process.clone();
            let lives = move |life| consume::follow(worker.reborn(life));
            all.push(self.reach.clients.live(&name, lives).boxed_local());
        }
        for (number, group) in (1..).zip(groups) {
            let worker = workers.hire(self, plan, &format!("committer-{number}"));
            all.push(groups::commit(worker, group.clone()).boxed_local());
        }
        let fetcher = workers.hire(self, plan, "fetcher");
        let with_members = (1..).zip(&plan.groups).map(|(number, _)| format!("members-{number}"));
        let watched: Vec<String> = groups.iter().cloned().chain(with_members).collect();
        all.push(groups::fetch(fetcher, watched).boxed_local());
        for number in 1..=STORMERS * u32::from(plan.has_storms()) {
            let worker = workers.hire(self, plan, &format!("impatient-{number}"));
            all.push(storm::take_part(worker).boxed_local());
        }
        if plan.churns_topics {
            let worker = workers.hire(self, plan, "topics");
            all.push(topics::come_and_go(worker).boxed_local());
        }
        let admin = workers.hire(self, plan, "admin");
        all.push(orders::carry_out(admin, self.reach.orders.clone()).boxed_local());
        let mut hosts: Vec<Vec<_>> = (0..CLIENT_HOSTS).map(|_| Vec::new()).collect();
        for (index, task) in all.into_iter().enumerate() {
            hosts[index % CLIENT_HOSTS].push(task);
        }
        hosts
    }

    /// Who consumes what is left when everything is over: one member for each group.
    fn last_members(
        &self,
        plan: &Plan,
        workers: &mut Workers,
    ) -> Vec<impl Future<Output = ()> + use<>> {
        let numbers = (1..).zip(&plan.groups).map(|(number, _)| number);
        let last = numbers.map(|number: u32| {
            let group = format!("members-{number}");
            let worker = workers.hire(self, plan, &format!("{group}-last"));
            members::finish(worker, group, self.complaints.clone())
        });
        last.collect()
    }

    /// Steps the world to the end of the run. What goes wrong on the way is complained about.
    fn play(&mut self, plan: &Plan, to_the_end: bool) -> FaultCounts {
        let until = Duration::from_millis(plan.until_ms);
        let mut nemesis: Option<(Nemesis, Duration)> = None;
        let mut dead = plan.stay_dead.clone();
        loop {
            match self.world.step() {
                Ok(true) => break,
                Ok(false) => {}
                Err(violation @ Violation::Raft(_)) if to_the_end => {
                    self.complaints.borrow_mut().push(violation);
                    self.world.look_away();
                }
                Err(violation) => {
                    self.complaints.borrow_mut().push(violation);
                    break;
                }
            }
            let now = self.world.now();
            let phase = *self.phase.borrow();
            match (&mut nemesis, phase) {
                (None, Phase::Working) => {
                    let (faults, reach) = (plan.faults.clone(), self.reach.clone());
                    let struck = Nemesis::new(faults, now, reach, self.recorder.clone());
                    nemesis = Some((struck, now));
                }
                (Some((nemesis, since)), Phase::Working) => {
                    nemesis.act(&mut self.world);
                    if now >= *since + until {
                        nemesis.heal(&mut self.world, &dead);
                        self.healed = Some(now);
                        self.phase.send_replace(Phase::Core);
                    }
                }
                (_, Phase::Ending) => {
                    for label in std::mem::take(&mut dead) {
                        if !self.world.host(label).is_up() {
                            self.world.restart(label);
                        }
                    }
                }
                _ => {}
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

/// Hosts that clients share, beside the operator's.
const CLIENT_HOSTS: usize = 3;

/// Client tasks that lose their patience in storms.
const STORMERS: u32 = 3;

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
            partitions: plan.topic.partitions,
            values: self.values.clone(),
            config: stage.world.client_config(self.count),
            controls: stage.reach.clients.clone(),
        }
    }
}
