//! SECURITY.md, section 6, item 9: somebody who may write to the target swaps directories and files for symlinks while a
//! restore is under way there. What the symlinks point to stays as it was.
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

use std::os::unix::fs::symlink as make_symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use attack_support::forge::Forge;
use attack_support::pages::{Entry, directory, file, hardlink, item, page, symlink};
use attack_support::sentinel::Sentinel;
use attack_support::*;
use backup::{ItemKind, RestoreOptions, RestoreTarget, SessionId, restore};
use backup_backend::Memory;

async fn forged(entries: &[Entry]) -> (Forge, SessionId) {
    let store = Memory::new();
    create(Arc::new(store.clone()), MASTER).await;
    let mut forge = Forge::new(&objects_of(&store).await);
    let reference = forge.page(&page(entries), "", 0);
    let id = forge.tree("honest", vec![reference]);
    (forge, id)
}

/// Restores again and again into a target while a thread does harm there; the tree outside stays as it was.
async fn check(rounds: u32, entries: &[Entry], harm: impl Fn(&Path, &Path) -> bool + Send + Sync) {
    let sentinel = Sentinel::new();
    let (forge, id) = forged(entries).await;
    let repo = open(&forge.objects).await;
    let spot = spot();
    std::fs::create_dir(&spot.target).unwrap();
    std::fs::write(spot.target.join("there"), "before").unwrap();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let (target, outside) = (spot.target.as_path(), sentinel.tree());
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swaps.fetch_add(u64::from(harm(target, &outside)), Ordering::Relaxed);
            }
        });
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let mut options = RestoreOptions::default();
                options.into_existing = true;
                for _ in 0..rounds {
                    let to = RestoreTarget::Directory(target.into());
                    // It may well fail.
                    let _ = restore(&repo, &id, to, &options, &()).await;
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed) > 0, "the attack took place");
    sentinel.assert_untouched("a race");
    assert_eq!(std::fs::read(target.join("there")).unwrap(), b"before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_turned_into_a_symlink_meanwhile_is_not_followed() {
    let mut entries = vec![directory(""), directory("d"), directory("d/sub")];
    for n in 100..140 {
        entries.push(file(&format!("d/sub/f{n}"), &[]));
    }
    entries.push(file("d/tile", &[]));
    entries.push(directory("e"));
    for n in 100..120 {
        entries.push(match n % 4 {
            0 => hardlink(&format!("e/n{n}"), "d/tile"),
            1 => item(&format!("e/n{n}"), ItemKind::Fifo),
            2 => symlink(&format!("e/n{n}"), "x"),
            _ => directory(&format!("e/n{n}")),
        });
    }
    check(150, &entries, |target, outside| {
        let mut swapped = false;
        for name in ["d", "d/sub", "e"] {
            let (place, aside) = (target.join(name), target.join("aside"));
            if std::fs::rename(&place, &aside).is_ok() {
                swapped |= make_symlink(outside, &place).is_ok();
                std::thread::yield_now();
                let _ = std::fs::remove_file(&place);
                if std::fs::rename(&aside, &place).is_err() {
                    let _ = std::fs::remove_dir_all(&aside);
                }
            }
        }
        swapped
    })
    .await;
}

/// Nodes without content have no open file to set their mode on: it must not be set through a symlink put in their place.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_turned_into_a_symlink_before_its_mode_is_set_is_not_followed() {
    let mut entries = vec![directory("")];
    for n in 1000..1800 {
        let (mut node, none) = item(&format!("n{n}"), ItemKind::Fifo);
        node.meta.mode = 0o777;
        entries.push((node, none));
    }
    let aside = AtomicU64::new(0);
    check(60, &entries, |target, outside| {
        // The names of temporary files count up: having seen one, wait for the next ones.
        let seen = std::fs::read_dir(target)
            .unwrap()
            .flatten()
            .find_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (run, number) = name.strip_prefix(".restore-")?.rsplit_once('-')?;
                Some((run.to_owned(), number.parse::<u64>().ok()?))
            });
        let Some((run, first)) = seen else {
            return false;
        };
        let mut swapped = false;
        for number in first..first + 400 {
            let link =
                target.with_file_name(format!("aside-{}", aside.fetch_add(1, Ordering::Relaxed)));
            make_symlink(outside.join("file"), &link).unwrap();
            let place = target.join(format!(".restore-{run}-{number}"));
            let _ = (0..200).find(|_| place.symlink_metadata().is_ok());
            if place.symlink_metadata().is_ok() {
                swapped |= std::fs::rename(&link, &place).is_ok();
            }
            let _ = std::fs::remove_file(&link);
        }
        swapped
    })
    .await;
}
