//! What of a tree is left out: patterns as in .gitignore, marked caches, the repository itself.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::{ExcludeFn, ItemPath};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::OFlags;

use crate::args::BackupArguments;
use crate::failure::Failure;

/// Source: <https://bford.info/cachedir/>.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Compiles the patterns of the arguments; those of files come first, so that the others may take back.
pub(crate) fn patterns(arguments: &BackupArguments) -> Result<Gitignore, Failure> {
    // An empty root: the paths asked about are relative to the tree's root.
    let mut builder = GitignoreBuilder::new("");
    let mut add = |pattern: &str| {
        let failed = |source| Failure::Pattern {
            pattern: pattern.into(),
            source,
        };
        builder.add_line(None, pattern).map(drop).map_err(failed)
    };
    for path in &arguments.exclude_file {
        let failed = |source| Failure::Read {
            what: "the patterns of",
            path: path.clone(),
            source,
        };
        std::fs::read_to_string(path)
            .map_err(failed)?
            .lines()
            .try_for_each(&mut add)?;
    }
    arguments
        .exclude
        .iter()
        .try_for_each(|pattern| add(pattern))?;
    builder.build().map_err(|source| Failure::Pattern {
        pattern: String::new(),
        source,
    })
}

/// The question that the library asks of each path below `root`; `None` when nothing is left out.
pub(crate) fn exclude(
    root: &Path,
    patterns: &Gitignore,
    caches: bool,
    repository: Option<PathBuf>,
) -> Option<Arc<ExcludeFn>> {
    let repository = repository_below(root, repository);
    if patterns.is_empty() && !caches && repository.is_none() {
        return None;
    }
    let (root, patterns) = (root.to_owned(), patterns.clone());
    Some(Arc::new(move |path: &ItemPath, is_directory: bool| {
        let relative = Path::new(OsStr::from_bytes(path.as_bytes()));
        patterns.matched(relative, is_directory).is_ignore()
            || is_directory && repository.as_deref() == Some(relative)
            || is_directory && caches && is_cache(&root.join(relative))
    }))
}

/// A backup that takes itself in grows each time.
fn repository_below(root: &Path, repository: Option<PathBuf>) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    Some(repository?.strip_prefix(root).ok()?.to_owned())
}

fn is_cache(directory: &Path) -> bool {
    // A FIFO of this name must not hold up the backup.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = File::options()
        .read(true)
        .custom_flags(flags as i32)
        .open(directory.join("CACHEDIR.TAG"));
    let mut found = [0u8; CACHE_SIGNATURE.len()];
    opened.is_ok_and(|mut file| file.read_exact(&mut found).is_ok() && found == CACHE_SIGNATURE)
}
