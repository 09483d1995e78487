//! Decides which member of a group should have which partition: sticky and balanced.
//!
//! Every partition of a topic goes to one member that subscribes to it, if there is one. Members
//! with equal subscriptions get equally many, give or take one, and nobody gives up what its share
//! allows. So a change moves only what must move.
//!
//! A pure function of facts in an order of their own: members by the generation they joined in,
//! topics by name. Work grows with partitions × log members where subscriptions are alike; the
//! balance between members of different subscriptions is a best effort with bounded work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use crate::ids::{Generation, TopicName};

/// For each topic, by partition number, which member (by the generation it joined in) has it.
pub type Plan = BTreeMap<TopicName, Vec<Option<Generation>>>;

/// Pairs of classes that are compared to level them, in all. Only groups whose members subscribe
/// to very many different sets of topics come near; theirs is then balanced less well.
const PAIRS_COMPARED_MAX: usize = 20_000;
/// Pairs of classes that are levelled. Each costs a walk over all partitions.
const PAIRS_LEVELLED_MAX: usize = 64;

/// Who should have each partition, given who has it now. `now` names the topics and how many
/// partitions each has; holders that are no members or do not subscribe count as none.
#[must_use]
pub fn assign(members: &BTreeMap<Generation, &BTreeSet<TopicName>>, now: &Plan) -> Plan {
    let mut desk = Desk::of(members, now);
    desk.keep(members, now);
    desk.fill();
    desk.level();
    for class in 0..desk.classes.len() {
        desk.deal(class);
    }
    desk.plan(now)
}

/// Members with equal subscriptions: what one of them holds each other could hold.
struct Class<'a> {
    topics: &'a BTreeSet<TopicName>,
    members: Vec<Generation>,
    /// Partitions that the class has, with or without a member for them yet.
    count: usize,
}

/// Where a partition lies while it is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// With a class, for any of its members.
    Class(usize),
    /// With the member of this number in [`Desk::members`].
    Member(usize),
}

struct Member {
    joined: Generation,
    class: usize,
}

struct Topic<'a> {
    name: &'a TopicName,
    /// Classes that subscribe to it.
    classes: Vec<usize>,
    places: Vec<Place>,
}

struct Desk<'a> {
    classes: Vec<Class<'a>>,
    /// In the order they joined.
    members: Vec<Member>,
    /// In the order of their names.
    topics: Vec<Topic<'a>>,
}

impl<'a> Desk<'a> {
    fn of(members: &BTreeMap<Generation, &'a BTreeSet<TopicName>>, now: &'a Plan) -> Desk<'a> {
        let mut numbers: BTreeMap<&BTreeSet<TopicName>, usize> = BTreeMap::new();
        let mut classes: Vec<Class<'a>> = Vec::new();
        let mut all = Vec::with_capacity(members.len());
        for (joined, topics) in members {
            let class = *numbers.entry(topics).or_insert(classes.len());
            if class == classes.len() {
                classes.push(Class { topics, members: Vec::new(), count: 0 });
            }
            classes[class].members.push(*joined);
            all.push(Member { joined: *joined, class });
        }
        let topics = now.iter().map(|(name, seats)| {
            let subscribes = |class: &usize| classes[*class].topics.contains(name);
            let classes = (0..classes.len()).filter(subscribes).collect();
            Topic { name, classes, places: vec![Place::Nowhere; seats.len()] }
        });
        let topics = topics.collect();
        Desk { classes, members: all, topics }
    }

    /// Each partition stays where it is, where that can be.
    fn keep(&mut self, members: &BTreeMap<Generation, &BTreeSet<TopicName>>, now: &Plan) {
        let numbers: BTreeMap<Generation, usize> = members.keys().copied().zip(0..).collect();
        for (topic, seats) in self.topics.iter_mut().zip(now.values()) {
            for (place, holder) in topic.places.iter_mut().zip(seats) {
                let Some(number) = holder.and_then(|holder| numbers.get(&holder)) else { continue };
                let class = self.members[*number].class;
                if topic.classes.contains(&class) {
                    *place = Place::Member(*number);
                    self.classes[class].count += 1;
                }
            }
        }
    }

    /// Partitions that nobody has go to the class with the fewest for each member; those that the
    /// fewest may have go first.
    fn fill(&mut self) {
        let mut order: Vec<usize> = (0..self.topics.len()).collect();
        order.sort_by_key(|topic| {
            let classes = self.topics[*topic].classes.iter();
            classes.map(|class| self.classes[*class].members.len()).sum::<usize>()
        });
        for topic in order {
            let topic = &mut self.topics[topic];
            for place in topic.places.iter_mut().filter(|place| **place == Place::Nowhere) {
                let poorest = topic.classes.iter().copied().reduce(|best, other| {
                    let (a, b) = (&self.classes[best], &self.classes[other]);
                    let better = (b.count + 1) * a.members.len() < (a.count + 1) * b.members.len();
                    if better { other } else { best }
                });
                let Some(class) = poorest else { continue };
                *place = Place::Class(class);
                self.classes[class].count += 1;
            }
        }
    }

    /// Moves partitions between classes that share topics, from those with many for each member.
    fn level(&mut self) {
        let (mut compared, mut levelled) = (0, 0);
        loop {
            let mut moved = false;
            for from in 0..self.classes.len() {
                for to in (0..self.classes.len()).filter(|to| *to != from) {
                    compared += 1;
                    if compared > PAIRS_COMPARED_MAX || levelled == PAIRS_LEVELLED_MAX {
                        return;
                    }
                    let surplus = self.surplus(from, to);
                    if surplus > 0 && self.shift(from, to, surplus) {
                        levelled += 1;
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// How many partitions `from` may give to `to` before it would have fewer for each member.
    fn surplus(&self, from: usize, to: usize) -> usize {
        let (from, to) = (&self.classes[from], &self.classes[to]);
        let weighed_from = from.count * to.members.len();
        let weighed_to = to.count * from.members.len();
        weighed_from.saturating_sub(weighed_to) / (from.members.len() + to.members.len())
    }

    /// Gives up to `count` partitions from a class to another that subscribes to their topics:
    /// first those that no member has, then from the members that have most.
    fn shift(&mut self, from: usize, to: usize, count: usize) -> bool {
        let mut free: Vec<(usize, usize)> = Vec::new();
        let mut held: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let mut loads: BTreeMap<usize, usize> = BTreeMap::new();
        for (topic_number, topic) in self.topics.iter().enumerate() {
            let shared = topic.classes.contains(&to);
            for (partition, place) in topic.places.iter().enumerate() {
                match *place {
                    Place::Class(class) if class == from && shared => {
                        free.push((topic_number, partition));
                    }
                    Place::Member(member) if self.members[member].class == from => {
                        *loads.entry(member).or_default() += 1;
                        if shared {
                            held.entry(member).or_default().push((topic_number, partition));
                        }
                    }
                    Place::Nowhere | Place::Class(_) | Place::Member(_) => {}
                }
            }
        }
        let mut richest: BinaryHeap<(usize, usize)> =
            held.keys().map(|member| (loads[member], *member)).collect();
        let mut moved = 0;
        while moved < count {
            let seat = match free.pop() {
                Some(seat) => seat,
                None => {
                    let Some((load, member)) = richest.pop() else { break };
                    let Some(seat) = held.get_mut(&member).and_then(Vec::pop) else { continue };
                    richest.push((load - 1, member));
                    seat
                }
            };
            self.topics[seat.0].places[seat.1] = Place::Class(to);
            moved += 1;
        }
        self.classes[from].count -= moved;
        self.classes[to].count += moved;
        moved > 0
    }

    /// Gives each member of a class its share. Those that have most get the shares that are one
    /// greater, so that as little as possible moves.
    fn deal(&mut self, class: usize) {
        let mut free: Vec<(usize, usize)> = Vec::new();
        let mut held: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (number, member) in self.members.iter().enumerate() {
            if member.class == class {
                held.insert(number, Vec::new());
            }
        }
        for (topic_number, topic) in self.topics.iter().enumerate() {
            for (partition, place) in topic.places.iter().enumerate() {
                match place {
                    Place::Class(owner) if *owner == class => free.push((topic_number, partition)),
                    Place::Member(member) => {
                        if let Some(held) = held.get_mut(member) {
                            held.push((topic_number, partition));
                        }
                    }
                    Place::Nowhere | Place::Class(_) => {}
                }
            }
        }
        let (share, greater) =
            (self.classes[class].count / held.len(), self.classes[class].count % held.len());
        let mut order: Vec<usize> = held.keys().copied().collect();
        order.sort_by_key(|member| (Reverse(held[member].len()), *member));
        let mut wanting: Vec<(usize, usize, usize)> = Vec::new();
        for (rank, member) in order.into_iter().enumerate() {
            let share = share + usize::from(rank < greater);
            let mine = held.remove(&member).expect("each member of the class is in it");
            let missing = share.saturating_sub(mine.len());
            free.extend(excess(mine, share));
            wanting.push((share - missing, member, missing));
        }
        self.hand_out(free, wanting);
    }

    /// Deals `free` partitions in turn to members that want some: (already has, member, wants).
    fn hand_out(&mut self, mut free: Vec<(usize, usize)>, mut wanting: Vec<(usize, usize, usize)>) {
        free.sort_unstable();
        wanting.sort_unstable();
        let mut turn: VecDeque<(usize, usize)> =
            wanting.into_iter().map(|(_, member, wants)| (member, wants)).collect();
        for (topic, partition) in free {
            let (member, wants) = loop {
                let next = turn.pop_front().expect("shares add up to what the class has");
                if next.1 > 0 {
                    break next;
                }
            };
            self.topics[topic].places[partition] = Place::Member(member);
            turn.push_back((member, wants - 1));
        }
    }

    fn plan(&self, now: &Plan) -> Plan {
        let mut plan = now.clone();
        for topic in &self.topics {
            let holder = |place: &Place| match place {
                Place::Member(member) => Some(self.members[*member].joined),
                Place::Nowhere | Place::Class(_) => None,
            };
            plan.insert(topic.name.clone(), topic.places.iter().map(holder).collect());
        }
        plan
    }
}

/// What a member must give up to have `share` left: of the topic it has most of, the highest
/// partition first, so that no topic gathers with few members.
fn excess(held: Vec<(usize, usize)>, share: usize) -> Vec<(usize, usize)> {
    let mut surplus = held.len().saturating_sub(share);
    if surplus == 0 {
        return Vec::new();
    }
    let mut by_topic: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (topic, partition) in held {
        by_topic.entry(topic).or_default().push(partition);
    }
    let mut largest: BinaryHeap<(usize, usize)> =
        by_topic.iter().map(|(topic, partitions)| (partitions.len(), *topic)).collect();
    let mut given = Vec::with_capacity(surplus);
    while surplus > 0 {
        let (count, topic) = largest.pop().expect("a member has at least its surplus");
        let partition = by_topic.get_mut(&topic).and_then(Vec::pop);
        given.push((topic, partition.expect("counted above")));
        largest.push((count - 1, topic));
        surplus -= 1;
    }
    given
}
