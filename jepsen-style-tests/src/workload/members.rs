//! Members of groups: they join, consume, commit, now and then too late, leave, crash, and come
//! back as zombies; and one for each group that, when the faults are over, consumes what is left.
//!
//! Commits are the member's own calls, so that the history has each of them with the member id and
//! the generation. What a poll gave out counts as delivered: the member has it in hand.

use std::time::Duration;

use quipu_client::{
    Client, CommitMode, ConsumerConfig, GroupConfig, GroupConsumer, GroupError, GroupOffset,
    OutOfRange, Position,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Phase, TOPIC, Worker, groups, value_of};
use crate::history::{Answer, Call};
use crate::operator::Complaints;
use crate::violation::Violation;

/// A poll that brought nothing for so long is over, and another begins.
const POLL_FOR: Duration = Duration::from_millis(500);
/// Longest pause between two polls: how long a record is at work.
const WORK_MS_MAX: u64 = 60;
/// Polls of one life of a member, at most.
const POLLS_MAX: u64 = 120;
/// The group has consumed everything so long after all nodes are back, or its assignment does not
/// converge: the longest session and rebalance time-outs, an election, and reading it all.
const CONSUMED_WITHIN: Duration = Duration::from_secs(90);
/// How often the finisher compares what it has with the ends.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a life of a member ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// It commits and leaves.
    Leaves,
    /// It is gone without a word.
    Crashes,
    /// The same, and then it commits what it had in hand as if nothing had been.
    Zombie,
}

/// What a member could commit at some time.
struct InHand {
    /// Its id and the generation that it was in.
    by: (String, i64),
    offsets: Vec<GroupOffset>,
}

impl InHand {
    fn of(consumer: &GroupConsumer) -> Option<Self> {
        let offsets = consumer.uncommitted();
        let by = consumer.member().filter(|_| !offsets.is_empty())?;
        Some(Self { by, offsets })
    }
}

/// Lives one life after the other until the faults are over.
pub async fn consume(mut worker: Worker, group: String) {
    let Some(client) = worker.client().await else { return };
    let mut life = 0;
    while worker.is_working() {
        life += 1;
        let member = format!("{}-life-{life}", worker.process);
        live(&mut worker, &client, &group, member).await;
        worker.pause(2_000).await;
    }
}

async fn live(worker: &mut Worker, client: &Client, group: &str, name: String) {
    let Ok(mut consumer) = client.group_consumer(config(worker, group)) else { return };
    let polls = worker.rng.u64(1..=POLLS_MAX);
    // A commit that was ready at some time and arrives much later, if at all.
    let mut late: Option<InHand> = None;
    for _ in 0..polls {
        if !worker.is_working() {
            break;
        }
        if !poll(worker, &mut consumer, group, &name).await {
            return;
        }
        worker.pause(WORK_MS_MAX).await;
        if worker.rng.u8(0..4) == 0 {
            commit(worker, &mut consumer, group).await;
        }
        let is_old = late.as_ref().is_some_and(|late| Some(&late.by) != consumer.member().as_ref());
        match worker.rng.u8(0..16) {
            0..=3 if late.is_none() => late = InHand::of(&consumer),
            // Best when others have got what this member had, and have begun to commit.
            4..=6 if is_old => commit_late(worker, client, group, late.take()).await,
            7 => commit_late(worker, client, group, late.take()).await,
            _ => {}
        }
    }
    let death = match worker.rng.u8(0..6) {
        _ if !worker.is_working() => Death::Leaves,
        0..=2 => Death::Leaves,
        3 => Death::Crashes,
        _ => Death::Zombie,
    };
    match death {
        Death::Leaves => {
            commit(worker, &mut consumer, group).await;
            consumer.leave().await;
        }
        Death::Crashes => drop(consumer),
        Death::Zombie => {
            let in_hand = InHand::of(&consumer);
            drop(consumer);
            // Its session ends meanwhile, or not.
            worker.pause(12_000).await;
            commit_late(worker, client, group, in_hand).await;
        }
    }
}

fn config(worker: &mut Worker, group: &str) -> GroupConfig {
    let instance = (worker.rng.u8(0..3) == 0).then(|| worker.process.clone());
    GroupConfig {
        commit: CommitMode::Manual,
        instance_id: instance,
        client: worker.process.clone(),
        session_timeout: Duration::from_millis(worker.rng.u64(1_500..=6_000)),
        max_processing: Duration::from_millis(worker.rng.u64(3_000..=10_000)),
        consumer: ConsumerConfig {
            out_of_range: OutOfRange::Error,
            max_wait: Duration::from_millis(200),
            fetch_bytes: 64 << 10,
            ..ConsumerConfig::default()
        },
        ..GroupConfig::new(group, [TOPIC])
    }
}

/// Takes what comes. Answers whether the member may go on.
async fn poll(worker: &Worker, consumer: &mut GroupConsumer, group: &str, member: &str) -> bool {
    let call = Call::GroupPoll { group: group.to_owned(), member: member.to_owned() };
    let op = worker.invoke(call);
    match timeout(POLL_FOR, consumer.next_batch()).await {
        Ok(Ok(records)) => {
            let Some(first) = records.first() else { return true };
            let (partition, base_offset) = (first.partition, first.offset);
            let values = records.iter().map(|record| value_of(record.value.as_ref())).collect();
            worker.ok(op, Answer::Polled { partition, base_offset, values });
            true
        }
        Ok(Err(error)) => {
            worker.failed(op, error.code(), error.outcome(), &error);
            error.retriable()
        }
        // A poll that brought nothing has nothing to tell.
        Err(_) => {
            worker.ok(op, Answer::Done);
            true
        }
    }
}

/// Commits everything in hand, as the history has it: one operation for each partition.
async fn commit(worker: &Worker, consumer: &mut GroupConsumer, group: &str) {
    let Some((member, generation)) = consumer.member() else { return };
    let offsets = consumer.uncommitted();
    let ops: Vec<u64> = offsets
        .iter()
        .map(|offset| worker.invoke(call(group, (&member, generation), offset)))
        .collect();
    match consumer.commit().await {
        Ok(()) => ops.into_iter().for_each(|op| worker.ok(op, Answer::Committed)),
        Err(error) => {
            for op in ops {
                worker.failed(op, error.code(), error.outcome(), &error);
            }
        }
    }
}

/// Commits what a member had in hand at some time, as the member that it was then. Where the group
/// has gone on, that would be refused as a step back whoever it is: then what the group has
/// committed is committed again, which passes over nothing and is its owner's alone all the same.
async fn commit_late(worker: &Worker, client: &Client, group: &str, late: Option<InHand>) {
    let Some(InHand { by: (member, generation), offsets }) = late else { return };
    for mut offset in offsets {
        let known = groups::committed(worker, client, group.to_owned(), offset.partition).await;
        offset.offset = offset.offset.max(known.ok().flatten().unwrap_or(0));
        commit_as(worker, client, group, (&member, generation), offset).await;
    }
}

async fn commit_as(
    worker: &Worker,
    client: &Client,
    group: &str,
    by: (&str, i64),
    offset: GroupOffset,
) {
    let op = worker.invoke(call(group, by, &offset));
    match client.groups().commit_as(group, by, vec![offset]).await {
        Ok(()) => worker.ok(op, Answer::Committed),
        Err(GroupError::OffsetRegression { committed_offset: committed }) => {
            worker.ok(op, Answer::Regression { committed });
        }
        Err(error) => worker.failed(op, error.code(), error.outcome(), &error),
    }
}

fn call(group: &str, (member, generation): (&str, i64), offset: &GroupOffset) -> Call {
    Call::MemberCommit {
        group: group.to_owned(),
        partition: offset.partition,
        offset: offset.offset,
        member: member.to_owned(),
        generation,
    }
}

/// When nobody appends any more and all nodes are back: consumes what is left, alone in the group,
/// which every promise of it is needed for.
pub async fn finish(mut worker: Worker, group: String, complaints: Complaints) {
    // The sender lives as long as the world.
    let _ = worker.phase.wait_for(|phase| *phase == Phase::Ending).await;
    let name = worker.process.clone();
    let Ok(client) = timeout(CONSUMED_WITHIN, connected(&worker)).await else {
        let what = format!("nobody could connect to consume what is left for group {group}");
        complaints.borrow_mut().push(Violation::NotServing { what });
        return;
    };
    let mut consumer = match client.group_consumer(config(&mut worker, &group)) {
        Ok(consumer) => consumer,
        Err(error) => {
            let what = format!("no member of group {group}: {error}");
            complaints.borrow_mut().push(Violation::NotServing { what });
            return;
        }
    };
    let deadline = Instant::now() + CONSUMED_WITHIN;
    let mut look_at = Instant::now();
    while Instant::now() < deadline {
        if Instant::now() >= look_at {
            look_at = Instant::now() + LOOK_EVERY;
            if has_all(&worker, &client, &consumer).await {
                commit(&worker, &mut consumer, &group).await;
                consumer.leave().await;
                return;
            }
        }
        // What fails may come right until the time is over.
        if !poll(&worker, &mut consumer, &group, &name).await {
            sleep(LOOK_EVERY).await;
        }
    }
    let has = consumer.assignment().len();
    let what = format!(
        "group {group} had not consumed everything {} s after all nodes were back; its only member \
         has {has} of {} partitions",
        CONSUMED_WITHIN.as_secs(),
        worker.partitions
    );
    complaints.borrow_mut().push(Violation::NotServing { what });
}

async fn connected(worker: &Worker) -> Client {
    loop {
        if let Ok(client) = Client::connect(worker.config.clone()).await {
            return client;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Every partition is this member's, and has been given out to its end.
async fn has_all(worker: &Worker, client: &Client, consumer: &GroupConsumer) -> bool {
    for partition in 0..worker.partitions {
        let Some(position) = consumer.position(TOPIC, partition) else { return false };
        match client.list_offsets(TOPIC, partition, Position::Latest).await {
            Ok(ends) if position >= ends.high_watermark => {}
            Ok(_) => return false,
            Err(_) => {
                sleep(LOOK_EVERY).await;
                return false;
            }
        }
    }
    true
}
