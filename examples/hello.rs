//! A backup from beginning to end: makes a repository, backs a directory up, lists the snapshots, restores.
//!
//! `cargo run --example hello`

use std::error::Error;
use std::sync::Arc;

use backup::backup_backend::{LocalFs, LocalFsOptions};
use backup::{
    BackupOptions, CreateOptions, Credential, Repository, RestoreOptions, RestoreTarget,
    SnapshotFilter, Source, backup, restore, snapshots,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let (letters, restored) = (
        scratch.path().join("letters"),
        scratch.path().join("restored"),
    );
    std::fs::create_dir(&letters)?;
    std::fs::write(letters.join("first"), "dear")?;
    std::fs::write(letters.join("second"), "dearest")?;

    // A repository lives on any `StorageBackend`. Whoever has the key, here 32 bytes that are no secret, reads it.
    let store = LocalFs::create(scratch.path().join("repository"), LocalFsOptions::default())?;
    let key = Credential::Key([7; 32].into());
    let repo = Repository::create(Arc::new(store), key, CreateOptions::default()).await?;

    let options = BackupOptions::default();
    let report = backup(&repo, "letters", Source::tree(&letters), &options, &()).await?;
    println!("backed up {} files, {} bytes", report.files, report.bytes);
    assert!(report.is_complete(), "nothing was skipped");

    for snapshot in snapshots(&repo, &SnapshotFilter::default()).await? {
        println!("snapshot {} of {}", snapshot.session, snapshot.source);
    }

    let to = RestoreTarget::Directory(restored.clone());
    let report = restore(&repo, &report.snapshot, to, &RestoreOptions::default(), &()).await?;
    println!("restored {} files", report.files);
    assert_eq!(std::fs::read(restored.join("second"))?, b"dearest");
    Ok(())
}
