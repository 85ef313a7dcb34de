//! Restores the bytes of one volume, stream or file, whole or a range: to a new file, onto a device, into a writer.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_manifest::{Extent, ItemKind, ItemPath, SnapshotKind};
use futures::stream::{self, Stream, TryStreamExt};
use rustix::fs::{Mode, OFlags};

use super::fetch::Piece;
use super::find_item;
use super::place::Findings;
use super::plan::Done;
use super::write::{NewContent, write_pieces};
use super::{RestoreReport, RestoreTarget, Run, beside};
use crate::Error;
use crate::backup::produce::VOLUME_NAME;
use crate::env::blocking;
use crate::repository::tree::{Part, read_parts};

/// Bytes of one batch; it may be more by one chunk.
const BATCH_LEN: u64 = 6 << 20;

/// Blocks of one batch, at most.
const BATCH_BLOCKS: usize = 4;

/// Some content, all of it in few blocks.
#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<Piece>,
    blocks: BTreeSet<u32>,
    /// The stretch of the target that it covers, holes included.
    covers: Range<u64>,
    lost: Option<String>,
}

/// What is restored: the bytes of one item.
struct Content {
    path: ItemPath,
    range: Range<u64>,
}

pub(super) async fn restore(run: Run<'_>, target: RestoreTarget) -> Result<RestoreReport, Error> {
    let (path, len) = find_content(&run, wanted_path(&run)?).await?;
    let range = run.options.range.clone().unwrap_or(0..len);
    if range.start > range.end || range.end > len {
        let reason = format!(
            "{}..{} is not within the {len} bytes",
            range.start, range.end
        );
        return Err(Error::BadOption {
            option: "range",
            reason,
        });
    }
    let content = Content { path, range };
    let mut report = RestoreReport::default();
    let written = match target {
        RestoreTarget::Writer(writer) => write_in_order(&run, &content, writer, &mut report).await,
        RestoreTarget::File(file) => to_file(&run, &content, file, &mut report).await,
        RestoreTarget::Device(device) => to_device(&run, &content, device, &mut report).await,
        RestoreTarget::Directory(_) => Ok(()),
    };
    written?;
    report.items += 1;
    report.files += 1;
    Ok(report)
}

/// The one item of a volume's or stream's snapshot, or the one file of a tree that was asked for.
fn wanted_path(run: &Run<'_>) -> Result<ItemPath, Error> {
    match (run.manifest.kind, run.options.paths.as_slice()) {
        (SnapshotKind::Tree, [path]) | (_, [path]) => Ok(path.clone()),
        (SnapshotKind::Tree, _) => Err(Error::UnsuitableTarget {
            reason: "the snapshot is of a tree: name a directory, or one file by its path".into(),
        }),
        _ => ItemPath::from_bytes(VOLUME_NAME).map_err(|e| Error::damaged("item", e)),
    }
}

/// Where the content is in the item stream, and its length in bytes. Follows a hard link to its first name.
async fn find_content(run: &Run<'_>, path: ItemPath) -> Result<(ItemPath, u64), Error> {
    let not_found = || Error::PathNotFound {
        path: path.to_string(),
    };
    let item = find_item(run, &path).await?.ok_or_else(not_found)?;
    match item.kind {
        ItemKind::Stream => Ok((item.path, run.manifest.stats.bytes)),
        ItemKind::File | ItemKind::Volume => Ok((item.path, item.meta.len)),
        _ => Err(Error::UnsuitableTarget {
            reason: format!("{path} has no content"),
        }),
    }
}

/// Batches of the content, in order.
fn batches<'a>(
    run: &'a Run<'a>,
    content: &Content,
) -> impl Stream<Item = Result<Batch, Error>> + 'a {
    let from = Some((content.path.clone(), content.range.start));
    let pages = read_parts(run.blocks.clone(), run.manifest.root.clone(), from);
    let state = Gather {
        path: content.path.clone(),
        range: content.range.clone(),
        at: None,
        batch: Batch {
            covers: content.range.start..content.range.start,
            ..Batch::default()
        },
    };
    stream::try_unfold(
        (Box::pin(pages), state, false),
        move |(mut pages, mut state, is_done)| async move {
            if is_done {
                return Ok::<_, Error>(None);
            }
            loop {
                let Some(parts) = pages.try_next().await? else {
                    state.check_end()?;
                    return Ok(Some((vec![state.take()], (pages, state, true))));
                };
                let mut full = Vec::new();
                for part in parts {
                    state.part(run, part, &mut full);
                }
                if state.is_over() {
                    full.push(state.take());
                    return Ok(Some((full, (pages, state, true))));
                }
                if !full.is_empty() {
                    return Ok(Some((full, (pages, state, false))));
                }
            }
        },
    )
    .map_ok(|full| stream::iter(full.into_iter().map(Ok)))
    .try_flatten()
}

/// Gathers the pieces of one item into batches.
struct Gather {
    path: ItemPath,
    range: Range<u64>,
    /// Where the next extent begins; `None` before the item was found.
    at: Option<u64>,
    batch: Batch,
}

impl Gather {
    fn part(&mut self, run: &Run<'_>, part: Part, full: &mut Vec<Batch>) {
        match (&part.item, &part.continued) {
            (Some(item), _) if item.path == self.path => self.at = Some(0),
            (None, Some((path, offset))) if self.at.is_none() && *path == self.path => {
                self.at = Some(*offset);
            }
            (Some(_), _) if self.at.is_some() => self.at = Some(u64::MAX),
            _ => {}
        }
        for extent in part.extents {
            let Some(at) = self.at.filter(|at| *at < self.range.end) else {
                return;
            };
            let end = at.saturating_add(extent.len());
            self.at = Some(end);
            let (from, to) = (at.max(self.range.start), end.min(self.range.end));
            if from >= to {
                continue;
            }
            if let Extent::Data { len, id } = extent {
                match run.fetcher.locate(&id, len) {
                    Some(piece) => {
                        if self.is_full(piece.block) {
                            full.push(self.take());
                        }
                        self.batch.blocks.insert(piece.block);
                        let part = ((from - at) as u32, (to - at) as u32);
                        let at = from - self.range.start;
                        self.batch.pieces.push(Piece {
                            from: part.0,
                            to: part.1,
                            at,
                            ..piece
                        });
                    }
                    None => self.batch.lost = Some(format!("its chunk {id} is in no pack")),
                }
            }
            self.batch.covers.end = to;
        }
    }

    fn is_full(&self, block: u32) -> bool {
        let len: u64 = self
            .batch
            .pieces
            .iter()
            .map(|piece| u64::from(piece.len))
            .sum();
        let begins_anew = !self.batch.blocks.contains(&block);
        begins_anew && (len >= BATCH_LEN || self.batch.blocks.len() >= BATCH_BLOCKS)
            || len >= 4 * BATCH_LEN
    }

    fn take(&mut self) -> Batch {
        let end = self.batch.covers.end;
        let next = Batch {
            covers: end..end,
            ..Batch::default()
        };
        std::mem::replace(&mut self.batch, next)
    }

    /// At the end of the item stream the whole range must have come.
    fn check_end(&self) -> Result<(), Error> {
        if self.batch.covers.end == self.range.end {
            return Ok(());
        }
        let why = "its extents end before its length";
        Err(Error::damaged(format!("content of {}", self.path), why))
    }

    fn is_over(&self) -> bool {
        self.at.is_some_and(|at| at >= self.range.end)
    }
}

/// Writes batches to an open file, in any order; what cannot be had is an error.
async fn write_batches(
    run: &Run<'_>,
    content: &Content,
    file: &Arc<NewContent>,
    zero_holes: bool,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let mut jobs = Box::pin(
        batches(run, content)
            .map_ok(|batch| async {
                let start = content.range.start;
                put_batch(run, batch, file.clone(), zero_holes.then_some(start)).await
            })
            .try_buffer_unordered(run.jobs_max),
    );
    while let Some(bytes) = jobs.try_next().await? {
        report.add(
            Done {
                bytes,
                findings: Findings::default(),
                ..Done::default()
            },
            run.observer,
        );
        if run.observer.should_stop() {
            return Err(Error::Stopped);
        }
    }
    Ok(())
}

/// Puts a batch in its place; with `zero_from`, the place of the range's start, holes are written as zeros.
async fn put_batch(
    run: &Run<'_>,
    batch: Batch,
    file: Arc<NewContent>,
    zero_from: Option<u64>,
) -> Result<u64, Error> {
    let mut fetched = run.fetcher.fetch(&batch.blocks).await?;
    let bytes = batch.covers.end - batch.covers.start;
    blocking(move || {
        if let Some(why) = batch.lost {
            return Err(why);
        }
        if let Some(start) = zero_from {
            write_zeros(&file.fd, start, &batch.covers, &batch.pieces)?;
        }
        write_pieces(&file, &batch.pieces, &mut fetched)
    })
    .await?
    .map_err(|why| Error::damaged("content of the snapshot", why))?;
    Ok(bytes)
}

/// Zeros wherever no piece is written.
fn write_zeros(
    fd: &OwnedFd,
    start: u64,
    covers: &Range<u64>,
    pieces: &[Piece],
) -> Result<(), String> {
    let zeros = vec![0u8; 1 << 20];
    let mut at = covers.start - start;
    let ends = pieces
        .iter()
        .map(|p| (p.at, p.at + u64::from(p.to - p.from)));
    for (from, to) in ends.chain([(covers.end - start, covers.end - start)]) {
        while at < from {
            let len = (from - at).min(zeros.len() as u64) as usize;
            let written = rustix::io::pwrite(fd, &zeros[..len], at);
            at += written.map_err(|e| std::io::Error::from(e).to_string())? as u64;
        }
        at = to;
    }
    Ok(())
}

async fn to_file(
    run: &Run<'_>,
    content: &Content,
    path: PathBuf,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let mut random = [0u8; 8];
    run.repo.env().entropy.fill(&mut random)?;
    let (replace, len) = (
        run.options.into_existing,
        content.range.end - content.range.start,
    );
    let new = blocking(move || NewFile::create(path, u64::from_le_bytes(random), len, replace));
    let new = new.await??;
    let written = write_batches(run, content, &new.content, false, report).await;
    blocking(move || match written {
        Ok(()) => new.publish(),
        Err(error) => {
            let _ = std::fs::remove_file(&new.beside);
            Err(error)
        }
    })
    .await?
}

/// A file in the making, beside its target.
struct NewFile {
    content: Arc<NewContent>,
    beside: PathBuf,
    target: PathBuf,
    above: PathBuf,
    replace: bool,
}

impl NewFile {
    fn create(target: PathBuf, random: u64, len: u64, replace: bool) -> Result<Self, Error> {
        let failed = |action: &'static str, path: &Path, source: std::io::Error| Error::Target {
            action,
            path: path.to_path_buf(),
            source,
        };
        let exists = std::fs::symlink_metadata(&target).is_ok();
        if exists && !replace {
            return Err(Error::TargetNotEmpty { path: target });
        }
        let above = beside::above(&target);
        beside::sweep(&target);
        let hidden = beside::hidden_name(&target, &format!("{random:016x}"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&hidden, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| failed("create", &hidden, e.into()))?;
        let sized = beside::hold(&fd)
            .and_then(|()| Ok(rustix::fs::ftruncate(&fd, len)?))
            .map_err(|e| failed("size", &hidden, e));
        if let Err(error) = sized {
            let _ = std::fs::remove_file(&hidden);
            return Err(error);
        }
        let beside = hidden;
        Ok(Self {
            content: Arc::new(NewContent::new(fd, len)),
            beside,
            target,
            above,
            replace,
        })
    }

    /// Durable first, then visible, then durably visible.
    fn publish(&self) -> Result<(), Error> {
        let failed = |action: &'static str, source: std::io::Error| Error::Target {
            action,
            path: self.target.clone(),
            source,
        };
        self.content
            .finish()
            .and_then(|()| rustix::fs::fsync(&self.content.fd))
            .map_err(|e| failed("make durable", e.into()))?;
        let flags = if self.replace {
            rustix::fs::RenameFlags::empty()
        } else {
            rustix::fs::RenameFlags::NOREPLACE
        };
        let cwd = rustix::fs::CWD;
        let renamed = rustix::fs::renameat_with(cwd, &self.beside, cwd, &self.target, flags);
        if let Err(error) = renamed {
            let _ = std::fs::remove_file(&self.beside);
            return Err(failed("rename the restored file to", error.into()));
        }
        let above = std::fs::File::open(&self.above).and_then(|above| above.sync_all());
        above.map_err(|e| failed("make durable", e))
    }
}

async fn to_device(
    run: &Run<'_>,
    content: &Content,
    path: PathBuf,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let len = content.range.end - content.range.start;
    let place = path.clone();
    let failed = move |action: &'static str, source: std::io::Error| Error::Target {
        action,
        path: place.clone(),
        source,
    };
    let opened = blocking(move || {
        use std::io::{Seek, SeekFrom};
        let mut file = std::fs::File::options().write(true).open(path)?;
        let room = file.seek(SeekFrom::End(0))?;
        Ok((OwnedFd::from(file), room))
    });
    let (fd, room) = opened.await?.map_err(|e| failed("open", e))?;
    if room < len {
        let reason = format!("it holds {room} bytes and {len} are to be restored");
        return Err(Error::UnsuitableTarget { reason });
    }
    let file = Arc::new(NewContent::in_place(fd));
    // What was there before shows through holes: they are written.
    write_batches(run, content, &file, true, report).await?;
    let synced = blocking(move || rustix::fs::fsync(&file.fd)).await?;
    synced.map_err(|e| failed("make durable", e.into()))
}

/// Bytes of content, or a hole.
enum Stretch {
    Bytes(Vec<u8>),
    Zeros(u64),
}

async fn write_in_order(
    run: &Run<'_>,
    content: &Content,
    writer: Box<dyn Write + Send>,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let start = content.range.start;
    let mut stretches = Box::pin(
        batches(run, content)
            .map_ok(|batch| async move {
                let mut fetched = run.fetcher.fetch(&batch.blocks).await?;
                let bytes = batch.covers.end - batch.covers.start;
                let read = blocking(move || read_batch(start, &batch, &mut fetched)).await?;
                let read = read.map_err(|why| Error::damaged("content of the snapshot", why))?;
                Ok((bytes, read))
            })
            .try_buffered(run.jobs_max),
    );
    let mut writer = writer;
    let failed = |source| Error::Target {
        action: "write to",
        path: "the writer".into(),
        source,
    };
    while let Some((bytes, read)) = stretches.try_next().await? {
        let (back, written) = blocking(move || {
            let written = read
                .iter()
                .try_for_each(|stretch| write_stretch(&mut writer, stretch));
            (writer, written)
        })
        .await?;
        writer = back;
        written.map_err(failed)?;
        report.add(
            Done {
                bytes,
                ..Done::default()
            },
            run.observer,
        );
        if run.observer.should_stop() {
            return Err(Error::Stopped);
        }
    }
    blocking(move || writer.flush()).await?.map_err(failed)
}

fn read_batch(
    start: u64,
    batch: &Batch,
    fetched: &mut super::fetch::Fetched,
) -> Result<Vec<Stretch>, String> {
    if let Some(why) = &batch.lost {
        return Err(why.clone());
    }
    let mut stretches = Vec::new();
    let mut at = batch.covers.start - start;
    for piece in &batch.pieces {
        if piece.at > at {
            stretches.push(Stretch::Zeros(piece.at - at));
        }
        stretches.push(Stretch::Bytes(fetched.bytes(piece)?.to_vec()));
        at = piece.at + u64::from(piece.to - piece.from);
    }
    let end = batch.covers.end - start;
    if end > at {
        stretches.push(Stretch::Zeros(end - at));
    }
    Ok(stretches)
}

fn write_stretch(writer: &mut (dyn Write + Send), stretch: &Stretch) -> std::io::Result<()> {
    match stretch {
        Stretch::Bytes(bytes) => writer.write_all(bytes),
        Stretch::Zeros(len) => {
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), *len), writer).map(drop)
        }
    }
}
