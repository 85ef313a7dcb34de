use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::ids::{ChunkId, RepositoryId, SegmentId, SourceTag, split_array};

/// The one secret of a repository, 32 bytes: whoever holds it may do everything.
///
/// It is wrapped in key slots ([`create_slot`](crate::create_slot)) and used for nothing but deriving [`Keys`].
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// Takes 32 bytes from the operating system's random generator.
    #[must_use]
    pub const fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for sealing them into a slot.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// What a chunk holds: content of files and volumes, or a piece of a list of items. The two never share an id or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a third kind would be a new format version"
)]
pub enum ChunkKind {
    /// Content.
    Data = 5,
    /// A piece of a list of items.
    Tree = 6,
}

impl ChunkKind {
    /// The byte that stands for it in headers and associated data: 5 or 6.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The kind that a byte stands for, if any.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            5 => Some(Self::Data),
            6 => Some(Self::Tree),
            _ => None,
        }
    }
}

/// What a key set may or may not be able to do; the ids of chunks, segments and sources are always included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Cut content into chunks (the gear table).
    Chunking,
    /// Seal and open blocks of content.
    DataBlocks,
    /// Seal and open blocks of item lists.
    TreeBlocks,
    /// Seal and open index segments, pack directories, and the documents of sessions and of gc.
    Index,
    /// Seal and open snapshot manifests.
    Snapshots,
    /// Sign and check the repository's configuration.
    Config,
}

impl Capability {
    const fn key_name(self) -> &'static str {
        match self {
            Self::Chunking => "gear table",
            Self::DataBlocks => "data block",
            Self::TreeBlocks => "tree block",
            Self::Index => "index",
            Self::Snapshots => "snapshot",
            Self::Config => "config",
        }
    }
}

/// An operation that the key set was not made for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key set does not include the key that is needed.
    #[error("this key set does not include the {key} key")]
    MissingCapability {
        /// The key's name, in words.
        key: &'static str,
    },
}

/// The derived keys of one repository: what an agent is handed, in memory only, instead of the master key.
///
/// Not `Clone`: share it in an `Arc`. All keys are erased on drop.
pub struct Keys {
    id_data: Zeroizing<[u8; 32]>,
    id_tree: Zeroizing<[u8; 32]>,
    source_tag: Zeroizing<[u8; 32]>,
    segment_name: Zeroizing<[u8; 32]>,
    check_value: Zeroizing<[u8; 32]>,
    gear: Option<Box<Zeroizing<[u64; 256]>>>,
    data_block: Option<SealKey>,
    tree_block: Option<SealKey>,
    index: Option<SealKey>,
    snapshot: Option<SealKey>,
    config: Option<Zeroizing<[u8; 32]>>,
}

impl Keys {
    /// Every key.
    #[must_use]
    pub fn all(master: &MasterKey) -> Self {
        use Capability::{Chunking, Config, DataBlocks, Index, Snapshots, TreeBlocks};
        Self::only(
            master,
            &[Chunking, DataBlocks, TreeBlocks, Index, Snapshots, Config],
        )
    }

    /// What a backup needs: everything but the key that signs the configuration.
    #[must_use]
    pub fn writer(master: &MasterKey) -> Self {
        use Capability::{Chunking, DataBlocks, Index, Snapshots, TreeBlocks};
        Self::only(
            master,
            &[Chunking, DataBlocks, TreeBlocks, Index, Snapshots],
        )
    }

    /// What a restore needs: no gear table, and no key that signs the configuration.
    #[must_use]
    pub fn reader(master: &MasterKey) -> Self {
        use Capability::{DataBlocks, Index, Snapshots, TreeBlocks};
        Self::only(master, &[DataBlocks, TreeBlocks, Index, Snapshots])
    }

    /// The keys for `capabilities`, and those that name chunks, segments and sources.
    #[must_use]
    pub fn only(master: &MasterKey, capabilities: &[Capability]) -> Self {
        let has = |capability| capabilities.contains(&capability);
        let seal = |capability, context| {
            has(capability).then(|| SealKey::derive(context, master.as_bytes()))
        };
        Self {
            id_data: derive(context::ID_DATA, master),
            id_tree: derive(context::ID_TREE, master),
            source_tag: derive(context::SOURCE_TAG, master),
            segment_name: derive(context::SEGMENT_NAME, master),
            check_value: derive(context::CHECK_VALUE, master),
            gear: has(Capability::Chunking).then(|| derive_gear(master)),
            data_block: seal(Capability::DataBlocks, context::DATA_BLOCK),
            tree_block: seal(Capability::TreeBlocks, context::TREE_BLOCK),
            index: seal(Capability::Index, context::INDEX),
            snapshot: seal(Capability::Snapshots, context::SNAPSHOT),
            config: has(Capability::Config).then(|| derive(context::CONFIG_MAC, master)),
        }
    }

    /// The id of a chunk: keyed BLAKE3 of its plaintext. Independent of how it is compressed.
    #[must_use]
    pub fn chunk_id(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.id_data,
            ChunkKind::Tree => &self.id_tree,
        };
        let hash = blake3::keyed_hash(key, plaintext);
        ChunkId::from_bytes(crate::ids::split_array(hash.as_bytes()).0)
    }

    /// The tag of the source with this name: the first 8 bytes of a keyed hash.
    #[must_use]
    pub fn source_tag(&self, source: &str) -> SourceTag {
        let hash = blake3::keyed_hash(&self.source_tag, source.as_bytes());
        SourceTag::from_bytes(split_array(hash.as_bytes()).0)
    }

    /// The name of an index segment with this plaintext.
    #[must_use]
    pub fn segment_id(&self, plaintext: &[u8]) -> SegmentId {
        SegmentId::from_bytes(*blake3::keyed_hash(&self.segment_name, plaintext).as_bytes())
    }

    /// The key check value that the configuration publishes: it tells a wrong key at once and nothing else.
    #[must_use]
    pub fn key_check_value(&self, repository: RepositoryId) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.check_value, repository.as_bytes());
        split_array(hash.as_bytes()).0
    }

    pub(crate) fn gear(&self) -> Result<&[u64; 256], KeyError> {
        require(self.gear.as_ref(), Capability::Chunking).map(|gear| &***gear)
    }

    pub(crate) fn block(&self, kind: ChunkKind) -> Result<&SealKey, KeyError> {
        match kind {
            ChunkKind::Data => require(self.data_block.as_ref(), Capability::DataBlocks),
            ChunkKind::Tree => require(self.tree_block.as_ref(), Capability::TreeBlocks),
        }
    }

    pub(crate) fn index(&self) -> Result<&SealKey, KeyError> {
        require(self.index.as_ref(), Capability::Index)
    }

    pub(crate) fn snapshot(&self) -> Result<&SealKey, KeyError> {
        require(self.snapshot.as_ref(), Capability::Snapshots)
    }

    pub(crate) fn config(&self) -> Result<&[u8; 32], KeyError> {
        require(self.config.as_ref(), Capability::Config).map(|key| &**key)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// An encryption key and the key that hashes nonces: `ek ‖ nk`, 64 bytes of one XOF.
pub(crate) struct SealKey {
    pub(crate) encryption: Zeroizing<[u8; 32]>,
    pub(crate) nonce: Zeroizing<[u8; 32]>,
}

impl SealKey {
    pub(crate) fn derive(context: &str, material: &[u8]) -> Self {
        let mut okm = Zeroizing::new([0; 64]);
        derive_into(context, &[material], &mut *okm);
        Self::from_okm(&okm)
    }

    pub(crate) fn from_okm(okm: &[u8; 64]) -> Self {
        let (encryption, rest) = split_array::<32>(okm);
        let (nonce, _) = split_array::<32>(rest);
        Self {
            encryption: Zeroizing::new(encryption),
            nonce: Zeroizing::new(nonce),
        }
    }
}

/// BLAKE3's key derivation as an XOF over the concatenation of `material`.
pub(crate) fn derive_into(context: &str, material: &[&[u8]], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in material {
        hasher.update(part);
    }
    let mut reader = hasher.finalize_xof();
    reader.fill(out);
    reader.zeroize();
    hasher.zeroize();
}

fn derive(context: &str, master: &MasterKey) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    derive_into(context, &[master.as_bytes()], &mut *key);
    key
}

fn derive_gear(master: &MasterKey) -> Box<Zeroizing<[u64; 256]>> {
    let mut bytes = Zeroizing::new([0; 2048]);
    derive_into(context::GEAR_TABLE, &[master.as_bytes()], &mut *bytes);
    let mut gear = Box::new(Zeroizing::new([0; 256]));
    for (entry, chunk) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *entry = u64::from_le_bytes(*chunk);
    }
    gear
}

fn require<T>(key: Option<&T>, capability: Capability) -> Result<&T, KeyError> {
    key.ok_or(KeyError::MissingCapability {
        key: capability.key_name(),
    })
}

/// Every context string of the family, in one place: two purposes never share one.
///
/// BLAKE3 wants them hard-coded, globally unique and specific. Source: BLAKE3 paper, section 2.3 and `blake3::derive_key`.
pub(crate) mod context {
    pub(crate) const ID_DATA: &str = "backup.v1 chunk id data";
    pub(crate) const ID_TREE: &str = "backup.v1 chunk id tree";
    pub(crate) const GEAR_TABLE: &str = "backup.v1 gear table";
    pub(crate) const DATA_BLOCK: &str = "backup.v1 block seal data";
    pub(crate) const TREE_BLOCK: &str = "backup.v1 block seal tree";
    pub(crate) const INDEX: &str = "backup.v1 index seal";
    pub(crate) const SNAPSHOT: &str = "backup.v1 snapshot seal";
    pub(crate) const CONFIG_MAC: &str = "backup.v1 config mac";
    pub(crate) const SOURCE_TAG: &str = "backup.v1 source tag";
    pub(crate) const SEGMENT_NAME: &str = "backup.v1 segment name";
    pub(crate) const CHECK_VALUE: &str = "backup.v1 key check value";
    pub(crate) const SLOT_KEY: &str = "backup.v1 slot from host key";
    pub(crate) const SLOT_NONCE: &str = "backup.v1 slot nonce";
    pub(crate) const KEY_WRAP: &str = "backup.v1 key wrap";
}
