//! What can be backed up.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use backup_manifest::ItemPath;

/// Says whether a path of the tree is left out; the flag tells directories.
pub type ExcludeFn = dyn Fn(&ItemPath, bool) -> bool + Send + Sync;

/// What a snapshot is made of.
#[derive(Debug)]
#[non_exhaustive]
pub enum Source {
    /// A directory and everything below it.
    Tree(TreeSource),
    /// One file or block device, as a volume.
    Volume(PathBuf),
    /// Whatever a reader gives, to its end.
    Stream(StreamSource),
}

impl Source {
    /// A directory and everything below it, on all file systems mounted there.
    pub fn tree(root: impl Into<PathBuf>) -> Self {
        Self::Tree(TreeSource::new(root))
    }

    /// One file or block device, as a volume.
    pub fn volume(path: impl Into<PathBuf>) -> Self {
        Self::Volume(path.into())
    }

    /// Whatever `reader` gives, to its end.
    pub fn stream(reader: impl Read + Send + 'static) -> Self {
        Self::Stream(StreamSource {
            reader: Box::new(reader),
        })
    }
}

impl Source {
    /// The same once more; `None` for a stream, which is read once.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Tree(tree) => Some(Self::Tree(tree.clone())),
            Self::Volume(path) => Some(Self::Volume(path.clone())),
            Self::Stream(_) => None,
        }
    }

    /// Where it is, to be named in errors.
    pub(crate) fn place(&self) -> PathBuf {
        match self {
            Self::Tree(tree) => tree.root.clone(),
            Self::Volume(path) => path.clone(),
            Self::Stream(_) => PathBuf::from("the stream"),
        }
    }
}

/// A directory and what of it is taken.
#[derive(Clone)]
#[non_exhaustive]
pub struct TreeSource {
    /// The directory. A symlink here is followed; below it none is.
    pub root: PathBuf,
    /// Do not enter directories of other file systems; the mount points themselves are recorded.
    pub one_file_system: bool,
    /// What to leave out: neither the path nor anything below it is looked at.
    pub exclude: Option<Arc<ExcludeFn>>,
}

impl TreeSource {
    /// Everything below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            one_file_system: false,
            exclude: None,
        }
    }

    pub(crate) fn is_excluded(&self, path: &ItemPath, is_directory: bool) -> bool {
        self.exclude
            .as_ref()
            .is_some_and(|exclude| exclude(path, is_directory))
    }
}

impl fmt::Debug for TreeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSource")
            .field("root", &self.root)
            .field("one_file_system", &self.one_file_system)
            .field("exclude", &self.exclude.is_some())
            .finish()
    }
}

/// A reader, read once.
pub struct StreamSource {
    pub(crate) reader: Box<dyn Read + Send>,
}

impl fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSource").finish_non_exhaustive()
    }
}
