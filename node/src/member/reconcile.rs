//! Makes what this node hosts, and the members of the groups it leads, what the metadata says.
//!
//! Each node does its own part, one step at a time, again and again: opens replicas it was given,
//! deletes those it was told to give up, and where it leads a group adds, promotes and removes
//! members until they are the ones in the metadata. So a node that is lost half-way is no special
//! case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node_core::features::FeatureLevel;
use node_core::ids::{GroupId, NodeUuid, ReplicaId};
use node_core::metadata::{Bootstrap, GroupKind, GroupRecord, MetadataCommand, MetadataState};
use node_core::metadata::{RegisterNode, Replica as Placed};
use tokio::time::Instant;

use super::Member;
use super::hosted::{Hosted, HostedKind};
use super::metadata::node_spec;
use super::replica::Replica;
use crate::limits;
use crate::raft::{GroupStatus, ReplicaNode, Role};

/// The metadata that a round has made sure of; `Some(None)` where that was not possible.
type Fresh = Option<Option<Arc<MetadataState>>>;

impl Member {
    /// Reconciles whenever the metadata changes, and every now and then.
    pub(super) async fn reconcile_always(self: Arc<Self>) {
        let mut changes = self.metadata.clone();
        loop {
            let moving = self.reconcile().await;
            let pause = if moving { limits::RECONCILE_MOVING } else { limits::RECONCILE_INTERVAL };
            let wait = tokio::time::timeout(pause, async {
                tokio::select! {
                    biased;
                    _ = changes.changed() => {}
                    () = self.reconcile_now.notified() => {}
                }
            });
            drop(wait.await);
        }
    }

    /// Answers whether there is more to do soon, as while a group that this node leads is moved.
    async fn reconcile(self: &Arc<Self>) -> bool {
        let metadata = self.metadata();
        self.learn_nodes(&metadata);
        self.reopen_what_stopped().await;
        self.found_groups().await;
        if metadata.cluster_id().is_none() {
            self.bootstrap_if_leading().await;
            return false;
        }
        self.register_if_changed(&metadata).await;
        // Asked for once a round, and only if there is something to change.
        let mut fresh = None;
        let mut moving = !self.host_what_is_placed(&metadata, &mut fresh).await;
        self.drop_what_is_not(&metadata).await;
        self.note_recreated(&metadata);
        self.drive_removals(&metadata).await;
        for replica in self.registry.all() {
            let group = replica.hosted().group;
            if metadata.groups().contains_key(&group) && replica.raft().brief().role == Role::Leader
            {
                self.lead_to(&metadata, &mut fresh, &replica).await;
                moving |= !metadata.groups()[&group].retiring.is_empty();
                self.forget_deleted_topics(&replica).await;
            } else {
                // Whoever leads forgets them; here they are waited for until they are gone.
                self.recreated_in(&replica);
            }
            self.refresh_config(&metadata, &replica);
        }
        moving
    }

    /// Knows every node by its address, and watches it.
    fn learn_nodes(&self, metadata: &MetadataState) {
        let mut known: BTreeMap<NodeUuid, String> = BTreeMap::new();
        for hosted in self.registry.all_hosted() {
            for (_, node) in hosted.founders {
                known.insert(NodeUuid(node.uuid), node.address);
            }
        }
        for replica in self.registry.all() {
            for node in replica.raft().member_nodes() {
                known.insert(NodeUuid(node.uuid), node.address);
            }
        }
        for (uuid, record) in metadata.nodes() {
            known.insert(*uuid, record.address.to_string());
        }
        // Its own replica of the metadata may be damaged: it needs the others to mend it.
        if metadata.nodes().is_empty() {
            for (uuid, address) in self.liveness.strangers() {
                known.entry(uuid).or_insert(address);
            }
        }
        for (uuid, address) in known {
            let gone = metadata.nodes().get(&uuid).is_some_and(|record| !record.is_member());
            let removed = metadata.removed_nodes().contains(&uuid);
            if uuid == self.ground.me || gone || removed {
                continue;
            }
            if self.ground.peers.get(uuid).is_none() {
                self.ground.peers.set_address(uuid, &address);
            }
            self.liveness.watch_node(uuid);
        }
        for (uuid, record) in metadata.nodes() {
            if *uuid != self.ground.me && record.is_member() {
                self.ground.peers.set_address(*uuid, record.address.as_str());
            } else if !record.is_member() {
                self.liveness.forget_node(*uuid);
            }
        }
        for uuid in metadata.removed_nodes() {
            self.liveness.forget_node(*uuid);
        }
        let aside = metadata.members().filter(|(_, node)| !node.standing.takes_leaderships());
        self.liveness.set_aside(aside.map(|(uuid, _)| uuid).collect());
    }

    /// Gives a group its first members, where this replica is a founder. The first founder does it
    /// at once; the others only if it has not by then.
    async fn found_groups(&self) {
        for replica in self.registry.all() {
            let founders = &replica.hosted().founders;
            let place = founders.iter().position(|(id, _)| *id == replica.raft().replica());
            let Some(place) = place else { continue };
            let patient = place > 0 && replica.pulse().age() < limits::FOUNDER_PATIENCE;
            if patient || replica.raft().is_initialized().await {
                continue;
            }
            let members = founders.iter().cloned().collect();
            match replica.raft().initialize(members).await {
                Ok(()) => {
                    replica.pulse().touch();
                    if place == 0 {
                        replica.raft().elect().await;
                    }
                }
                Err(failure) => {
                    tracing::warn!(group = %replica.hosted().group, %failure, "not founded");
                }
            }
        }
    }

    /// The first entry of the metadata: who is there.
    async fn bootstrap_if_leading(&self) {
        if !self.leads_metadata() {
            return;
        }
        let Some(replica) = self.registry.replica(GroupId::METADATA) else { return };
        let mut members = Vec::new();
        for (_, node) in &replica.hosted().founders {
            let uuid = NodeUuid(node.uuid);
            if uuid == self.ground.me {
                members.extend(self.own_spec());
            } else if let Some(link) = self.ground.peers.get(uuid)
                && let Ok(hello) = link.hello(limits::HELLO_MAX).await
                && hello.cluster_id.as_ref() == self.cluster_id.0.as_bytes()
            {
                members.extend(node_spec(uuid, hello.node_id, &hello.address, &hello.version));
            }
        }
        if members.len() != replica.hosted().founders.len() {
            // One does not answer yet. The next round asks again.
            return;
        }
        let bootstrap =
            Bootstrap { cluster_id: self.cluster_id, members, coordinators: limits::COORDINATORS };
        self.propose_quietly(MetadataCommand::Bootstrap(bootstrap)).await;
    }

    /// Tells the cluster a new address or version of this node.
    async fn register_if_changed(&self, metadata: &MetadataState) {
        let Some(spec) = self.own_spec() else { return };
        let known = metadata.nodes().get(&self.ground.me);
        let same = known
            .is_some_and(|known| known.address == spec.address && known.version == spec.version);
        if !same {
            let register = RegisterNode { node: spec, replaces_dead: false };
            self.propose_quietly(MetadataCommand::RegisterNode(register)).await;
        }
        let rack = &self.ground.config.rack;
        let admitted = metadata.level() >= FeatureLevel::MEMBERSHIP;
        if admitted && known.is_some_and(|known| known.rack != *rack) {
            let (node, rack) = (self.ground.me, rack.clone());
            self.propose_quietly(MetadataCommand::SetRack { node, rack }).await;
        }
    }

    pub(super) async fn propose_quietly(&self, command: MetadataCommand) {
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        if let Err(failure) = self.propose(command, deadline).await {
            tracing::debug!(%failure, "the metadata was not changed; the next round tries again");
        }
    }

    /// Each is made in a task of its own, which has founders found their groups when it is done.
    /// Answers `false` where some must wait for metadata that can be made sure of.
    ///
    /// Where the disk has nothing of a group, the metadata must be the newest. By those that a node
    /// knows when it has just started, a replica that was deleted since would be made again under
    /// its old id, without the vote and the log that it answered for.
    pub(crate) async fn host_what_is_placed(
        self: &Arc<Self>,
        known: &MetadataState,
        fresh: &mut Fresh,
    ) -> bool {
        let (mut to_open, unknown): (Vec<Hosted>, Vec<Hosted>) = self
            .not_here(known)
            .into_iter()
            .partition(|hosted| self.registry.hosted(hosted.group).is_some());
        let sure = match unknown.is_empty() {
            true => None,
            false => self.newest(fresh).await,
        };
        if let Some(metadata) = &sure {
            to_open = self.not_here(metadata);
        }
        for hosted in to_open {
            if self.registry.hosted(hosted.group).is_some() {
                self.ground.metrics.opening.replaced.inc();
            }
            drop(self.begin_opening(hosted).await);
        }
        unknown.is_empty() || sure.is_some()
    }

    /// The replicas that this node was given and does not have.
    fn not_here(&self, metadata: &MetadataState) -> Vec<Hosted> {
        let placed = metadata.replicas_on(self.ground.me);
        // Ids only grow: an older replica was given up, perhaps by a process before this one.
        let missing = placed.filter(|(group, _, replica)| {
            self.registry.hosted(*group).is_none_or(|known| known.replica < replica.id)
        });
        missing
            .filter_map(|(group, record, replica)| hosted_of(metadata, (group, record), replica))
            .collect()
    }

    /// Metadata that this node has just made sure of; asked for once a round.
    async fn newest(&self, fresh: &mut Fresh) -> Option<Arc<MetadataState>> {
        if fresh.is_none() {
            let deadline = Instant::now() + limits::READ_INDEX_MAX;
            *fresh = Some(self.fresh_metadata(deadline).await.ok());
        }
        fresh.clone().flatten()
    }

    /// Deletes replicas that the metadata does not know any more.
    async fn drop_what_is_not(&self, metadata: &MetadataState) {
        let seen = metadata.applied().map_or(0, |applied| applied.index);
        self.drop_left_over(metadata).await;
        for hosted in self.registry.all_hosted() {
            if hosted.kind == HostedKind::Metadata || hosted.since > seen {
                continue;
            }
            let record = metadata.groups().get(&hosted.group);
            let placed = record.and_then(|record| record.replica(hosted.replica)).is_some();
            let deleted = record.is_none_or(GroupRecord::is_deleted);
            if placed && !deleted {
                continue;
            }
            tracing::info!(group = %hosted.group, "the replica is not wanted here any more");
            if let Err(error) = self.registry.remove(hosted.group).await {
                tracing::error!(group = %hosted.group, %error, "its data could not be deleted");
                continue;
            }
            if record.is_some() {
                let gone = vec![hosted.replica];
                let group = hosted.group;
                self.propose_quietly(MetadataCommand::ReplicasSettled { group, gone }).await;
            }
        }
        if self.leads_metadata() {
            self.settle_lost(metadata).await;
        }
    }

    /// Of deleted groups: what a replica that never opened has left on the disk, and those whose
    /// end the metadata has not heard of, because nobody led it just then.
    async fn drop_left_over(&self, metadata: &MetadataState) {
        for (group, record) in metadata.groups().iter().filter(|(_, it)| it.is_deleted()) {
            let here = |replica: &&Placed| replica.node == self.ground.me;
            let gone: Vec<_> = record.retiring.iter().filter(here).map(|it| it.id).collect();
            if gone.is_empty() || self.registry.hosted(*group).is_some() {
                continue;
            }
            if let Err(error) = self.registry.remove(*group).await {
                tracing::error!(%group, %error, "its data could not be deleted");
                continue;
            }
            let group = *group;
            self.propose_quietly(MetadataCommand::ReplicasSettled { group, gone }).await;
        }
    }

    /// Strikes off replicas of deleted groups whose node is gone for good.
    async fn settle_lost(&self, metadata: &MetadataState) {
        for (group, record) in metadata.groups() {
            if !record.is_deleted() {
                continue;
            }
            let lost = |replica: &&Placed| {
                metadata.nodes().get(&replica.node).is_none_or(|node| !node.is_member())
            };
            let gone: Vec<ReplicaId> =
                record.retiring.iter().filter(lost).map(|replica| replica.id).collect();
            if !gone.is_empty() {
                let group = *group;
                self.propose_quietly(MetadataCommand::ReplicasSettled { group, gone }).await;
            }
        }
    }

    /// One step from the members a group has to those it should have. Asked on its leader.
    ///
    /// Old metadata only tell that there may be something to do. What is done goes by the newest:
    /// by others a member that was replaced would be taken in again, and its successor voted out.
    pub(super) async fn lead_to(
        &self,
        known: &MetadataState,
        fresh: &mut Fresh,
        replica: &Replica,
    ) {
        let group = replica.hosted().group;
        let me = replica.raft().replica();
        if next_step(me, &replica.raft().status(), known.groups().get(&group)).is_none() {
            return;
        }
        let Some(metadata) = self.newest(fresh).await else { return };
        let step = next_step(me, &replica.raft().status(), metadata.groups().get(&group));
        let Some(step) = step else { return };
        let raft = replica.raft();
        replica.pulse().touch();
        let stepped = match step {
            Step::Add(placed) => {
                let Some(node) = metadata.nodes().get(&placed.node) else { return };
                let node = ReplicaNode { uuid: placed.node.0, address: node.address.to_string() };
                raft.add_learner(placed.id, node).await
            }
            Step::SetVoters { voters, retain } => {
                let named = format!("{voters:?}");
                raft.set_voters(voters, retain).await.inspect(|()| {
                    tracing::info!(%group, voters = named, "the voters of a group were changed");
                })
            }
            Step::HandOver => {
                if let Some(to) = self.staying_leader(&metadata, replica) {
                    self.hand_over_group(replica, to).await;
                }
                return;
            }
            Step::Remove(learners) => raft.remove_learners(learners).await,
            Step::Settle(gone) => {
                self.propose_quietly(MetadataCommand::ReplicasSettled { group, gone }).await;
                return;
            }
        };
        match stepped {
            Ok(()) => self.reconcile_now.notify_one(),
            Err(failure) => {
                tracing::info!(%group, %failure, "a change of members did not go through yet");
            }
        }
    }

    fn refresh_config(&self, metadata: &MetadataState, replica: &Replica) {
        if let Some(partition) = replica.partition()
            && let Some(topic) = metadata.topics().get(&partition.topic)
        {
            partition.set_config(topic.config.clone());
        }
    }
}

/// What brings a group's members nearer to those it should have.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// As a learner, at first.
    Add(Placed),
    SetVoters {
        voters: BTreeSet<ReplicaId>,
        /// Members that no longer vote stay as learners.
        retain: bool,
    },
    /// This replica leads, and is to leave: another one leads on before that.
    HandOver,
    Remove(BTreeSet<ReplicaId>),
    /// The members are as wanted: what was replaced is off the books.
    Settle(Vec<ReplicaId>),
}

/// `None`: there is nothing to do, or it must wait.
fn next_step(me: ReplicaId, status: &GroupStatus, record: Option<&GroupRecord>) -> Option<Step> {
    let record = record.filter(|record| !record.is_deleted())?;
    if !status.members_settled {
        return None;
    }
    if let Some(missing) = record.replicas.iter().find(|it| !status.members.contains_key(&it.id)) {
        return Some(Step::Add(*missing));
    }
    let wanted: BTreeSet<ReplicaId> = record.replicas.iter().map(|it| it.id).collect();
    let voters: BTreeSet<ReplicaId> =
        record.replicas.iter().filter(|it| it.voter).map(|it| it.id).collect();
    if status.voters != voters || status.joint {
        let caught_up = caught_up(status, &voters);
        if caught_up && !status.joint && !voters.contains(&me) {
            // Without anybody who stays, who comes votes beside who goes, and then leads.
            let all = status.voters.union(&voters).copied().collect();
            return Some(match status.voters.is_disjoint(&voters) {
                true => Step::SetVoters { voters: all, retain: true },
                false => Step::HandOver,
            });
        }
        // Learners that shall stay are members still; removed voters leave at once.
        let retain = voters != wanted;
        return caught_up.then_some(Step::SetVoters { voters, retain });
    }
    let extra = status.members.keys().filter(|id| !wanted.contains(id)).copied();
    let extra: BTreeSet<ReplicaId> = extra.collect();
    if !extra.is_empty() {
        return Some(Step::Remove(extra));
    }
    let retiring = record.retiring.iter().map(|replica| replica.id);
    let retiring: Vec<ReplicaId> = retiring.collect();
    (!retiring.is_empty()).then_some(Step::Settle(retiring))
}

/// Every one of `voters` has the log but for its newest entries.
fn caught_up(status: &GroupStatus, voters: &BTreeSet<ReplicaId>) -> bool {
    let needed = status.last_index.unwrap_or(0).saturating_sub(limits::CAUGHT_UP_ENTRIES);
    voters.iter().all(|voter| {
        let matched = status.matched.get(voter).copied().flatten();
        matched.is_some_and(|index| index >= needed)
    })
}

/// What the disk shall remember of a replica that was placed here.
fn hosted_of(
    metadata: &MetadataState,
    (group, record): (GroupId, &GroupRecord),
    replica: Placed,
) -> Option<Hosted> {
    let kind = match record.kind {
        GroupKind::Metadata => HostedKind::Metadata,
        GroupKind::Coordinator => HostedKind::Coordinator,
        GroupKind::Partition { topic, index } => {
            let (name, record) = metadata.topics().iter().find(|(_, it)| it.id == topic)?;
            let config = record.config.clone();
            HostedKind::Partition { topic: name.clone(), topic_id: topic, number: index, config }
        }
    };
    let founder = record.founders.contains(&replica.id);
    let founders = record.founders.iter().filter(|_| founder);
    let founders = founders.filter_map(|id| {
        let placed = record.replica(*id)?;
        let address = metadata.nodes().get(&placed.node)?.address.to_string();
        Some((*id, ReplicaNode { uuid: placed.node.0, address }))
    });
    let founders: Vec<_> = founders.collect();
    // A founder that was replaced meanwhile must not be counted in: then nobody founds, and the
    // group waits for its leader, which exists if the group was founded before.
    let founders = if founders.len() == record.founders.len() { founders } else { Vec::new() };
    let since = metadata.applied().map_or(0, |applied| applied.index);
    Some(Hosted { group, replica: replica.id, kind, founders, since })
}
