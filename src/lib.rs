//! Backup, restore and verify as functions that a program embeds: deduplicated, sealed, on any object store, without a
//! lock and without a server.
//!
//! ```
//! use std::sync::Arc;
//! use backup::{BackupOptions, Credential, Repository, RestoreOptions, RestoreTarget, Source, backup, restore};
//! use backup_backend::{LocalFs, LocalFsOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let (place, home) = (scratch.path().join("repo"), scratch.path().join("home"));
//! # std::fs::create_dir(&home)?;
//! # std::fs::write(home.join("letter"), "dear")?;
//! # let target = scratch.path().join("restored");
//! let store = Arc::new(LocalFs::create(&place, LocalFsOptions::default())?);
//! let repo = Repository::create(store, Credential::Key([7; 32].into()), Default::default()).await?;
//! let report = backup(&repo, "home", Source::tree(&home), &BackupOptions::default(), &()).await?;
//! assert!(report.is_complete());
//! let to = RestoreTarget::Directory(target.clone());
//! restore(&repo, &report.snapshot, to, &RestoreOptions::default(), &()).await?;
//! assert_eq!(std::fs::read(target.join("letter"))?, b"dear");
//! # Ok(())
//! # }
//! ```
//!
//! It is the joint between *what bytes mean* (`backup-core`, `backup-manifest`) and *where bytes are* (`backup-backend`).
//! It prints nothing, reads no environment, starts nothing that outlives a call, and needs a tokio runtime with time
//! enabled. Nothing deletes but [`gc`], [`remove_key`] and [`rebuild_index`].
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod env;
mod error;
mod observer;

mod keys;
mod repository;

mod backup;
mod copy;
mod forget;
mod gc;
mod pins;
mod probe;
mod rebuild_index;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod verify;

mod buffers;
#[cfg(feature = "sim")]
pub mod sim;

pub use backup::source::{ExcludeFn, Source, StreamSource, TreeSource};
pub use backup::{BackupOptions, BackupReport, backup};
pub use copy::{Copied, CopyOptions, CopyReport, NotCopied, Selection, copy};
pub use env::{Clock, Entropy, Env};
pub use error::Error;
pub use forget::{Forget, ForgetOptions, ForgetReport, decisions, forget, hold, release, unforget};
pub use gc::{GcOptions, GcReport, gc};
pub use keys::{KeySlot, add_key, list_keys, remove_key};
pub use observer::{Event, Observer};
pub use pins::check_pins;
pub use probe::{Promise, StoreProbe, probe};
pub use rebuild_index::{RebuildReport, rebuild_index};
pub use repair::{RepairReport, repair};
pub use repository::{CreateOptions, Credential, OpenOptions, Repository};
pub use restore::{Ownership, RestoreOptions, RestoreReport, RestoreTarget, restore};
pub use snapshots::{SnapshotFilter, find_snapshot, list, snapshots};
pub use stats::{RepositoryStats, stats};
pub use verify::{Damage, VerifyLevel, VerifyReport, verify};

pub use backup_backend;
pub use backup_core::{
    Argon2Params, ChunkerParams, Digest, MasterKey, PackId, RepositoryId, SessionId, Zeroizing,
};
pub use backup_manifest::{
    Decision, Item, ItemKind, ItemPath, KeepReason, Kept, Metadata, PinFinding, PinReport, Pins,
    RetentionPolicy, RetentionRules, SkippedItem, SnapshotKind, SnapshotManifest, Verdict,
};
