//! Temporary files: `.tmp/<process id>-<32 hex>` below the root, in no listing since no key begins with a dot.
//!
//! Their writer holds their lock, so a file whose lock is free belongs to nobody. Between creating and locking there
//! is a gap; a sweep that hits it unlinks the file, the writer sees that its file has no name left and takes another.
//! Where the file system has no locks nothing is ever swept: a leftover costs space, a wrong sweep costs data.

use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::error::{StepError, at, at_sync};
use super::sys::{self, Root};

const TEMP_DIR: &str = ".tmp";
// A temporary is taken away while it is made only by a sweep that runs at that very moment.
const ATTEMPTS_MAX: usize = 8;

/// A temporary file, open for writing. Dropping it removes its name.
#[derive(Debug)]
pub(super) struct Temp {
    dir: OwnedFd,
    name: String,
    pub(super) file: OwnedFd,
    named: bool,
}

impl Temp {
    pub(super) fn create(root: &Root) -> Result<Self, StepError> {
        for _ in 0..ATTEMPTS_MAX {
            let dir = temp_dir(root)?;
            let name = temp_name()?;
            let file = match sys::create_new(&dir, &name) {
                Ok(file) => file,
                // Somebody removed the directory in between.
                Err(Errno::NOENT | Errno::EXIST) => continue,
                Err(errno) => return Err(at("create a temporary file")(errno)),
            };
            let temp = Self {
                dir,
                name,
                file,
                named: true,
            };
            if temp.lock()? {
                return Ok(temp);
            }
        }
        Err(at("keep a temporary file that others remove")(Errno::BUSY))
    }

    // `false` if a sweep was faster.
    fn lock(&self) -> Result<bool, StepError> {
        match sys::try_lock(&self.file) {
            Err(Errno::AGAIN) => return Ok(false),
            // No locks here, so no sweep either.
            Err(_) => return Ok(true),
            Ok(()) => {}
        }
        Ok(sys::stat(&self.file)
            .map_err(at("look at the temporary file"))?
            .st_nlink
            > 0)
    }

    /// Where the file is, as the calls that move it want it.
    pub(super) fn place(&self) -> (&OwnedFd, &str) {
        (&self.dir, &self.name)
    }

    /// The name is gone: the file has been moved.
    pub(super) fn moved(&mut self) {
        self.named = false;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.named {
            // Nothing to do if it fails: the next sweep finds it.
            let _ = sys::unlink(&self.dir, &self.name);
        }
    }
}

// Not synced: what is lost with this directory in a crash was worth nothing.
fn temp_dir(root: &Root) -> Result<OwnedFd, StepError> {
    match root.open_dir(TEMP_DIR) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(at("open the directory for temporary files")),
    }
    let top = root.open_dir("").map_err(at("open the root directory"))?;
    sys::make_dir(&top, TEMP_DIR).map_err(at("make the directory for temporary files"))?;
    root.open_dir(TEMP_DIR)
        .map_err(at("open the directory for temporary files"))
}

fn temp_name() -> Result<String, StepError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| at("get random bytes")(Errno::IO))?;
    Ok(format!(
        "{}-{:032x}",
        std::process::id(),
        u128::from_le_bytes(random)
    ))
}

/// Removes the temporary files of writers that are gone; what it may not remove stays.
///
/// A leftover that still has a second name is an object whose writer died between linking and syncing: everything is
/// made durable before that witness goes, since from then on others rely on the object they see.
pub(super) fn sweep(root: &Root) -> Result<(), StepError> {
    // No such directory, or none of ours to clean.
    let Ok(dir) = root.open_dir(TEMP_DIR) else {
        return Ok(());
    };
    let mut names = Vec::new();
    let listed = sys::read_dir(&dir, |name, kind| {
        if let (Ok(name), FileType::RegularFile | FileType::Unknown) = (name.to_str(), kind)
            && is_temp_name(name)
        {
            names.push(name.to_owned());
        }
    });
    if listed.is_err() {
        return Ok(());
    }
    names
        .iter()
        .try_for_each(|name| sweep_one(root, &dir, name))
}

fn sweep_one(root: &Root, dir: &OwnedFd, name: &str) -> Result<(), StepError> {
    let Ok(file) = sys::open_to_lock(dir, name) else {
        return Ok(());
    };
    if sys::try_lock(&file).is_err() {
        return Ok(());
    }
    let Ok(stat) = sys::stat(&file) else {
        return Ok(());
    };
    if stat.st_nlink > 1 {
        sys::sync_file_system(root)
            .map_err(at_sync("make the work of a crashed writer durable"))?;
    }
    let _ = sys::unlink(dir, name);
    Ok(())
}

fn is_temp_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(pid, random)| {
        !pid.is_empty()
            && pid.bytes().all(|byte| byte.is_ascii_digit())
            && random.len() == 32
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
