//! The client that makes the cluster, watches who leads it, and looks at the end whether it serves.
//!
//! At the end, when all faults are removed, it demands within a time: an append to every partition,
//! the whole log from every node, the offsets of every group. That the cluster answers is the
//! promise of liveness; what it answers is material for the checkers.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use quipu_client::{
    AppendOptions, AppendRecord, Client, FetchOptions, NewTopic, ReadError, ReadLevel,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::history::{Answer, Call};
use crate::nemesis::LeaderBoard;
use crate::plan::Plan;
use crate::violation::Violation;
use crate::workload::{Attendance, Phase, TOPIC, Worker, groups, value_of};
use crate::world::hex;

/// Forming the cluster and creating the topic is given up after this long.
const FORMED_WITHIN: Duration = Duration::from_secs(30);
/// After the last fault, each single demand must be met within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// Pause before something that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often the operator asks who leads.
const WATCH_EVERY: Duration = Duration::from_millis(150);

/// What the operator found wrong by itself.
pub type Complaints = Rc<RefCell<Vec<Violation>>>;

/// The operator of a run.
pub struct Operator {
    /// Its client task.
    pub worker: Worker,
    /// Whose phases it sets.
    pub phase: watch::Sender<Phase>,
    /// "host:port" of all nodes.
    pub addresses: Vec<String>,
    /// Labels of all nodes.
    pub labels: Vec<u64>,
    /// Groups that others commit for.
    pub groups: Vec<String>,
    /// Where it tells who leads.
    pub leaders: LeaderBoard,
    /// The other clients.
    pub others: Attendance,
    /// Where it complains.
    pub complaints: Complaints,
}

impl Operator {
    /// Does all of it.
    pub async fn run(mut self, plan: Plan) {
        let demanded = async {
            let client = self.form(&plan).await?;
            self.phase.send_replace(Phase::Working);
            self.watch_leaders(&client).await;
            self.others.all_gone().await;
            for partition in 0..plan.partitions {
                self.append(&client, partition).await?;
            }
            for node in self.labels.clone() {
                for partition in 0..plan.partitions {
                    self.survey(&client, node, partition).await?;
                }
            }
            self.look_at_groups(&client, plan.partitions).await
        };
        if let Err(violation) = demanded.await {
            self.complaints.borrow_mut().push(violation);
            // Nothing that comes later would say more.
            self.phase.send_replace(Phase::Ending);
        }
    }

    async fn form(&self, plan: &Plan) -> Result<Client, Violation> {
        let first = self.addresses.first().cloned().unwrap_or_default();
        let client = demand("a connection to the cluster", FORMED_WITHIN, async || {
            Client::connect(self.worker.config.clone()).await
        });
        let client = client.await?;
        let admin = client.admin().at_address(first);
        demand("the cluster is formed", FORMED_WITHIN, async || {
            admin.init_cluster(&self.addresses).await
        })
        .await?;
        let topic = NewTopic { replication_factor: 3, ..NewTopic::new(TOPIC, plan.partitions) };
        demand("the topic is created", FORMED_WITHIN, async || {
            match client.admin().create_topic(topic.clone()).await {
                Ok(_) | Err(quipu_client::AdminError::TopicExists { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await?;
        Ok(client)
    }

    /// Asks again and again who leads, until the faults are over.
    async fn watch_leaders(&self, client: &Client) {
        while self.worker.is_working() {
            if let Ok(topic) = client.admin().describe_topic(TOPIC).await {
                for partition in topic.partitions {
                    self.leaders.set(partition.partition, partition.leader);
                }
            }
            sleep(WATCH_EVERY).await;
        }
    }

    async fn append(&mut self, client: &Client, partition: u32) -> Result<(), Violation> {
        let what = format!("an append to partition {partition}");
        let deadline = Instant::now() + SERVES_WITHIN;
        loop {
            let values = self.worker.take_values(1);
            let payload = self.worker.payload(values[0]);
            let op = self.worker.invoke(Call::Append { partition, values });
            let records = vec![AppendRecord::new(payload)];
            match client.append(TOPIC, partition, records, AppendOptions::default()).await {
                Ok(appended) => {
                    let base_offset = appended.base_offset;
                    self.worker.ok(op, Answer::Appended { base_offset });
                    return Ok(());
                }
                Err(error) => {
                    self.worker.failed(op, error.code(), error.outcome(), &error);
                    give_up_at(deadline, &what, &error)?;
                }
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn survey(&self, client: &Client, node: u64, partition: u32) -> Result<(), Violation> {
        let what = format!("the log of partition {partition} from node {node}");
        let op = self.worker.invoke(Call::Survey { partition, node });
        let read = demand(&what, SERVES_WITHIN, async || {
            match read_all(client, node, partition).await {
                // Damage does not go away by asking again.
                Err(error @ (ReadError::Corrupt { .. } | ReadError::Gap { .. })) => Ok(Err(error)),
                Err(error) => Err(error),
                Ok(all) => Ok(Ok(all)),
            }
        });
        let (start, values) = match read.await? {
            Ok(all) => all,
            Err(error) => {
                self.worker.failed(op, error.code(), error.outcome(), &error);
                return Ok(());
            }
        };
        let end = start + u64::try_from(values.len()).expect("a usize fits");
        let replica = demand(&what, SERVES_WITHIN, async || {
            client.admin().describe_replica(node, TOPIC, partition, Some(end)).await
        });
        let replica = replica.await?;
        let hash = replica.chain_hash.filter(|_| replica.chain_hash_offset == end);
        let chain_hash = hash.map(|hash| hex(&hash));
        self.worker.ok(op, Answer::Log { start, values, chain_hash });
        Ok(())
    }

    async fn look_at_groups(&self, client: &Client, partitions: u32) -> Result<(), Violation> {
        for group in &self.groups {
            for partition in 0..partitions {
                let what = format!("the offset of group {group} in partition {partition}");
                demand(&what, SERVES_WITHIN, async || {
                    let group = group.clone();
                    match groups::fetch_once(&self.worker, client, group, partition).await {
                        true => Ok(()),
                        false => Err("it is in the history why not"),
                    }
                })
                .await?;
            }
        }
        Ok(())
    }
}

/// Every record that a node serves, and the offset of the first.
async fn read_all(
    client: &Client,
    node: u64,
    partition: u32,
) -> Result<(u64, Vec<u64>), ReadError> {
    let options = FetchOptions {
        level: ReadLevel::Linearizable,
        node: Some(node),
        ..FetchOptions::default()
    };
    let start = match client.fetch(TOPIC, partition, 0, options.clone()).await {
        Ok(fetched) => fetched.log_start_offset,
        Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) => log_start_offset,
        Err(error) => return Err(error),
    };
    let (mut values, mut offset) = (Vec::new(), start);
    loop {
        let fetched = client.fetch(TOPIC, partition, offset, options.clone()).await?;
        values.extend(fetched.records.iter().map(|record| value_of(record.value.as_ref())));
        if fetched.next_offset >= fetched.high_watermark {
            return Ok((start, values));
        }
        offset = fetched.next_offset;
    }
}

/// Tries until it succeeds.
async fn demand<T, E: Display>(
    what: &str,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Violation> {
    let deadline = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => give_up_at(deadline, what, &error)?,
        }
        sleep(AGAIN_AFTER).await;
    }
}

fn give_up_at(deadline: Instant, what: &str, error: &dyn Display) -> Result<(), Violation> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let what = format!("{what} was not had in time; last: {error}");
    Err(Violation::NotServing { what })
}
