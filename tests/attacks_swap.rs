//! SECURITY.md, section 6, items 2 and 3: everything is bound to its kind, its repository and its name, so that nothing
//! can be passed off as something else.
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

use attack_support::forge::{Claim, Forge};
use attack_support::*;
use backup::{
    BackupOptions, Error, SessionId, SnapshotFilter, SnapshotKind, Source, VerifyLevel, backup,
    list, snapshots,
};
use backup_core::{ChunkKind, PackFooter, PackId};
use backup_manifest::{Cell, Extent, TreeRef, TreeRoot, pack_key, snapshot_key};
use futures::TryStreamExt;

/// Cells that are not what their names say: each is an error when asked for and a finding when looked for, and all other
/// snapshots restore.
async fn check_cells(objects: &Objects, bad: &[SessionId]) {
    let repo = open(objects).await;
    let report = verified(&repo, VerifyLevel::Structure).await;
    for id in bad {
        assert_names(&report, &snapshot_key(id), Some(*id));
        let expected = Expected::Bytes(Vec::new());
        let taken = Taken {
            source: "",
            id: *id,
            expected,
        };
        assert_cell_damaged(restore_checked(&repo, &taken).await, id);
    }
    assert_eq!(report.damage.len(), bad.len(), "{:?}", report.damage);
    assert!(matches!(
        snapshots(&repo, &SnapshotFilter::default()).await,
        Err(Error::Damaged { object, .. }) if bad.iter().any(|id| object == snapshot_key(id))
    ));
    assert_rest_whole(&repo, sample(), bad).await;
}

#[tokio::test]
async fn cells_of_two_sources_cannot_be_swapped() {
    let [_, alpha, beta, disk] = &sample().taken[..] else {
        panic!()
    };
    for (one, other) in [(alpha, beta), (beta, disk), (alpha, disk)] {
        let mut objects = sample().objects.clone();
        swap(
            &mut objects,
            &snapshot_key(&one.id),
            &snapshot_key(&other.id),
        );
        check_cells(&objects, &[one.id, other.id]).await;
    }
}

#[tokio::test]
async fn a_newer_snapshot_cannot_be_replaced_by_an_older_one() {
    let [old, new, ..] = &sample().taken[..] else {
        panic!()
    };
    let mut objects = sample().objects.clone();
    objects.insert(
        snapshot_key(&new.id),
        objects[&snapshot_key(&old.id)].clone(),
    );
    check_cells(&objects, &[new.id]).await;
}

#[tokio::test]
async fn an_old_cell_cannot_come_back_under_a_new_name() {
    let old = &sample().taken[0];
    let mut forge = Forge::new(&sample().objects);
    let new = forge.session("alpha");
    let cell = forge.objects[&snapshot_key(&old.id)].clone();
    forge.objects.insert(snapshot_key(&new), cell);
    check_cells(&forge.objects, &[new]).await;

    // Nor does the next backup take it for its parent.
    let repo = open(&forge.objects).await;
    let source = Source::stream(&b"x"[..]);
    let taken = backup(&repo, "alpha", source, &BackupOptions::default(), &()).await;
    assert_cell_damaged(taken, &new);
}

/// Even a cell that is sealed under the wrong name with the right keys: the manifest itself says which session it is of.
#[tokio::test]
async fn a_manifest_counts_only_under_the_name_that_it_states() {
    let old = &sample().taken[0];
    let mut forge = Forge::new(&sample().objects);
    let new = forge.session("alpha");
    let root = TreeRoot::empty();
    let claim = Claim {
        kind: SnapshotKind::Tree,
        root,
        bytes: 0,
    };
    let manifest = forge.manifest("alpha", old.id, claim);
    forge.cell(&new, &Cell::Snapshot(manifest).encode().unwrap());
    check_cells(&forge.objects, &[new]).await;
}

#[tokio::test]
async fn cells_of_another_repository_are_refused() {
    for other in [twin(), stranger()] {
        for (mine, theirs) in sample().taken.iter().zip(&other.taken) {
            let cell = other.objects[&snapshot_key(&theirs.id)].clone();
            let mut objects = sample().objects.clone();
            objects.insert(snapshot_key(&mine.id), cell.clone());
            check_cells(&objects, &[mine.id]).await;

            let mut objects = sample().objects.clone();
            objects.insert(snapshot_key(&theirs.id), cell);
            check_cells(&objects, &[theirs.id]).await;
        }
    }
}

/// Packs of another repository, of the same content and even under the same keys: none of their blocks is relied on.
#[tokio::test]
async fn packs_of_another_repository_are_named_and_not_used() {
    for other in [twin(), stranger()] {
        let mut objects = sample().objects.clone();
        let theirs = under(&other.objects, "packs/");
        objects.extend(
            theirs
                .iter()
                .map(|name| (name.clone(), other.objects[name].clone())),
        );
        let repo = open(&objects).await;
        let report = verified(&repo, VerifyLevel::AllData).await;
        assert_eq!(report.damage.len(), theirs.len());
        theirs
            .iter()
            .for_each(|name| assert_names(&report, name, None));
        assert_rest_whole(&repo, sample(), &[]).await;

        // Theirs alone are as good as none.
        let mut objects = sample().objects.clone();
        objects.retain(|name, _| !name.starts_with("packs/") && !name.starts_with("index/"));
        objects.extend(
            theirs
                .iter()
                .map(|name| (name.clone(), other.objects[name].clone())),
        );
        let repo = open(&objects).await;
        for taken in &sample().taken {
            let error = restore_checked(&repo, taken).await.unwrap_err();
            assert!(matches!(error, Error::MissingChunk { .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_pack_swapped_for_another_of_its_kind_is_named_with_the_snapshots_it_hurts() {
    let packs = under(&sample().objects, "packs/");
    for pair in packs.chunks_exact(2) {
        let mut objects = sample().objects.clone();
        swap(&mut objects, &pair[0], &pair[1]);
        let repo = open(&objects).await;
        let report = verified(&repo, VerifyLevel::AllData).await;
        pair.iter()
            .for_each(|name| assert_names(&report, name, None));
        assert!(
            report
                .damage
                .iter()
                .any(|damage| !damage.snapshots.is_empty())
        );
        for taken in &sample().taken {
            let hurt = report
                .damage
                .iter()
                .any(|damage| damage.snapshots.contains(&taken.id));
            // Packs of different lengths are found under each other's names: then nothing is lost.
            let whole =
                matches!(restore_checked(&repo, taken).await, Ok(skipped) if skipped.is_empty());
            assert!(hurt || whole, "{}: {:#?}", taken.source, report.damage);
        }
    }
}

/// A list that names a chunk of content as a page, and a file that names a page as its content.
#[tokio::test]
async fn a_chunk_of_content_is_no_page_and_a_page_is_no_content() {
    let mut forge = Forge::new(&sample().objects);
    let page = pages::page(&[pages::directory(""), pages::file("inner", &[])]);
    let as_data = forge.chunk(ChunkKind::Data, &page);
    let first = pages::path("");
    let reference = TreeRef {
        id: as_data,
        len: page.len() as u32,
        first,
        first_offset: 0,
    };
    let one = forge.tree("forger", vec![reference.clone()]);
    // Claimed under the id that the bytes have as a page: of blocks sealed as content, in a pack of either kind.
    let as_tree = forge
        .keys
        .chunk_id(ChunkKind::Tree, b"never stored as a page");
    let piece: &[(_, &[u8])] = &[(as_tree.short(), b"never stored as a page")];
    forge.pack(ChunkKind::Data, &[piece]);
    let two = forge.tree(
        "forger",
        vec![TreeRef {
            id: as_tree,
            len: 22,
            ..reference.clone()
        }],
    );
    let other = forge.keys.chunk_id(ChunkKind::Tree, &page);
    forge.mixed_pack(
        ChunkKind::Tree,
        ChunkKind::Data,
        &[&[(other.short(), &page)]],
    );
    let three = forge.tree(
        "forger",
        vec![TreeRef {
            id: other,
            ..reference
        }],
    );

    let stored = forge.chunk(ChunkKind::Tree, b"a page that is not one");
    let extent = Extent::Data {
        len: 22,
        id: stored,
    };
    let bytes = pages::page(&[pages::directory(""), pages::file("f", &[extent])]);
    let reference = forge.page(&bytes, "", 0);
    let four = forge.tree("forger", vec![reference]);

    let repo = open(&forge.objects).await;
    let report = verified(&repo, VerifyLevel::Structure).await;
    for id in [one, two, three] {
        assert_names(&report, &snapshot_key(&id), Some(id));
        let spot = spot();
        let error = restore_to(&repo, &id, &spot).await.unwrap_err();
        assert!(
            matches!(error, Error::WrongChunk { .. } | Error::Damaged { .. }),
            "{error:?}"
        );
        spot.assert_empty("a page that is content");
        let all = snapshots(&repo, &SnapshotFilter::default()).await.unwrap();
        let manifest = all.iter().find(|manifest| manifest.session == id).unwrap();
        let items = list(&repo, manifest, None).await.unwrap();
        assert!(items.try_collect::<Vec<_>>().await.is_err());
    }
    assert_names(&report, &snapshot_key(&four), Some(four));
    let spot = spot();
    let report = restore_to(&repo, &four, &spot).await.unwrap();
    assert_eq!(report.skipped[0].path, pages::path("f"));
    assert!(!spot.target.join("f").exists());
    assert_rest_whole(&repo, sample(), &[]).await;
}

/// A pack with the directory of another, under the name that its bytes now have.
#[tokio::test]
async fn a_pack_with_the_directory_of_another_is_not_used() {
    let packs = under(&sample().objects, "packs/");
    let (one, other) = (&sample().objects[&packs[0]], &sample().objects[&packs[1]]);
    let footer = |bytes: &[u8]| PackFooter::decode(bytes.last_chunk().unwrap()).unwrap();
    let tail = |bytes: &[u8]| {
        footer(bytes)
            .directory_range(bytes.len() as u64)
            .unwrap()
            .start as usize
    };
    let crossed = [&one[..tail(one)], &other[tail(other)..]].concat();
    let id = PackId::from_bytes(*backup_core::blake3(&crossed).as_bytes());
    let mut objects = sample().objects.clone();
    objects.remove(&packs[0]);
    objects.insert(pack_key(&id), crossed.into());
    let repo = open(&objects).await;
    let report = verified(&repo, VerifyLevel::AllData).await;
    assert_names(&report, &pack_key(&id), None);
    let hurt = report
        .damage
        .iter()
        .flat_map(|damage| damage.snapshots.clone());
    let hurt: Vec<SessionId> = hurt.collect();
    assert!(!hurt.is_empty());
    assert_rest_whole(&repo, sample(), &hurt).await;
}

#[tokio::test]
async fn small_objects_cannot_be_swapped_with_their_like() {
    for prefix in ["index/", "sessions/", "keys/"] {
        let names = under(&sample().objects, prefix);
        for pair in names.windows(2) {
            let mut objects = sample().objects.clone();
            swap(&mut objects, &pair[0], &pair[1]);
            let repo = open(&objects).await;
            let report = verified(&repo, VerifyLevel::Structure).await;
            pair.iter()
                .for_each(|name| assert_names(&report, name, None));
            assert_eq!(report.damage.len(), 2, "{:?}", report.damage);
        }
        // What is refused costs the index its shortcut and nothing else.
        let mut objects = sample().objects.clone();
        swap(&mut objects, &names[0], &names[1]);
        assert_rest_whole(&open(&objects).await, sample(), &[]).await;
    }
}

#[tokio::test]
async fn small_objects_of_another_repository_are_named() {
    for other in [twin(), stranger()] {
        for prefix in ["index/", "sessions/", "keys/"] {
            let theirs = under(&other.objects, prefix);
            let mut objects = sample().objects.clone();
            objects.extend(
                theirs
                    .iter()
                    .map(|name| (name.clone(), other.objects[name].clone())),
            );
            let repo = open(&objects).await;
            let report = verified(&repo, VerifyLevel::Structure).await;
            theirs
                .iter()
                .for_each(|name| assert_names(&report, name, None));
            assert_eq!(report.damage.len(), theirs.len(), "{:?}", report.damage);
            assert_rest_whole(&repo, sample(), &[]).await;
        }
    }
}
