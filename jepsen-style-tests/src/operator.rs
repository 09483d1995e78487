//! The client that makes the cluster, watches who leads it, and looks at the end whether it serves.
//!
//! When the faults are over it demands, of a majority whose fellows stay dead, an append to every
//! partition that has a majority among the living and a linearizable read of it on each of them;
//! whether these came in time is judged by `serves_after_healing`. Then all are back, and it
//! demands the same of everybody, the whole log from every replica, and the offsets of every group.
//! Where members changed, every change must have come to its end before that, and the last
//! placement says who holds what.

mod demands;
mod settling;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use quipu_client::{AdminError, Client, GroupOffset, NewTopic};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::demands::{AGAIN_AFTER, demand};
use crate::checkers::serves_after_healing::Healing;
use crate::history::{Answer, Call};
use crate::nemesis::LeaderBoard;
use crate::plan::Plan;
use crate::violation::Violation;
use crate::workload::{Attendance, Phase, TOPIC, Worker};
use crate::world::Census;

/// Forming the cluster and creating the topic is given up after this long.
const FORMED_WITHIN: Duration = Duration::from_secs(30);
/// After the last fault, each single demand must be met within this time.
pub const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// How often the operator asks who leads.
const WATCH_EVERY: Duration = Duration::from_millis(150);
/// A group that nobody else commits for.
const GROUP: &str = "operator";

/// What the operator found wrong by itself.
pub type Complaints = Rc<RefCell<Vec<Violation>>>;

/// The operator of a run.
pub struct Operator {
    /// Its client task.
    pub worker: Worker,
    /// Whose phases it sets.
    pub phase: watch::Sender<Phase>,
    /// "host:port" of the nodes that form the cluster.
    pub founders: Vec<String>,
    /// Groups that others commit for.
    pub groups: Vec<String>,
    /// Where it tells who leads.
    pub leaders: LeaderBoard,
    /// Which nodes run.
    pub running: Census,
    /// The other clients.
    pub others: Attendance,
    /// Those that consume what is left, when all nodes are back.
    pub last_members: Attendance,
    /// Where it complains.
    pub complaints: Complaints,
}

impl Operator {
    /// Does all of it.
    pub async fn run(self, plan: Plan) {
        if let Err(violation) = self.demand_all(&plan).await {
            self.complaints.borrow_mut().push(violation);
            // Nothing that comes later would say more.
            self.phase.send_replace(Phase::Ending);
        }
    }

    async fn demand_all(&self, plan: &Plan) -> Result<(), Violation> {
        let client = self.form(plan).await?;
        self.phase.send_replace(Phase::Working);
        self.watch_leaders(&client).await;
        self.ask_the_living(&client, plan).await;
        self.others.all_gone().await;
        self.phase.send_replace(Phase::Ending);
        self.last_members.all_gone().await;
        if plan.changes_members() {
            self.demand_settled(&client, plan).await?;
        }
        let all = 0..plan.topic.partitions;
        let appends = all.clone().map(|partition| self.append(&client, partition));
        join_all(appends).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        for partition in all {
            let nodes = self.leaders.replicas(partition);
            let surveys = nodes.into_iter().map(|node| self.survey(&client, node, partition));
            join_all(surveys).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        self.look_at_groups(&client, plan.topic.partitions).await
    }

    async fn form(&self, plan: &Plan) -> Result<Client, Violation> {
        let first = self.founders.first().cloned().unwrap_or_default();
        let client = demand("a connection to the cluster", FORMED_WITHIN, async || {
            Client::connect(self.worker.config.clone()).await
        });
        let client = client.await?;
        let admin = client.admin().at_address(first);
        demand("the cluster is formed", FORMED_WITHIN, async || {
            admin.init_cluster(&self.founders).await
        })
        .await?;
        demand("every node belongs to the cluster", FORMED_WITHIN, async || {
            match client.admin().describe_cluster().await {
                Ok(cluster) if cluster.nodes.len() == plan.nodes.len() => Ok(()),
                Ok(cluster) => Err(format!("{} nodes", cluster.nodes.len())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        let checkpoint_bytes = plan.topic.checkpoint_bytes.to_string();
        let topic = NewTopic {
            replication_factor: plan.topic.replication_factor,
            configs: BTreeMap::from([("checkpoint.bytes".to_owned(), checkpoint_bytes)]),
            ..NewTopic::new(TOPIC, plan.topic.partitions)
        };
        demand("the topic is created", FORMED_WITHIN, async || {
            match client.admin().create_topic(topic.clone()).await {
                Ok(_) | Err(AdminError::TopicExists { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await?;
        demand("the topic is described", FORMED_WITHIN, async || self.look(&client).await).await?;
        Ok(client)
    }

    /// Asks who leads and who holds what.
    async fn look(&self, client: &Client) -> Result<(), AdminError> {
        let topic = client.admin().describe_topic(TOPIC).await?;
        for partition in topic.partitions {
            self.leaders.set(partition.partition, partition.leader, partition.replicas);
        }
        Ok(())
    }

    /// Asks again and again who leads, until the faults are over.
    async fn watch_leaders(&self, client: &Client) {
        while self.worker.is_working() {
            // What can't be asked stays as it was heard last.
            drop(self.look(client).await);
            sleep(WATCH_EVERY).await;
        }
    }

    /// Demands of the living what [`healings`] say, until it has it or the time is over.
    async fn ask_the_living(&self, client: &Client, plan: &Plan) {
        let deadline = Instant::now() + SERVES_WITHIN;
        let healings = healings(plan, &self.leaders, Duration::ZERO);
        join_all(healings.iter().map(async |healing| {
            for partition in &healing.partitions {
                self.append_until(client, *partition, deadline).await;
                for node in &healing.core {
                    self.read_until(client, *node, *partition, deadline).await;
                }
            }
            for group in &healing.groups {
                while Instant::now() < deadline && !self.commit(client, group).await {
                    sleep(AGAIN_AFTER).await;
                }
            }
        }))
        .await;
    }

    /// Commits once. Answers whether it did.
    async fn commit(&self, client: &Client, group: &str) -> bool {
        let (group, partition, offset) = (group.to_owned(), 0, 1);
        let op = self.worker.invoke(Call::Commit { group: group.clone(), partition, offset });
        let offsets = vec![GroupOffset::new(TOPIC, partition, offset)];
        match client.groups().commit(&group, offsets).await {
            Ok(()) => self.worker.ok(op, Answer::Committed),
            Err(error) => {
                self.worker.failed(op, error.code(), error.outcome(), &error);
                return false;
            }
        }
        true
    }
}

/// What the living must serve while some nodes stay dead: each partition that has a majority among
/// them, by those of them that hold it, and commits where no group can have lost its majority.
pub fn healings(plan: &Plan, board: &LeaderBoard, healed: Duration) -> Vec<Healing> {
    let base = Healing {
        healed_us: micros(healed),
        within_us: micros(SERVES_WITHIN),
        ..Healing::default()
    };
    let mut healings = Vec::new();
    for partition in 0..plan.topic.partitions {
        // While replicas are still being moved nobody can say who shall be read: all are read when
        // that has ended.
        if plan.changes_members() {
            healings.push(Healing { partitions: [partition].into(), ..base.clone() });
            continue;
        }
        let replicas = board.replicas(partition);
        let dead = |node: &u64| plan.stay_dead.contains(node);
        let core: BTreeSet<u64> = replicas.iter().copied().filter(|node| !dead(node)).collect();
        if 2 * core.len() > replicas.len() {
            healings.push(Healing { core, partitions: [partition].into(), ..base.clone() });
        }
    }
    // A coordinator group has three replicas, on nodes that the plan does not know.
    if plan.stay_dead.len() <= 1 {
        healings.push(Healing { groups: [GROUP.to_owned()].into(), ..base });
    }
    healings
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
