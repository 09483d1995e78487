//! Who this data directory is: which node, under which label, in which cluster, in which format.
//!
//! A disk is the node: the uuid is made with the directory and never leaves it, so a replaced
//! disk is another node and gets other replica ids, and a copied label can't take a place that
//! isn't its own. The identity stands in the store beside the data that it describes, written
//! before anything else, so that neither can be found without the other.

use bytes::Bytes;
use node_core::codec::{DecodeError, Reader, Writer};
use node_core::features::{FeatureLevel, FeatureRange};
use node_core::ids::{ClusterId, NodeLabel, NodeUuid};

use super::error::ADVICE_STORE;
use super::{
    Durability, Engine, KeyRange, ScanLimit, Space, StorageError, WriteBatch, keys, sealed,
};

/// Format of the whole store: which spaces there are and how keys are laid out.
pub const STORE_FORMAT: u32 = 1;

/// As quipu 0.1 wrote it.
const IDENTITY_VERSION_FIRST: u8 = 1;
/// With the feature level. Quipu 0.1 does not open such a store, and that is the purpose.
const IDENTITY_VERSION_LEVELS: u8 = 2;
const STORE_FORMAT_VERSION: u8 = 1;

/// The identity of an open store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity {
    /// This disk, for ever.
    pub node: NodeUuid,
    /// What people call the node.
    pub label: NodeLabel,
    /// The cluster it belongs to; `None` until it bootstrapped or joined one.
    pub cluster: Option<ClusterId>,
    /// The cluster's feature level, as far as this node has heard.
    pub level: FeatureLevel,
}

/// What a starting node expects of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedIdentity {
    /// From `--node-id`.
    pub label: NodeLabel,
    /// The cluster it was told to be in; `None` takes the one in the directory.
    pub cluster: Option<ClusterId>,
    /// Used only if the directory is empty: the uuid of a new node.
    pub uuid_if_new: NodeUuid,
    /// What the starting build speaks.
    pub levels: FeatureRange,
}

/// Why a directory is not the one that this node may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The disk holds another cluster's data.
    #[error(
        "this data directory belongs to cluster {found}, not to {expected}; give the node \
        another --data-dir, or empty this one if its data is no longer needed"
    )]
    OtherCluster {
        /// In the directory.
        found: ClusterId,
        /// Asked for.
        expected: ClusterId,
    },
    /// The disk holds another node's data.
    #[error(
        "this data directory belongs to node {found}, not to node {given}; start it with \
        --node-id {found}, or give node {given} another --data-dir"
    )]
    OtherLabel {
        /// In the directory.
        found: NodeLabel,
        /// Asked for.
        given: NodeLabel,
    },
    /// The cluster has finalized a feature level that this build does not speak.
    #[error(
        "this node's cluster has finalized feature level {finalized}, and this build speaks \
        {spoken}; start the node with a build that speaks it, nothing was changed"
    )]
    LevelNotSpoken {
        /// The cluster's.
        finalized: FeatureLevel,
        /// By this build.
        spoken: FeatureRange,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl NodeIdentity {
    /// Reads the identity of the store behind `engine`, or writes it, synced, if the store is
    /// empty. Nothing changes if it is not the expected one.
    pub fn open(engine: &dyn Engine, expected: ExpectedIdentity) -> Result<Self, IdentityError> {
        let format_found = check_format(engine)?;
        let key = keys::node_identity();
        let Some(value) = engine.get(Space::State, &key)? else {
            if format_found {
                return Err(damaged("it has a format but no identity".to_owned()).into());
            }
            return Ok(Self::create(engine, expected)?);
        };
        let sealed = sealed::open(&key, value).map_err(|found| damaged(found.to_string()))?;
        let identity = Self::decode(sealed)?;
        if identity.label != expected.label {
            let (found, given) = (identity.label, expected.label);
            return Err(IdentityError::OtherLabel { found, given });
        }
        if !expected.levels.contains(identity.level) {
            let (finalized, spoken) = (identity.level, expected.levels);
            return Err(IdentityError::LevelNotSpoken { finalized, spoken });
        }
        match (identity.cluster, expected.cluster) {
            (Some(found), Some(expected)) if found != expected => {
                Err(IdentityError::OtherCluster { found, expected })
            }
            (None, Some(cluster)) => identity.adopt(engine, cluster),
            _ => Ok(identity),
        }
    }

    /// Makes this node a member of `cluster` for ever, synced before it returns. A node that
    /// already is in another cluster refuses.
    pub fn adopt(self, engine: &dyn Engine, cluster: ClusterId) -> Result<Self, IdentityError> {
        match self.cluster {
            Some(found) if found == cluster => return Ok(self),
            Some(found) => {
                return Err(IdentityError::OtherCluster { found, expected: cluster });
            }
            None => {}
        }
        let identity = Self { cluster: Some(cluster), ..self };
        identity.keep(engine)?;
        Ok(identity)
    }

    /// Remembers the cluster's feature level, synced before it returns: a build that does not
    /// speak it will not open this store.
    pub fn raise_level(
        self,
        engine: &dyn Engine,
        level: FeatureLevel,
    ) -> Result<Self, StorageError> {
        if level <= self.level {
            return Ok(self);
        }
        let identity = Self { level, ..self };
        identity.keep(engine)?;
        Ok(identity)
    }

    fn keep(&self, engine: &dyn Engine) -> Result<(), StorageError> {
        let mut batch = WriteBatch::new();
        self.put(&mut batch);
        engine.write(batch, Durability::Synced)
    }

    fn create(engine: &dyn Engine, expected: ExpectedIdentity) -> Result<Self, StorageError> {
        let ExpectedIdentity { label, cluster, uuid_if_new: node, levels } = expected;
        // A build that has given up the first levels begins with its lowest.
        let identity = Self { node, label, cluster, level: levels.min };
        let mut batch = WriteBatch::new();
        let key = keys::store_format();
        let format = sealed::seal(&key, STORE_FORMAT_VERSION, &STORE_FORMAT.to_be_bytes());
        batch.put(Space::State, key, format);
        identity.put(&mut batch);
        engine.write(batch, Durability::Synced)?;
        Ok(identity)
    }

    fn put(&self, batch: &mut WriteBatch) {
        let key = keys::node_identity();
        let mut writer = Writer::with_capacity(41);
        self.node.write(&mut writer);
        self.label.write(&mut writer);
        writer.option(self.cluster, |writer, cluster| cluster.write(writer));
        let has_level = self.level > FeatureLevel::FIRST;
        if has_level {
            self.level.write(&mut writer);
        }
        let version = if has_level { IDENTITY_VERSION_LEVELS } else { IDENTITY_VERSION_FIRST };
        let value = sealed::seal(&key, version, &writer.finish());
        batch.put(Space::State, key, value);
    }

    fn decode(sealed: sealed::Sealed) -> Result<Self, StorageError> {
        let has_level = match sealed.version {
            IDENTITY_VERSION_FIRST => false,
            IDENTITY_VERSION_LEVELS => true,
            newer => {
                let (found, supported) = (newer.into(), IDENTITY_VERSION_LEVELS.into());
                return Err(StorageError::NewerFormat { found, supported });
            }
        };
        let read = |body: Bytes| -> Result<Self, DecodeError> {
            let mut reader = Reader::new("node identity", body);
            let node = NodeUuid::read(&mut reader)?;
            let label = NodeLabel::read(&mut reader)?;
            let cluster = reader.option(ClusterId::read)?;
            let level = match has_level {
                true => FeatureLevel::read(&mut reader)?,
                false => FeatureLevel::FIRST,
            };
            reader.finish()?;
            Ok(Self { node, label, cluster, level })
        };
        read(sealed.body).map_err(|error| damaged(error.to_string()))
    }
}

/// Whether the store has a format this version reads; `false` if it is empty.
fn check_format(engine: &dyn Engine) -> Result<bool, StorageError> {
    let key = keys::store_format();
    let Some(value) = engine.get(Space::State, &key)? else {
        let everything = KeyRange { start: Bytes::new(), end: Bytes::from_static(&[0xff; 16]) };
        for space in [Space::State, Space::Log] {
            if !engine.scan(space, &everything, ScanLimit::items(1))?.is_empty() {
                return Err(damaged("it has data but no format".to_owned()));
            }
        }
        return Ok(false);
    };
    let sealed = sealed::open(&key, value).map_err(|found| damaged(found.to_string()))?;
    let found = <[u8; 4]>::try_from(sealed.body.as_ref()).map(u32::from_be_bytes);
    let found = found.map_err(|_| damaged("its format is not a number".to_owned()))?;
    if sealed.version != STORE_FORMAT_VERSION || found != STORE_FORMAT {
        return Err(StorageError::NewerFormat { found, supported: STORE_FORMAT });
    }
    Ok(true)
}

fn damaged(what: String) -> StorageError {
    StorageError::Damaged { what: format!("the store's identity: {what}"), advice: ADVICE_STORE }
}

#[cfg(test)]
mod tests {
    use node_core::features::SUPPORTED;
    use node_core::ids::GroupId;
    use uuid::Uuid;

    use super::*;
    use crate::storage::memory::{Damage, MemoryEngine};

    fn expected(label: u64, cluster: Option<u128>, uuid: u128) -> ExpectedIdentity {
        ExpectedIdentity {
            label: NodeLabel(label),
            cluster: cluster.map(|id| ClusterId(Uuid::from_u128(id))),
            uuid_if_new: NodeUuid(Uuid::from_u128(uuid)),
            levels: SUPPORTED,
        }
    }

    #[test]
    fn the_uuid_of_the_first_start_stays() {
        let engine = MemoryEngine::new();
        let first = NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        engine.power_cut(0);
        let second = NodeIdentity::open(&engine, expected(1, None, 22)).expect("same node");
        assert_eq!(first, second);
        assert_eq!(second.node.0, Uuid::from_u128(11));
    }

    #[test]
    fn an_adopted_cluster_stays_and_another_is_refused() {
        let engine = MemoryEngine::new();
        let fresh = NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        let cluster = ClusterId(Uuid::from_u128(5));
        let member = fresh.adopt(&engine, cluster).expect("first cluster");
        engine.power_cut(0);

        let again = NodeIdentity::open(&engine, expected(1, None, 0)).expect("same node");
        assert_eq!(again, member);
        let other = ClusterId(Uuid::from_u128(6));
        let refused = IdentityError::OtherCluster { found: cluster, expected: other };
        assert_eq!(again.adopt(&engine, other), Err(refused.clone()));
        assert_eq!(NodeIdentity::open(&engine, expected(1, Some(6), 0)), Err(refused));
    }

    #[test]
    fn a_build_that_does_not_speak_the_finalized_level_is_refused_and_told_why() {
        let engine = MemoryEngine::new();
        let fresh = NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        let raised = fresh.raise_level(&engine, FeatureLevel(2)).expect("memory");
        engine.power_cut(0);
        assert_eq!(NodeIdentity::open(&engine, expected(1, None, 0)), Ok(raised));

        let old = ExpectedIdentity { levels: FeatureRange::FIRST, ..expected(1, None, 0) };
        let refused = NodeIdentity::open(&engine, old).expect_err("too old");
        let words = "finalized feature level 2, and this build speaks 1;";
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(NodeIdentity::open(&engine, expected(1, None, 0)), Ok(raised));
    }

    #[test]
    fn an_identity_of_the_first_level_has_the_bytes_of_the_first_release() {
        let engine = MemoryEngine::new();
        NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        let key = keys::node_identity();
        let value = engine.get(Space::State, &key).expect("memory").expect("written");
        let sealed = sealed::open(&key, value).expect("whole");
        assert_eq!((sealed.version, sealed.body.len()), (1, 16 + 8 + 1));
    }

    #[test]
    fn another_label_is_refused_and_told_what_to_do() {
        let engine = MemoryEngine::new();
        NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        let refused = NodeIdentity::open(&engine, expected(2, None, 0)).expect_err("node 1's");
        assert!(refused.to_string().contains("start it with --node-id 1"), "{refused}");
    }

    #[test]
    fn data_without_an_identity_is_not_taken_over() {
        let engine = MemoryEngine::new();
        let mut batch = WriteBatch::new();
        batch.put(Space::Log, keys::log_entry(GroupId(1), 1), Bytes::from_static(b"entry"));
        engine.write(batch, Durability::Synced).expect("memory");
        let refused = NodeIdentity::open(&engine, expected(1, None, 11)).expect_err("not empty");
        assert!(matches!(refused, IdentityError::Storage(StorageError::Damaged { .. })));
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let engine = MemoryEngine::new();
        NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        assert!(engine.damage(Space::State, &keys::node_identity(), Damage::FlipBit { bit: 99 }));
        let refused = NodeIdentity::open(&engine, expected(1, None, 0)).expect_err("damaged");
        assert!(matches!(refused, IdentityError::Storage(StorageError::Damaged { .. })));
    }

    #[test]
    fn a_store_of_a_newer_format_is_left_alone() {
        let engine = MemoryEngine::new();
        NodeIdentity::open(&engine, expected(1, None, 11)).expect("empty store");
        let key = keys::store_format();
        let mut batch = WriteBatch::new();
        let newer = sealed::seal(&key, STORE_FORMAT_VERSION, &(STORE_FORMAT + 1).to_be_bytes());
        batch.put(Space::State, key, newer);
        engine.write(batch, Durability::Synced).expect("memory");
        let refused = NodeIdentity::open(&engine, expected(1, None, 0)).expect_err("newer");
        let newer = StorageError::NewerFormat { found: STORE_FORMAT + 1, supported: STORE_FORMAT };
        assert_eq!(refused, newer.into());
    }
}
