//! `bench groups`: what consumers of a group notice when one of them leaves, dies or comes; how
//! many offsets a second can be committed; and what groups cost in which nothing happens.
//!
//! - `members`: the group, and what happens to it, round by round;
//! - `watch`: how long records of each partition had to wait meanwhile;
//! - `commits`, `idle`: the other two parts.

mod commits;
mod idle;
mod members;
mod watch;

use serde_json::json;

use super::report::{Report, Run};
use super::stage::Stage;
use super::topic::BenchTopic;
use crate::args::{GlobalArgs, GroupsBenchArgs};

/// Runs the three parts one after the other on one cluster.
pub(super) async fn run(global: &GlobalArgs, args: &GroupsBenchArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for _ in 0..args.stage.repeat {
        let stage = Stage::open(global, &args.stage).await?;
        let client = stage.client().await?;
        let topic = BenchTopic::create(&client, args.partitions, 3).await?;
        topic.wait_led(&client).await?;
        let mut run = Run::default();
        members::measure(&stage, args, &topic, &mut run).await?;
        commits::measure(&stage, args, &topic, &mut run).await?;
        topic.end(&client, &stage).await?;
        idle::measure(&stage, args, &mut run).await?;
        runs.push(run);
    }
    let settings = json!({
        "partitions": args.partitions,
        "replicas": 3,
        "members": args.members,
        "rate": args.rate,
        "rounds": args.rounds,
        "session_timeout_ms": args.session_timeout_ms,
        "committers": args.committers,
        "seconds": args.seconds,
        "idle_groups": args.idle_groups,
    });
    Report { bench: "groups", settings, runs }.finish(global, args.stage.svg.as_deref())
}
