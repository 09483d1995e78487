//! One node from start to stop: disk, identity, port, then the cluster it belongs to.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use node_core::ids::{NodeLabel, NodeUuid};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::edge::{self, Door};
use crate::env::{Disk, Env};
use crate::formation::Formation;
use crate::http::Readiness;
use crate::limits;
use crate::member::Ground;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::storage::identity::{ExpectedIdentity, IdentityError, NodeIdentity};
use crate::storage::log_writer::{LogWriter, SyncDelay};
use crate::storage::rocks::{RocksEngine, RocksOptions};
use crate::storage::{Engine, StorageError};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened.
    #[error("the data directory can't be used: {0}")]
    Storage(#[from] StorageError),
    /// The data directory is another node's or another cluster's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port could not be had.
    #[error("can't listen on {address}: {source}; is another process using the port?")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The groups on this disk could not be taken up again.
    #[error("can't take up the cluster's work: {0}")]
    Resume(String),
}

/// A running node.
pub struct Node {
    formation: Arc<Formation>,
    writer: LogWriter,
    /// Gone when the last task of the node is.
    store: Weak<dyn Engine>,
    /// Why the node can't go on, beside its disk.
    fatal: watch::Sender<Option<String>>,
    stop: CancellationToken,
    readiness: watch::Sender<Readiness>,
}

impl Node {
    /// Starts a node: it answers its port when this returns, and takes part in its cluster as
    /// soon as it belongs to one.
    ///
    /// # Errors
    /// See [`StartError`]; nothing keeps running after one.
    pub async fn start(
        config: NodeConfig,
        env: Env,
        metrics: Metrics,
        readiness: watch::Sender<Readiness>,
    ) -> Result<Self, StartError> {
        let (engine, writer) = open_disk(&config, &env)?;
        let identity = NodeIdentity::open(
            &*engine,
            ExpectedIdentity {
                label: NodeLabel(config.node_id),
                cluster: None,
                uuid_if_new: NodeUuid(crate::env::random_uuid()),
                levels: config.release.levels,
            },
        )?;
        let address = config.listen.to_string();
        let listener = env.network.listen(address.clone()).await;
        let listener = listener.map_err(|source| StartError::Listen { address, source })?;
        let stop = CancellationToken::new();
        let ground = Ground {
            me: identity.node,
            label: identity.label,
            clock: env.clock.clone(),
            engine,
            writer: writer.clone(),
            peers: Arc::new(Peers::new(env.network.clone())),
            metrics: Arc::new(metrics),
            stop: stop.clone(),
            config: Arc::new(config),
        };
        tracing::info!(node = %ground.me, label = %ground.label, "the store is open");
        let joins = !ground.config.join.is_empty();
        let formation = Formation::new(ground.clone(), identity);
        let store = Arc::downgrade(&ground.engine);
        edge::serve(listener, Door::new(ground, formation.clone()), &formation, stop.clone());
        let fatal = watch::Sender::new(None);
        let node = Self {
            formation: formation.clone(),
            writer,
            store,
            fatal,
            stop: stop.clone(),
            readiness,
        };
        node.readiness.send_replace(Readiness::NotReady("it belongs to no cluster yet".into()));
        if let Err(failure) = formation.resume().await {
            stop.cancel();
            return Err(StartError::Resume(failure.to_string()));
        }
        node.announce_readiness();
        node.end_when_removed();
        let levels = crate::levels::follow(formation.clone(), node.fatal.clone());
        spawn_until(stop.clone(), levels);
        if joins {
            crate::env::spawn(join(formation, node.fatal.clone(), stop));
        }
        Ok(node)
    }

    /// How it comes to belong to a cluster, for tests of this crate.
    #[cfg(test)]
    pub(crate) fn formation(&self) -> &Arc<Formation> {
        &self.formation
    }

    /// Bytes that wait for the disk, for tests of this crate.
    #[cfg(test)]
    pub(crate) fn writer_queue_bytes(&self) -> usize {
        self.writer.stats().queue_bytes
    }

    /// What each replica that is open here says of itself. For simulations, which hold it against
    /// what the disks hold.
    pub fn probe(&self) -> Vec<crate::probe::LiveReplica> {
        self.formation.member().map(|member| member.probe()).unwrap_or_default()
    }

    /// A node that was removed must not go on: the others have forgotten it.
    fn end_when_removed(&self) {
        let (mut member, fatal) = (self.formation.watch(), self.fatal.clone());
        spawn_until(self.stop.clone(), async move {
            let Ok(member) = member.wait_for(Option::is_some).await.map(|it| it.clone()) else {
                return;
            };
            let Some(member) = member else { return };
            member.liveness().was_removed().await;
            let what = "this node was removed from the cluster; its data directory can be \
                        deleted, and with an empty one it can join again";
            fatal.send_replace(Some(what.to_owned()));
        });
    }

    fn announce_readiness(&self) {
        let mut member = self.formation.watch();
        let readiness = self.readiness.clone();
        let stop = self.stop.clone();
        spawn_until(stop, async move {
            let Ok(member) = member.wait_for(Option::is_some).await.map(|it| it.clone()) else {
                return;
            };
            let Some(member) = member else { return };
            loop {
                let deadline = Instant::now() + limits::PROPOSAL_MAX;
                match member.fresh_metadata(deadline).await {
                    Ok(metadata) if metadata.cluster_id().is_some() => break,
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            readiness.send_replace(Readiness::Ready);
        });
    }

    /// It was removed from its cluster, as another node said: why it ends, if it does.
    pub fn was_removed(&self) -> bool {
        self.formation.member().is_some_and(|member| member.liveness().is_removed())
    }

    /// Resolves when the node can't go on: a write or sync of its disk failed, or the nodes it was
    /// told to join are another cluster's. The process should end; nothing is retried on a disk
    /// that said no.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        tokio::select! {
            biased;
            failure = self.writer.failed() => failure.to_string(),
            Ok(reason) = fatal.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
        }
    }

    /// Hands its leaderships over, then stops. Takes at most about half of
    /// [`limits::STOP_WITHIN`] for the first part.
    pub async fn stop(&self) {
        self.readiness.send_replace(Readiness::NotReady("it is stopping".into()));
        if let Some(member) = self.formation.member() {
            member.hand_over(Instant::now() + limits::STOP_WITHIN / 2).await;
            self.stop.cancel();
            member.close().await;
        }
        self.stop.cancel();
        self.writer.clone().close().await;
    }

    /// Lets go of everything and waits, at most a moment, until the store is closed: RocksDB's
    /// threads must not outlive the process's statics.
    pub async fn close(self) {
        let store = self.store.clone();
        drop(self);
        for _ in 0..limits::STORE_CLOSE_POLLS {
            if store.strong_count() == 0 {
                return;
            }
            tokio::time::sleep(limits::STORE_CLOSE_POLL).await;
        }
        tracing::debug!("the store is still in use");
    }
}

fn spawn_until(stop: CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    crate::env::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

async fn join(
    formation: Arc<Formation>,
    fatal: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        joined = formation.join() => {
            if let Err(failure) = joined {
                tracing::error!(%failure, "this node could not join");
                fatal.send_replace(Some(failure.to_string()));
            }
        }
    }
}

fn open_disk(config: &NodeConfig, env: &Env) -> Result<(Arc<dyn Engine>, LogWriter), StorageError> {
    match &env.disk {
        Disk::Directory(path) => {
            let bytes = |setting| usize::try_from(setting).unwrap_or(usize::MAX);
            let options = RocksOptions {
                block_cache_bytes: bytes(config.storage.cache_bytes),
                memtables_bytes: bytes(config.storage.write_buffer_bytes),
                ..RocksOptions::default()
            };
            let engine: Arc<dyn Engine> = Arc::new(RocksEngine::open(path, options)?);
            let writer = LogWriter::on_thread(engine.clone())?;
            Ok((engine, writer))
        }
        Disk::Simulated { engine, sync } => {
            let (disk, sync) = (engine.clone(), *sync);
            let engine: Arc<dyn Engine> = engine.clone();
            let delay = SyncDelay::drawn(move || sync + disk.sync_delay());
            let writer = LogWriter::on_task(engine.clone(), delay);
            Ok((engine, writer))
        }
    }
}
