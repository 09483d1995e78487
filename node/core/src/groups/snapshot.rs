//! The bytes of a coordinator's whole state; see `docs/formats/checkpoints.md`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{GroupOffset, GroupTable, account};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{GroupName, TopicName};
use crate::limits::{GROUP_TABLE_ROWS_MAX, OFFSET_METADATA_BYTES_MAX};
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;

const VERSION: u8 = 1;

impl GroupTable {
    /// The whole state in one buffer; the same bytes on every replica.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        let mut writer = Writer::with_capacity(self.bytes + 256);
        writer.u8(VERSION);
        RaftPosition::write_option(self.applied, &mut writer);
        Membership::write_option(self.membership.as_ref(), &mut writer);
        writer.u64(self.time_last.0);
        writer.count(self.groups.len());
        for (group, offsets) in &self.groups {
            group.write(&mut writer);
            writer.count(offsets.len());
            for ((topic, partition), offset) in offsets {
                topic.write(&mut writer);
                writer.u32(*partition);
                writer.u64(offset.offset);
                writer.option(offset.metadata.as_deref(), Writer::text);
                writer.u64(offset.committed_at.0);
            }
        }
        writer.finish_with_checksum()
    }

    /// Reads what [`GroupTable::encode_snapshot`] wrote.
    pub fn decode_snapshot(bytes: Bytes) -> Result<GroupTable, DecodeError> {
        let mut reader = Reader::with_checksum("group snapshot", VERSION, bytes)?;
        let mut table = GroupTable {
            applied: RaftPosition::read_option(&mut reader)?,
            membership: Membership::read_option(&mut reader)?,
            time_last: EntryTime(reader.u64()?),
            ..GroupTable::default()
        };
        for _ in 0..reader.count(GROUP_TABLE_ROWS_MAX, 4 + 1 + 4)? {
            let group = GroupName::read(&mut reader)?;
            let offsets = read_offsets(&mut reader)?;
            let offset_bytes: usize =
                offsets.iter().map(|(place, offset)| account(place, offset)).sum();
            table.bytes += offset_bytes + group.as_str().len();
            if offsets.is_empty() || table.groups.insert(group, offsets).is_some() {
                return Err(reader.invalid("a group without offsets, or two of one name"));
            }
        }
        reader.finish()?;
        Ok(table)
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
