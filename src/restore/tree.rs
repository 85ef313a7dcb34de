//! Restores a tree: files first, in parallel; then, in order, hard links and what directories are like.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use backup_manifest::{Extent, Item, ItemKind, ItemPath};
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::place::{ACCESS_LISTS, Place, Placer};
use super::plan::{Batch, Done, Planner, is_wanted};
use super::{Ownership, RestoreReport, Run, beside, find_item};
use crate::Error;
use crate::env::{Job, blocking, start};
use crate::repository::tree::{Parts, read_parts};

pub(super) async fn restore(run: Run<'_>, target: PathBuf) -> Result<RestoreReport, Error> {
    if let Some(path) = run.options.range.as_ref().map(|_| "range") {
        let reason = "a range of bytes is of a volume or a file, not of a tree".into();
        return Err(Error::BadOption {
            option: path,
            reason,
        });
    }
    let mut random = [0u8; 8];
    run.repo.env().entropy.fill(&mut random)?;
    let owners = match run.options.ownership {
        Ownership::Auto => rustix::process::geteuid().is_root(),
        Ownership::Restore => true,
        Ownership::Ignore => false,
    };
    let name = format!("{:016x}", u64::from_le_bytes(random));
    let shared = run.options.into_existing;
    let opened = blocking(move || Site::open(target, &name, shared, owners)).await?;
    let site = Arc::new(opened?);
    let restored = fill(&run, &site.place).await;
    let site_done = site.clone();
    match restored {
        Ok(report) => {
            let published =
                blocking(move || site_done.publish().inspect_err(|_| site_done.discard()));
            published.await??;
            Ok(report)
        }
        Err(error) => {
            blocking(move || site_done.discard()).await?;
            Err(error)
        }
    }
}

async fn fill(run: &Run<'_>, place: &Arc<Place>) -> Result<RestoreReport, Error> {
    for wanted in &run.options.paths {
        if find_item(run, wanted).await?.is_none() {
            return Err(Error::PathNotFound {
                path: wanted.to_string(),
            });
        }
    }
    let mut report = RestoreReport::default();
    let mut flushing = Flushing::new(place.clone());
    let stand_ins = put_files(run, place, (&mut report, &mut flushing)).await?;
    put_links_and_directories(run, place, stand_ins, &mut report).await?;
    flushing.finish().await?;
    Ok(report)
}

/// Has the system write out what was restored while more is restored, so that little is left to wait for at the end.
struct Flushing {
    place: Arc<Place>,
    job: Option<Job<Result<(), Errno>>>,
    /// Bytes and items that were restored when the last job began.
    begun_at: (u64, u64),
}

/// A job begins when so many bytes are new...
const FLUSH_LEN: u64 = 64 << 20;

/// ...or so many items.
const FLUSH_ITEMS: u64 = 16_384;

impl Flushing {
    fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            job: None,
            begun_at: (0, 0),
        }
    }

    async fn note(&mut self, report: &RestoreReport) -> Result<(), Error> {
        let (bytes, items) = self.begun_at;
        let is_due = report.bytes >= bytes + FLUSH_LEN || report.items >= items + FLUSH_ITEMS;
        if !is_due || self.job.as_ref().is_some_and(|job| !job.is_finished()) {
            return Ok(());
        }
        self.finish().await?;
        let place = self.place.clone();
        self.job = Some(start(move || rustix::fs::syncfs(&place.root)));
        self.begun_at = (report.bytes, report.items);
        Ok(())
    }

    /// A failure is told once only by the system, so it is kept.
    async fn finish(&mut self) -> Result<(), Error> {
        match self.job.take() {
            Some(job) => job.finish().await?.map_err(|error| Error::Target {
                action: "make durable",
                path: "what is being restored".into(),
                source: error.into(),
            }),
            None => Ok(()),
        }
    }
}

/// The first pass: everything but directories and hard links.
async fn put_files(
    run: &Run<'_>,
    place: &Arc<Place>,
    (report, flushing): (&mut RestoreReport, &mut Flushing),
) -> Result<HashMap<ItemPath, ItemPath>, Error> {
    let mut pages = Box::pin(read_parts(
        run.blocks.clone(),
        run.manifest.root.clone(),
        None,
    ));
    let mut planner = Planner::new(&run.fetcher, &run.options.paths);
    let mut jobs = FuturesUnordered::new();
    loop {
        let page = pages.next().await.transpose()?;
        let is_last = page.is_none();
        for part in page.unwrap_or_default() {
            let Some(link) = planner.take(part) else {
                continue;
            };
            let ItemKind::Hardlink { target } = &link.kind else {
                continue;
            };
            match find_content(run, target).await? {
                Some((item, extents)) => planner.take_stand_in(link.path.clone(), item, extents),
                None => planner.lose(link),
            }
        }
        let batches = if is_last {
            planner.finish()
        } else {
            planner.full()
        };
        for batch in batches {
            if run.observer.should_stop() {
                return Err(Error::Stopped);
            }
            while jobs.len() >= run.jobs_max {
                if let Some(done) = jobs.next().await {
                    report.add(done?, run.observer);
                    flushing.note(report).await?;
                }
            }
            jobs.push(put_batch(run, place.clone(), batch));
        }
        if is_last {
            break;
        }
    }
    while let Some(done) = jobs.next().await {
        report.add(done?, run.observer);
    }
    drop(jobs);
    Ok(planner.into_stand_ins())
}

async fn put_batch(run: &Run<'_>, place: Arc<Place>, batch: Batch) -> Result<Done, Error> {
    let fetched = run.fetcher.fetch(&batch.blocks).await?;
    blocking(move || batch.run(&place, fetched)).await
}

/// An item by its path, with its content: for hard links, which are few, and whose files are mostly small.
async fn find_content(
    run: &Run<'_>,
    path: &ItemPath,
) -> Result<Option<(Item, Vec<Extent>)>, Error> {
    let from = Some((path.clone(), 0));
    let mut pages = Box::pin(read_parts(
        run.blocks.clone(),
        run.manifest.root.clone(),
        from,
    ));
    let mut found: Option<(Item, Vec<Extent>)> = None;
    while let Some(parts) = pages.try_next().await? {
        for part in parts {
            match (&mut found, part.item) {
                (Some((_, extents)), None) => extents.extend(part.extents),
                (Some(_), Some(_)) => return Ok(found),
                (None, Some(item)) if item.path == *path => found = Some((item, part.extents)),
                (None, Some(item)) if item.path > *path => return Ok(None),
                (None, _) => {}
            }
        }
    }
    Ok(found)
}

/// The second pass, in the order of paths: a directory is settled when the walk leaves it.
async fn put_links_and_directories(
    run: &Run<'_>,
    place: &Arc<Place>,
    stand_ins: HashMap<ItemPath, ItemPath>,
    report: &mut RestoreReport,
) -> Result<(), Error> {
    let root = run.manifest.root.clone();
    let mut pages = Box::pin(read_parts(run.blocks.clone(), root, None));
    let mut closing = Closing {
        place: place.clone(),
        paths: run.options.paths.clone(),
        stand_ins,
        open: Vec::new(),
    };
    loop {
        let page = pages.next().await.transpose()?;
        let is_last = page.is_none();
        let (back, done) = blocking(move || {
            let done = closing.page(page.unwrap_or_default(), is_last);
            (closing, done)
        })
        .await?;
        closing = back;
        report.add(done, run.observer);
        if is_last {
            return Ok(());
        }
    }
}

/// The second pass, between pages.
struct Closing {
    place: Arc<Place>,
    paths: Vec<ItemPath>,
    stand_ins: HashMap<ItemPath, ItemPath>,
    /// Directories entered and not left yet.
    open: Vec<Item>,
}

impl Closing {
    fn page(&mut self, parts: Parts, is_last: bool) -> Done {
        let place = self.place.clone();
        let mut placer = Placer::new(&place);
        let mut done = Done::default();
        for item in parts.into_iter().filter_map(|part| part.item) {
            self.leave(Some(&item.path), &mut placer);
            match &item.kind {
                ItemKind::Directory
                    if self.is_directory_wanted(&item.path) && placer.directory(&item.path) =>
                {
                    done.items += u64::from(is_wanted(&self.paths, &item.path));
                    self.open.push(item);
                }
                ItemKind::Hardlink { target } if is_wanted(&self.paths, &item.path) => {
                    let first = self.stand_ins.get(target).unwrap_or(target);
                    // The link that stands for the first name was put in, and counted, by the first pass.
                    if *first != item.path && placer.link(&item.path, first) {
                        done.items += 1;
                    }
                }
                _ => {}
            }
        }
        if is_last {
            self.leave(None, &mut placer);
        }
        done.findings = placer.findings;
        done
    }

    /// A directory that is wanted, or on the way to what is.
    fn is_directory_wanted(&self, path: &ItemPath) -> bool {
        is_wanted(&self.paths, path) || self.paths.iter().any(|wanted| wanted.starts_with(path))
    }

    fn leave(&mut self, next: Option<&ItemPath>, placer: &mut Placer<'_>) {
        while let Some(last) = self.open.last() {
            if next.is_some_and(|next| next.starts_with(&last.path)) {
                return;
            }
            if let Some(item) = self.open.pop() {
                placer.directory_meta(&item);
            }
        }
    }
}

/// Where a tree is put up, and where it goes when it is whole.
struct Site {
    place: Arc<Place>,
    target: PathBuf,
    /// The directory beside the target; `None` when the target itself is filled.
    beside: Option<PathBuf>,
    parent: OwnedFd,
}

impl Site {
    fn open(target: PathBuf, run: &str, into_existing: bool, owners: bool) -> Result<Self, Error> {
        let failed = |action: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source: std::io::Error| Error::Target {
                action,
                path,
                source,
            }
        };
        // A symlink given as the target is followed: the caller named it. Below, none is.
        let target = match std::fs::symlink_metadata(&target) {
            Ok(found) if found.is_symlink() => {
                std::fs::canonicalize(&target).map_err(failed("follow", &target))?
            }
            _ => target,
        };
        let is_empty = is_empty(&target).map_err(failed("look into", &target))?;
        if is_empty == Some(false) && !into_existing {
            return Err(Error::TargetNotEmpty { path: target });
        }
        let above = beside::above(&target);
        std::fs::create_dir_all(&above).map_err(failed("make", &above))?;
        let open = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from)
        };
        let parent = open(&above).map_err(failed("open", &above))?;
        let is_shared = is_empty == Some(false);
        let fresh = !is_shared && target.file_name().is_some();
        let beside = fresh.then(|| beside::hidden_name(&target, run));
        let root = beside.as_deref().unwrap_or(&target);
        if beside.is_some() {
            beside::sweep(&target);
            make_private(root).map_err(failed("make", root))?;
        }
        let root_fd = open(root).map_err(failed("open", root))?;
        if beside.is_some() {
            beside::hold(&root_fd).map_err(failed("lock", root))?;
            // What the directory above hands down to new entries is not what the snapshot says of them.
            for list in ACCESS_LISTS {
                let _ = rustix::fs::fremovexattr(&root_fd, list);
            }
        }
        let root = root_fd;
        let temporaries = AtomicU64::new(0);
        let place = Place {
            root,
            is_shared,
            owners,
            run: run.into(),
            temporaries,
        };
        Ok(Self {
            place: Arc::new(place),
            target,
            beside,
            parent,
        })
    }

    /// Makes everything durable, then gives the tree its name.
    fn publish(&self) -> Result<(), Error> {
        let failed = |action: &'static str, error: Errno| Error::Target {
            action,
            path: self.target.clone(),
            source: error.into(),
        };
        // One for the tree: a sync for each file would cost a journal commit each.
        rustix::fs::syncfs(&self.place.root).map_err(|e| failed("make durable", e))?;
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        match std::fs::rename(beside, &self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                return Err(Error::TargetNotEmpty {
                    path: self.target.clone(),
                });
            }
            // An empty mount point cannot be replaced, only filled.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ResourceBusy | std::io::ErrorKind::CrossesDevices
                ) && is_empty(&self.target).is_ok_and(|empty| empty == Some(true)) =>
            {
                let moved = move_children(beside, &self.target);
                moved.map_err(|source| Error::Target {
                    action: "move the restored tree into",
                    path: self.target.clone(),
                    source,
                })?;
            }
            Err(source) => {
                return Err(Error::Target {
                    action: "rename the restored tree to",
                    path: self.target.clone(),
                    source,
                });
            }
        }
        rustix::fs::fsync(&self.parent).map_err(|e| failed("make durable", e))
    }

    /// Takes the unfinished tree away.
    fn discard(&self) {
        if let Some(beside) = &self.beside {
            let _ = std::fs::remove_dir_all(beside);
        }
    }
}

/// Whether a directory is empty; `None` when there is none.
fn is_empty(path: &Path) -> std::io::Result<Option<bool>> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(Some(entries.next().is_none())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn move_children(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    std::fs::File::open(to)?.sync_all()?;
    std::fs::remove_dir(from)
}
