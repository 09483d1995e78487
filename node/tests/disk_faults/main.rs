//! What a node does when its disk fails, lies, fills up or comes back empty or old.
//!
//! Whole nodes on simulated disks: each fault strikes one of three, and what docs/guarantees.md
//! promises must hold. That nothing acknowledged is lost is looked at on every node; what became
//! of the fault is asked of the disk itself.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod running;

use std::time::Duration;

use node::storage::memory::{Damage, Effects, FaultKind, MemoryEngine, MemoryFault};
use node::storage::{Engine, Space, keys};
use quipu_proto::v1::ErrorCode;
use tokio::time::{Instant, timeout};

use crate::running::{Cluster, entries_on, eventually};

const THIRD: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_entries_of_every_kind_are_repaired_and_never_served() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 12).await;
    cluster.stop(THIRD).await;
    let disk = cluster.disks[THIRD].clone();
    let entries = entries_on(&disk);
    assert!(entries.len() >= 10, "{entries:?}");
    let key = |number: usize| keys::log_entry(entries[number].0, entries[number].1);
    for (number, damage) in [
        (0, Damage::FlipBit { bit: 99 }),
        (2, Damage::Truncate { len: 20 }),
        (3, Damage::Unreadable),
        (8, Damage::FlipBit { bit: 3 }),
    ] {
        assert!(disk.damage(Space::Log, &key(number), damage));
    }
    assert!(disk.misdirect(Space::Log, &key(5), &key(6)));

    cluster.start(THIRD).await;

    cluster.serves(THIRD, &values).await;
    cluster.serves(THIRD, &values).await;
    let effects = disk.effects();
    let sum = |of: fn(&Effects) -> u64| effects.values().map(of).sum::<u64>();
    assert_eq!((sum(|it| it.injected), sum(|it| it.met)), (6, 6), "{effects:?}");
    assert_eq!((sum(|it| it.detected), sum(|it| it.repaired)), (6, 6), "{effects:?}");
    assert_eq!(cluster.node(THIRD).metrics.repair.repaired.get(), 6);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_no_replica_has_whole_is_refused_and_never_passed_over() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 8).await;
    let entries = entries_on(&cluster.disks[THIRD]);
    let key = keys::log_entry(entries[4].0, entries[4].1);
    for place in 0..3 {
        cluster.stop(place).await;
        assert!(cluster.disks[place].damage(Space::Log, &key, Damage::FlipBit { bit: 200 }));
    }
    for place in 0..3 {
        cluster.start(place).await;
    }
    // Whatever part is served is what was acknowledged; nothing is served over the gap.
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        for place in 0..3 {
            assert!(cluster.read_at(place).await.is_err(), "node {} has a gap", place + 1);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let effects = cluster.disks.iter().map(|disk| disk.effects()[&FaultKind::BitRot]);
    let effects: Vec<Effects> = effects.collect();
    assert!(effects.iter().any(|it| it.met > 0), "{effects:?}");
    assert!(effects.iter().all(|it| it.detected == it.met && it.repaired == 0), "{effects:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_once_costs_a_repair_and_nothing_else() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 5).await;
    cluster.stop(THIRD).await;
    cluster.start(THIRD).await;
    cluster.serves(THIRD, &values).await;
    let disk = cluster.disks[THIRD].clone();
    for _ in 0..5 {
        disk.fail_next_reads(1);
        // A failed read of the index is an error that says so; what is served is never wrong.
        if let Ok(served) = cluster.read_at(THIRD).await {
            assert_eq!(served, values);
        }
    }
    disk.fail_next_reads(0);
    cluster.serves(THIRD, &values).await;
    cluster.fill(&mut values, 2).await;
    cluster.stop_all().await;
}

/// A leader whose disk fails says why, ends, and acknowledges nothing more; the others go on, and
/// it comes back as one of them.
async fn a_leader_ends(fail: impl Fn(&MemoryEngine), says: &str) {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 3).await;
    let leader = cluster.leader().await;
    fail(&cluster.disks[leader]);
    let under_way = cluster.append_at(leader, "value under way").await;
    let reason = timeout(Duration::from_secs(10), cluster.node(leader).node.failed()).await;
    let reason = reason.expect("a node whose disk failed can't go on");
    assert!(reason.contains(says), "{reason}");
    let later = cluster.append_at(leader, "value after the failure").await;
    assert!(later.is_err(), "{later:?} has a hole below it");
    cluster.lose_power(leader).await;

    let first = cluster.append("value of another leader").await;
    let other = cluster.leader().await;
    let found = cluster.read_at(other).await.unwrap();
    let at = |offset: u64| found[usize::try_from(offset).unwrap()].as_str();
    assert_eq!(found[..values.len()], values[..]);
    assert_eq!(at(first), "value of another leader");
    if let Ok(offset) = under_way {
        assert_eq!(at(offset), "value under way");
    }

    cluster.start(leader).await;
    cluster.serves(leader, &found).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_node_and_loses_nothing_acknowledged() {
    a_leader_ends(|disk| disk.fail_next_sync(MemoryFault::Io), "a sync failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_ends_the_node_and_loses_nothing_acknowledged() {
    a_leader_ends(|disk| disk.fail_next_write(MemoryFault::Io), "a write failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_to_the_last_byte_ends_the_node_which_comes_back_with_space() {
    let full = |disk: &MemoryEngine| disk.set_capacity(Some(disk.bytes_used().unwrap()));
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 3).await;
    full(&cluster.disks[THIRD]);
    let append = async {
        loop {
            let value = format!("value {}", values.len());
            assert_eq!(usize::try_from(cluster.append(&value).await).unwrap(), values.len());
            values.push(value);
        }
    };
    let reason = tokio::select! {
        reason = cluster.node(THIRD).node.failed() => reason,
        () = append => unreachable!("it has no end"),
    };
    assert!(reason.contains("the disk is full"), "{reason}");
    cluster.lose_power(THIRD).await;
    // One append may have been under way when the node ended.
    let leader = cluster.leader().await;
    let found = cluster.read_at(leader).await.unwrap();
    assert_eq!(found[..values.len()], values[..]);
    cluster.disks[THIRD].set_capacity(None);
    cluster.start(THIRD).await;
    cluster.serves(THIRD, &found).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_its_reserve_a_disk_takes_no_appends_until_there_is_space_again() {
    // Half of it is more than is appended until the refusal, however late that comes.
    let reserve = 1_000_000;
    let cluster = Cluster::with_reserve(3, reserve).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 3).await;
    // A follower's is enough: it would have to store the entry too.
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let disk = cluster.disks[follower].clone();
    disk.set_capacity(Some(disk.bytes_used().unwrap() + reserve / 2));
    let refusal = eventually("a refusal", async || {
        match cluster.append_at(leader, &format!("value {}", values.len())).await {
            Ok(_) => {
                values.push(format!("value {}", values.len()));
                None
            }
            Err(refusal) => Some(refusal),
        }
    })
    .await;
    let error = quipu_proto::error_of_status(&refusal).unwrap();
    assert_eq!(error.code(), ErrorCode::DiskFull, "{error:?}");
    assert_eq!(error.outcome(), quipu_proto::v1::Outcome::Definite, "{error:?}");
    // Reads go on, also there.
    cluster.serves(follower, &values).await;
    let full = disk.effects().contains_key(&FaultKind::Full);
    assert!(!full, "no write found the disk full");

    disk.set_capacity(Some(u64::MAX));
    cluster.fill(&mut values, 2).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_whose_syncs_take_seconds_holds_up_neither_the_others_nor_its_own_log() {
    let cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 3).await;
    let leader = cluster.leader().await;
    for place in [(leader + 1) % 3, leader] {
        cluster.disks[place].set_sync_delay(Duration::from_secs(2));
        let started = Instant::now();
        for _ in 0..5 {
            let value = format!("value {}", values.len());
            cluster.append(&value).await;
            values.push(value);
        }
        let took = started.elapsed();
        // Two of three are quick, so no append waits for a slow sync: five of them would take 10 s.
        assert!(took < Duration::from_secs(9), "{took:?} with node {} slow", place + 1);
        cluster.disks[place].set_sync_delay(Duration::ZERO);
        // The sync under way is still a slow one: with the next disk, two of three would be slow.
        let disk = &cluster.disks[place];
        eventually("the slow sync", async || (disk.pending_batches() == 0).then_some(())).await;
    }
    for place in 0..3 {
        cluster.serves(place, &values).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_open_is_told_as_a_lost_disk() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 2).await;
    // Synced writes that never reached the disk, and one behind them that did.
    let disk = cluster.disks[THIRD].clone();
    disk.lose_next_syncs(1);
    cluster.fill(&mut values, 3).await;
    cluster.lose_power(THIRD).await;
    let refused = cluster.try_start(THIRD).await.expect_err("its log has a hole");
    assert!(refused.to_string().contains("count this disk as lost"), "{refused}");
    assert!(disk.effects()[&FaultKind::LostWrite].detected > 0);
    cluster.fill(&mut values, 2).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_disk_has_no_vote_and_no_group() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 2).await;
    cluster.stop(THIRD).await;
    cluster.disks[THIRD].wipe();
    cluster.start(THIRD).await;
    // Without a majority beside it nothing may be acknowledged: the node that came back empty is
    // not the one that voted here.
    let gone = (cluster.leader().await + 1) % 2;
    cluster.stop(gone).await;
    let left = 1 - gone;
    let alone = cluster.append_at(left, "value that only one node has").await;
    assert!(alone.is_err(), "{alone:?} was acknowledged by one node of three");
    let votes = |place: usize| {
        let mut votes = 0;
        cluster.disks[place].for_each_row(|space, key, _| {
            let kind = (space == Space::State).then(|| keys::parse_state(key)).flatten();
            votes += usize::from(kind.is_some_and(|it| it.kind == keys::KeyKind::Vote));
        });
        votes
    };
    assert!(votes(left) > 0);
    assert_eq!(votes(THIRD), 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_is_an_old_one_catches_up_while_the_others_are_whole() {
    let mut cluster = Cluster::of(3).await;
    let mut values = Vec::new();
    cluster.fill(&mut values, 3).await;
    let follower = (cluster.leader().await + 1) % 3;
    let old = cluster.disks[follower].image();
    cluster.fill(&mut values, 5).await;
    cluster.stop(follower).await;
    cluster.disks[follower].roll_back(&old);
    cluster.start(follower).await;
    cluster.serves(follower, &values).await;
    cluster.fill(&mut values, 3).await;
    cluster.stop_all().await;
}
