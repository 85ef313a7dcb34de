//! SECURITY.md, section 6, item 9: whatever a snapshot holds and whatever stands in the target, a tree outside of it stays
//! as it was, to the last time of change.
#![allow(
    clippy::type_complexity,
    clippy::field_reassign_with_default,
    clippy::too_many_lines,
    clippy::cloned_ref_to_slice_refs,
    reason = "a test may tell a long story"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod attack_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink as make_symlink};
use std::path::Path;
use std::sync::Arc;

use attack_support::forge::Forge;
use attack_support::pages::{
    self, Crafted, DIRECTORY, Entry, directory, file, hardlink, item, page, symlink,
};
use attack_support::sentinel::Sentinel;
use attack_support::*;
use backup::{
    Error, Event, ItemKind, ItemPath, Ownership, Repository, RestoreOptions, RestoreReport,
    RestoreTarget, SessionId, restore,
};
use backup_backend::testing::{Fault, FaultPoint, Faulty, Operation};
use backup_backend::{ErrorKind, Memory};
use backup_manifest::Xattr;

async fn forge() -> Forge {
    let store = Memory::new();
    create(Arc::new(store.clone()), MASTER).await;
    Forge::new(&objects_of(&store).await)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Restores to `target`, into what is there if need be.
async fn into(forge: &Forge, id: &SessionId, target: &Path) -> Result<RestoreReport, Error> {
    let repo = open(&forge.objects).await;
    let mut options = RestoreOptions::default();
    options.into_existing = true;
    restore(
        &repo,
        id,
        RestoreTarget::Directory(target.into()),
        &options,
        &(),
    )
    .await
}

/// Restores pages to a fresh place and into a directory that holds something; the tree outside stays as it was. Returns
/// what was skipped in the fresh place.
async fn check(sentinel: &Sentinel, what: &str, pages: &[(&str, Vec<u8>)]) -> Vec<String> {
    let mut forge = forge().await;
    let refs = pages
        .iter()
        .map(|(first, bytes)| forge.page(bytes, first, 0))
        .collect();
    let id = forge.tree("hostile", refs);
    let spot = spot();
    let report = into(&forge, &id, &spot.target).await;
    sentinel.assert_untouched(what);
    let shared = attack_support::spot();
    std::fs::create_dir(&shared.target).unwrap();
    std::fs::write(shared.target.join("there"), "before").unwrap();
    let _ = into(&forge, &id, &shared.target).await;
    sentinel.assert_untouched(what);
    assert_eq!(
        std::fs::read(shared.target.join("there")).unwrap(),
        b"before"
    );
    spot.assert_only_target(what);
    match report {
        Ok(report) => report
            .skipped
            .iter()
            .map(|skipped| skipped.path.to_string())
            .collect(),
        Err(Error::Damaged { .. }) => vec!["everything".into()],
        Err(error) => panic!("{what}: {error:?}"),
    }
}

#[tokio::test]
async fn names_that_lead_out_of_the_target_cannot_even_be_read() {
    let sentinel = Sentinel::new();
    let outside = sentinel
        .tree()
        .join("new")
        .into_os_string()
        .into_encoded_bytes();
    let names: [&[u8]; 9] = [
        b"..",
        b".",
        b"../outside/new",
        b"a/../../x",
        b"/etc/new",
        b"a//b",
        b"a/",
        b"nul\0nul",
        &outside,
    ];
    for name in names {
        assert!(ItemPath::from_bytes(name).is_err(), "{name:?}");
        let crafted = Crafted::root().empty_file(0, name).bytes();
        let text = format!("{name:?}");
        assert_eq!(
            check(&sentinel, &text, &[("", crafted)]).await,
            ["everything"],
            "{text}"
        );
        let crafted = Crafted::default().item(DIRECTORY, 0, name).bytes();
        assert_eq!(
            check(&sentinel, &text, &[("", crafted)]).await,
            ["everything"],
            "{text}"
        );
    }
    // On other systems these would be paths; here they are names like others.
    let names: [&[u8]; 4] = [b"..\\x", b"C:\\x", b"c:x", b"\\\\host\\x"];
    for name in names {
        let name = String::from_utf8_lossy(name);
        let bytes = page(&[directory(""), file(&name, &[])]);
        assert_eq!(check(&sentinel, &name, &[("", bytes)]).await, [""; 0]);
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_symlink_of_the_snapshot() {
    let sentinel = Sentinel::new();
    let tree = sentinel.tree();
    let up = Path::new("../../../../../../../../..").join(tree.strip_prefix("/").unwrap());
    for target in [tree.as_path(), &up] {
        // In one page: refused by the reader.
        let bytes = target.as_os_str().as_encoded_bytes();
        let crafted = Crafted::root()
            .symlink(0, b"l", bytes)
            .empty_file(1, b"/new")
            .bytes();
        assert_eq!(
            check(&sentinel, "one page", &[("", crafted)]).await,
            ["everything"]
        );
        // Across pages, which are each valid: a child, a chain, deeper, a directory, and what is there already.
        let one = || {
            page(&[
                directory(""),
                symlink("a", target),
                symlink("b", "a"),
                symlink("c", "b/sub"),
            ])
        };
        for child in [
            "a/new",
            "b/new",
            "c/new",
            "a/sub/new",
            "a/file",
            "a/sub/deep/new",
        ] {
            for second in [
                page(&[file(child, &[])]),
                page(&[directory(child)]),
                page(&[symlink(child, "x")]),
                page(&[item(child, ItemKind::Fifo)]),
                page(&[hardlink(child, "a")]),
            ] {
                let skipped = check(&sentinel, child, &[("", one()), (child, second)]).await;
                assert_ne!(skipped, [""; 0], "{child}");
            }
        }
    }
}

#[tokio::test]
async fn a_hard_link_reaches_nothing_outside() {
    let sentinel = Sentinel::new();
    let entries: [Entry; 6] = [
        directory(""),
        symlink("a", sentinel.tree()),
        symlink("b", sentinel.tree().join("file")),
        hardlink("c", "a/file"),
        hardlink("d", "a/sub/secret"),
        hardlink("e", "b"),
    ];
    let skipped = check(&sentinel, "hard links", &[("", page(&entries))]).await;
    assert_eq!(skipped, ["c", "d"]);
}

#[tokio::test]
async fn metadata_of_a_symlink_is_not_set_on_what_it_points_to() {
    let sentinel = Sentinel::new();
    let mut entries = vec![directory("")];
    for (name, target) in [("a", "file"), ("b", "sub"), ("c", "")] {
        let (mut link, none) = symlink(name, sentinel.tree().join(target));
        link.meta.mode = 0o4777;
        (link.meta.uid, link.meta.gid) = (4242, 4242);
        link.meta.xattrs = ["security.evil", "trusted.evil", "user.evil"]
            .map(|name| Xattr {
                name: name.into(),
                value: b"x".into(),
            })
            .into();
        entries.push((link, none));
    }
    assert_eq!(
        check(&sentinel, "symlinks", &[("", page(&entries))]).await,
        [""; 0]
    );
}

/// A target that somebody prepared: symlinks where directories, files, links, nodes and temporary files will be.
#[tokio::test]
async fn symlinks_that_stand_in_the_target_are_replaced_or_refused_and_never_followed() {
    let sentinel = Sentinel::new();
    let tree = sentinel.tree();
    let mut forge = forge().await;
    let content = forge.extent(b"restored");
    let bytes = page(&[
        directory(""),
        directory("d"),
        directory("d/e"),
        file("d/e/f", &[content]),
        file("d/file", &[content]),
        item("fifo", ItemKind::Fifo),
        file("first", &[content]),
        hardlink("link", "first"),
        file("plain", &[content]),
        symlink("soft", "plain"),
    ]);
    let reference = forge.page(&bytes, "", 0);
    let id = forge.tree("honest", vec![reference]);
    let spot = spot();
    for planted in [
        "d", "d/e", "d/e/f", "d/file", "fifo", "first", "link", "plain", "soft",
    ] {
        for target in [
            tree.clone(),
            tree.join("file"),
            tree.join("absent"),
            "../../..".into(),
        ] {
            let _ = std::fs::remove_dir_all(&spot.target);
            let link = spot.target.join(planted);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::fs::write(spot.target.join("there"), "before").unwrap();
            make_symlink(&target, &link).unwrap();
            let report = into(&forge, &id, &spot.target).await.unwrap();
            let what = format!("{planted} -> {target:?}");
            sentinel.assert_untouched(&what);
            let is_directory = planted == "d" || planted == "d/e";
            assert_eq!(
                report.skipped_count > 0,
                is_directory,
                "{what}: {:?}",
                report.skipped
            );
            assert_eq!(std::fs::read(spot.target.join("there")).unwrap(), b"before");
            if !is_directory {
                let files = ["d/e/f", "d/file", "first", "link", "plain", "soft"];
                let read = |name: &str| std::fs::read(spot.target.join(name)).unwrap();
                assert!(files.iter().all(|name| read(name) == b"restored"), "{what}");
            }
            let names = std::fs::read_dir(&spot.target)
                .unwrap()
                .map(|e| e.unwrap().file_name());
            assert!(
                names
                    .into_iter()
                    .all(|name| !name.to_string_lossy().starts_with('.')),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn devices_set_id_bits_and_attributes_of_the_system_stay_within_the_target() {
    let sentinel = Sentinel::new();
    let mut forge = forge().await;
    let content = forge.extent(b"#!");
    let (mut program, extents) = file("set-id", &[content]);
    program.meta.mode = 0o6755;
    program.meta.xattrs = ["security.test", "trusted.test", "user.test"]
        .map(|name| Xattr {
            name: name.into(),
            value: b"x".into(),
        })
        .into();
    let bytes = page(&[
        directory(""),
        item(
            "block",
            ItemKind::BlockDevice {
                major: 7,
                minor: 99,
            },
        ),
        item("char", ItemKind::CharDevice { major: 1, minor: 3 }),
        (program, extents),
        item("socket", ItemKind::Socket),
    ]);
    let reference = forge.page(&bytes, "", 0);
    let id = forge.tree("devices", vec![reference]);
    let spot = spot();
    let report = into(&forge, &id, &spot.target).await.unwrap();
    sentinel.assert_untouched("devices");
    let found = trees::listing(&spot.target);
    assert_eq!(found[&b"socket"[..]].kind, "socket");
    if is_root() {
        assert_eq!(report.skipped_count, 0, "{:?}", report.skipped);
        assert_eq!(found[&b"char"[..]].kind, "device");
        assert_eq!(found[&b"char"[..]].rdev, rustix::fs::makedev(1, 3));
        assert_eq!(found[&b"set-id"[..]].mode & 0o7777, 0o6755);
    } else {
        assert_eq!(report.skipped_count, 2, "{:?}", report.skipped);
        assert!(report.unset_count > 0);
    }
}

/// A program that ran as somebody must not run as whoever restores it.
#[tokio::test]
async fn set_id_bits_are_not_given_to_another_owner() {
    let mut forge = forge().await;
    let content = forge.extent(b"#!");
    let mut entries = vec![directory("")];
    for (name, mode) in [("gid", 0o2755), ("uid", 0o4755)] {
        let (mut program, extents) = file(name, &[content]);
        program.meta.mode = mode;
        (program.meta.uid, program.meta.gid) = (4242, 4242);
        entries.push((program, extents));
    }
    let reference = forge.page(&page(&entries), "", 0);
    let id = forge.tree("programs", vec![reference]);
    let repo = open(&forge.objects).await;
    let spot = spot();
    let mut options = RestoreOptions::default();
    options.ownership = Ownership::Ignore;
    let to = RestoreTarget::Directory(spot.target.clone());
    let report = restore(&repo, &id, to, &options, &()).await.unwrap();
    for name in ["gid", "uid"] {
        let mode = spot.target.join(name).metadata().unwrap().mode() & 0o7777;
        assert_eq!(
            mode,
            0o755,
            "{name} is {mode:o} of uid {}",
            rustix::process::geteuid().as_raw()
        );
    }
    assert_eq!(report.unset_count, 2, "and it is told");
}

async fn small_tree() -> (Repository, Taken, Faulty<Memory>) {
    let scratch = tempfile::TempDir::new().unwrap();
    trees::make_beta(scratch.path());
    let store = Faulty::new(Memory::new());
    let repo = create(Arc::new(store.clone()), MASTER).await;
    let taken = take(&repo, "beta", scratch.path()).await;
    (repo, taken, store)
}

#[tokio::test]
async fn a_target_that_is_not_empty_is_refused_and_left_alone() {
    let (repo, taken, _) = small_tree().await;
    let spot = spot();
    std::fs::create_dir(&spot.target).unwrap();
    std::fs::write(spot.target.join("one"), "mine").unwrap();
    let before = trees::listing(&spot.target);
    let error = restore_to(&repo, &taken.id, &spot).await.unwrap_err();
    assert!(matches!(error, Error::TargetNotEmpty { .. }), "{error:?}");
    assert_eq!(trees::listing(&spot.target), before);
    spot.assert_only_target("refused");
    // A file is no directory at all.
    let there = spot.target.join("one");
    let to = RestoreTarget::Directory(there.clone());
    let error = restore(&repo, &taken.id, to, &RestoreOptions::default(), &())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Target { .. }), "{error:?}");
    assert_eq!(std::fs::read(there).unwrap(), b"mine");
}

/// Filled by somebody else between the look at it and the end of the restore.
#[tokio::test]
async fn a_target_that_is_filled_meanwhile_is_left_alone() {
    let (repo, taken, _) = small_tree().await;
    let Expected::Tree(expected) = &taken.expected else {
        panic!()
    };
    for is_there in [false, true] {
        let spot = spot();
        if is_there {
            std::fs::create_dir(&spot.target).unwrap();
        }
        let target = spot.target.clone();
        let observer = move |event: &Event<'_>| {
            if matches!(event, Event::Bytes { .. }) {
                let _ = std::fs::create_dir(&target);
                std::fs::write(target.join("one"), "mine").unwrap();
            }
        };
        let to = RestoreTarget::Directory(spot.target.clone());
        let options = RestoreOptions::default();
        let restored = restore(&repo, &taken.id, to, &options, &observer).await;
        assert!(
            restored.is_err(),
            "{restored:?} of {} items",
            expected.len()
        );
        assert_eq!(std::fs::read(spot.target.join("one")).unwrap(), b"mine");
        assert_eq!(trees::listing(&spot.target).len(), 2, "nothing was added");
        spot.assert_only_target("filled meanwhile");
    }
}

#[tokio::test]
async fn a_target_that_is_a_symlink_is_filled_where_it_points_or_refused() {
    let (repo, taken, _) = small_tree().await;
    let Expected::Tree(expected) = &taken.expected else {
        panic!()
    };
    let sentinel = Sentinel::new();
    // To nothing, to a tree with something in it.
    for pointed in [sentinel.tree().join("absent"), sentinel.tree()] {
        let spot = spot();
        make_symlink(&pointed, &spot.target).unwrap();
        let error = restore_to(&repo, &taken.id, &spot).await.unwrap_err();
        assert!(
            matches!(error, Error::Target { .. } | Error::TargetNotEmpty { .. }),
            "{error:?}"
        );
        sentinel.assert_untouched("a target that is a symlink");
        spot.assert_only_target("a target that is a symlink");
        assert_eq!(std::fs::read_link(&spot.target).unwrap(), pointed);
    }
    // To an empty directory; and one of those above it a symlink.
    let spot = spot();
    let empty = spot.above.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    make_symlink(&empty, &spot.target).unwrap();
    match restore_to(&repo, &taken.id, &spot).await {
        Ok(report) => {
            assert!(report.is_complete());
            assert!(trees::listing(&empty).len() == expected.len());
        }
        Err(_) => assert_eq!(trees::listing(&empty).len(), 1),
    }
    let _ = std::fs::remove_dir_all(&empty);
    std::fs::create_dir(&empty).unwrap();
    let to = RestoreTarget::Directory(spot.target.join("below"));
    let report = restore(&repo, &taken.id, to, &RestoreOptions::default(), &())
        .await
        .unwrap();
    assert!(report.is_complete());
    assert_eq!(trees::listing(&empty.join("below")), *expected);
}

/// However often and wherever the store fails: no target, and nothing temporary.
#[tokio::test]
async fn a_restore_that_fails_midway_leaves_nothing() {
    let (repo, taken, store) = small_tree().await;
    let disk = trees::noise(31, 3_000_000);
    let source = backup::Source::stream(std::io::Cursor::new(disk.clone()));
    let disk = backup::backup(&repo, "disk", source, &small_packs(), &())
        .await
        .unwrap()
        .snapshot;
    for round in 0..8 {
        for nth in 1..40 {
            let done = store
                .calls()
                .iter()
                .filter(|c| c.operation == Operation::Get)
                .count() as u64;
            let (operation, kind) = (Operation::Get, ErrorKind::PermissionDenied);
            store.fail(Fault {
                operation,
                nth: done + nth,
                point: FaultPoint::AfterEffect,
                kind,
            });
            let spot = spot();
            let restored = match round % 2 {
                0 => restore_to(&repo, &taken.id, &spot).await,
                _ => {
                    let to = RestoreTarget::File(spot.target.clone());
                    restore(&repo, &disk, to, &RestoreOptions::default(), &()).await
                }
            };
            store.heal();
            match restored {
                Ok(_) => break,
                Err(Error::Backend(error)) => assert_eq!(error.kind(), kind),
                Err(error) => panic!("{error:?}"),
            }
            spot.assert_empty(&format!("round {round}, get {nth}"));
        }
    }
    assert_eq!(restore_checked(&repo, &taken).await.unwrap(), [""; 0]);
}

/// Files on a disk that takes no more, or of a length that none takes.
#[tokio::test]
async fn a_volume_too_long_for_the_disk_is_an_error_and_leaves_no_file() {
    use backup_manifest::{SnapshotKind, TreeRoot};
    let mut forge = forge().await;
    let (mut volume, _) = item("data", ItemKind::Volume);
    volume.meta.len = 1 << 62;
    let bytes = page(&[(volume, vec![backup_manifest::Extent::Hole { len: 1 << 62 }])]);
    let refs = vec![forge.page(&bytes, "data", 0)];
    let root = TreeRoot { level: 1, refs };
    let claim = forge::Claim {
        kind: SnapshotKind::Volume,
        root,
        bytes: 1 << 62,
    };
    let id = forge.snapshot("hostile", claim);
    let repo = open(&forge.objects).await;
    let spot = spot();
    let to = RestoreTarget::File(spot.target.clone());
    let error = restore(&repo, &id, to, &RestoreOptions::default(), &())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Target { .. }), "{error:?}");
    spot.assert_empty("a volume too long");
}

/// The permissions of what is being restored are nobody else's until it is whole.
#[tokio::test]
async fn a_tree_in_the_making_is_private() {
    let (repo, taken, _) = small_tree().await;
    let spot = spot();
    let above = spot.above.path().to_path_buf();
    let observer = move |event: &Event<'_>| {
        if matches!(event, Event::Bytes { .. }) {
            for entry in std::fs::read_dir(&above).unwrap().flatten() {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o700, "{entry:?}");
            }
        }
    };
    let to = RestoreTarget::Directory(spot.target.clone());
    restore(&repo, &taken.id, to, &RestoreOptions::default(), &observer)
        .await
        .unwrap();
    assert!(pages::path("one").as_bytes() == b"one");
}
