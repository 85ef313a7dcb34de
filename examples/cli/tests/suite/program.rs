//! The program, a place for its files, and what it said.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A directory for one test, with the place of a repository and of its key file in it.
pub(crate) struct Scratch {
    dir: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    /// With a repository that a key file opens.
    pub(crate) fn with_repository() -> Self {
        let scratch = Self::new();
        scratch.run(["init"]).expect(0);
        scratch
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with no secret in its environment.
    pub(crate) fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command
            .env_remove("BACKUP_PASSPHRASE")
            .env_remove("BACKUP_KEY_FILE");
        command
            .env("BACKUP_REPOSITORY", self.path("repo"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// The program with the key file of the repository.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = self.bare();
        command
            .env("BACKUP_KEY_FILE", self.path("key"))
            .args(arguments);
        command
    }

    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        Output::of(&mut self.command(arguments))
    }

    /// Makes a tree of everything that a user can make.
    pub(crate) fn make_tree(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::write(root.join("sub/letter"), "dear").unwrap();
        fs::write(root.join("sub/nothing"), "").unwrap();
        fs::write(root.join("sub/deep/large"), noise(3 << 20, 1)).unwrap();
        fs::write(root.join("bell\u{7}\nname"), "hidden").unwrap();
        fs::write(root.join(OsStr::from_bytes(b"not-utf8-\xff")), "bytes").unwrap();
        fs::hard_link(root.join("sub/letter"), root.join("sub/letter-too")).unwrap();
        symlink("../nowhere", root.join("sub/link")).unwrap();
        fs::set_permissions(root.join("sub/letter"), PermissionsExt::from_mode(0o640)).unwrap();
        // What changed within the last tick of the file system's clock is rightly read again by a second backup.
        std::thread::sleep(std::time::Duration::from_millis(100));
        root
    }
}

impl Output {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails, showing everything, unless the status is this one.
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(
            self.status,
            Some(status),
            "stdout:\n{}\nstderr:\n{}",
            self.text(),
            self.stderr
        );
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The kind of the error on stderr.
    pub(crate) fn error_kind(&self) -> String {
        let document: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("{e}: {}", self.stderr));
        document["error"]["kind"].as_str().unwrap().to_owned()
    }
}

/// Bytes that do not compress; the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Fails unless two trees are the same in names, types, modes, times, links and content.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (found, twin) = (
        fs::symlink_metadata(one).unwrap(),
        fs::symlink_metadata(other).unwrap(),
    );
    let about = |found: &fs::Metadata| {
        (
            found.mode(),
            found.mtime(),
            found.mtime_nsec(),
            found.nlink(),
        )
    };
    assert_eq!(about(&found), about(&twin), "{one:?}");
    if found.is_symlink() {
        assert_eq!(
            fs::read_link(one).unwrap(),
            fs::read_link(other).unwrap(),
            "{one:?}"
        );
    } else if found.is_file() {
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "content of {one:?}"
        );
    } else if found.is_dir() {
        assert_eq!(names(one), names(other), "{one:?}");
        for name in names(one) {
            assert_same(&one.join(&name), &other.join(&name));
        }
    }
}

/// What is in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(directory) {
        let path = directory.join(name);
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
