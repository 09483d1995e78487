//! One node in this process, on a real disk and a loopback socket, and clients of it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use node::config::NodeConfig;
use node::env::Env;
use node::http::Readiness;
use node::metrics::Metrics;
use node::{Node, StartError};
use quipu_batch::{BatchBuilder, Compression, ProducerIdentity, Record};
use quipu_proto::v1;
use quipu_proto::v1::admin_client::AdminClient;
use quipu_proto::v1::groups_client::GroupsClient;
use quipu_proto::v1::log_client::LogClient;
use quipu_proto::v1::{ErrorCode, Outcome};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub(crate) const TOPIC: &str = "orders";
const SOON: Duration = Duration::from_secs(30);

/// A node and a channel to it.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) address: String,
    pub(crate) metrics: Metrics,
    pub(crate) channel: Channel,
    pub(crate) directory: TempDir,
}

/// Not one that an outgoing connection could be given before the node listens.
pub(crate) fn free_port() -> u16 {
    portpicker::pick_unused_port().unwrap()
}

pub(crate) fn config(label: u64, port: u16, directory: &Path) -> NodeConfig {
    let address = format!("127.0.0.1:{port}");
    NodeConfig {
        node_id: label,
        listen: address.parse().unwrap(),
        advertise: address.parse().unwrap(),
        data_dir: directory.to_owned(),
        ..NodeConfig::default()
    }
}

pub(crate) async fn start(config: &NodeConfig, metrics: Metrics) -> Result<Node, StartError> {
    let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
    Node::start(config.clone(), Env::real(config.data_dir.clone()), metrics, readiness).await
}

impl Running {
    /// A fresh node with settings of the test's own.
    pub(crate) async fn fresh(label: u64, set: impl Fn(&mut NodeConfig)) -> Running {
        let directory = tempfile::tempdir().unwrap();
        // Another process may take the port between finding it and binding it.
        for _ in 0..10 {
            let mut config = config(label, free_port(), directory.path());
            set(&mut config);
            let metrics = Metrics::new();
            match start(&config, metrics.clone()).await {
                Ok(node) => {
                    let address = config.advertise.to_string();
                    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
                    let channel = endpoint.connect().await.unwrap();
                    return Running { node, address, metrics, channel, directory };
                }
                Err(StartError::Listen { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("no port is free");
    }

    /// A cluster of one node, with a topic of two partitions.
    pub(crate) async fn with_topic() -> Running {
        Running::with_topic_and(|_| {}).await
    }

    pub(crate) async fn with_topic_and(set: impl Fn(&mut NodeConfig)) -> Running {
        let running = Running::fresh(1, set).await;
        running.init().await;
        running.create_topic(TOPIC, &[]).await;
        running
    }

    pub(crate) async fn init(&self) -> String {
        let request = v1::InitClusterRequest { addresses: vec![self.address.clone()] };
        self.admin().init_cluster(request).await.unwrap().into_inner().cluster_id
    }

    pub(crate) async fn create_topic(&self, topic: &str, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partitions: 2,
            replication_factor: 0,
            configs: configs.collect(),
        };
        // Just after the formation nobody leads the metadata yet.
        let created = eventually(async || {
            let created = self.admin().create_topic(request.clone()).await;
            match created {
                Ok(created) => Some(created.into_inner().topic.unwrap()),
                Err(status) if error_of(&status).retriable => None,
                Err(status) => panic!("{status}"),
            }
        });
        let created = created.await;
        assert_eq!(created.replication_factor, 1);
        assert!(created.partitions.iter().all(|partition| partition.leader == 1), "{created:?}");
    }

    pub(crate) fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) async fn append(&self, batch: Bytes) -> v1::AppendResponse {
        self.log().append(append(TOPIC, 0, batch)).await.unwrap().into_inner()
    }

    /// Ends the node before the test ends: RocksDB must not be in use when the process exits.
    pub(crate) async fn stop(self) {
        self.node.stop().await;
    }

    /// It still does what it is there for.
    pub(crate) async fn must_work(&self) {
        let before = self.append(batch(&["still"])).await.base_offset.unwrap();
        let fetched = self.log().fetch(fetch(TOPIC, 0, before)).await.unwrap().into_inner();
        assert_eq!(fetched.next_offset, before + 1);
    }
}

/// What `look` finds, sooner or later.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A batch with a record for each value.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    build(values, None)
}

pub(crate) fn produced(values: &[&str], epoch: u16, sequence_first: u32) -> Bytes {
    build(values, Some(ProducerIdentity { id: 7, epoch, sequence_first }))
}

fn build(values: &[&str], producer: Option<ProducerIdentity>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 8 << 20);
    for value in values {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        builder.push(&Record { timestamp_ms: 1, value, ..Record::default() }).unwrap();
    }
    builder.build(producer).unwrap()
}

pub(crate) fn append(topic: &str, partition: u32, batch: Bytes) -> v1::AppendRequest {
    let topic = topic.to_owned();
    v1::AppendRequest { topic, partition, batch, ..v1::AppendRequest::default() }
}

pub(crate) fn fetch(topic: &str, partition: u32, offset: u64) -> v1::FetchRequest {
    let topic = topic.to_owned();
    v1::FetchRequest { topic, partition, offset, ..v1::FetchRequest::default() }
}

pub(crate) fn error_of(status: &Status) -> v1::Error {
    quipu_proto::error_of_status(status).unwrap_or_else(|| panic!("not a typed error: {status:?}"))
}

/// The error of a refused call, which must be definite, with the code and a text that helps.
pub(crate) fn refused<T: std::fmt::Debug>(
    answer: Result<Response<T>, Status>,
    code: ErrorCode,
    says: &str,
) -> v1::Error {
    let error = error_of(&answer.expect_err("must be refused"));
    assert_eq!(error.code(), code, "{error:?}");
    assert_eq!(error.outcome(), Outcome::Definite, "{error:?}");
    assert!(error.message.contains(says), "{error:?} does not say {says:?}");
    error
}
