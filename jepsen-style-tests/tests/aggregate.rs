//! The example of an event-sourced aggregate, run against a real node: of sixteen writers at one
//! aggregate none overwrites another. It checks that itself, and fails where an update was lost.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

#[path = "../../client/examples/event_sourced_aggregate.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod event_sourced_aggregate;

use node::Node;
use node::config::NodeConfig;
use node::env::Env;
use node::http::Readiness;
use node::metrics::Metrics;
use quipu_client::{Client, ClientConfig};
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_at_one_aggregate_lose_no_update() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", portpicker::pick_unused_port().unwrap());
    let config = NodeConfig {
        listen: address.parse().unwrap(),
        advertise: address.parse().unwrap(),
        data_dir: folder.path().to_owned(),
        ..NodeConfig::default()
    };
    let env = Env::real(folder.path().to_owned());
    let readiness = watch::Sender::new(Readiness::NotReady("starting".into()));
    let node = Node::start(config, env, Metrics::new(), readiness).await.unwrap();
    let client = Client::connect(ClientConfig::new([address.clone()])).await.unwrap();
    client.admin().init_cluster(std::slice::from_ref(&address)).await.unwrap();
    event_sourced_aggregate::run(vec![address]).await.unwrap();
    drop(client);
    node.stop().await;
    node.close().await;
}
