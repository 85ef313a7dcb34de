use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::Shared;
use super::error::{StepError, at};
use super::sys;
use crate::{BackendError, KEY_LEN_MAX, KeyPrefix, ObjectKey, ObjectMeta};

/// A listing under way: depth first, one sorted folder at a time. It holds the names of one folder per level.
#[derive(Debug)]
pub(super) struct Walk {
    shared: Arc<Shared>,
    prefix: KeyPrefix,
    begun: bool,
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    dir: OwnedFd,
    /// Empty, or ends with a slash.
    path: String,
    /// Names still to come, smallest last. Subfolders end with a slash, which also makes them sort as keys do.
    names: Vec<String>,
}

impl Walk {
    pub(super) fn new(shared: Arc<Shared>, prefix: KeyPrefix) -> Self {
        Self {
            shared,
            prefix,
            begun: false,
            folders: Vec::new(),
        }
    }

    /// The next objects, at most as many as fill a page; none at the end.
    pub(super) fn page(&mut self) -> Result<Vec<ObjectMeta>, BackendError> {
        let mut page = Vec::new();
        if !self.begun {
            self.begun = true;
            let text = self.prefix.as_str();
            let folder = text
                .rfind('/')
                .map_or("", |slash| &text[..slash])
                .to_owned();
            let opened = self.shared.root.open_dir(&folder);
            let path = if folder.is_empty() {
                folder
            } else {
                folder + "/"
            };
            self.enter(path, opened)?;
        }
        while page.len() < self.shared.options.page_len.max(1) {
            let Some(folder) = self.folders.last_mut() else {
                break;
            };
            let Some(name) = folder.names.pop() else {
                self.folders.pop();
                continue;
            };
            let path = format!("{}{name}", folder.path);
            if let Some(name) = name.strip_suffix('/') {
                let opened = sys::open_child_dir(&folder.dir, name);
                self.enter(path, opened)?;
            } else if let Some(meta) = object_meta(&folder.dir, &name, path)? {
                page.push(meta);
            }
        }
        Ok(page)
    }

    // A folder that vanished meanwhile has no objects.
    fn enter(&mut self, path: String, opened: Result<OwnedFd, Errno>) -> Result<(), BackendError> {
        let dir = match opened {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(at("open a folder")(errno).into_backend("list", &path)),
        };
        match names_of(&dir, &path, &self.prefix) {
            Ok(names) => self.folders.push(Folder { dir, path, names }),
            Err((path, error)) => return Err(error.into_backend("list", &path)),
        }
        Ok(())
    }
}

type Named<E> = (String, E);

// Names in falling order. What could not be a key is not ours and is passed over; what has a key's name but is
// neither file nor folder is an error: leaving it out would hide what a symlink has taken the place of.
fn names_of(
    dir: &OwnedFd,
    path: &str,
    prefix: &KeyPrefix,
) -> Result<Vec<String>, Named<StepError>> {
    let mut names = Vec::new();
    let mut misfit = None;
    let listed = sys::read_dir(dir, |name, kind| {
        let Ok(name) = name.to_str() else { return };
        let full = format!("{path}{name}");
        if full.len() > KEY_LEN_MAX
            || !full.starts_with(prefix.as_str())
            || ObjectKey::parse(&*full).is_err()
        {
            return;
        }
        match actual_kind(dir, name, kind) {
            Ok(FileType::RegularFile) => names.push(name.to_owned()),
            Ok(FileType::Directory) => names.push(format!("{name}/")),
            Ok(_) => misfit = Some((full, Errno::LOOP)),
            Err(Errno::NOENT) => {}
            Err(errno) => misfit = Some((full, errno)),
        }
    });
    listed.map_err(|errno| (path.to_owned(), at("read a folder")(errno)))?;
    if let Some((full, errno)) = misfit {
        return Err((full, at("list what is neither a file nor a folder")(errno)));
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    // A folder that changes while it is read may say a name twice.
    names.dedup();
    Ok(names)
}

fn actual_kind(dir: &OwnedFd, name: &str, kind: FileType) -> Result<FileType, Errno> {
    match kind {
        FileType::Unknown => Ok(sys::file_type(&sys::stat_at(dir, name)?)),
        known => Ok(known),
    }
}

// `None` if it vanished or became a folder meanwhile.
fn object_meta(
    dir: &OwnedFd,
    name: &str,
    path: String,
) -> Result<Option<ObjectMeta>, BackendError> {
    let stat = match sys::stat_at(dir, name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(at("look at an object")(errno).into_backend("list", &path)),
    };
    match sys::file_type(&stat) {
        FileType::RegularFile => Ok(ObjectKey::parse(path).ok().map(|key| meta_of(key, &stat))),
        _ => Ok(None),
    }
}

pub(super) fn meta_of(key: ObjectKey, stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        key,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: modified(stat),
    }
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let time = sys::modified(stat);
    let nanos = Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0));
    let whole = Duration::from_secs(time.tv_sec.unsigned_abs());
    let second = if time.tv_sec < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second?.checked_add(nanos)
}
