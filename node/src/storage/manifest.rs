//! Which replicas this disk holds: the list from which a start brings its groups up again.
//!
//! One record per group. What a record says (replica id, kind, topic and partition, founders) is
//! decided and encoded by whoever hosts groups; here it is a version and bytes. A record is
//! written in the batch that makes the group and deleted in the batch that deletes its data
//! ([`keys::delete_group`]), so that neither is ever found without the other.

use bytes::Bytes;
use node_core::ids::GroupId;

use super::{Engine, ScanLimit, Space, StorageError, WriteBatch, keys, sealed};

/// Records read per step, so that a node with many groups needs little memory to list them.
const STEP: ScanLimit = ScanLimit::new(1024, 1 << 20);

/// One group of which this disk holds a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedReplica {
    /// The group.
    pub group: GroupId,
    /// Format of the body; from 1.
    pub version: u8,
    /// What the host needs to start it.
    pub body: Bytes,
}

/// Adds to `batch` the record of `group`, in place of an older one.
pub fn put(batch: &mut WriteBatch, replica: &HostedReplica) {
    let key = keys::replica(replica.group);
    let value = sealed::seal(&key, replica.version, &replica.body);
    batch.put(Space::State, key, value);
}

/// The record of `group`.
pub fn get(engine: &dyn Engine, group: GroupId) -> Result<Option<HostedReplica>, StorageError> {
    let key = keys::replica(group);
    let Some(value) = engine.get(Space::State, &key)? else {
        return Ok(None);
    };
    let sealed = sealed::open(&key, value)?;
    Ok(Some(HostedReplica { group, version: sealed.version, body: sealed.body }))
}

/// All records, in the order of their groups.
pub fn list(engine: &dyn Engine) -> Result<Vec<HostedReplica>, StorageError> {
    let mut replicas: Vec<HostedReplica> = Vec::new();
    let mut range = keys::replicas();
    loop {
        let found = engine.scan(Space::State, &range, STEP)?;
        let Some(last) = found.len().checked_sub(1) else {
            return Ok(replicas);
        };
        range.start = keys::after(&found[last].0);
        for (key, value) in found {
            let group = keys::parse_state(&key).and_then(|parsed| parsed.group);
            let group = group.ok_or_else(|| StorageError::Damaged {
                what: format!("the manifest has the key {key:02x?}"),
                advice: super::error::ADVICE_STORE,
            })?;
            let sealed = sealed::open(&key, value)?;
            replicas.push(HostedReplica { group, version: sealed.version, body: sealed.body });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Durability;
    use crate::storage::memory::MemoryEngine;

    fn replica(group: u32, body: &'static [u8]) -> HostedReplica {
        HostedReplica { group: GroupId(group), version: 1, body: Bytes::from_static(body) }
    }

    #[test]
    fn the_list_has_every_hosted_group_once_and_in_order() {
        let engine = MemoryEngine::new();
        let mut batch = WriteBatch::new();
        let groups: Vec<u32> = (0..3000).chain([u32::MAX]).collect();
        for &group in groups.iter().rev() {
            put(&mut batch, &replica(group, b"record"));
        }
        engine.write(batch, Durability::Synced).expect("memory");

        let listed = list(&engine).expect("undamaged");
        assert_eq!(listed.iter().map(|hosted| hosted.group.0).collect::<Vec<_>>(), groups);
    }

    #[test]
    fn deleting_a_group_takes_its_record_away() {
        let engine = MemoryEngine::new();
        let mut batch = WriteBatch::new();
        put(&mut batch, &replica(7, b"seven"));
        put(&mut batch, &replica(8, b"eight"));
        keys::delete_group(&mut batch, GroupId(7));
        engine.write(batch, Durability::Synced).expect("memory");

        assert_eq!(get(&engine, GroupId(7)).expect("undamaged"), None);
        assert_eq!(list(&engine).expect("undamaged"), [replica(8, b"eight")]);
    }
}
