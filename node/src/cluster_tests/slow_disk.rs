//! A disk that does not keep up holds back appends, and nothing else.

use super::*;
use crate::storage::limits::WRITER_QUEUE_BYTES_MAX;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_disk_does_not_keep_up_still_votes_and_beats_and_its_queue_is_bounded() {
    const PARTITIONS: u32 = 7;
    let engine = Arc::new(MemoryEngine::new());
    let disk = Disk::Simulated { engine: engine.clone(), sync: Duration::from_millis(1) };
    let nodes = [start_on(1, free_port(), disk, &[]).await];
    form(&nodes).await;
    let create = MetadataCommand::CreateTopic(CreateTopic {
        name: topic("t"),
        id: node_core::ids::TopicId(crate::env::random_uuid()),
        partitions: PARTITIONS,
        replication_factor: 1,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    });
    let outcome = nodes[0].member().propose(create, soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicCreated));
    for number in 0..PARTITIONS {
        append(&nodes, "t", number, "first").await;
    }

    // From now on no sync ends, and more comes than the writer may queue.
    engine.set_sync_delay(Duration::from_secs(86_400));
    let value = "x".repeat(1_000_000);
    let mut tickets = Vec::new();
    for number in (0..PARTITIONS).cycle().take(56) {
        let partition = partition_of(&nodes[0], "t", number).expect("hosted");
        let new = NewAppend { batch: batch(&value), expect_end_offset: None, deadline: soon(60) };
        tickets.push(partition.enqueue(new).await.expect("it waits in line"));
    }
    let queued = || nodes[0].node.writer_queue_bytes();
    until("a full queue", async || (queued() >= WRITER_QUEUE_BYTES_MAX).then_some(())).await;

    // Had the cores taken the rest, they would all be waiting now, and answer nobody.
    for number in 0..PARTITIONS {
        let raft = partition_of(&nodes[0], "t", number).expect("hosted").raft().clone();
        let answer = tokio::time::timeout(Duration::from_secs(10), raft.read_index()).await;
        assert!(answer.is_ok_and(|position| position.is_ok()), "partition {number}");
    }
    // Each group may have asked for room in the same moment, and again before its core had handed
    // the last entry on. All that wants in is more.
    let slack = usize::try_from(PARTITIONS).expect("few") * 3_000_000;
    assert!(queued() <= WRITER_QUEUE_BYTES_MAX + slack, "{} bytes", queued());

    engine.set_sync_delay(Duration::ZERO);
    drop(tickets);
}
