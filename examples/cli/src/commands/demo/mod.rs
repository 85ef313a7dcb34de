//! The whole way once, on real files: back up, back up again, restore, compare, verify.

mod compare;
mod pick;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::backup_backend::{LocalFs, LocalFsOptions};
use backup::{
    BackupOptions, BackupReport, CreateOptions, ItemPath, Repository, RepositoryStats,
    RestoreOptions, RestoreReport, RestoreTarget, Source, VerifyLevel, VerifyReport, backup,
    restore, stats, verify,
};
use serde_json::json;
use tempfile::TempDir;

use self::compare::Comparison;
use crate::args::DemoArguments;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::text::{bytes, clean, count, counted, ratio};
use crate::ui::{Outcome, Ui};
use crate::unlock::{Secret, generate_key_file, read_key_file};

/// The name that the source has in the repository of the demo.
const SOURCE_NAME: &str = "demo";

pub(crate) async fn run(ui: &Ui, arguments: DemoArguments) -> Result<Outcome, Failure> {
    let source = match arguments.source {
        Some(source) => source,
        None => pick::source()?,
    };
    let size = pick::measure(&source, u64::MAX);
    let dir = arguments.dir.unwrap_or_else(std::env::temp_dir);
    pick::check_room(&dir, size.bytes)?;
    let failed = |e| Failure::Read {
        what: "the directory",
        path: dir.clone(),
        source: e,
    };
    let dir = tempfile::Builder::new()
        .prefix("backup-demo-")
        .tempdir_in(&dir)
        .map_err(failed)?;
    let mut scratch = Scratch {
        dir,
        is_kept: false,
    };
    ui.note(&format!(
        "backing up {source:?} to {:?} and back",
        scratch.dir.path()
    ));

    let demo = Demo::run(ui, &source, scratch.dir.path()).await?;
    let kept = if arguments.keep {
        Some(scratch.keep())
    } else {
        None
    };
    demo.show(ui, &source, kept.as_deref())?;
    drop(scratch);
    if demo.compared.differences_count > 0 || !demo.verified.is_sound() {
        let count = demo.compared.differences_count + demo.verified.damage.len() as u64;
        return Err(Failure::Differs { count });
    }
    Ok(Outcome::complete_if(demo.is_complete()))
}

/// What the demo makes, which goes when this is dropped.
struct Scratch {
    dir: TempDir,
    is_kept: bool,
}

impl Scratch {
    fn keep(&mut self) -> PathBuf {
        self.is_kept = true;
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Restored directories may be read-only, and then what they hold could not be removed.
        if !self.is_kept {
            pick::make_writable(&self.dir.path().join(RESTORED));
        }
    }
}

const RESTORED: &str = "restored";

/// Something done, and the seconds it took.
struct Timed<T> {
    done: T,
    seconds: f64,
}

/// What happened.
struct Demo {
    first: Timed<BackupReport>,
    second: Timed<BackupReport>,
    /// Objects and bytes after the first backup, and after the second.
    sizes: (RepositoryStats, RepositoryStats),
    restored: Timed<RestoreReport>,
    compared: Comparison,
    verified: VerifyReport,
    verify_seconds: f64,
}

impl Demo {
    async fn run(ui: &Ui, source: &Path, scratch: &Path) -> Result<Self, Failure> {
        let repo = make_repository(scratch).await?;
        let (first, mut left_out) = back_up(ui, &repo, "first backup", source).await?;
        let size = stats(&repo).await?;
        let (second, _) = back_up(ui, &repo, "second backup", source).await?;
        let sizes = (size, stats(&repo).await?);

        let target = scratch.join(RESTORED);
        let progress = Progress::start(ui, "restore");
        let to = RestoreTarget::Directory(target.clone());
        let restored = restore(
            &repo,
            &first.done.snapshot,
            to,
            &RestoreOptions::default(),
            &progress,
        )
        .await?;
        let restored = Timed {
            done: restored,
            seconds: progress.elapsed().as_secs_f64(),
        };
        left_out.extend(progress.skipped());
        left_out.extend(restored.done.unset.iter().map(|item| item.path.clone()));
        drop(progress);

        ui.note("comparing");
        let source = source.to_owned();
        let compared =
            tokio::task::spawn_blocking(move || compare::compare(&source, &target, &left_out));
        let compared = compared.await.map_err(|_| backup::Error::WorkerLost)?;

        let progress = Progress::start(ui, "verify");
        let verified = verify(&repo, VerifyLevel::AllData, &progress).await?;
        let verify_seconds = progress.elapsed().as_secs_f64();
        Ok(Self {
            first,
            second,
            sizes,
            restored,
            compared,
            verified,
            verify_seconds,
        })
    }

    /// Nothing was left out, of the backup or of the comparison.
    fn is_complete(&self) -> bool {
        self.first.done.is_complete() && self.restored.done.is_complete()
    }

    fn show(&self, ui: &Ui, source: &Path, kept: Option<&Path>) -> Result<(), Failure> {
        let (first, second) = (&self.first.done, &self.second.done);
        let document = json!({
            "source": source.to_string_lossy(),
            "items": first.items,
            "files": first.files,
            "bytes": first.bytes,
            "bytes_new": first.bytes_new,
            "dedup_ratio": ratio(first.bytes, first.bytes_new),
            "bytes_stored": self.sizes.0.bytes,
            "ratio": ratio(first.bytes, self.sizes.0.bytes),
            "objects": self.sizes.0.objects,
            "skipped_count": first.skipped_count,
            "skipped": super::skipped_json(&first.skipped),
            "backup_seconds": self.first.seconds,
            "second": {
                "files_unchanged": second.files_unchanged,
                "bytes_read": second.bytes_read,
                "bytes_stored": self.sizes.1.bytes.saturating_sub(self.sizes.0.bytes),
                "objects": self.sizes.1.objects.saturating_sub(self.sizes.0.objects),
                "seconds": self.second.seconds,
            },
            "restored": {
                "items": self.restored.done.items,
                "bytes": self.restored.done.bytes,
                "skipped_count": self.restored.done.skipped_count,
                "unset_count": self.restored.done.unset_count,
                "seconds": self.restored.seconds,
            },
            "compared": {
                "items": self.compared.items,
                "bytes": self.compared.bytes,
                "left_out": self.compared.left_out,
                "differences_count": self.compared.differences_count,
                "differences": self.compared.differences,
            },
            "verified": {
                "packs_read": self.verified.packs_read,
                "bytes_read": self.verified.bytes_read,
                "damage_count": self.verified.damage.len(),
                "seconds": self.verify_seconds,
            },
            "kept": kept.map(Path::to_string_lossy),
        });
        ui.result(&document, || self.text(source, kept))
    }

    fn text(&self, source: &Path, kept: Option<&Path>) -> String {
        let (first, restored) = (&self.first.done, &self.restored.done);
        let mut text = crate::text::pairs(&[
            (
                "source",
                format!(
                    "{source:?}: {}, {}",
                    counted(first.files, "file"),
                    bytes(first.bytes)
                ),
            ),
            ("first backup", self.first_backup()),
            ("second backup", self.second_backup()),
            (
                "restore",
                format!(
                    "{:.2} s: {}, {}",
                    self.restored.seconds,
                    counted(restored.items, "item"),
                    bytes(restored.bytes)
                ),
            ),
            ("comparison", self.comparison()),
            ("verify", self.verification()),
        ]);
        for difference in &self.compared.differences {
            text.push_str(&format!("  differs: {}\n", clean(difference)));
        }
        for damage in &self.verified.damage {
            text.push_str(&format!(
                "  damaged: {}: {}\n",
                clean(&damage.object),
                clean(&damage.finding)
            ));
        }
        if !self.is_complete() {
            text.push_str(&format!(
                "not complete: {} could not be read, {} could not be restored, {} not quite as they were\n",
                count(first.skipped_count),
                count(restored.skipped_count),
                count(restored.unset_count),
            ));
        }
        if let Some(kept) = kept {
            text.push_str(&format!(
                "kept: {kept:?} (repository `repo`, key file `key`, `{RESTORED}`)\n"
            ));
        }
        text
    }

    fn first_backup(&self) -> String {
        let (first, size) = (&self.first.done, &self.sizes.0);
        format!(
            "{:.2} s: {} new after deduplication ({:.2}), {} stored in {} ({:.2} in all)",
            self.first.seconds,
            bytes(first.bytes_new),
            ratio(first.bytes, first.bytes_new),
            bytes(size.bytes),
            counted(size.objects, "object"),
            ratio(first.bytes, size.bytes),
        )
    }

    fn second_backup(&self) -> String {
        let (second, (before, after)) = (&self.second.done, &self.sizes);
        format!(
            "{:.2} s: {} unchanged, {} read, {} stored in {}",
            self.second.seconds,
            counted(second.files_unchanged, "file"),
            bytes(second.bytes_read),
            bytes(after.bytes.saturating_sub(before.bytes)),
            counted(after.objects.saturating_sub(before.objects), "new object"),
        )
    }

    fn verification(&self) -> String {
        let verdict = if self.verified.is_sound() {
            "no damage"
        } else {
            "DAMAGED"
        };
        format!(
            "{:.2} s: {} of {} read, {verdict}",
            self.verify_seconds,
            bytes(self.verified.bytes_read),
            counted(self.verified.packs_read, "pack"),
        )
    }

    fn comparison(&self) -> String {
        let compared = &self.compared;
        let left_out = match compared.left_out {
            0 => String::new(),
            number => format!(" ({} left out)", counted(number, "skipped item")),
        };
        let verdict = match compared.differences_count {
            0 => "identical in names, types, modes, owners, times, links and content".to_owned(),
            number => format!("DIFFERENT in {}", counted(number, "place")),
        };
        format!(
            "{}, {}: {verdict}{left_out}",
            counted(compared.items, "item"),
            bytes(compared.bytes)
        )
    }
}

async fn make_repository(scratch: &Path) -> Result<Repository, Failure> {
    let key_file = scratch.join("key");
    generate_key_file(&key_file)?;
    let key: Secret = read_key_file(&key_file)?;
    let store = LocalFs::create(scratch.join("repo"), LocalFsOptions::default());
    let store = Arc::new(store.map_err(|source| Failure::Place { source })?);
    Ok(Repository::create(store, key.credential(), CreateOptions::default()).await?)
}

/// Backs up, and names all that was skipped.
async fn back_up(
    ui: &Ui,
    repo: &Repository,
    verb: &'static str,
    source: &Path,
) -> Result<(Timed<BackupReport>, BTreeSet<ItemPath>), Failure> {
    let progress = Progress::start(ui, verb);
    let report = backup(
        repo,
        SOURCE_NAME,
        Source::tree(source),
        &BackupOptions::default(),
        &progress,
    )
    .await?;
    let seconds = progress.elapsed().as_secs_f64();
    Ok((
        Timed {
            done: report,
            seconds,
        },
        progress.skipped().into_iter().collect(),
    ))
}
