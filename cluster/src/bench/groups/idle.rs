//! What groups cost whose members have nothing to consume: their sessions are kept up, and nothing
//! else happens.

use std::time::Duration;

use anyhow::Context as _;
use quipu_client::{GroupConfig, GroupConsumer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::args::GroupsBenchArgs;
use crate::bench::cost_within;
use crate::bench::figure;
use crate::bench::meter::Window;
use crate::bench::report::Run;
use crate::bench::stage::Stage;
use crate::bench::topic::BenchTopic;
use crate::output::live::progress;

/// Clients that the members share.
const CLIENTS: usize = 8;

/// Every group has its member by then, or the bench gives up.
const FORMED_WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn measure(
    stage: &Stage,
    args: &GroupsBenchArgs,
    run: &mut Run,
) -> anyhow::Result<()> {
    if args.idle_groups == 0 {
        return Ok(());
    }
    let bar = progress(None);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(stage.client().await?);
    }
    let client = clients.first().context("there are some")?;
    let topic = BenchTopic::create(client, 1, 3).await?;
    topic.wait_led(client).await?;
    let settle = Duration::from_secs(args.settle);
    let window = || Window::after(Duration::ZERO, Duration::from_secs(args.seconds));
    bar.set_message("looking at the nodes without groups");
    sleep(settle).await;
    let before = cost_within(stage, window()).await?;
    bar.set_message("forming groups");
    let mut waiting = JoinSet::new();
    let mut members = Vec::new();
    for (number, client) in (0..args.idle_groups).zip(clients.iter().cycle()) {
        let name = format!("{}-idle-{number}", topic.name);
        members.push(client.group_consumer(GroupConfig::new(name, [topic.name.as_str()]))?);
    }
    let deadline = Instant::now() + FORMED_WITHIN;
    for mut member in members {
        waiting.spawn(async move {
            wait_for_nothing(&mut member, deadline).await?;
            anyhow::Ok(member)
        });
    }
    let mut members = Vec::new();
    while let Some(joined) = waiting.join_next().await {
        members.push(joined.context("a member panicked")??);
    }
    bar.set_message("looking at the nodes with idle groups");
    sleep(settle).await;
    let idle = cost_within(stage, window()).await?;
    bar.finish_and_clear();
    run.set(figure::CPU_ALL_NODES_EMPTY, before.cpu_per_s());
    run.set(figure::CPU_ALL_NODES_IDLE_GROUPS, idle.cpu_per_s());
    drop(members);
    topic.end(client, stage).await
}

/// Asks for records until the member is one: there are none.
async fn wait_for_nothing(member: &mut GroupConsumer, deadline: Instant) -> anyhow::Result<()> {
    while member.assignment().is_empty() {
        anyhow::ensure!(Instant::now() < deadline, "a group was not formed in time");
        if let Ok(Err(error)) =
            tokio::time::timeout(Duration::from_millis(500), member.next()).await
        {
            anyhow::ensure!(error.retriable(), "a group was not formed: {error}");
        }
    }
    Ok(())
}
