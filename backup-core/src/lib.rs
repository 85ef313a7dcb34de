//! Cuts, names, compresses and seals bytes: the pure half of a backup.
//!
//! ```
//! use backup_core::{BlockOpener, BlockSealer, ChunkKind, Chunker, ChunkerParams, Keys, MasterKey, RepositoryId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::all(&MasterKey::from_bytes([7; 32].into())); // 32 random bytes, in earnest
//! let repository = RepositoryId::from_bytes([1; 16]);
//! let content = vec![42; 300_000];
//!
//! let len = Chunker::new(ChunkerParams::DEFAULT, &keys)?.cut(&content, true).unwrap_or(0);
//! let chunk = &content[..len];
//! let id = keys.chunk_id(ChunkKind::Data, chunk);
//!
//! let mut record = Vec::new();
//! BlockSealer::new(repository, 3)?.seal(&keys, ChunkKind::Data, chunk, &mut record)?;
//! let opened = BlockOpener::new(repository)?.open(&keys, ChunkKind::Data, &record, len as u32)?;
//! assert_eq!(keys.chunk_id(ChunkKind::Data, &opened), id);
//! # Ok(())
//! # }
//! ```
//!
//! It does no I/O, reads no clock and no environment, starts no thread and draws no random number: bytes, times and
//! random bytes are arguments. It knows no backend, and of what snapshots hold it knows nothing: see `backup-manifest`.

// In reading order. Names and keys:
mod ids;

mod hash;

mod keys;

// From content to a pack:
mod chunker;

mod codec;
mod probe;

mod aead;
mod record;

mod document;
mod wire;

mod directory;

mod pack;
mod segment;

// What a repository is and who may open it:
mod config;

mod slot;
mod slot_object;

mod wrap;

pub use chunker::{Chunker, ChunkerParams, ChunkerParamsError};
pub use codec::{CompressError, Compressor};
pub use config::{CONFIG_LEN_MAX, ConfigError, RepositoryConfig, UnverifiedConfig};
pub use directory::{BlockEntry, DIRECTORY_LEN_MAX, Directory, DirectoryChunk};
pub use document::{
    DOCUMENT_OVERHEAD, DOCUMENT_PLAIN_LEN_MAX, DocumentContext, DocumentError, DocumentKind,
    open_document, seal_document,
};
pub use hash::{Digest, HashAlgorithm, HashMismatch, Hasher, blake3, sha256};
pub use ids::{
    ChunkId, PackId, ParseIdError, RepositoryId, SegmentId, SessionId, ShortId, SlotId, SourceTag,
};
pub use keys::{Capability, ChunkKind, KeyError, Keys, MasterKey};
pub use pack::{
    FinishedPack, PACK_FOOTER_LEN, PACK_HEADER_LEN, PACK_LEN_MAX, PackBuilder, PackError,
    PackFooter, PackHeader, check_pack, check_padding, open_directory, padme, rename_pack,
};
pub use record::{
    BLOCK_PLAIN_LEN_MAX, BlockOpener, BlockSealer, OpenError, RECORD_OVERHEAD, SealError,
};
pub use segment::{SEGMENT_LEN_MAX, Segment, SegmentError, SegmentPack};
pub use slot::{
    Argon2Params, SLOT_LABEL_LEN_MAX, SLOT_LEN_MAX, SlotError, SlotInfo, SlotRandom, SlotSecret,
    SlotSummary, create_slot, inspect_slot, open_slot,
};
pub use wrap::{KeyUnavailable, KeyWrap, LocalKeyWrap, WRAP_LEN_MAX, WrapContext, WrapError};
pub use zeroize::Zeroizing;
