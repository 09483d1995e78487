//! Clients that commit group offsets, always forward, and others that look at them.

use quipu_client::{Client, GroupError, GroupOffset, TopicPartition};

use super::{TOPIC, Worker};
use crate::history::{Answer, Call};

/// Longest pause between two commits or fetches, in milliseconds.
const PAUSE_MS_MAX: u64 = 120;
/// How far one commit goes at most.
const STEP_MAX: u64 = 10;

/// Commits for a group that nobody else commits for.
pub async fn commit(mut worker: Worker, group: String) {
    let Some(client) = worker.client().await else { return };
    let mut offsets = vec![0_u64; usize::try_from(worker.partitions).expect("a u32 fits")];
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let partition = worker.partition();
        let step = worker.rng.u64(1..=STEP_MAX);
        let next = &mut offsets[usize::try_from(partition).expect("a u32 fits")];
        // Sometimes it goes back, which is refused, and the refusal tells the offset in force.
        let back = worker.rng.u8(0..20) == 0;
        let before = *next;
        let offset = if back { before.saturating_sub(step) } else { before + step };
        *next = offset.max(before);
        let op = worker.invoke(Call::Commit { group: group.clone(), partition, offset });
        let committed =
            client.groups().commit(&group, vec![GroupOffset::new(TOPIC, partition, offset)]).await;
        match committed {
            Ok(()) => worker.ok(op, Answer::Committed),
            Err(GroupError::OffsetRegression { committed_offset: committed }) => {
                worker.ok(op, Answer::Regression { committed });
            }
            Err(error) => {
                if let GroupError::OffsetBeyondEnd { .. } = &error {
                    // Nothing was committed; it goes on when more was appended.
                    *next = before;
                }
                worker.failed(op, error.code(), error.outcome(), &error);
            }
        }
    }
}

/// Looks at the offsets of these groups.
pub async fn fetch(mut worker: Worker, groups: Vec<String>) {
    let Some(client) = worker.client().await else { return };
    while worker.is_working() {
        worker.pause(PAUSE_MS_MAX).await;
        let group = worker.rng.choice(&groups).expect("there is a group").clone();
        let partition = worker.partition();
        fetch_once(&worker, &client, group, partition).await;
    }
}

/// Looks once. Answers whether there was an answer.
pub async fn fetch_once(worker: &Worker, client: &Client, group: String, partition: u32) -> bool {
    committed(worker, client, group, partition).await.is_ok()
}

/// What a group has committed, if anything. The history has it, and why there is no answer.
pub(super) async fn committed(
    worker: &Worker,
    client: &Client,
    group: String,
    partition: u32,
) -> Result<Option<u64>, GroupError> {
    let op = worker.invoke(Call::FetchCommitted { group: group.clone(), partition });
    match client.groups().fetch(&group, &[TopicPartition::new(TOPIC, partition)]).await {
        Ok(offsets) => {
            let offset = offsets.first().map(|found| found.offset);
            worker.ok(op, Answer::GroupOffset { offset });
            Ok(offset)
        }
        Err(error) => {
            worker.failed(op, error.code(), error.outcome(), &error);
            Err(error)
        }
    }
}
