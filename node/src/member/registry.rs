//! The replicas of this node, open and closed: finding, closing, deleting.
//!
//! What one is made of is in `replica`; when they are opened, and what is done about one that does
//! not open, in `opening`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node_core::ids::GroupId;
use quipu_proto::peer::v1 as pb;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::hosted::Hosted;
use super::replica::{OpenFailure, Opener, Replica};
use crate::partition::Partition;
use crate::raft::{Refusal, serve_stored_entry};
use crate::storage::log_writer::WriteRequest;
use crate::storage::{StorageError, WriteBatch, keys, manifest};

/// A replica that is not open.
struct Closed {
    hosted: Hosted,
    /// Ends the task that opens it.
    given_up: CancellationToken,
    /// That task has ended.
    ended: CancellationToken,
    attempts: u32,
    why: Option<String>,
}

/// A closed replica, in the hands of the task that shall open it.
pub(super) struct ToOpen {
    pub(super) hosted: Hosted,
    pub(super) given_up: CancellationToken,
    /// To be cancelled when the task ends.
    pub(super) ended: CancellationToken,
    /// Another task has the group's rows until then.
    pub(super) after: Option<CancellationToken>,
}

/// All replicas of this node.
pub(crate) struct Registry {
    opener: Opener,
    replicas: Mutex<Replicas>,
}

#[derive(Default)]
struct Replicas {
    open: BTreeMap<GroupId, Arc<Replica>>,
    closed: BTreeMap<GroupId, Closed>,
    /// The node stops: nothing is opened any more.
    ended: bool,
}

impl Registry {
    pub(super) fn new(opener: Opener) -> Self {
        Self { opener, replicas: Mutex::default() }
    }

    pub(crate) fn replica(&self, group: GroupId) -> Option<Arc<Replica>> {
        self.lock().open.get(&group).cloned()
    }

    pub(crate) fn partition(&self, group: GroupId) -> Option<Arc<Partition>> {
        self.replica(group)?.partition().cloned()
    }

    /// All open replicas, in the order of their groups.
    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.lock().open.values().cloned().collect()
    }

    /// What this node has of a group, open or closed.
    pub(crate) fn hosted(&self, group: GroupId) -> Option<Hosted> {
        let replicas = self.lock();
        let closed = || replicas.closed.get(&group).map(|closed| &closed.hosted);
        replicas.open.get(&group).map(|replica| replica.hosted()).or_else(closed).cloned()
    }

    /// All that this node has, open or closed, in the order of their groups.
    pub(super) fn all_hosted(&self) -> Vec<Hosted> {
        let replicas = self.lock();
        let open = replicas.open.values().map(|replica| replica.hosted());
        let closed = replicas.closed.values().map(|closed| &closed.hosted);
        let mut all: Vec<Hosted> = open.chain(closed).cloned().collect();
        all.sort_by_key(|hosted| hosted.group);
        all
    }

    /// Why this node's replica of a group does not answer; `None` where it has none, or it is open.
    pub(crate) fn why_closed(&self, group: GroupId) -> Option<String> {
        let replicas = self.lock();
        let Closed { attempts, why, .. } = replicas.closed.get(&group)?;
        Some(match why {
            None => "it is being opened".to_owned(),
            Some(why) => format!("attempt {attempts} to open it failed: {why}"),
        })
    }

    /// A committed entry, for another replica whose own copy is damaged. `None` where this node has
    /// no replica of the group.
    pub(crate) fn serve_entry(
        &self,
        group: GroupId,
        index: u64,
    ) -> Option<Result<pb::ReadEntryResponse, Refusal>> {
        if let Some(replica) = self.replica(group) {
            return Some(replica.raft().serve_entry(index));
        }
        self.lock().closed.get(&group)?;
        Some(serve_stored_entry(&*self.opener.groups.engine, group, index))
    }

    /// Puts a replica into the hands of a task that shall open it. An open one is closed before,
    /// and a task that has an older one ends.
    pub(super) async fn to_open(&self, hosted: Hosted) -> Option<ToOpen> {
        let group = hosted.group;
        self.close(group).await;
        let (given_up, ended) = (CancellationToken::new(), CancellationToken::new());
        let closed = Closed {
            hosted: hosted.clone(),
            given_up: given_up.clone(),
            ended: ended.clone(),
            attempts: 0,
            why: None,
        };
        let mut replicas = self.lock();
        if replicas.ended {
            return None;
        }
        let before = replicas.closed.insert(group, closed);
        self.count_closed(&replicas);
        let after = before.map(|before| {
            before.given_up.cancel();
            before.ended
        });
        Some(ToOpen { hosted, given_up, ended, after })
    }

    /// Notes an attempt that failed.
    pub(super) fn note_failure(&self, hosted: &Hosted, attempts: u32, failure: &OpenFailure) {
        let mut replicas = self.lock();
        let closed = replicas.closed.get_mut(&hosted.group);
        if let Some(closed) = closed.filter(|closed| closed.hosted.replica == hosted.replica) {
            closed.attempts = attempts;
            closed.why = Some(failure.to_string());
        }
    }

    /// The task that has `old` opens `new` in its place. Answers `false` if it was given up.
    pub(super) fn becomes(&self, old: &Hosted, new: &Hosted) -> bool {
        let mut replicas = self.lock();
        let closed = replicas.closed.get_mut(&old.group);
        let Some(closed) = closed.filter(|closed| closed.hosted.replica == old.replica) else {
            return false;
        };
        closed.hosted = new.clone();
        (closed.attempts, closed.why) = (0, None);
        true
    }

    /// Nobody opens it any more.
    pub(super) fn drop_closed(&self, hosted: &Hosted) {
        let mut replicas = self.lock();
        let closed = replicas.closed.get(&hosted.group);
        if closed.is_some_and(|closed| closed.hosted.replica == hosted.replica) {
            replicas.closed.remove(&hosted.group);
            self.count_closed(&replicas);
        }
    }

    /// Makes sure that the disk has this replica: one that it does not know is new and begins
    /// empty. One that it knows stays as it is: its vote and its entries count in its group, so
    /// they are never made anew.
    pub(super) async fn prepare(&self, hosted: Hosted) -> Result<Hosted, OpenFailure> {
        if let Some(known) = manifest::get(&*self.opener.groups.engine, hosted.group)? {
            let known = Hosted::of_manifest(&known)
                .map_err(|error| record(hosted.group, &error.to_string()))?;
            if known.replica == hosted.replica {
                return Ok(known);
            }
            // Ids only grow: whoever asks for an older one has older metadata.
            if known.replica > hosted.replica {
                return Err(OpenFailure::NotWanted);
            }
        }
        let mut batch = WriteBatch::new();
        // What an earlier replica of the group may have left must not be taken for this one's.
        keys::delete_group(&mut batch, hosted.group);
        manifest::put(&mut batch, &hosted.to_manifest());
        self.write(batch).await?;
        Ok(hosted)
    }

    /// Opens a replica that the disk has; `repairs`: with what other nodes have of its log.
    pub(super) async fn open(
        &self,
        hosted: Hosted,
        attempts: u32,
        repairs: bool,
    ) -> Result<(), OpenFailure> {
        let (replica, unfinished) = self.opener.open(hosted, attempts, repairs).await?;
        let replica = Arc::new(replica);
        if self.insert(&replica) {
            unfinished.keep();
            return Ok(());
        }
        self.opener.liveness.forget_group(replica.hosted().group);
        replica.close().await;
        Err(OpenFailure::NotWanted)
    }

    /// Answers `false` where it is not wanted any more.
    fn insert(&self, replica: &Arc<Replica>) -> bool {
        let mut replicas = self.lock();
        let group = replica.hosted().group;
        let wanted = replicas.closed.get(&group).is_some_and(|closed| {
            closed.hosted.replica == replica.hosted().replica && !closed.given_up.is_cancelled()
        });
        if wanted {
            replicas.closed.remove(&group);
            replicas.open.insert(group, replica.clone());
            self.count_closed(&replicas);
        }
        wanted
    }

    /// Closes every replica. Their data stays.
    pub(super) async fn close_all(&self) {
        let (open, closed) = {
            let mut replicas = self.lock();
            replicas.ended = true;
            (std::mem::take(&mut replicas.open), std::mem::take(&mut replicas.closed))
        };
        for closed in closed.values() {
            closed.given_up.cancel();
        }
        for replica in open.values() {
            replica.close().await;
        }
    }

    /// Closes a replica and deletes its data.
    pub(super) async fn remove(&self, group: GroupId) -> Result<(), StorageError> {
        let closed = {
            let mut replicas = self.lock();
            let closed = replicas.closed.remove(&group);
            self.count_closed(&replicas);
            closed
        };
        if let Some(closed) = closed {
            closed.given_up.cancel();
            closed.ended.cancelled().await;
        }
        self.close(group).await;
        let mut batch = WriteBatch::new();
        keys::delete_group(&mut batch, group);
        self.write(batch).await
    }

    /// Closes a replica that is open. When this returns nothing of it is written any more but what
    /// is in line already.
    async fn close(&self, group: GroupId) {
        let open = self.lock().open.remove(&group);
        if let Some(replica) = open {
            self.opener.liveness.forget_group(group);
            replica.close().await;
        }
    }

    fn count_closed(&self, replicas: &Replicas) {
        self.opener.groups.metrics.opening.closed.set(replicas.closed.len());
    }

    fn lock(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In line behind what the group's replica may have queued un-waited: written past it, those
    /// rows would come after, into what was just deleted.
    async fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.opener.groups.writer.submit(WriteRequest { batch, sync: true, done });
        let gone = StorageError::Stopped { reason: "its writer is gone".to_owned() };
        receiver.await.unwrap_or(Err(gone))
    }
}

fn record(group: GroupId, reason: &str) -> OpenFailure {
    OpenFailure::Record { group, reason: reason.to_owned() }
}
