//! When each member was heard last, and whose session has ended: the memory of a coordinator's
//! leader. Pure; time is an argument, in milliseconds of a clock that never goes back.
//!
//! Nothing here is replicated and nothing here decides who owns what: a leader that forgot all of
//! it gives everyone a full session and goes on. What it finds due becomes a command.

use std::collections::BTreeMap;

use super::GroupTable;
use super::roster::Roster;
use crate::ids::{Generation, GroupName, MemberId};

/// Time between two looks that counts as silence of the members. What is more is time in which
/// this process itself stood still, and could have heard nobody.
pub const LOOK_GAP_MAX_MS: u64 = 2_000;

/// The sessions of one coordinator's members, from the moment this node leads it.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Time that this process was awake; sessions are measured by it.
    awake_ms: u64,
    looked_ms: Option<u64>,
    groups: BTreeMap<GroupName, BTreeMap<Generation, Session>>,
}

#[derive(Debug)]
struct Session {
    heard_ms: u64,
    giving_up: Option<GivingUp>,
}

/// A member has partitions that it should give up.
#[derive(Debug, Clone, Copy)]
struct GivingUp {
    /// Since when, or since it last gave one up.
    since_ms: u64,
    partitions: usize,
}

impl Sessions {
    /// A member that joined in `joined` was heard. Unknown ones are remembered by the next look,
    /// which begins their session.
    pub fn heard(&mut self, group: &GroupName, joined: Generation, now_ms: u64) {
        self.wake(now_ms);
        let session = self.groups.get_mut(group).and_then(|members| members.get_mut(&joined));
        if let Some(session) = session {
            session.heard_ms = self.awake_ms;
        }
    }

    /// Looks through all members. Those to be expired, by group: silent for their session time-out,
    /// or with something to give up for longer than their rebalance time-out. They are named again
    /// by each look until they are gone.
    pub fn look(
        &mut self,
        table: &GroupTable,
        now_ms: u64,
    ) -> BTreeMap<GroupName, Vec<(MemberId, Generation)>> {
        self.wake(now_ms);
        let mut due = BTreeMap::new();
        self.groups.retain(|group, _| table.roster(group).is_some());
        for (group, roster) in table.rosters() {
            let sessions = self.groups.entry(group.clone()).or_default();
            sessions.retain(|joined, _| roster.members().contains_key(joined));
            let ended = look_at(roster, sessions, self.awake_ms);
            if !ended.is_empty() {
                due.insert(group.clone(), ended);
            }
        }
        due
    }

    fn wake(&mut self, now_ms: u64) {
        let passed_ms = self.looked_ms.map_or(0, |looked_ms| now_ms.saturating_sub(looked_ms));
        self.awake_ms += passed_ms.min(LOOK_GAP_MAX_MS);
        self.looked_ms = Some(now_ms);
    }
}

fn look_at(
    roster: &Roster,
    sessions: &mut BTreeMap<Generation, Session>,
    awake_ms: u64,
) -> Vec<(MemberId, Generation)> {
    let mut to_give_up: BTreeMap<Generation, usize> = BTreeMap::new();
    for seat in roster.seats().values().flatten() {
        if let Some(owner) = seat.owner.filter(|owner| seat.target != Some(owner.member)) {
            *to_give_up.entry(owner.member).or_default() += 1;
        }
    }
    let mut ended = Vec::new();
    for (joined, member) in roster.members() {
        let new = || Session { heard_ms: awake_ms, giving_up: None };
        let session = sessions.entry(*joined).or_insert_with(new);
        session.giving_up = match (to_give_up.get(joined), session.giving_up) {
            (None, _) => None,
            (Some(count), Some(before)) if *count >= before.partitions => {
                Some(GivingUp { partitions: *count, ..before })
            }
            (Some(count), _) => Some(GivingUp { since_ms: awake_ms, partitions: *count }),
        };
        let silent_ms = awake_ms - session.heard_ms;
        let reluctant_ms = session.giving_up.map_or(0, |it| awake_ms - it.since_ms);
        if silent_ms >= u64::from(member.profile.session_ms)
            || reluctant_ms >= u64::from(member.profile.rebalance_ms)
        {
            ended.push((member.id.clone(), *joined));
        }
    }
    ended
}
