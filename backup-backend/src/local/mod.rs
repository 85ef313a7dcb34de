//! Objects as files below a directory.

mod direct;
mod error;
mod publish;
mod reads;
mod sys;
mod temp;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use self::error::{StepError, at, at_sync, kind_of};
use self::reads::{Lease, Reads};
use self::sys::{Identity, Root};
use self::walk::Walk;
use crate::{
    BackendError, ByteRange, Capabilities, DeleteResult, ErrorKind, KeyPrefix, OBJECT_LEN_MAX,
    ObjectKey, ObjectMeta, PutMode, StorageBackend,
};

/// Objects as files (0600) in folders (0700) below a root directory; the key is the path.
///
/// A put is durable when it returns: the file is fsynced before it gets its name, the folder after, and every new
/// folder in the one above it. Nothing outside the root is ever touched: the root is held open, paths are resolved
/// below it without symlinks, and a symlink among the objects is an error (`Corrupt`). Unlike in S3, a key cannot be
/// the folder of another (`a` and `a/b`): such a put fails with `InvalidInput`.
///
/// Temporary files are in `.tmp` below the root; those of crashed writers are removed when the store is opened, those
/// of live ones (which hold a lock) are not. The root must lie on one file system. After a failed fsync of a folder
/// the store refuses further puts until it is opened again.
///
/// Calls run on tokio's blocking threads, a whole put in one piece: dropping its future lets it finish or never
/// begin. Clones share one root.
#[derive(Clone)]
pub struct LocalFs {
    shared: Arc<Shared>,
}

/// How a [`LocalFs`] behaves: take the [`Default`] and assign what you change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalFsOptions {
    /// Objects in a page of a listing, 1,000 unless told.
    pub page_len: usize,
}

impl Default for LocalFsOptions {
    fn default() -> Self {
        Self { page_len: 1000 }
    }
}

pub(crate) struct Shared {
    root: Root,
    path: PathBuf,
    options: LocalFsOptions,
    durable_dirs: Mutex<HashMap<String, Identity>>,
    poisoned: AtomicBool,
    buffers: direct::Buffers,
    reads: Arc<Reads>,
}

impl LocalFs {
    /// Opens an existing root directory and sweeps the leftovers of crashed writers. Blocks for a few system calls.
    ///
    /// # Errors
    /// `NoSuchBucket` if there is no such directory.
    pub fn open(root: impl AsRef<Path>, options: LocalFsOptions) -> Result<Self, BackendError> {
        Self::open_resolving(root.as_ref(), options, true)
    }

    /// Makes the root directory and those above it as far as they are missing (0700, durably), then opens it.
    ///
    /// # Errors
    /// Those of the file system, and those of [`LocalFs::open`].
    pub fn create(root: impl AsRef<Path>, options: LocalFsOptions) -> Result<Self, BackendError> {
        let root = root.as_ref();
        make_root(root).map_err(|error| error.into_backend("create", &root.to_string_lossy()))?;
        Self::open(root, options)
    }

    /// The root directory as it was given.
    pub fn root(&self) -> &Path {
        &self.shared.path
    }

    fn open_resolving(
        path: &Path,
        options: LocalFsOptions,
        allow_openat2: bool,
    ) -> Result<Self, BackendError> {
        let text = path.to_string_lossy();
        let root = Root::open(path, allow_openat2).map_err(|errno| {
            let missing = matches!(errno, Errno::NOENT | Errno::NOTDIR);
            let kind = if missing {
                ErrorKind::NoSuchBucket
            } else {
                kind_of(errno)
            };
            BackendError::new(kind, "open", &*text)
                .with_source(at("open the root directory")(errno))
        })?;
        temp::sweep(&root).map_err(|error| error.into_backend("open", &text))?;
        let shared = Shared {
            root,
            path: path.to_owned(),
            options,
            durable_dirs: Mutex::default(),
            poisoned: AtomicBool::new(false),
            buffers: direct::Buffers::default(),
            reads: Arc::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    fn durable_dirs(&self) -> MutexGuard<'_, HashMap<String, Identity>> {
        self.durable_dirs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for LocalFs {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        if bytes.len() as u64 > OBJECT_LEN_MAX {
            return Err(BackendError::new(
                ErrorKind::InvalidInput,
                "put",
                key.as_str(),
            ));
        }
        let (shared, owned) = (self.shared.clone(), key.clone());
        blocking("put", key.as_str(), move || {
            publish::put(&shared, &owned, &bytes, mode)
        })
        .await?
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        let (shared, owned) = (self.shared.clone(), key.clone());
        blocking("get", key.as_str(), move || read(&shared, &owned, range)).await?
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        let (shared, owned) = (self.shared.clone(), key.clone());
        let open = move || {
            open_object(&shared, "head", &owned).map(|(_, stat)| walk::meta_of(owned, &stat))
        };
        blocking("head", key.as_str(), open).await?
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        let walk = Walk::new(self.shared.clone(), prefix.clone());
        let prefix = prefix.to_string();
        stream::unfold(Some(walk), move |walk| {
            let prefix = prefix.clone();
            async move {
                let mut walk = walk?;
                let next = blocking("list", &prefix, move || {
                    walk.page().map(|page| (page, walk))
                })
                .await;
                match next.and_then(|next| next) {
                    Ok((page, _)) if page.is_empty() => None,
                    Ok((page, walk)) => Some((Ok(page), Some(walk))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let (shared, owned) = (self.shared.clone(), keys.to_vec());
        let first = keys.first().map_or("", ObjectKey::as_str);
        blocking("delete", first, move || publish::delete(&shared, &owned)).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }
}

// Outside of a runtime spawn_blocking would panic.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    key: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BackendError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|source| {
        BackendError::new(ErrorKind::NotSupported, operation, key).with_source(source)
    })?;
    let done = runtime.spawn_blocking(work).await;
    done.map_err(|source| {
        BackendError::new(ErrorKind::Unavailable, operation, key).with_source(source)
    })
}

fn read(shared: &Shared, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
    let fail = |kind| BackendError::new(kind, "get", key.as_str());
    let (file, stat) = open_object(shared, "get", key)?;
    let object_len = u64::try_from(stat.st_size).unwrap_or(0);
    let range = range.unwrap_or(ByteRange {
        start: 0,
        len: object_len,
    });
    range
        .end_within(object_len)
        .ok_or_else(|| fail(ErrorKind::InvalidRange))?;
    if range.len > OBJECT_LEN_MAX {
        return Err(fail(ErrorKind::Corrupt).with_source("longer than any object may be"));
    }
    // At most OBJECT_LEN_MAX, and still not trusted: this much may not be there.
    let len = range.len as usize;
    let mut lease = Lease::take(&shared.reads, len)
        .map_err(|source| fail(ErrorKind::Unavailable).with_source(source))?;
    sys::read_at(&file, &mut lease.buffer, range.start, len)
        .map_err(|errno| at("read the object")(errno).into_backend("get", key.as_str()))?;
    if lease.buffer.len() < len {
        return Err(fail(ErrorKind::Corrupt).with_source("the file ended early"));
    }
    Ok(lease.into_bytes())
}

fn open_object(
    shared: &Shared,
    operation: &'static str,
    key: &ObjectKey,
) -> Result<(OwnedFd, Stat), BackendError> {
    let fail = |error: StepError| error.into_backend(operation, key.as_str());
    let file = match shared.root.open_file(key.as_str()) {
        Ok(file) => file,
        // One of the folders is a file: no object is below it.
        Err(Errno::NOTDIR) => return Err(fail(at("open the object")(Errno::NOENT))),
        Err(errno) => return Err(fail(at("open the object")(errno))),
    };
    let stat = sys::stat(&file).map_err(|errno| fail(at("look at the object")(errno)))?;
    match sys::file_type(&stat) {
        FileType::RegularFile => Ok((file, stat)),
        FileType::Directory => Err(fail(at("open a folder as an object")(Errno::NOENT))),
        _ => Err(fail(at("open a special file as an object")(Errno::LOOP))),
    }
}

// From the first directory that exists downwards, each synced into the one above it.
fn make_root(root: &Path) -> Result<(), StepError> {
    let missing = root
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .take_while(|path| !path.exists());
    let missing: Vec<&Path> = missing.collect();
    for path in missing.into_iter().rev() {
        sys::make_root_dir(path).map_err(at("make the root directory"))?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let parent = Root::open(parent, false).and_then(|parent| parent.open_dir(""));
        let parent = parent.map_err(at("open the directory above the root"))?;
        sys::sync(&parent).map_err(at_sync("fsync the directory above the root"))?;
    }
    Ok(())
}

impl fmt::Debug for LocalFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalFs").field(&self.shared.path).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.path).finish()
    }
}
