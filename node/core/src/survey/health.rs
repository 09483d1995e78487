//! What is wrong with a cluster, what it means, and what to do: rules over a survey.
//!
//! Each rule is a function of its own. A finding that follows from another is left out where the
//! other says it better: a dead node's groups are behind because it is dead.

use std::collections::BTreeMap;

use super::{CAUGHT_UP_ENTRIES, Survey};
use crate::ids::{GroupId, NodeLabel, NodeUuid};
use crate::metadata::{GroupKind, GroupRecord, MetadataState, Standing};

/// Clocks that are further apart make retention wait, in milliseconds.
const CLOCK_SKEW_MAX_MS: u64 = 10_000;
/// Clocks that are further apart are worth a look, in milliseconds.
const CLOCK_SKEW_NOTED_MS: u64 = 500;
/// A disk has room while it has so many times its reserve.
const DISK_ROOM_FACTOR: u64 = 2;
/// Syncs slower than this at the 99th percentile hold appends up, in microseconds.
const SYNC_SLOW_US: u64 = 100_000;
/// Names in one finding; the rest are counted.
const NAMES_MAX: usize = 5;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well, and could be better.
    Advice,
    /// Everything is served, with less to spare than it should have.
    Warning,
    /// Something is not served.
    Critical,
}

/// What kind of trouble a finding is about; stable, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A node does not answer.
    NodeDown,
    /// Groups without a leader.
    Leaderless,
    /// Groups that have a replica less than they should.
    UnderReplicated,
    /// Replicas that miss entries.
    Behind,
    /// Replicas that don't run on a node that does.
    ReplicaStopped,
    /// A disk that takes no appends any more, or will soon not.
    DiskLow,
    /// A disk that answers late.
    DiskSlow,
    /// A clock that is off.
    ClockSkew,
    /// Nodes that run different builds.
    MixedVersions,
    /// Topics with fewer replicas than the cluster could give.
    ReplicationLow,
    /// A node that can't reach another one.
    CutOff,
    /// A node that is drained or on its way out.
    NotActive,
}

/// One thing that is wrong, or could be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub trouble: Trouble,
    /// How bad.
    pub severity: Severity,
    /// The node it is about, where it is about one.
    pub node: Option<NodeLabel>,
    /// What is.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// All that is wrong, the worst first.
#[must_use]
pub fn findings(metadata: &MetadataState, survey: &Survey) -> Vec<Finding> {
    let look = Look { metadata, survey };
    let mut found = Vec::new();
    look.at_nodes(&mut found);
    look.at_links(&mut found);
    look.at_groups(&mut found);
    look.at_disks(&mut found);
    look.at_clocks(&mut found);
    found.extend(mixed_versions(metadata));
    look.at_replication(&mut found);
    look.at_standings(&mut found);
    found.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.trouble));
    found
}

impl Trouble {
    /// As scripts get it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Trouble::NodeDown => "node_down",
            Trouble::Leaderless => "leaderless",
            Trouble::UnderReplicated => "under_replicated",
            Trouble::Behind => "behind",
            Trouble::ReplicaStopped => "replica_stopped",
            Trouble::DiskLow => "disk_low",
            Trouble::DiskSlow => "disk_slow",
            Trouble::ClockSkew => "clock_skew",
            Trouble::MixedVersions => "mixed_versions",
            Trouble::ReplicationLow => "replication_low",
            Trouble::CutOff => "cut_off",
            Trouble::NotActive => "not_active",
        }
    }
}

struct Look<'a> {
    metadata: &'a MetadataState,
    survey: &'a Survey,
}

impl Look<'_> {
    fn answers(&self, node: NodeUuid) -> bool {
        self.survey.nodes.contains_key(&node)
    }

    fn label(&self, node: NodeUuid) -> NodeLabel {
        self.metadata.nodes().get(&node).map_or(NodeLabel(0), |node| node.label)
    }

    fn at_nodes(&self, found: &mut Vec<Finding>) {
        for (uuid, node) in self.metadata.members().filter(|(uuid, _)| !self.answers(*uuid)) {
            let label = node.label;
            let held = self.metadata.replicas_on(uuid).count();
            found.push(Finding {
                trouble: Trouble::NodeDown,
                severity: Severity::Warning,
                node: Some(label),
                what: format!(
                    "node {label} ({}) does not answer: {held} groups have one live replica less",
                    node.address
                ),
                advice: format!(
                    "start it, or look at its log and network; if its disk is lost start it with \
                     an empty one and --join; if it shall not come back `quipu node remove {label}`"
                ),
            });
        }
    }

    /// Nodes that answer, and can't reach others that do.
    fn at_links(&self, found: &mut Vec<Finding>) {
        for (node, survey) in &self.survey.nodes {
            let lost: Vec<String> = survey
                .unreachable
                .iter()
                .filter(|other| self.answers(**other))
                .map(|other| self.label(*other).to_string())
                .collect();
            if lost.is_empty() {
                continue;
            }
            let label = self.label(*node);
            found.push(Finding {
                trouble: Trouble::CutOff,
                severity: Severity::Warning,
                node: Some(label),
                what: format!("node {label} can't reach nodes {}", lost.join(", ")),
                advice: "look at the network between them: names, firewalls, routes".to_owned(),
            });
        }
    }

    fn at_groups(&self, found: &mut Vec<Finding>) {
        let (mut leaderless, mut lacking) = (Vec::new(), Vec::new());
        let mut behind: BTreeMap<NodeUuid, (Vec<String>, u64)> = BTreeMap::new();
        let mut stopped: BTreeMap<NodeUuid, Vec<String>> = BTreeMap::new();
        for (id, group) in self.metadata.groups().iter().filter(|(_, group)| !group.is_deleted()) {
            let name = name_of(self.metadata, *id, group);
            let Some((_, lead)) = self.survey.lead(*id) else {
                leaderless.push(name);
                continue;
            };
            let mut lacks = false;
            for replica in &group.replicas {
                let Some(survey) = self.survey.nodes.get(&replica.node) else { continue };
                let own = survey.replicas.get(id);
                let runs = own.is_some_and(|own| own.runs && own.replica == replica.id);
                let votes =
                    lead.members.get(&replica.id).is_some_and(|it| it.voter || !replica.voter);
                if !runs {
                    stopped.entry(replica.node).or_default().push(name.clone());
                } else if !votes {
                    lacks = true;
                } else {
                    let misses = lead.behind(replica.id);
                    if misses.is_none_or(|entries| entries > CAUGHT_UP_ENTRIES) {
                        let entry = behind.entry(replica.node).or_default();
                        entry.0.push(name.clone());
                        entry.1 = entry.1.max(misses.unwrap_or(lead.last_index));
                    }
                }
            }
            if lacks {
                lacking.push(name);
            }
        }
        self.tell_groups(found, &leaderless, &lacking);
        self.tell_replicas(found, behind, stopped);
    }

    fn tell_groups(&self, found: &mut Vec<Finding>, leaderless: &[String], lacking: &[String]) {
        if !leaderless.is_empty() {
            found.push(Finding {
                trouble: Trouble::Leaderless,
                severity: Severity::Critical,
                node: None,
                what: format!("{} groups have no leader ({})", leaderless.len(), named(leaderless)),
                advice: "an election is under way, or a majority of their nodes is down: if it \
                         lasts start those nodes"
                    .to_owned(),
            });
        }
        if !lacking.is_empty() {
            found.push(Finding {
                trouble: Trouble::UnderReplicated,
                severity: Severity::Warning,
                node: None,
                what: format!(
                    "{} groups wait for a new replica to catch up ({})",
                    lacking.len(),
                    named(lacking)
                ),
                advice: "nothing, if a node was added, replaced or is being removed; else see \
                         `quipu node ls`"
                    .to_owned(),
            });
        }
    }

    fn tell_replicas(
        &self,
        found: &mut Vec<Finding>,
        behind: BTreeMap<NodeUuid, (Vec<String>, u64)>,
        stopped: BTreeMap<NodeUuid, Vec<String>>,
    ) {
        for (node, (names, entries)) in behind {
            let label = self.label(node);
            found.push(Finding {
                trouble: Trouble::Behind,
                severity: Severity::Warning,
                node: Some(label),
                what: format!(
                    "{} replicas on node {label} are behind, one by {entries} entries ({})",
                    names.len(),
                    named(&names)
                ),
                advice: "if it grows, the node can't be reached from the leaders, or its disk or \
                         processor is too slow"
                    .to_owned(),
            });
        }
        for (node, names) in stopped {
            let label = self.label(node);
            found.push(Finding {
                trouble: Trouble::ReplicaStopped,
                severity: Severity::Warning,
                node: Some(label),
                what: format!(
                    "{} replicas on node {label} don't run ({})",
                    names.len(),
                    named(&names)
                ),
                advice: format!("if it lasts, the log of node {label} says why"),
            });
        }
    }

    fn at_disks(&self, found: &mut Vec<Finding>) {
        for (node, survey) in &self.survey.nodes {
            let label = self.label(*node);
            let reserve = survey.disk_reserve_bytes;
            let advice = "free space, shorten retention with `quipu topic set`, add a node and \
                          `quipu rebalance`, or give it a larger disk";
            match survey.disk_free_bytes {
                Some(free) if free < reserve => found.push(Finding {
                    trouble: Trouble::DiskLow,
                    severity: Severity::Critical,
                    node: Some(label),
                    what: format!(
                        "the disk of node {label} has {} MiB left, less than its reserve of {} \
                         MiB: its partitions take no appends",
                        free >> 20,
                        reserve >> 20
                    ),
                    advice: advice.to_owned(),
                }),
                Some(free) if free < reserve.saturating_mul(DISK_ROOM_FACTOR) => {
                    found.push(Finding {
                        trouble: Trouble::DiskLow,
                        severity: Severity::Warning,
                        node: Some(label),
                        what: format!(
                            "the disk of node {label} has {} MiB left; below {} MiB its \
                             partitions take no appends",
                            free >> 20,
                            reserve >> 20
                        ),
                        advice: advice.to_owned(),
                    });
                }
                Some(_) | None => {}
            }
            if let Some(us) = survey.sync_p99_us.filter(|us| *us > SYNC_SLOW_US) {
                found.push(Finding {
                    trouble: Trouble::DiskSlow,
                    severity: Severity::Advice,
                    node: Some(label),
                    what: format!(
                        "one sync in a hundred on node {label} took up to {} ms in the last minute",
                        us / 1_000
                    ),
                    advice: "appends wait for syncs: look for other load on the disk, or use a \
                             faster one (`quipu bench disk`)"
                        .to_owned(),
                });
            }
        }
    }

    fn at_clocks(&self, found: &mut Vec<Finding>) {
        for (node, survey) in &self.survey.nodes {
            let Some(skew) = survey.clock_skew_ms else { continue };
            let off = skew.unsigned_abs();
            if off <= CLOCK_SKEW_NOTED_MS {
                continue;
            }
            let label = self.label(*node);
            let (severity, then) = match off > CLOCK_SKEW_MAX_MS {
                true => (Severity::Warning, "; retention waits until it is set"),
                false => (Severity::Advice, ""),
            };
            found.push(Finding {
                trouble: Trouble::ClockSkew,
                severity,
                node: Some(label),
                what: format!("the clock of node {label} is {off} ms from the others'{then}"),
                advice: "set it, and keep it right with NTP or chrony".to_owned(),
            });
        }
    }

    fn at_replication(&self, found: &mut Vec<Finding>) {
        let takes = |standing| matches!(standing, Standing::Active | Standing::Drained);
        let nodes = self.metadata.members().filter(|(_, node)| takes(node.standing)).count();
        let could = match nodes {
            0..=2 => 1,
            _ => 3,
        };
        let low = self.metadata.topics().iter().filter(|(_, topic)| {
            let least = topic.partitions.iter().filter_map(|id| self.metadata.groups().get(id));
            least.map(|group| group.replicas.len()).min().is_some_and(|least| least < could)
        });
        let mut low: Vec<String> = low.map(|(name, _)| name.to_string()).collect();
        let coordinators = self
            .metadata
            .groups()
            .values()
            .any(|group| group.kind == GroupKind::Coordinator && group.replicas.len() < could);
        if coordinators {
            low.push("the consumer groups' coordinators".to_owned());
        }
        if low.is_empty() {
            return;
        }
        found.push(Finding {
            trouble: Trouble::ReplicationLow,
            severity: Severity::Advice,
            node: None,
            what: format!(
                "{nodes} nodes could hold {could} replicas, and there are fewer of {}",
                named(&low)
            ),
            advice: format!(
                "a lost disk would lose them: `quipu rebalance plan --replication {could}` shows \
                 how to have more"
            ),
        });
    }

    fn at_standings(&self, found: &mut Vec<Finding>) {
        for (_, node) in self.metadata.members() {
            let label = node.label;
            let (what, advice) = match node.standing {
                Standing::Active | Standing::Removed => continue,
                Standing::Drained => (
                    format!("node {label} is drained and leads nothing"),
                    format!("`quipu node resume {label}` when its maintenance is over"),
                ),
                Standing::Removing => (
                    format!("node {label} is being removed"),
                    format!("`quipu node status {label}` shows how far it is"),
                ),
            };
            let (trouble, severity) = (Trouble::NotActive, Severity::Advice);
            found.push(Finding { trouble, severity, node: Some(label), what, advice });
        }
    }
}

/// Tells of nodes that run different builds; the metadata alone say it.
#[must_use]
pub fn mixed_versions(metadata: &MetadataState) -> Option<Finding> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (_, node) in metadata.members() {
        versions.entry(node.version.build()).or_default().push(node.label.to_string());
    }
    let told: Vec<String> = versions
        .iter()
        .map(|(version, nodes)| format!("{version} on {}", nodes.join(", ")))
        .collect();
    (told.len() > 1).then(|| Finding {
        trouble: Trouble::MixedVersions,
        severity: Severity::Advice,
        node: None,
        what: format!("the nodes run different versions: {}", told.join("; ")),
        advice: "`quipu upgrade run` goes on, `quipu upgrade rollback` goes back; nothing new is \
                 used before `quipu upgrade finalize`"
            .to_owned(),
    })
}

fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        text.push_str(", …");
    }
    text
}

/// What people call a group.
#[must_use]
pub fn name_of(metadata: &MetadataState, id: GroupId, group: &GroupRecord) -> String {
    match group.kind {
        GroupKind::Metadata => "metadata".to_owned(),
        GroupKind::Coordinator => format!("coordinator {id}"),
        GroupKind::Partition { topic, index } => {
            let found = metadata.topics().iter().find(|(_, record)| record.id == topic);
            found.map_or_else(|| format!("group {id}"), |(name, _)| format!("{name}/{index}"))
        }
    }
}

/// The worst of some findings; `None` where there is none.
#[must_use]
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, NodeAddress, NodeVersion, ReplicaId, TopicId, TopicName};
    use crate::metadata::{Bootstrap, CreateTopic, MetadataCommand, NodeSpec};
    use crate::position::RaftPosition;
    use crate::survey::{LeadSurvey, MemberSurvey, NodeSurvey, ReplicaSurvey};
    use crate::time::EntryTime;
    use crate::topic_config::TopicConfig;

    fn uuid(number: u64) -> NodeUuid {
        NodeUuid(uuid::Uuid::from_u64_pair(1, number))
    }

    fn cluster(version_of: impl Fn(u64) -> &'static str, factor: u32) -> MetadataState {
        let node = |number: u64| NodeSpec {
            uuid: uuid(number),
            label: NodeLabel(number),
            address: NodeAddress::new(format!("host-{number}:9400")).expect("an address"),
            version: NodeVersion::new(version_of(number)).expect("a version"),
        };
        let mut state = MetadataState::default();
        let commands = [
            MetadataCommand::Bootstrap(Bootstrap {
                cluster_id: ClusterId(uuid::Uuid::from_u128(7)),
                members: (1..=3).map(node).collect(),
                coordinators: 1,
            }),
            MetadataCommand::CreateTopic(CreateTopic {
                name: TopicName::new("t").expect("a name"),
                id: TopicId(uuid::Uuid::from_u128(8)),
                partitions: 2,
                replication_factor: factor,
                config: TopicConfig::default(),
                time: EntryTime::from_ms(1),
            }),
        ];
        for (index, command) in (0..).zip(commands) {
            state.apply(RaftPosition { term: 1, index }, &command);
        }
        state
    }

    /// Every node answers, and all groups are led by their preferred leaders.
    fn well(metadata: &MetadataState) -> Survey {
        let mut survey = Survey::default();
        for (node, _) in metadata.members() {
            let own = NodeSurvey {
                disk_free_bytes: Some(10 << 30),
                disk_reserve_bytes: 512 << 20,
                ..NodeSurvey::default()
            };
            survey.nodes.insert(node, own);
        }
        for (id, group) in metadata.groups() {
            let first = group.preferred_leader().expect("it is not deleted");
            for replica in &group.replicas {
                let members = group.replicas.iter().map(|it| {
                    let (node, voter, matched) = (it.node, it.voter, Some(9_000));
                    (it.id, MemberSurvey { node, voter, matched })
                });
                let lead = LeadSurvey { term: 1, last_index: 9_000, members: members.collect() };
                let leads = (replica.id == first.id).then_some(lead);
                let told = ReplicaSurvey { replica: replica.id, runs: true, bytes: 5, leads };
                if let Some(own) = survey.nodes.get_mut(&replica.node) {
                    own.replicas.insert(*id, told);
                }
            }
        }
        survey
    }

    fn troubles(metadata: &MetadataState, survey: &Survey) -> Vec<(Trouble, Severity)> {
        let found = findings(metadata, survey);
        assert!(found.iter().all(|it| !it.what.is_empty() && !it.advice.is_empty()));
        found.into_iter().map(|it| (it.trouble, it.severity)).collect()
    }

    fn replica_of(metadata: &MetadataState, group: u32, node: u64) -> ReplicaId {
        let group = &metadata.groups()[&GroupId(group)];
        let found = group.replicas.iter().find(|replica| replica.node == uuid(node));
        found.expect("it is there").id
    }

    #[test]
    fn a_cluster_that_is_well_has_no_findings() {
        let metadata = cluster(|_| "0.2.0", 3);
        assert_eq!(troubles(&metadata, &well(&metadata)), []);
        for node in 1..=3 {
            let status = super::super::node_status(&metadata, &well(&metadata), uuid(node));
            assert!(status.may_stop() && status.is_caught_up(), "{status:?}");
        }
    }

    #[test]
    fn a_node_that_is_down_is_told_and_the_others_must_not_stop() {
        let metadata = cluster(|_| "0.2.0", 3);
        let mut survey = well(&metadata);
        let led = survey.nodes.remove(&uuid(3)).expect("it was there");
        // The others have taken over.
        for (id, replica) in led.replicas {
            let Some(mut lead) = replica.leads else { continue };
            lead.term += 1;
            let second = survey.nodes.get_mut(&uuid(1)).expect("it answers");
            second.replicas.get_mut(&id).expect("on all nodes").leads = Some(lead);
        }
        assert_eq!(troubles(&metadata, &survey), [(Trouble::NodeDown, Severity::Warning)]);
        let status = super::super::node_status(&metadata, &survey, uuid(1));
        assert!(!status.may_stop());
        assert_eq!(status.critical.len(), metadata.groups().len());
    }

    #[test]
    fn a_follower_that_is_cut_off_is_behind() {
        let metadata = cluster(|_| "0.2.0", 3);
        let mut survey = well(&metadata);
        let behind = replica_of(&metadata, 1_000, 3);
        for own in survey.nodes.values_mut() {
            let led = own.replicas.get_mut(&GroupId(1_000)).and_then(|it| it.leads.as_mut());
            if let Some(lead) = led {
                lead.members.get_mut(&behind).expect("a member").matched = Some(10);
            }
        }
        assert_eq!(troubles(&metadata, &survey), [(Trouble::Behind, Severity::Warning)]);
        let found = findings(&metadata, &survey);
        assert!(found[0].what.contains("one by 8990 entries (t/0)"), "{}", found[0].what);
        let status = super::super::node_status(&metadata, &survey, uuid(3));
        assert_eq!((status.behind, status.behind_entries), (1, 8_990));
        assert!(status.may_stop() && !status.is_caught_up());
    }

    #[test]
    fn a_group_without_a_leader_is_critical_and_comes_first() {
        let metadata = cluster(|node| if node == 1 { "0.1.0" } else { "0.2.0" }, 3);
        let mut survey = well(&metadata);
        for own in survey.nodes.values_mut() {
            own.replicas.get_mut(&GroupId(1_001)).expect("on all nodes").leads = None;
        }
        let expected =
            [(Trouble::Leaderless, Severity::Critical), (Trouble::MixedVersions, Severity::Advice)];
        assert_eq!(troubles(&metadata, &survey), expected);
        assert_eq!(worst(&findings(&metadata, &survey)), Some(Severity::Critical));
    }

    #[test]
    fn disks_clocks_and_links_are_looked_at() {
        let metadata = cluster(|_| "0.2.0", 3);
        let mut survey = well(&metadata);
        let mut change = |node, change: fn(&mut NodeSurvey)| {
            change(survey.nodes.get_mut(&uuid(node)).expect("it answers"));
        };
        change(1, |own| own.disk_free_bytes = Some(100 << 20));
        change(2, |own| own.disk_free_bytes = Some(600 << 20));
        change(2, |own| own.sync_p99_us = Some(262_144));
        change(3, |own| own.clock_skew_ms = Some(-60_000));
        change(3, |own| own.unreachable = [uuid(1)].into());
        let expected = [
            (Trouble::DiskLow, Severity::Critical),
            (Trouble::DiskLow, Severity::Warning),
            (Trouble::ClockSkew, Severity::Warning),
            (Trouble::CutOff, Severity::Warning),
            (Trouble::DiskSlow, Severity::Advice),
        ];
        assert_eq!(troubles(&metadata, &survey), expected);
    }

    #[test]
    fn fewer_replicas_than_the_nodes_could_hold_are_worth_an_advice() {
        let metadata = cluster(|_| "0.2.0", 1);
        let survey = well(&metadata);
        assert_eq!(troubles(&metadata, &survey), [(Trouble::ReplicationLow, Severity::Advice)]);
        let first = metadata.groups()[&GroupId(1_000)].replicas[0].node;
        let status = super::super::node_status(&metadata, &survey, first);
        assert!(status.only_copies.contains(&GroupId(1_000)) && status.may_stop());
    }
}
