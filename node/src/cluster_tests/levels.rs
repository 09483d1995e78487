//! Feature levels: finalized when every member speaks them, and kept to by all that come after.

use node_core::features::FeatureLevel;
use node_core::metadata::Standing;

use super::*;
use crate::levels::LevelFailure;
use crate::storage::identity::IdentityError;

fn old() -> Release {
    Release::acting_as("0.1").expect("the first release")
}

async fn start_release(release: Release, label: u64, disk: &Path, join: &[&str]) -> Running {
    let env = Env { disk: Disk::Directory(disk.to_owned()), ..Env::real(PathBuf::new()) };
    start_as(release, label, free_port(), env, join).await.expect("it starts")
}

/// Waits until the node says of itself, in the metadata, that it is of this release.
async fn registered(node: &Running, release: &Release) {
    let member = node.member();
    until("its registration", async || {
        let metadata = member.metadata();
        let version = &metadata.nodes().get(&member.me())?.version;
        (version.build() == release.build).then_some(())
    })
    .await;
}

async fn drain(node: &Running) -> MetadataOutcome {
    let me = node.member().me();
    let drained = MetadataCommand::SetStanding { node: me, standing: Standing::Drained };
    node.member().propose(drained, soon(30)).await.expect("an outcome")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_finalized_once_all_speak_it_and_older_builds_are_refused_from_then_on() {
    let root = tempfile::tempdir().expect("a directory");
    let disk = root.path().join("1");
    let first = start_release(old(), 1, &disk, &[]).await;
    form(std::slice::from_ref(&first)).await;
    assert_eq!(first.member().metadata().level(), FeatureLevel(1));
    let two = Some(FeatureLevel(2));
    let refused = crate::levels::finalize(&first.member(), two, soon(30)).await;
    assert!(matches!(refused, Err(LevelFailure::NotSpoken { .. })), "{refused:?}");
    // Had it got into the log, the replica would have stopped here, and after the way back again.
    let too_low = MetadataOutcome::LevelTooLow { needed: FeatureLevel(2) };
    assert_eq!(drain(&first).await, too_low);
    first.node.stop().await;
    drop(first);

    let upgraded = start_release(Release::default(), 1, &disk, &[]).await;
    registered(&upgraded, &Release::default()).await;
    assert_eq!(upgraded.member().metadata().level(), FeatureLevel(1), "only when it is told to");
    assert_eq!(drain(&upgraded).await, too_low);
    upgraded.node.stop().await;
    drop(upgraded);

    let back = start_release(old(), 1, &disk, &[]).await;
    registered(&back, &old()).await;
    back.node.stop().await;
    drop(back);

    let again = start_release(Release::default(), 1, &disk, &[]).await;
    registered(&again, &Release::default()).await;
    let finalized = crate::levels::finalize(&again.member(), None, soon(30)).await;
    assert_eq!(finalized, Ok(node_core::features::SUPPORTED.max));
    assert_eq!(drain(&again).await, MetadataOutcome::StandingSet);
    let formation = again.node.formation();
    until("the level on its disk", async || (formation.hello().await.level == 2).then_some(()))
        .await;

    let late = start_release(old(), 2, &root.path().join("2"), &[&again.address]).await;
    let reason = tokio::time::timeout(Duration::from_secs(30), late.node.failed()).await;
    let reason = reason.expect("it gives up");
    assert!(reason.contains("has finalized feature level 2, and 0.1.0 speaks 1"), "{reason}");
    again.node.stop().await;
    drop(again);

    let env = Env { disk: Disk::Directory(disk), ..Env::real(PathBuf::new()) };
    let refused = start_as(old(), 1, free_port(), env, &[]).await;
    let Err(StartError::Identity(IdentityError::LevelNotSpoken { finalized, .. })) = refused else {
        panic!("it started");
    };
    assert_eq!(finalized, FeatureLevel(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_begins_with_the_highest_level_that_its_founders_speak() {
    let root = tempfile::tempdir().expect("a directory");
    let nodes = [
        start_release(old(), 1, &root.path().join("1"), &[]).await,
        start_release(Release::default(), 2, &root.path().join("2"), &[]).await,
    ];
    form(&nodes).await;
    assert_eq!(nodes[1].member().metadata().level(), FeatureLevel(1));

    let alone = start_release(Release::default(), 1, &root.path().join("3"), &[]).await;
    form(std::slice::from_ref(&alone)).await;
    assert_eq!(alone.member().metadata().level(), node_core::features::SUPPORTED.max);
}
