//! Consumer groups over the public API: sharing, moving, expiry, fencing, a coordinator that moves.

use std::collections::BTreeSet;

use quipu_proto::error_of_status;
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;
use quipu_proto::v1::groups_client::GroupsClient;

use super::*;
use crate::env::random_uuid;

const GROUP: &str = "billing";

/// A member as its process sees itself.
struct Consumer {
    request: v1::GroupHeartbeatRequest,
}

impl Consumer {
    fn new(topics: &[&str]) -> Consumer {
        Consumer {
            request: v1::GroupHeartbeatRequest {
                group: GROUP.to_owned(),
                member_id: random_uuid().to_string(),
                session_timeout_ms: 2_000,
                topics: topics.iter().map(ToString::to_string).collect(),
                ..v1::GroupHeartbeatRequest::default()
            },
        }
    }

    fn owned(&self) -> BTreeSet<(String, u32)> {
        let parts = self.request.owned.iter();
        parts.flat_map(|it| it.partitions.iter().map(|one| (it.topic.clone(), *one))).collect()
    }

    /// Says that it is there, and does as it is told.
    async fn beat(&mut self, nodes: &[Running]) -> Result<(), ErrorCode> {
        let answer = heartbeat(nodes, &self.request).await?;
        self.request.generation = answer.generation;
        if let Some(assignment) = answer.assignment {
            assert!(assignment.partitions.iter().all(|it| it.topic_id.len() == 16));
            self.request.owned = assignment.partitions;
        }
        Ok(())
    }

    async fn commit(
        &self,
        nodes: &[Running],
        partition: u32,
        offset: u64,
    ) -> Result<(), ErrorCode> {
        let offset = v1::GroupOffset {
            topic: "t".to_owned(),
            partition,
            offset,
            ..v1::GroupOffset::default()
        };
        let request = v1::CommitOffsetsRequest {
            group: GROUP.to_owned(),
            offsets: vec![offset],
            member_id: self.request.member_id.clone(),
            generation: self.request.generation,
            ..v1::CommitOffsetsRequest::default()
        };
        on_leader(nodes, async |address| {
            let mut groups = GroupsClient::connect(address).await.map_err(|_| None)?;
            let answer = groups.commit_offsets(request.clone()).await;
            answer.map(|it| it.into_inner()).map_err(|status| error_of_status(&status))
        })
        .await
        .map(|_| ())
    }
}

/// Asks one node after the other, until one does not say that it is another's business.
async fn on_leader<T>(
    nodes: &[Running],
    mut call: impl AsyncFnMut(String) -> Result<T, Option<v1::Error>>,
) -> Result<T, ErrorCode> {
    until("a coordinator's leader", async || {
        for node in nodes {
            match call(format!("http://{}", node.address)).await {
                Ok(answer) => return Some(Ok(answer)),
                Err(error) => {
                    if let Some(error) = error.filter(|error| !error.retriable) {
                        return Some(Err(error.code()));
                    }
                }
            }
        }
        None
    })
    .await
}

async fn seven_records(nodes: &[Running], partition: u32) {
    for number in 0..7 {
        append(nodes, "t", partition, &format!("value {number}")).await;
    }
}

async fn heartbeat(
    nodes: &[Running],
    request: &v1::GroupHeartbeatRequest,
) -> Result<v1::GroupHeartbeatResponse, ErrorCode> {
    on_leader(nodes, async |address| {
        let mut groups = GroupsClient::connect(address).await.map_err(|_| None)?;
        let answer = groups.group_heartbeat(request.clone()).await;
        answer.map(|it| it.into_inner()).map_err(|status| error_of_status(&status))
    })
    .await
}

async fn describe(nodes: &[Running]) -> v1::DescribeGroupResponse {
    let request = v1::DescribeGroupRequest { group: GROUP.to_owned(), with_lag: false };
    on_leader(nodes, async |address| {
        let mut groups = GroupsClient::connect(address).await.map_err(|_| None)?;
        let answer = groups.describe_group(request.clone()).await;
        answer.map(|it| it.into_inner()).map_err(|status| error_of_status(&status))
    })
    .await
    .expect("a group")
}

/// All beat until everybody has what it should have.
async fn settle(nodes: &[Running], consumers: &mut [&mut Consumer]) {
    until("the group to settle", async || {
        for consumer in consumers.iter_mut() {
            consumer.beat(nodes).await.expect("a member");
        }
        let described = describe(nodes).await;
        let known = |consumer: &&mut Consumer| {
            let id = &consumer.request.member_id;
            let member = described.members.iter().find(|member| member.member_id == *id);
            member.is_some_and(|member| member.generation == consumer.request.generation)
        };
        (described.settled
            && described.members.len() == consumers.len()
            && consumers.iter().all(known))
        .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_one_who_leaves_or_is_silent_is_replaced() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 6, TopicConfig::default()).await;
    let (mut a, mut b, mut c) =
        (Consumer::new(&["t"]), Consumer::new(&["t"]), Consumer::new(&["t"]));
    a.beat(&nodes).await.expect("it joins");
    assert_eq!(a.owned().len(), 6, "the first has all at once");
    settle(&nodes, &mut [&mut a, &mut b, &mut c]).await;
    for consumer in [&a, &b, &c] {
        assert_eq!(consumer.owned().len(), 2);
    }
    let all: BTreeSet<_> = [&a, &b, &c].into_iter().flat_map(Consumer::owned).collect();
    assert_eq!(all.len(), 6, "each partition has one owner");

    // What one owns nobody else commits, and nobody from outside.
    let (_, partition) = a.owned().pop_first().expect("two partitions");
    seven_records(&nodes, partition).await;
    assert_eq!(a.commit(&nodes, partition, 5).await, Ok(()));
    assert_eq!(b.commit(&nodes, partition, 6).await, Err(ErrorCode::PartitionNotOwned));
    let outsider = Consumer { request: v1::GroupHeartbeatRequest::default() };
    assert_eq!(outsider.commit(&nodes, partition, 6).await, Err(ErrorCode::GroupNotEmpty));

    // One leaves: the others have its partitions at once, and keep their own.
    let (kept_a, kept_b) = (a.owned(), b.owned());
    let leave = v1::GroupHeartbeatRequest { generation: -1, ..c.request.clone() };
    heartbeat(&nodes, &leave).await.expect("it leaves");
    settle(&nodes, &mut [&mut a, &mut b]).await;
    assert_eq!((a.owned().len(), b.owned().len()), (3, 3));
    assert!(a.owned().is_superset(&kept_a) && b.owned().is_superset(&kept_b));

    // One is silent: expired after its session, and what is left of it is refused.
    let silent = Instant::now();
    until("its expiry", async || {
        a.beat(&nodes).await.expect("a member");
        (a.owned().len() == 6).then_some(())
    })
    .await;
    let waited = silent.elapsed();
    assert!(waited > Duration::from_millis(1_500), "after its session: {waited:?}");
    assert_eq!(b.commit(&nodes, partition, 7).await, Err(ErrorCode::UnknownMember));
    assert_eq!(b.beat(&nodes).await, Err(ErrorCode::UnknownMember));
    assert_eq!(describe(&nodes).await.offsets[0].offset, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_when_its_coordinator_moves() {
    let root = tempfile::tempdir().expect("a directory");
    let mut nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 4, TopicConfig::default()).await;
    let (mut a, mut b, mut zombie) =
        (Consumer::new(&["t"]), Consumer::new(&["t"]), Consumer::new(&["t"]));
    zombie.beat(&nodes).await.expect("it joins");
    let leave = v1::GroupHeartbeatRequest { generation: -1, ..zombie.request.clone() };
    heartbeat(&nodes, &leave).await.expect("it leaves");
    settle(&nodes, &mut [&mut a, &mut b]).await;
    let before = (a.owned(), a.request.generation, b.owned(), b.request.generation);
    let (_, partition) = a.owned().pop_first().expect("two partitions");
    seven_records(&nodes, partition).await;
    assert_eq!(a.commit(&nodes, partition, 5).await, Ok(()));

    let coordinator = describe(&nodes).await.leader_node;
    let place = nodes.iter().position(|node| node.member().label().0 == coordinator);
    let stopped = nodes.remove(place.expect("one of them leads"));
    stopped.node.stop().await;
    drop(stopped);

    assert_eq!(zombie.commit(&nodes, partition, 6).await, Err(ErrorCode::UnknownMember));
    assert_eq!(a.commit(&nodes, partition, 7).await, Ok(()));
    settle(&nodes, &mut [&mut a, &mut b]).await;
    assert_eq!(before, (a.owned(), a.request.generation, b.owned(), b.request.generation));
    let described = describe(&nodes).await;
    assert_ne!(described.leader_node, coordinator);
    assert_eq!(described.offsets[0].offset, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_that_waits_is_answered_when_something_changes_and_costs_no_entry() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = three(root.path()).await;
    create_topic(&nodes[0], "t", 2, TopicConfig::default()).await;
    let mut a = Consumer::new(&["t", "later"]);
    a.request.session_timeout_ms = 30_000;
    settle(&nodes, &mut [&mut a]).await;
    let coordinator = describe(&nodes).await.coordinator;
    let entries = || {
        let replica = |node: &Running| {
            let group = node_core::ids::GroupId(coordinator);
            node.member().registry_ref().replica(group).expect("hosted").raft().brief().last_index
        };
        nodes.iter().filter_map(replica).max()
    };
    let before = entries();
    for _ in 0..20 {
        a.beat(&nodes).await.expect("a member");
    }
    assert_eq!(entries(), before, "nothing changed, so nothing is logged");

    let mut waits = Consumer { request: a.request.clone() };
    waits.request.max_wait_ms = 10_000;
    let asked = Instant::now();
    let (answered, ()) = tokio::join!(
        async {
            waits.beat(&nodes).await.expect("a member");
            asked.elapsed()
        },
        create_topic(&nodes[1], "later", 1, TopicConfig::default()),
    );
    assert!(answered < Duration::from_secs(9), "a new topic is found: {answered:?}");
    assert!(waits.owned().contains(&("later".to_owned(), 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_an_instance_id_keeps_the_partitions_and_fences_the_older_process() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = vec![start(1, free_port(), root.path(), &[]).await];
    form(&nodes).await;
    let create = CreateTopic {
        name: topic("t"),
        id: node_core::ids::TopicId(random_uuid()),
        partitions: 4,
        replication_factor: 1,
        config: TopicConfig::default(),
        time: EntryTime::from_ms(1),
    };
    let outcome = nodes[0].member().propose(MetadataCommand::CreateTopic(create), soon(10)).await;
    assert_eq!(outcome, Ok(MetadataOutcome::TopicCreated));
    let named = || {
        let mut consumer = Consumer::new(&["t"]);
        consumer.request.instance_id = "pod-b".to_owned();
        consumer
    };
    let (mut a, mut b) = (Consumer::new(&["t"]), named());
    settle(&nodes, &mut [&mut a, &mut b]).await;
    let before = (a.request.generation, b.owned());

    let for_a_moment = v1::GroupHeartbeatRequest { generation: -2, ..b.request.clone() };
    heartbeat(&nodes, &for_a_moment).await.expect("it leaves for a moment");
    let mut again = named();
    again.beat(&nodes).await.expect("it is back");
    assert_eq!((a.request.generation, again.owned()), before);

    let mut twin = named();
    twin.beat(&nodes).await.expect("it takes over");
    assert_eq!(again.beat(&nodes).await, Err(ErrorCode::GroupInstanceFenced));
    settle(&nodes, &mut [&mut a, &mut twin]).await;
}
