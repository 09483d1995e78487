//! The topic that is used: the one that was named, which stays, or one that goes with the run.

use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{AdminError, Client, NewTopic, Topic};
use tokio::time::Instant;

use super::stage::Stage;
use crate::args::TopicArgs;

/// A topic of this age has leaders, or never will.
const LED_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at its leaders.
const POLL: Duration = Duration::from_millis(50);

/// A topic that is there.
#[derive(Debug)]
pub(super) struct BenchTopic {
    pub(super) name: String,
    /// It was made for this run, and nothing is in it.
    pub(super) is_new: bool,
    /// It was not named, so nobody wants it after the run.
    is_own: bool,
}

impl BenchTopic {
    /// The topic that is named, or one of its own.
    pub(super) async fn open(client: &Client, args: &TopicArgs) -> anyhow::Result<BenchTopic> {
        match &args.topic {
            None => BenchTopic::create(client, args.partitions, args.replicas).await,
            Some(name) => {
                let is_new = create(client, name, args.partitions, args.replicas).await?;
                Ok(BenchTopic { name: name.clone(), is_new, is_own: false })
            }
        }
    }

    /// A topic of its own.
    pub(super) async fn create(
        client: &Client,
        partitions: u32,
        replicas: u32,
    ) -> anyhow::Result<BenchTopic> {
        let name = format!("bench-{:08x}", fastrand::u32(..));
        create(client, &name, partitions, replicas).await?;
        Ok(BenchTopic { name, is_new: true, is_own: true })
    }

    /// Waits until each partition has a leader.
    pub(super) async fn wait_led(&self, client: &Client) -> anyhow::Result<Topic> {
        let deadline = Instant::now() + LED_TIMEOUT;
        loop {
            let topic = client.admin().describe_topic(&self.name).await?;
            if topic.partitions.iter().all(|partition| partition.leader.is_some()) {
                return Ok(topic);
            }
            if Instant::now() >= deadline {
                let seconds = LED_TIMEOUT.as_secs();
                bail!("partitions of {} have no leader after {seconds} s", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Deletes it if nobody wants it; a cluster of the bench's own goes as a whole.
    pub(super) async fn end(self, client: &Client, stage: &Stage) -> anyhow::Result<()> {
        if self.is_own && !stage.is_own() {
            let deleted = client.admin().delete_topic(&self.name).await;
            deleted.with_context(|| format!("can't delete the topic {}", self.name))?;
        }
        Ok(())
    }
}

/// Creates a topic; `false` where it was there already.
async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    replicas: u32,
) -> anyhow::Result<bool> {
    let topic = NewTopic { replication_factor: replicas, ..NewTopic::new(name, partitions) };
    match client.admin().create_topic(topic).await {
        Ok(_) => Ok(true),
        Err(AdminError::TopicExists { .. }) => Ok(false),
        Err(error) => Err(error).context(format!("can't create the topic {name}")),
    }
}
