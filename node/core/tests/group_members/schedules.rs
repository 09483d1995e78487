//! Random schedules of joins, heartbeats, crashes, expiries, leaves, zombies and commits, with
//! lost answers, late copies and slow members, against the promise of `docs/consumer-groups.md`.

use std::collections::{BTreeMap, BTreeSet};

use node_core::groups::{
    GroupCommand, GroupOutcome, GroupTable, Heartbeat, MemberProfile, TopicPartitions,
};
use node_core::ids::{Generation, TopicName};
use proptest::prelude::*;

use super::desk::{Desk, commit, group, member, profile, topic, with_instance};

const TOPICS: [&str; 3] = ["orders", "payments", "parcels"];

/// What may happen next; `u8`s choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Start {
        topics: u8,
        instance: Option<u8>,
        slow: bool,
    },
    Beat {
        who: u8,
        answer_lost: bool,
    },
    /// A heartbeat is copied on its way, and the copy comes later.
    Copy {
        who: u8,
    },
    DeliverCopy {
        which: u8,
    },
    Resubscribe {
        who: u8,
        topics: u8,
    },
    FinishGivingUp {
        who: u8,
    },
    Leave {
        who: u8,
        stays: bool,
    },
    /// It is silent from now on, but may go on committing.
    Hang {
        who: u8,
    },
    Expire {
        who: u8,
    },
    Consume {
        who: u8,
    },
    Commit {
        who: u8,
    },
    Grow {
        topic: u8,
    },
    Recreate {
        topic: u8,
    },
    TellNews,
    Restore,
}

fn any_step() -> impl Strategy<Value = Step> {
    let b = any::<u8>;
    prop_oneof![
        4 => (1_u8..8, proptest::option::weighted(0.3, 0_u8..3), any::<bool>())
            .prop_map(|(topics, instance, slow)| Step::Start { topics, instance, slow }),
        20 => (b(), proptest::bool::weighted(0.2))
            .prop_map(|(who, answer_lost)| Step::Beat { who, answer_lost }),
        3 => b().prop_map(|who| Step::Copy { who }),
        4 => b().prop_map(|which| Step::DeliverCopy { which }),
        2 => (b(), 1_u8..8).prop_map(|(who, topics)| Step::Resubscribe { who, topics }),
        6 => b().prop_map(|who| Step::FinishGivingUp { who }),
        2 => (b(), any::<bool>()).prop_map(|(who, stays)| Step::Leave { who, stays }),
        2 => b().prop_map(|who| Step::Hang { who }),
        2 => b().prop_map(|who| Step::Expire { who }),
        8 => b().prop_map(|who| Step::Consume { who }),
        12 => b().prop_map(|who| Step::Commit { who }),
        1 => (0_u8..3).prop_map(|topic| Step::Grow { topic }),
        1 => (0_u8..3).prop_map(|topic| Step::Recreate { topic }),
        2 => Just(Step::TellNews),
        2 => Just(Step::Restore),
    ]
}

fn subscription(bits: u8) -> Vec<&'static str> {
    let chosen = (0..TOPICS.len()).filter(|place| bits & (1 << place) != 0);
    chosen.map(|place| TOPICS[place]).collect()
}

/// A consumer's process, as it sees itself.
#[derive(Debug, Clone)]
struct Process {
    id: String,
    profile: MemberProfile,
    generation: Generation,
    /// What it was assigned and has not given up, and where it is in each.
    positions: BTreeMap<(TopicName, u32), u64>,
    /// It is at work on these still, though it should not have them any more.
    giving_up: BTreeSet<(TopicName, u32)>,
    slow: bool,
    hangs: bool,
    /// It knows that it is out, for good.
    ended: bool,
}

impl Process {
    fn owned(&self) -> TopicPartitions {
        let mut owned = TopicPartitions::new();
        for (topic, partition) in self.positions.keys() {
            owned.entry(topic.clone()).or_default().insert(*partition);
        }
        owned
    }
}

#[derive(Default)]
struct World {
    desk: Desk,
    processes: Vec<Process>,
    copies: Vec<Heartbeat>,
    started: usize,
    generations: BTreeMap<(String, Generation), Generation>,
    offsets: BTreeMap<(TopicName, u32), u64>,
}

impl World {
    fn new() -> World {
        let desk = Desk::with_topics(&[("orders", 4), ("payments", 3), ("parcels", 1)]);
        World { desk, ..World::default() }
    }

    fn choose(&self, who: u8) -> Option<usize> {
        let count = self.processes.len();
        (count > 0).then(|| usize::from(who) % count)
    }

    fn fresh_id(&mut self) -> String {
        self.started += 1;
        format!("m{}", self.started)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Start { topics, instance, slow } => self.start(topics, instance, slow),
            Step::Beat { who, answer_lost } => {
                if let Some(who) = self.choose(who).filter(|who| !self.processes[*who].hangs) {
                    self.beat(who, answer_lost);
                }
            }
            Step::Copy { who } => {
                if let Some(who) = self.choose(who).filter(|who| !self.processes[*who].ended) {
                    self.copies.push(self.heartbeat(who));
                }
            }
            Step::DeliverCopy { which } => {
                if !self.copies.is_empty() {
                    let which = usize::from(which) % self.copies.len();
                    // The process does not listen to this answer.
                    let _ = self.desk.beat(&self.copies[which].clone());
                }
            }
            Step::Resubscribe { who, topics } => {
                if let Some(who) = self.choose(who) {
                    let topics = subscription(topics);
                    self.processes[who].profile.topics = topics.into_iter().map(topic).collect();
                }
            }
            Step::FinishGivingUp { who } => {
                if let Some(who) = self.choose(who) {
                    self.finish_giving_up(who);
                }
            }
            Step::Leave { who, stays } => self.leave(who, stays),
            Step::Hang { who } => {
                if let Some(who) = self.choose(who) {
                    self.processes[who].hangs = true;
                }
            }
            Step::Expire { who } => {
                if let Some(who) = self.choose(who) {
                    self.desk.expire(&self.processes[who].id.clone());
                }
            }
            Step::Consume { who } => {
                if let Some(who) = self.choose(who) {
                    self.processes[who].positions.values_mut().for_each(|position| *position += 1);
                }
            }
            Step::Commit { who } => {
                if let Some(who) = self.choose(who) {
                    self.commit(who);
                }
            }
            Step::Grow { topic } => {
                let name = TOPICS[usize::from(topic)];
                let fact = self.desk.topics[&super::desk::topic(name)];
                self.desk.make_topic(name, fact.partitions + 1);
            }
            Step::Recreate { topic } => self.recreate(TOPICS[usize::from(topic)]),
            Step::TellNews => {
                self.desk.tell_news();
            }
            Step::Restore => {
                let snapshot = self.desk.table.encode_snapshot();
                let restored = GroupTable::decode_snapshot(snapshot).unwrap();
                assert_eq!(restored, self.desk.table, "with its account of bytes");
                self.desk.table = restored;
            }
        }
    }

    fn start(&mut self, topics: u8, instance: Option<u8>, slow: bool) {
        let topics = subscription(topics);
        let profile = match instance {
            None => profile(&topics),
            Some(number) => with_instance(&format!("i{number}"), &topics),
        };
        let id = self.fresh_id();
        self.processes.push(Process {
            id,
            profile,
            generation: Generation(0),
            positions: BTreeMap::new(),
            giving_up: BTreeSet::new(),
            slow,
            hangs: false,
            ended: false,
        });
    }

    fn heartbeat(&self, who: usize) -> Heartbeat {
        let process = &self.processes[who];
        let (id, generation) = (&process.id, process.generation);
        self.desk.heartbeat(id, generation, process.profile.clone(), process.owned())
    }

    fn beat(&mut self, who: usize, answer_lost: bool) {
        if self.processes[who].ended {
            return;
        }
        let told = self.desk.beat(&self.heartbeat(who));
        if answer_lost {
            return;
        }
        let fresh_id = self.fresh_id();
        let process = &mut self.processes[who];
        match told {
            Err(outcome) => {
                // Out: it drops all, and joins again as somebody new unless it was replaced.
                process.positions.clear();
                process.giving_up.clear();
                process.generation = Generation(0);
                process.id = fresh_id;
                process.ended = outcome == GroupOutcome::InstanceFenced;
            }
            Ok((generation, assigned)) => {
                assert!(generation >= process.generation);
                process.generation = generation;
                let assigned: BTreeSet<(TopicName, u32)> = assigned
                    .into_iter()
                    .flat_map(|(topic, numbers)| {
                        numbers.into_iter().map(move |number| (topic.clone(), number))
                    })
                    .collect();
                for place in &assigned {
                    let begin = self.desk.table.offset(&group(), &place.0, place.1);
                    let begin = begin.map_or(0, |offset| offset.offset);
                    process.positions.entry(place.clone()).or_insert(begin);
                }
                let owned = process.positions.keys();
                process.giving_up = owned.filter(|it| !assigned.contains(it)).cloned().collect();
                if !process.slow {
                    self.finish_giving_up(who);
                }
            }
        }
    }

    fn finish_giving_up(&mut self, who: usize) {
        let process = &mut self.processes[who];
        for place in std::mem::take(&mut process.giving_up) {
            process.positions.remove(&place);
        }
    }

    fn leave(&mut self, who: u8, stays: bool) {
        let Some(who) = self.choose(who) else { return };
        let process = &mut self.processes[who];
        if process.hangs || process.ended {
            return;
        }
        (process.ended, process.positions) = (true, BTreeMap::new());
        let id = process.id.clone();
        self.desk.leave(&id, stays);
    }

    /// A topic is deleted and made again, and the table hears of it. Its consumers may not know.
    fn recreate(&mut self, name: &'static str) {
        self.desk.delete_topic(name);
        self.desk.make_topic(name, 2);
        self.desk.tell_news();
        self.desk.apply(GroupCommand::ForgetTopic { topic: topic(name) });
        self.desk.tell_news();
        self.offsets.retain(|place, _| place.0 != topic(name));
        for process in &mut self.processes {
            process.positions.retain(|place, _| place.0 != topic(name));
            process.giving_up.retain(|place| place.0 != topic(name));
        }
    }

    /// Whether the table still counts the process as a member: under its id, and since a
    /// generation that it knows. A late copy of its join may have made another of that id.
    fn is_member(&self, process: &Process) -> bool {
        let roster = self.desk.table.roster(&group());
        let found = roster.and_then(|roster| roster.member(&member(&process.id)));
        found.is_some_and(|(joined, _)| joined <= process.generation)
    }

    fn commit(&mut self, who: usize) {
        let process = self.processes[who].clone();
        for ((topic, partition), position) in &process.positions {
            let offset = [(topic.as_str(), *partition, *position)];
            let outcome = self.desk.commit(Some((&process.id, process.generation)), &offset);
            let accepted = outcome == GroupOutcome::Committed;
            assert_eq!(accepted, self.is_member(&process), "{process:?}: {outcome:?}");
            if accepted {
                self.offsets.insert((topic.clone(), *partition), *position);
            }
        }
    }

    fn check(&mut self) {
        self.check_owners();
        self.check_generations();
        for ((topic, partition), offset) in &self.offsets {
            let kept = self.desk.offset(topic.as_str(), *partition);
            assert_eq!(kept, Some(*offset), "of {topic}/{partition}");
        }
    }

    /// A partition that a member is at work on is its own, and at most one process can commit.
    fn check_owners(&self) {
        let mut committers: BTreeMap<&(TopicName, u32), &str> = BTreeMap::new();
        for process in &self.processes {
            for place in process.positions.keys() {
                let (topic, partition) = (place.0.as_str(), place.1);
                let by = Some((process.id.as_str(), process.generation));
                let try_it = GroupCommand::Commit(commit(by, &[(topic, partition, u64::MAX)]));
                let index = self.desk.entries + 1;
                let at = node_core::position::RaftPosition { term: 1, index };
                let outcome = self.desk.table.clone().apply(at, &try_it);
                assert_eq!(outcome == GroupOutcome::Committed, self.is_member(process));
                if outcome == GroupOutcome::Committed {
                    let other = committers.insert(place, &process.id);
                    assert_eq!(other, None, "{place:?} has two owners");
                }
            }
        }
    }

    fn check_generations(&mut self) {
        let Some(roster) = self.desk.table.roster(&group()) else { return };
        for (joined, member) in roster.members() {
            let key = (member.id.to_string(), *joined);
            let before = self.generations.insert(key, member.generation);
            assert!(before.is_none_or(|before| before <= member.generation));
            assert!(*joined <= member.generation && member.generation <= roster.generation());
        }
    }

    /// Expires members without a live process.
    fn expire_the_silent(&mut self) {
        let members = self.desk.table.roster(&group()).map(|it| it.members().clone());
        for gone in members.into_iter().flatten().map(|(_, member)| member.id) {
            let lives = |it: &Process| it.id == gone.as_str() && !it.hangs && !it.ended;
            if !self.processes.iter().any(lives) {
                self.desk.expire(gone.as_str());
            }
        }
    }

    /// Nothing happens any more but what must: who hangs is expired, the others beat.
    fn settle(&mut self) {
        self.desk.tell_news();
        for process in self.processes.iter_mut().filter(|process| process.hangs || process.ended) {
            process.positions.clear();
        }
        let live: Vec<usize> = (0..self.processes.len())
            .filter(|who| !self.processes[*who].hangs && !self.processes[*who].ended)
            .collect();
        for _ in 0..10 {
            self.expire_the_silent();
            for who in &live {
                self.beat(*who, false);
                self.finish_giving_up(*who);
                self.check();
            }
        }
        // Replaced ones have learned it by now.
        let ids: BTreeSet<&str> = live
            .iter()
            .map(|who| &self.processes[*who])
            .filter(|process| !process.ended)
            .map(|process| process.id.as_str())
            .collect();
        let Some(roster) = self.desk.table.roster(&group()) else {
            assert!(ids.is_empty());
            return;
        };
        assert!(roster.is_settled(), "{roster:?}");
        let members: BTreeSet<&str> = roster.members().values().map(|it| it.id.as_str()).collect();
        assert_eq!(members, ids);
        let mut classes: BTreeMap<&BTreeSet<TopicName>, Vec<usize>> = BTreeMap::new();
        for process in self.processes.iter().filter(|process| ids.contains(process.id.as_str())) {
            let (joined, member) = roster.member(&member(&process.id)).unwrap();
            assert_eq!(process.owned(), roster.assigned(joined));
            assert_eq!(
                (process.generation, &process.profile),
                (member.generation, &member.profile)
            );
            let class = classes.entry(&member.profile.topics).or_default();
            class.push(process.positions.len());
        }
        for counts in classes.values() {
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
        self.check_complete();
    }

    fn check_complete(&self) {
        let roster = self.desk.roster();
        for (topic, fact) in &self.desk.topics {
            let wanted = roster.members().values().any(|it| it.profile.topics.contains(topic));
            let seats = roster.seats().get(topic).map_or(0, Vec::len);
            let partitions = usize::try_from(fact.partitions).unwrap();
            assert_eq!(seats, if wanted { partitions } else { 0 }, "{topic}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_promise_holds_in_every_schedule(
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.settle();
    }
}
