//! Storing and deleting, durably. Each function is one piece of blocking work: it runs to its end even when nobody
//! waits for it any more.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::Shared;
use super::direct;
use super::error::{StepError, at, at_sync};
use super::sys;
use super::temp::Temp;
use crate::{BackendError, DeleteResult, ErrorKind, ObjectKey, PutMode};

// How often a directory may vanish under a put before it is called unavailable.
const ATTEMPTS_MAX: usize = 8;

/// Stores one object. In order:
///
/// 1. the temporary file is written and fsynced — a crash before or after leaves a leftover for the next sweep;
/// 2. the folders of the key exist and their entries are durable — a crash leaves empty folders;
/// 3. the file gets its name — a crash leaves the whole object or no object, and the leftover as a witness;
/// 4. the folder is fsynced — from here the object is durable; a crash leaves a leftover;
/// 5. the temporary name goes.
pub(super) fn put(
    shared: &Shared,
    key: &ObjectKey,
    bytes: &[u8],
    mode: PutMode,
) -> Result<(), BackendError> {
    let (folder, name) = key.split();
    refuse_if_poisoned(shared).map_err(|error| error.into_backend("put", key.as_str()))?;
    let stored = store(shared, folder, name, Content { bytes, mode });
    stored.map_err(|error| error.into_backend("put", key.as_str()))
}

struct Content<'a> {
    bytes: &'a [u8],
    mode: PutMode,
}

fn store(shared: &Shared, folder: &str, name: &str, content: Content<'_>) -> Result<(), StepError> {
    if content.mode.is_create() {
        let dir = durable_dir(shared, folder)?;
        // Spares writing a large object that is there already; linking decides.
        if sys::stat_at(&dir, name).is_ok() {
            return Err(refused_create(shared, &dir, name));
        }
    }
    let mut temp = Temp::create(&shared.root)?;
    direct::write_new(&temp.file, content.bytes, &shared.buffers)
        .map_err(at("write the temporary file"))?;
    // A failed fsync is final for this file: the kernel may call its lost pages clean. Dropping `temp` discards it.
    sys::sync(&temp.file).map_err(at_sync("fsync the temporary file"))?;
    for _ in 0..ATTEMPTS_MAX {
        let dir = durable_dir(shared, folder)?;
        let named = match content.mode {
            PutMode::Create | PutMode::CreateOnce => create_name(&mut temp, &dir, name),
            PutMode::Overwrite => replace_name(&mut temp, &dir, name),
        };
        match named {
            Ok(()) => return sync_dir(shared, &dir),
            Err(Errno::EXIST) => return Err(refused_create(shared, &dir, name)),
            // The folder was removed since it was opened.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(at("give the object its name")(errno)),
        }
    }
    Err(at("keep a folder that others remove")(Errno::BUSY))
}

// A link, and a rename only where there are no links: until the folder is synced the temporary name stays as the
// witness that it is not (see `temp::sweep`). The file is locked until then.
fn create_name(temp: &mut Temp, dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match sys::link(temp.place(), (dir, name)) {
        Ok(()) => Ok(()),
        // A network file system may answer a repeated request with "exists" although it was our first that succeeded.
        Err(Errno::EXIST) if is_same_file(&temp.file, dir, name) => Ok(()),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            sys::rename_new(temp.place(), (dir, name))?;
            temp.moved();
            Ok(())
        }
        Err(errno) => Err(errno),
    }
}

fn replace_name(temp: &mut Temp, dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    sys::rename_over(temp.place(), (dir, name))?;
    temp.moved();
    Ok(())
}

fn is_same_file(file: &OwnedFd, dir: &OwnedFd, name: &str) -> bool {
    match (sys::stat(file), sys::stat_at(dir, name)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

// The caller may rely on the object that was faster, whose writer has perhaps not synced the folder yet.
fn refused_create(shared: &Shared, dir: &OwnedFd, name: &str) -> StepError {
    match sys::stat_at(dir, name).as_ref().map(sys::file_type) {
        Ok(FileType::RegularFile) => match sync_dir(shared, dir) {
            Ok(()) => at("give the object its name")(Errno::EXIST),
            Err(error) => error,
        },
        Ok(FileType::Symlink) => at("give the object a name that a symlink has")(Errno::LOOP),
        Ok(FileType::Directory) => at("give the object a name that a folder has")(Errno::ISDIR),
        Ok(_) => at("give the object a name that a special file has")(Errno::INVAL),
        // It was deleted in between; it did exist.
        Err(_) => at("give the object its name")(Errno::EXIST),
    }
}

/// Opens a folder whose entries, and those of all folders above it, are known to be durable. Makes what is missing.
///
/// A folder that exists is not proof: another process may have made it a moment ago and not synced it yet. So each
/// is synced once by this process and remembered by its identity, not by its path alone.
fn durable_dir(shared: &Shared, folder: &str) -> Result<OwnedFd, StepError> {
    match shared.root.open_dir(folder) {
        Ok(dir) if folder.is_empty() || is_known(shared, folder, &dir) => return Ok(dir),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(at("open the folder of the object")(errno)),
    }
    for _ in 0..ATTEMPTS_MAX {
        match make_durable_dir(shared, folder) {
            Err(error) if error.errno == Errno::NOENT => continue,
            other => return other,
        }
    }
    Err(at("make folders that others remove")(Errno::BUSY))
}

fn make_durable_dir(shared: &Shared, folder: &str) -> Result<OwnedFd, StepError> {
    let mut dir = shared
        .root
        .open_dir("")
        .map_err(at("open the root directory"))?;
    let mut end = 0;
    for segment in folder.split('/') {
        end += segment.len() + usize::from(end > 0);
        let path = folder.get(..end).unwrap_or(folder);
        sys::make_dir(&dir, segment).map_err(at("make a folder"))?;
        let child = sys::open_child_dir(&dir, segment).map_err(at("open a folder"))?;
        if !is_known(shared, path, &child) {
            sync_dir(shared, &dir)?;
            remember(shared, path, &child);
        }
        dir = child;
    }
    Ok(dir)
}

fn is_known(shared: &Shared, folder: &str, dir: &OwnedFd) -> bool {
    let known = shared.durable_dirs().get(folder).copied();
    known.is_some() && known == sys::identity(dir)
}

fn remember(shared: &Shared, folder: &str, dir: &OwnedFd) {
    const FOLDERS_MAX: usize = 65_536;
    let Some(identity) = sys::identity(dir) else {
        return;
    };
    let mut known = shared.durable_dirs();
    if known.len() >= FOLDERS_MAX {
        known.clear();
    }
    known.insert(folder.to_owned(), identity);
}

fn sync_dir(shared: &Shared, dir: &OwnedFd) -> Result<(), StepError> {
    sys::sync(dir).map_err(|errno| {
        shared.poisoned.store(true, Ordering::SeqCst);
        at_sync("fsync a folder")(errno)
    })
}

// After a failed fsync of a folder a later one may say "done" about entries that are lost.
fn refuse_if_poisoned(shared: &Shared) -> Result<(), StepError> {
    if shared.poisoned.load(Ordering::SeqCst) {
        return Err(at(
            "trust this store after an fsync of a folder failed; open it again",
        )(Errno::IO));
    }
    Ok(())
}

/// Deletes objects and syncs each folder once, after all of them. Empty folders stay.
pub(super) fn delete(shared: &Shared, keys: &[ObjectKey]) -> Vec<DeleteResult> {
    let mut dirs: HashMap<&str, Result<Option<OwnedFd>, Errno>> = HashMap::new();
    let mut results: Vec<DeleteResult> = Vec::with_capacity(keys.len());
    for key in keys {
        let (folder, name) = key.split();
        // As many open descriptors as folders would be too many.
        if dirs.len() >= DIRS_MAX && !dirs.contains_key(folder) {
            sync_deleted(shared, &keys[..results.len()], &mut results, &dirs);
            dirs.clear();
        }
        let dir = dirs
            .entry(folder)
            .or_insert_with(|| match shared.root.open_dir(folder) {
                Ok(dir) => Ok(Some(dir)),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(errno),
            });
        let deleted = match dir {
            Ok(Some(dir)) => delete_name(dir, name),
            Ok(None) => Ok(()),
            Err(errno) => Err(*errno),
        };
        results.push(
            deleted.map_err(|errno| {
                at("delete the object")(errno).into_backend("delete", key.as_str())
            }),
        );
    }
    sync_deleted(shared, keys, &mut results, &dirs);
    results
}

const DIRS_MAX: usize = 64;

fn delete_name(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match sys::unlink(dir, name) {
        // A folder is no object, so there was none.
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn sync_deleted(
    shared: &Shared,
    keys: &[ObjectKey],
    results: &mut [DeleteResult],
    dirs: &HashMap<&str, Result<Option<OwnedFd>, Errno>>,
) {
    let mut unsynced = HashSet::new();
    for (folder, dir) in dirs {
        if let Ok(Some(dir)) = dir
            && sync_dir(shared, dir).is_err()
        {
            unsynced.insert(*folder);
        }
    }
    for (key, result) in keys.iter().zip(results) {
        if result.is_ok() && unsynced.contains(key.split().0) {
            *result = Err(BackendError::new(ErrorKind::Io, "delete", key.as_str())
                .with_source(at_sync("fsync a folder")(Errno::IO)));
        }
    }
}
