//! Makes trees that hold everything a file system can.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::data::{noise, text};

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn named(directory: &Path, name: &[u8]) -> PathBuf {
    directory.join(OsStr::from_bytes(name))
}

pub(crate) fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub(crate) fn node(path: &Path, kind: FileType, device: (u32, u32)) {
    let device = rustix::fs::makedev(device.0, device.1);
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).unwrap();
}

/// A bit of everything: as much as the user may make.
pub(crate) fn everything(root: &Path) {
    names(root);
    modes_and_times(root);
    links(root);
    nodes(root);
    attributes(root);
    // Directories last: what is put into them changes their times.
    set_mtime(&root.join("modes/sticky"), 1_000_000_000, 1);
    set_mtime(&root.join("a"), 1_234_567_890, 987_654_321);
    set_mtime(root, 1_600_000_000, 500_000_000);
}

/// Names that are not UTF-8, not printable, too long for most, and sorted around the separator.
fn names(root: &Path) {
    for name in [
        &b"not utf-8 \xff\xfe"[..],
        b"\xc3\x28",
        b"line\nbreak",
        b"bell\x07 \x1b[31m",
        b"-rf",
        b" ",
        b"back\\slash \\x41",
        b"...",
        b"\x01",
        b"\x7f",
        &[b'n'; 255],
        &[0xff; 255],
        "ü".repeat(127).as_bytes(),
    ] {
        fs::write(named(root, name), name).unwrap();
    }
    for name in ["a", "a/b", "a/b/c", "a-b", "a b", "a0"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for name in ["a.b", "a!", "a/b.c", "a/b-c", "a-b/b", "aa", "a0/x", "A"] {
        fs::write(root.join(name), name).unwrap();
    }
    // A volume's one item has this name, a restore makes files of that.
    for name in ["data", ".restore-0-0", ".tmp"] {
        fs::write(root.join(name), name).unwrap();
    }
}

fn modes_and_times(root: &Path) {
    let place = root.join("modes");
    fs::create_dir(&place).unwrap();
    for mode in [
        0o000, 0o400, 0o200, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777,
    ] {
        let path = place.join(format!("{mode:o}"));
        fs::write(&path, format!("mode {mode:o}")).unwrap();
        if is_root() {
            // Before the mode: changing the owner clears set-id bits.
            lchown(&path, Some(mode + 1000), Some(4_000_000_000)).unwrap();
        }
        set_mode(&path, mode);
    }
    for (name, mode) in [("sticky", 0o1777), ("setgid", 0o2775), ("closed", 0o500)] {
        fs::create_dir(place.join(name)).unwrap();
        fs::write(place.join(name).join("inside"), name).unwrap();
        set_mode(&place.join(name), mode);
    }
    fs::create_dir(root.join("empty directory")).unwrap();
    fs::write(root.join("empty file"), "").unwrap();
    for (number, time) in [
        (0, 0),
        (0, 999_999_999),
        (-1, 999_999_999),
        (-2_000_000_000, 1),
        (4_102_444_800, 123_456_789),
        (1_700_000_000, 100_000_000),
    ]
    .into_iter()
    .enumerate()
    {
        let path = root.join(format!("time {number}"));
        fs::write(&path, "then").unwrap();
        set_mtime(&path, time.0, time.1);
    }
}

/// Hard links of files, symlinks and FIFOs; symlinks to everything and nothing.
fn links(root: &Path) {
    let place = root.join("links");
    fs::create_dir_all(place.join("z/deep")).unwrap();
    fs::write(place.join("m"), noise(70_000, 1)).unwrap();
    for name in ["b", "z/deep/m", "zz", "z/a"] {
        fs::hard_link(place.join("m"), place.join(name)).unwrap();
    }
    fs::write(place.join("empty"), "").unwrap();
    fs::hard_link(place.join("empty"), place.join("empty too")).unwrap();
    // Longer than what is read in one go.
    fs::write(place.join("long"), text(5 << 20, 2)).unwrap();
    fs::hard_link(place.join("long"), place.join("z/long")).unwrap();
    for (name, target) in [
        ("dangling", &b"nowhere/at/all"[..]),
        ("absolute", b"/etc/passwd"),
        ("self", b"self"),
        ("up", b"../../../.."),
        ("not utf-8", b"\xff\xfe"),
        ("directory", b"z"),
        ("long target", &[b't'; 4000]),
    ] {
        symlink(OsStr::from_bytes(target), place.join(name)).unwrap();
        set_mtime(&place.join(name), 1_111_111_111, 5);
    }
    fs::hard_link(place.join("dangling"), place.join("dangling too")).unwrap();
    node(&place.join("fifo"), FileType::Fifo, (0, 0));
    fs::hard_link(place.join("fifo"), place.join("fifo too")).unwrap();
    set_mtime(&place.join("z"), 7, 7);
}

fn nodes(root: &Path) {
    let place = root.join("nodes");
    fs::create_dir(&place).unwrap();
    node(&place.join("fifo"), FileType::Fifo, (0, 0));
    node(&place.join("socket"), FileType::Socket, (0, 0));
    if is_root() {
        for (name, kind, device) in [
            ("null", FileType::CharacterDevice, (1, 3)),
            ("loop", FileType::BlockDevice, (7, 200)),
            (
                "large numbers",
                FileType::CharacterDevice,
                (0xfff, 0xf_ffff),
            ),
            ("minor 256", FileType::BlockDevice, (8, 256)),
        ] {
            node(&place.join(name), kind, device);
            lchown(place.join(name), Some(3), Some(70_000)).unwrap();
            set_mode(&place.join(name), 0o622);
            set_mtime(&place.join(name), 1_222_333_444, 555);
        }
    }
    set_mode(&place.join("fifo"), 0o6620);
}

fn attributes(root: &Path) {
    let place = root.join("attributes");
    fs::create_dir_all(place.join("directory")).unwrap();
    fs::write(place.join("file"), "with attributes").unwrap();
    for path in [place.join("file"), place.join("directory"), place.clone()] {
        set_xattr(&path, "user.empty", b"");
        set_xattr(&path, "user.bytes", b"\x00\xff\n");
        set_xattr(&path, "user.long", &noise(1500, 3));
        set_xattr(&path, "user.\u{fc}", b"name");
    }
    fs::write(place.join("read-only"), "mode 400").unwrap();
    set_xattr(&place.join("read-only"), "user.note", b"set before");
    set_mode(&place.join("read-only"), 0o400);
    if !is_root() {
        return;
    }
    fs::write(place.join("capable"), "ping").unwrap();
    lchown(place.join("capable"), Some(5), Some(5)).unwrap();
    set_mode(&place.join("capable"), 0o4755);
    // Version 2, effective; permitted: CAP_NET_RAW.
    let mut capability = vec![1, 0, 0, 2, 0, 0x20, 0, 0];
    capability.resize(20, 0);
    set_xattr(&place.join("capable"), "security.capability", &capability);
    symlink("file", place.join("symlink")).unwrap();
    node(&place.join("fifo"), FileType::Fifo, (0, 0));
    for name in ["symlink", "fifo", "directory", "file"] {
        set_xattr(&place.join(name), "trusted.note", b"only for root");
    }
    acl(&place);
}

/// Access control lists are attributes too; a default one is handed down to what is made in the directory.
fn acl(place: &Path) {
    fs::create_dir(place.join("listed")).unwrap();
    fs::write(place.join("listed/before"), "no list").unwrap();
    set_default_list(&place.join("listed"));
    set_xattr(&place.join("listed"), "system.posix_acl_access", &list());
    fs::write(place.join("listed/after"), "with a list").unwrap();
}

/// What is made in the directory from now on may be read and written by user 1000.
pub(crate) fn set_default_list(directory: &Path) {
    set_xattr(directory, "system.posix_acl_default", &list());
}

/// Version 2; then tag, permissions, id: owner rw, user 1000 rw, group r, mask rw, others none.
fn list() -> Vec<u8> {
    let entries = [
        (0x01, 6, u32::MAX),
        (0x02, 6, 1000),
        (0x04, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&u16::to_le_bytes(tag));
        value.extend_from_slice(&u16::to_le_bytes(permissions));
        value.extend_from_slice(&u32::to_le_bytes(id));
    }
    value
}
