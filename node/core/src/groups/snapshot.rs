//! The bytes of a coordinator's whole state; see `docs/formats/checkpoints.md`.
//!
//! A table that never had members is written as version 1, which knows no others.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::heartbeat::TopicFact;
use super::roster::{GroupMember, Hold, MemberProfile, Roster, Seat};
use super::{Group, GroupOffset, GroupTable};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Generation, GroupName, MemberId, TopicName};
use crate::limits::{
    GROUP_MEMBERS_MAX, GROUP_TABLE_ROWS_MAX, OFFSET_METADATA_BYTES_MAX, TOPIC_PARTITIONS_MAX,
};
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;

/// Offsets only.
const OFFSETS_VERSION: u8 = 1;
/// Offsets, members and topics.
const VERSION: u8 = 2;

impl GroupTable {
    /// The whole state in one buffer; the same bytes on every replica.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        let mut writer = Writer::with_capacity(self.bytes + 256);
        let version = if self.had_members() { VERSION } else { OFFSETS_VERSION };
        writer.u8(version);
        RaftPosition::write_option(self.applied, &mut writer);
        Membership::write_option(self.membership.as_ref(), &mut writer);
        writer.u64(self.time_last.0);
        if version == VERSION {
            self.generation_last.write(&mut writer);
            writer.u64(self.metadata_index);
            writer.count(self.topics.len());
            for (topic, fact) in &self.topics {
                topic.write(&mut writer);
                fact.write(&mut writer);
            }
        }
        writer.count(self.groups.len());
        for (name, group) in &self.groups {
            name.write(&mut writer);
            write_offsets(&group.offsets, &mut writer);
            if version == VERSION {
                group.roster.write(&mut writer);
            }
        }
        writer.finish_with_checksum()
    }

    /// Reads what [`GroupTable::encode_snapshot`] wrote.
    pub fn decode_snapshot(bytes: Bytes) -> Result<GroupTable, DecodeError> {
        let version = bytes.first().copied().filter(|version| *version == OFFSETS_VERSION);
        let version = version.unwrap_or(VERSION);
        let mut reader = Reader::with_checksum("group snapshot", version, bytes)?;
        let mut table = GroupTable {
            applied: RaftPosition::read_option(&mut reader)?,
            membership: Membership::read_option(&mut reader)?,
            time_last: EntryTime(reader.u64()?),
            ..GroupTable::default()
        };
        if version == VERSION {
            table.generation_last = Generation::read(&mut reader)?;
            table.metadata_index = reader.u64()?;
            for _ in 0..reader.count(GROUP_TABLE_ROWS_MAX, 4 + 1 + 16 + 4)? {
                let topic = TopicName::read(&mut reader)?;
                if table.topics.insert(topic, TopicFact::read(&mut reader)?).is_some() {
                    return Err(reader.invalid("two facts of one topic"));
                }
            }
            if !table.had_members() {
                return Err(reader.invalid("a table without members is of version 1"));
            }
        }
        for _ in 0..reader.count(GROUP_TABLE_ROWS_MAX, 4 + 1 + 4)? {
            let name = GroupName::read(&mut reader)?;
            let offsets = read_offsets(&mut reader)?;
            let roster = match version {
                OFFSETS_VERSION => Roster::default(),
                _ => Roster::read(&mut reader, table.generation_last)?,
            };
            let group = Group { offsets, roster };
            if group.is_empty() || table.groups.insert(name, group).is_some() {
                return Err(reader.invalid("a group with nothing in it, or two of one name"));
            }
        }
        reader.finish()?;
        table.bytes = table.account();
        Ok(table)
    }

    /// There is something that version 1 could not tell.
    fn had_members(&self) -> bool {
        self.generation_last != Generation::default()
            || self.metadata_index != 0
            || !self.topics.is_empty()
    }
}

impl Roster {
    fn write(&self, writer: &mut Writer) {
        self.generation.write(writer);
        writer.count(self.members.len());
        for (joined, member) in &self.members {
            joined.write(writer);
            member.id.write(writer);
            member.profile.write(writer);
            member.generation.write(writer);
            writer.u64(member.joined_at.0);
            writer.bool(member.away);
        }
        writer.count(self.seats.len());
        for (topic, seats) in &self.seats {
            topic.write(writer);
            writer.count(seats.len());
            for seat in seats {
                writer.option(seat.target, |writer, target| target.write(writer));
                writer.option(seat.owner, |writer, owner| {
                    owner.member.write(writer);
                    owner.since.write(writer);
                });
            }
        }
    }

    fn read(reader: &mut Reader, last: Generation) -> Result<Roster, DecodeError> {
        let mut roster = Roster { generation: Generation::read(reader)?, ..Roster::default() };
        if roster.generation > last {
            return Err(reader.invalid("a group is ahead of its table"));
        }
        for _ in 0..reader.count(GROUP_MEMBERS_MAX, 8 + 4 + 1)? {
            let joined = Generation::read(reader)?;
            let member = GroupMember {
                id: MemberId::read(reader)?,
                profile: MemberProfile::read(reader)?,
                generation: Generation::read(reader)?,
                joined_at: EntryTime(reader.u64()?),
                away: reader.bool()?,
            };
            let instance = member.profile.instance.as_ref();
            if instance.is_some_and(|instance| roster.with_instance(instance).is_some()) {
                return Err(reader.invalid("two members with one instance id"));
            }
            let in_order = joined <= member.generation && member.generation <= roster.generation;
            let is_new = !roster.ids.contains_key(&member.id);
            if !in_order || !is_new || roster.members.contains_key(&joined) {
                return Err(reader.invalid("generations out of order, or a member twice"));
            }
            roster.add(joined, member);
        }
        for _ in 0..reader.count(GROUP_TABLE_ROWS_MAX, 4 + 1 + 4)? {
            let topic = TopicName::read(reader)?;
            let limit = usize::try_from(TOPIC_PARTITIONS_MAX).unwrap_or(usize::MAX);
            let seats = reader.list(limit, 1 + 1, read_seat)?;
            let strangers = |seat: &Seat| {
                let holders = [seat.target, seat.owner.map(|owner| owner.member)];
                holders.into_iter().flatten().any(|it| !roster.members.contains_key(&it))
            };
            if seats.iter().any(strangers) || roster.seats.insert(topic, seats).is_some() {
                return Err(reader.invalid("a partition of nobody's, or a topic twice"));
            }
        }
        if roster.members.is_empty() && roster != Roster::default() {
            return Err(reader.invalid("a group without members that has more than offsets"));
        }
        Ok(roster)
    }
}

fn read_seat(reader: &mut Reader) -> Result<Seat, DecodeError> {
    let target = reader.option(Generation::read)?;
    let owner = reader.option(|reader| {
        Ok(Hold { member: Generation::read(reader)?, since: Generation::read(reader)? })
    })?;
    Ok(Seat { target, owner })
}

fn write_offsets(offsets: &BTreeMap<(TopicName, u32), GroupOffset>, writer: &mut Writer) {
    writer.count(offsets.len());
    for ((topic, partition), offset) in offsets {
        topic.write(writer);
        writer.u32(*partition);
        writer.u64(offset.offset);
        writer.option(offset.metadata.as_deref(), Writer::text);
        writer.u64(offset.committed_at.0);
    }
}

fn read_offsets(
    reader: &mut Reader,
) -> Result<BTreeMap<(TopicName, u32), GroupOffset>, DecodeError> {
    let mut offsets = BTreeMap::new();
    for _ in 0..reader.count(GROUP_TABLE_ROWS_MAX, 4 + 1 + 4 + 8 + 1 + 8)? {
        let place = (TopicName::read(reader)?, reader.u32()?);
        let offset = GroupOffset {
            offset: reader.u64()?,
            metadata: reader.option(|reader| reader.text(OFFSET_METADATA_BYTES_MAX))?,
            committed_at: EntryTime(reader.u64()?),
        };
        if offsets.insert(place, offset).is_some() {
            return Err(reader.invalid("two offsets for one partition"));
        }
    }
    Ok(offsets)
}
