//! Takes snapshots over into another repository, under its keys.

mod attempt;
mod before;
mod choose;
mod known;
mod produce;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backup_core::SessionId;
use backup_manifest::{Cell, snapshot_key};

use crate::backup::assemble::Counts;
use crate::backup::store::Uploaded;
use crate::backup::writer::{TRIES_MAX, Writer};
use crate::backup::{BLOCK_LEN, BackupOptions};
use crate::repository::documents::read_cell;
use crate::repository::session::Opening;
use crate::restore::is_finding;
use crate::{Error, Event, Observer, Repository, SnapshotFilter};
use attempt::{Attempt, Reader};
use choose::{Candidate, OfSource, choose};

/// Which snapshots are copied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Selection {
    /// Those that fit. Given-up ones are not among them, unless the filter asks for them.
    Matching(SnapshotFilter),
    /// These, given up or not.
    These(Vec<SessionId>),
}

/// How snapshots are copied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Bytes of memory that the run may take for buffers, blocks, packs and what it has learnt of chunks; the indexes of
    /// both repositories come to it.
    pub memory_len_max: usize,
    /// Packs uploaded at once.
    pub uploads_max: usize,
    /// Length of a full pack, in bytes.
    pub pack_len: usize,
    /// Bytes of plaintext gathered into one block, the unit of compression: up to 16 MiB.
    pub block_len: usize,
    /// zstd level, 1 to 22.
    pub zstd_level: i32,
    /// How often the run looks for rounds of garbage collection and shows that it lives, as in [`BackupOptions::beat`].
    pub beat: Duration,
    /// The machine's name, to be shown while the run lasts. Snapshots keep the one that made them.
    pub host: String,
}

impl Default for CopyOptions {
    /// As [`BackupOptions`].
    fn default() -> Self {
        let backup = BackupOptions::default();
        Self {
            memory_len_max: backup.memory_len_max,
            uploads_max: backup.uploads_max,
            pack_len: backup.pack_len,
            block_len: BLOCK_LEN,
            zstd_level: backup.zstd_level,
            beat: backup.beat,
            host: String::new(),
        }
    }
}

/// A snapshot that is in both repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Its name in the source.
    pub from: SessionId,
    /// Its name in the target.
    pub to: SessionId,
}

/// A snapshot that could not be copied, since something that it needs is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotCopied {
    /// Its name in the source.
    pub snapshot: SessionId,
    /// Why, in words.
    pub reason: String,
}

/// What a copy did. What is counted is of the snapshots that were copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Snapshots copied now, in this order.
    pub copied: Vec<Copied>,
    /// Snapshots that the target had already.
    pub present: Vec<Copied>,
    /// Snapshots that could not be copied. The target has nothing of them that shows.
    pub failed: Vec<NotCopied>,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// Bytes of content that were read from the source.
    pub bytes_read: u64,
    /// Bytes of content that no pack of the target held yet.
    pub bytes_new: u64,
    /// Chunks of content.
    pub chunks: u64,
    /// Chunks that no pack of the target held yet.
    pub chunks_new: u64,
    /// Packs uploaded.
    pub packs_stored: u64,
    /// Bytes uploaded: packs and index segments.
    pub bytes_stored: u64,
}

impl CopyReport {
    /// Whether all snapshots asked for are in the target.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Copies snapshots of `from` into `to`, whatever the keys, chunk sizes and stores of the two are.
///
/// Each becomes a snapshot of the same source with the same items, times, tags and sums, the oldest first. It carries the
/// repository and the snapshot that it was made in first, also when it is copied on from there: by this, a later run, or a
/// copy from a third repository, or one back to where it came from, knows it and passes it over. So does a snapshot that the
/// target has given up; asked for by name, one that it has dropped for good is copied anew. A run that died left packs
/// behind: the next one reads again and stores only what is missing.
///
/// Every chunk is checked against its id when it is read, and gets the id that the target's keys give it. Chunks keep the
/// boundaries that they have. Copies therefore share what they have in common, with each other and with later copies; with
/// backups that are made in the target directly, they share only what is cut alike: small files that are one chunk, and the
/// rest only if both repositories have the same master key and chunk sizes.
///
/// Content is read from the source only if it is not known what it is called in the target: because it lies in the same
/// place in the snapshot of that source that was copied before, or because it came up in this run. A quarter of the memory
/// is for the latter, 124 bytes a chunk; what does not fit is read again.
///
/// A retention policy in the target goes by when the target received a snapshot, as everywhere: snapshots that were copied
/// in one day are of one day to it.
///
/// # Errors
/// Whatever stops the run; what was copied until then stays. [`Error::Copy`] names the snapshot at which it was.
/// [`Error::SnapshotNotFound`] and [`Error::SnapshotDropped`] before anything is copied, for those asked for by name. Something
/// missing or damaged in the source stops only the copy of the snapshots that need it, and is in the report.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    which: &Selection,
    options: &CopyOptions,
    observer: &dyn Observer,
) -> Result<CopyReport, Error> {
    let choice = choose(from, to, which).await?;
    let total = choice.bytes();
    let mut run = Run {
        from,
        to,
        options,
        observer,
        report: CopyReport::default(),
    };
    for failed in choice.failed {
        run.failed(failed);
    }
    observer.event(&Event::Total { bytes: total });
    let mut reader = None;
    for source in choice.sources {
        run.source(source, &mut reader).await?;
    }
    Ok(run.report)
}

struct Run<'a> {
    from: &'a Repository,
    to: &'a Repository,
    options: &'a CopyOptions,
    observer: &'a dyn Observer,
    report: CopyReport,
}

/// What was counted of one snapshot.
type Done = (Copied, Counts, Uploaded);

impl Run<'_> {
    /// Copies what is wanted of one source.
    async fn source(
        &mut self,
        mut source: OfSource,
        reader: &mut Option<Reader>,
    ) -> Result<(), Error> {
        let mut before = None;
        for candidate in source.candidates {
            let from = candidate.id;
            let copied = match source.there.get(&candidate.origin) {
                Some(to) => {
                    let present = Copied { from, to: *to };
                    if candidate.is_wanted {
                        self.report.present.push(present);
                    }
                    present
                }
                None if candidate.is_wanted => {
                    let reader = match reader {
                        Some(reader) => reader,
                        None => reader.insert(Reader::new(self.from, self.options).await?),
                    };
                    let Some(copied) = self.snapshot(reader, &candidate, before).await? else {
                        continue;
                    };
                    source.there.insert(candidate.origin, copied.to);
                    copied
                }
                None => continue,
            };
            before = Some(copied);
        }
        Ok(())
    }

    /// Copies a snapshot; `None` when that cannot be done, which is told in the report.
    async fn snapshot(
        &mut self,
        reader: &mut Reader,
        candidate: &Candidate,
        before: Option<Copied>,
    ) -> Result<Option<Copied>, Error> {
        let snapshot = candidate.id;
        let failed = |source| Error::Copy {
            snapshot,
            source: Box::new(source),
        };
        let (mut tries, mut has_looked_again) = (0, false);
        loop {
            tries += 1;
            match self.attempt(reader, candidate, before).await {
                Ok(Ok(done)) => return Ok(Some(self.count(done))),
                Ok(Err(reason)) => {
                    let again =
                        !has_looked_again && reader.look_again(self.from).await.map_err(failed)?;
                    if !again {
                        self.failed(NotCopied { snapshot, reason });
                        return Ok(None);
                    }
                    has_looked_again = true;
                }
                // What was stored is found by the next try.
                Err(Error::SessionAborted { .. }) if tries < TRIES_MAX => {}
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// One try, from a session of its own to the commit; or what is wrong in the source.
    async fn attempt(
        &self,
        reader: &Reader,
        candidate: &Candidate,
        before: Option<Copied>,
    ) -> Result<Result<Done, String>, Error> {
        let manifest = match read_cell(self.from, &candidate.id).await {
            Ok((Cell::Snapshot(manifest), _)) => manifest,
            Ok((Cell::Aborted, _)) => return Ok(Err("there is no snapshot any more".into())),
            Err(error) if is_finding(&error) => return Ok(Err(error.explain())),
            Err(error) => return Err(error),
        };
        let writer = Writer {
            repo: self.to,
            opening: Opening {
                source: &manifest.source,
                host: &self.options.host,
                purpose: "copy",
            },
            beat: self.options.beat,
            observer: self.observer,
        };
        let attempt = Attempt {
            from: self.from,
            to: self.to,
            observer: self.observer,
            reader,
            origin: candidate.origin,
            manifest: &manifest,
            finding: Mutex::default(),
        };
        let (session, found) = writer.open().await?;
        let storing = attempt.store(&session, found, before);
        let finished = writer.finish(&session, storing).await;
        let finding = attempt.finding.into_inner();
        match (finished, finding.unwrap_or_else(PoisonError::into_inner)) {
            (Ok((to, (counts, uploaded))), _) => {
                let from = candidate.id;
                Ok(Ok((Copied { from, to }, counts, uploaded)))
            }
            (Err(_), Some(reason)) => Ok(Err(reason)),
            (Err(error), None) => Err(error),
        }
    }

    fn count(&mut self, (copied, counts, uploaded): Done) -> Copied {
        let report = &mut self.report;
        report.copied.push(copied);
        report.bytes += counts.bytes;
        report.bytes_read += counts.bytes_read;
        report.bytes_new += counts.bytes_new;
        report.chunks += counts.chunks;
        report.chunks_new += counts.chunks_new;
        report.packs_stored += uploaded.packs;
        report.bytes_stored += uploaded.pack_bytes + uploaded.segment_bytes;
        copied
    }

    fn failed(&mut self, failed: NotCopied) {
        self.observer.event(&Event::Damage {
            object: &snapshot_key(&failed.snapshot),
            finding: &failed.reason,
        });
        self.report.failed.push(failed);
    }
}
