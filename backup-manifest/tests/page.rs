//! Pages: what is written is read back, what does not fit is refused, unchanged stretches give the same pages.
#![allow(
    clippy::type_complexity,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashSet;

use backup_manifest::{
    Extent, Item, ItemKind, ItemPath, Metadata, PAGE_LEN_MAX, Page, PageParams, PageReader,
    PageWriter, Record, StreamChecker, TreeRef, WriteError, Xattr,
};
use proptest::prelude::*;
use support::{Entry, chunk_id, extents, made_up_tree, pages};

const TINY: PageParams = PageParams {
    len_min: 40,
    len_target: 150,
    len_max: 400,
};

fn path(text: &str) -> ItemPath {
    ItemPath::from_bytes(text).expect("a valid path")
}

fn item(at: &str, kind: ItemKind, len: u64) -> Item {
    let meta = Metadata {
        len,
        ..Metadata::default()
    };
    Item {
        path: path(at),
        kind,
        meta,
    }
}

/// Reads all pages, checks the stream, and puts extents back to their items.
fn read(pages: &[Page]) -> Vec<Entry> {
    let mut checker = StreamChecker::new();
    let mut entries: Vec<Entry> = Vec::new();
    for page in pages {
        checker.page(&TreeRef {
            id: chunk_id(0),
            len: page.bytes.len() as u32,
            first: page.first.clone(),
            first_offset: page.first_offset,
        });
        for record in PageReader::new(&page.bytes).expect("a valid page") {
            let record = record.expect("a valid page");
            checker.record(&record.view()).expect("a valid stream");
            match record {
                Record::Item(item) => entries.push((item, Vec::new())),
                Record::Extent(extent) => entries.last_mut().expect("an item").1.push(extent),
                Record::Continued { path, offset } => {
                    let (item, extents) = entries.last().expect("an item");
                    assert_eq!(item.path, path);
                    assert_eq!(extents.iter().map(Extent::len).sum::<u64>(), offset);
                }
            }
        }
    }
    checker.finish().expect("a complete stream");
    entries
}

fn any_time() -> impl Strategy<Value = i64> {
    let second = 1_000_000_000;
    prop_oneof![
        Just(0),
        Just(1_700_000_000 * second),
        (0..50_i64).prop_map(move |n| (1_700_000_000 + n) * second),
        (0..50_i64).prop_map(move |n| 1_700_000_000 * second + n),
        (-5..5_i64).prop_map(move |n| n * second / 2),
        Just(i64::MIN),
        Just(i64::MAX),
        any::<i64>(),
    ]
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let xattrs = prop::collection::btree_map(
        prop::collection::vec(1..=3_u8, 1..3),
        prop::collection::vec(any::<u8>(), 0..4),
        0..3,
    );
    let xattrs = prop_oneof![3 => Just(Default::default()), 1 => xattrs];
    let small = || prop_oneof![3 => 0..3_u32, 1 => any::<u32>()];
    let large = || prop_oneof![3 => 0..3_u64, 1 => any::<u64>()];
    (
        0..0o10000_u32,
        small(),
        small(),
        any_time(),
        any_time(),
        large(),
        large(),
        xattrs,
    )
        .prop_map(
            |(mode, uid, gid, mtime_ns, ctime_ns, inode, device, xattrs)| Metadata {
                mode: if mode & 1 == 0 { 0o644 } else { mode },
                uid,
                gid,
                mtime_ns,
                ctime_ns,
                inode,
                device,
                len: 0,
                xattrs: xattrs
                    .into_iter()
                    .map(|(name, value)| Xattr { name, value })
                    .collect(),
            },
        )
}

fn any_extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = prop_oneof![
        3 => (1..200_000_u32, any::<u64>()).prop_map(|(len, id)| Extent::Data { len, id: chunk_id(id) }),
        1 => (1..u64::MAX / 64).prop_map(|len| Extent::Hole { len }),
    ];
    prop_oneof![3 => prop::collection::vec(extent.clone(), 0..2), 1 => prop::collection::vec(extent, 0..30)]
}

/// A valid stream with a root, directories, and all kinds of items.
fn any_stream() -> impl Strategy<Value = Vec<Entry>> {
    let node = (
        prop::collection::vec(
            "[ab.-]{1,3}".prop_filter("a name", |name| name != "." && name != ".."),
            1..4,
        ),
        0..10_u8,
        any_metadata(),
        any_extents(),
    );
    (any_metadata(), prop::collection::vec(node, 0..40)).prop_map(|(meta, nodes)| {
        let mut tree = std::collections::BTreeMap::new();
        tree.insert(ItemPath::root(), (0, meta, Vec::new()));
        for (names, kind, meta, extents) in nodes {
            let mut at = ItemPath::root();
            for name in &names {
                at.push(name.as_bytes()).expect("a name");
                let last = at == names.join("/").parse().expect("a path");
                let kind = if last { kind } else { 0 };
                let entry = tree
                    .entry(at.clone())
                    .or_insert((kind, meta.clone(), extents.clone()));
                if !last {
                    entry.0 = 0;
                }
            }
        }
        let first = tree.keys().nth(1).cloned().unwrap_or_default();
        let into_entry =
            |(path, (kind, mut meta, mut extents)): (ItemPath, (u8, Metadata, Vec<Extent>))| {
                let kind = match kind {
                    1 => ItemKind::Symlink {
                        target: b"../x\xff".to_vec(),
                    },
                    2 if first < path => ItemKind::Hardlink {
                        target: first.clone(),
                    },
                    3 => ItemKind::Fifo,
                    4 => ItemKind::Socket,
                    5 => ItemKind::CharDevice {
                        major: meta.uid,
                        minor: 3,
                    },
                    6 => ItemKind::BlockDevice {
                        major: 8,
                        minor: meta.gid,
                    },
                    7 => ItemKind::Volume,
                    8 => ItemKind::Stream,
                    9 => ItemKind::File,
                    _ => ItemKind::Directory,
                };
                if !kind.has_content() {
                    extents.clear();
                }
                meta.len = extents.iter().map(Extent::len).sum();
                (Item { path, kind, meta }, extents)
            };
        tree.into_iter().map(into_entry).collect()
    })
}

proptest! {
    #[test]
    fn streams_read_back(entries in any_stream()) {
        for params in [TINY, PageParams::default(), PageParams { len_min: 0, len_target: 0, len_max: 0 }] {
            let pages = pages(&entries, params);
            prop_assert_eq!(&read(&pages), &entries);
        }
    }

    #[test]
    fn what_was_read_is_written_to_the_same_pages(entries in any_stream()) {
        let pages = pages(&entries, TINY);
        let mut writer = PageWriter::new(TINY);
        let mut again = Vec::new();
        for page in &pages {
            let mut reader = PageReader::new(&page.bytes).expect("a valid page");
            while let Some(record) = reader.next_record().expect("a valid page") {
                let page = match record {
                    backup_manifest::RecordView::Item(item) => writer.push_item(item),
                    backup_manifest::RecordView::Extent(extent) => writer.push_extent(extent),
                    backup_manifest::RecordView::Continued { .. } => Ok(None),
                };
                again.extend(page.expect("a valid stream"));
            }
        }
        again.extend(writer.finish().expect("a valid stream"));
        prop_assert_eq!(pages, again);
    }

    #[test]
    fn damaged_pages_give_errors(entries in any_stream(), at in any::<usize>(), flip in 1..=255_u8) {
        for page in pages(&entries, TINY) {
            let mut bytes = page.bytes.clone();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            if let Ok(reader) = PageReader::new(&bytes) {
                prop_assert!(reader.count() <= 2 * bytes.len() + 1);
            }
            for short in [&page.bytes[..at], &page.bytes[..page.bytes.len() - 1]] {
                let complete = PageReader::new(short).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                prop_assert!(complete.is_err());
            }
            bytes.clone_from(&page.bytes);
            bytes.push(flip);
            let complete = PageReader::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            prop_assert!(complete.is_err());
        }
    }

    #[test]
    fn noise_gives_errors(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut page = vec![0];
        page.extend_from_slice(&bytes);
        for bytes in [&bytes, &page] {
            if let Ok(reader) = PageReader::new(bytes) {
                prop_assert!(reader.count() <= 2 * bytes.len() + 1);
            }
        }
    }
}

#[test]
fn one_change_among_100_000_items_gives_at_most_three_new_pages() {
    let entries = made_up_tree(100_000);
    let before: HashSet<Page> = set(pages(&entries, PageParams::default()));
    assert!(before.len() > 50);
    let mut new_max = 0;
    for at in (1_000..entries.len()).step_by(9_973) {
        let mut changed = entries.clone();
        changed[at].0.meta.mtime_ns += 12_345_678_901;
        new_max = new_max.max(new_pages(&before, &changed));

        let mut removed = entries.clone();
        while removed[at].0.kind == ItemKind::Directory {
            removed.remove(at);
        }
        let (mut item, extents) = removed.remove(at);
        new_max = new_max.max(new_pages(&before, &removed));

        let mut inserted = entries.clone();
        item.path = path(&format!("{}.copy", item.path));
        inserted.insert(at + 1, (item, extents));
        inserted.sort_by(|one, other| one.0.path.cmp(&other.0.path));
        new_max = new_max.max(new_pages(&before, &inserted));
    }
    assert!(new_max <= 3, "{new_max} new pages");
}

fn new_pages(before: &HashSet<Page>, entries: &[Entry]) -> usize {
    let after = pages(entries, PageParams::default());
    after.iter().filter(|page| !before.contains(*page)).count()
}

fn set(pages: Vec<Page>) -> HashSet<Page> {
    pages.into_iter().collect()
}

#[test]
fn a_changed_stretch_of_a_volume_gives_few_new_pages() {
    let mut content = extents(7, 65_536 * 50_000);
    let volume = item("", ItemKind::Volume, 65_536 * 50_000);
    let before = set(pages(
        &[(volume.clone(), content.clone())],
        PageParams::default(),
    ));
    content[25_000] = Extent::Hole { len: 65_536 };
    let new = new_pages(&before, &[(volume, content)]);
    assert!(
        before.len() > 20 && new <= 3,
        "{new} of {} pages are new",
        before.len()
    );
}

#[test]
fn pages_are_about_as_long_as_asked_for() {
    for entries in [
        made_up_tree(100_000),
        vec![{
            let len = 65_536 * 100_000;
            (item("", ItemKind::Volume, len), extents(7, len))
        }],
    ] {
        let pages = pages(&entries, PageParams::default());
        let len = pages.iter().map(|page| page.bytes.len()).sum::<usize>() / pages.len();
        assert!((40_000..90_000).contains(&len), "{len} bytes on average");
        let longest = pages.iter().map(|page| page.bytes.len()).max();
        assert!(longest.is_some_and(|len| len < 256 * 1024 + 200));
    }
}

#[test]
fn a_small_file_costs_its_id_and_little_more() {
    let small = |name: &str| (item(name, ItemKind::File, 100), extents(1, 100));
    let root = (item("", ItemKind::Directory, 0), Vec::new());
    let one = pages(&[root.clone(), small("aaaaaa0")], PageParams::default());
    let two = pages(
        &[root, small("aaaaaa0"), small("aaaaaa1")],
        PageParams::default(),
    );
    // Tag, times, shared, suffix length, suffix, length, inode.
    assert_eq!(
        two[0].bytes.len() - one[0].bytes.len(),
        backup_core::ChunkId::LEN + 7
    );
}

#[test]
fn the_longest_item_fits_a_page() {
    let name = vec![b'n'; 1000];
    let mut deep = ItemPath::root();
    let mut entries = vec![(item("", ItemKind::Directory, 0), Vec::new())];
    while deep.push(&name).is_ok() {
        let kind = ItemKind::Directory;
        let meta = Metadata {
            xattrs: (0..16)
                .map(|n| Xattr {
                    name: vec![b'a' + n; 255],
                    value: vec![n; 65_000],
                })
                .collect(),
            ..Metadata::default()
        };
        entries.push((
            Item {
                path: deep.clone(),
                kind,
                meta,
            },
            Vec::new(),
        ));
        if entries.len() > 4 {
            // Enough of the long attributes; the depth goes on without.
            entries
                .last_mut()
                .expect("just pushed")
                .0
                .meta
                .xattrs
                .clear();
        }
    }
    let pages = pages(&entries, PageParams::default());
    assert!(pages.iter().all(|page| page.bytes.len() <= PAGE_LEN_MAX));
    assert_eq!(read(&pages), entries);
}

#[test]
fn streams_that_are_not_valid_are_refused() {
    use ItemKind::{Directory, File};
    let hole = |len| Extent::Hole { len };
    let start = |items: &[Item]| {
        let mut writer = PageWriter::new(TINY);
        for item in items {
            writer.push_item(item).expect("a valid start");
        }
        writer
    };
    let tree = [
        item("", Directory, 0),
        item("a", Directory, 0),
        item("a/b", File, 0),
    ];
    for (next, what) in [
        (item("a/b", File, 0), "twice"),
        (item("a", File, 0), "back"),
        (item("", Directory, 0), "the root again"),
        (item("a/b/c", File, 0), "inside a file"),
        (item("b/c", File, 0), "without its directory"),
        (item("a/c/d", File, 0), "without its directory"),
    ] {
        let mut writer = start(&tree);
        let error = writer.push_item(&next).expect_err(what);
        assert!(
            matches!(
                error,
                WriteError::OutOfOrder { .. } | WriteError::ParentMissing { .. }
            ),
            "{what}"
        );
        writer
            .push_item(&item("a/c", File, 0))
            .expect("goes on after a refusal");
    }
    let mut writer = start(&[item("vol", ItemKind::Volume, 0)]);
    assert!(
        writer.push_item(&item("vom", File, 0)).is_err(),
        "nothing beside the only item"
    );

    let mut writer = start(&[item("v", ItemKind::Volume, 10)]);
    assert!(writer.push_item(&item("w", File, 0)).is_err());
    for extent in [
        hole(0),
        hole(11),
        hole(u64::MAX),
        Extent::Data {
            len: 0,
            id: chunk_id(1),
        },
    ] {
        assert!(matches!(
            writer.push_extent(extent),
            Err(WriteError::BadExtent { .. })
        ));
    }
    writer.push_extent(hole(4)).expect("fits");
    let missing = WriteError::ContentMissing {
        path: path("v"),
        missing: 6,
    };
    assert_eq!(writer.finish(), Err(missing));

    let mut writer = start(&[item("v", ItemKind::Volume, u64::MAX - 1)]);
    let too_long = Extent::Data {
        len: 16 * 1024 * 1024 + 1,
        id: chunk_id(1),
    };
    assert!(writer.push_extent(too_long).is_err());
    writer.push_extent(hole(u64::MAX - 1)).expect("fits");
    assert!(writer.push_extent(hole(1)).is_err());
}

#[test]
fn metadata_without_a_valid_form_is_refused() {
    let plain = || item("x", ItemKind::File, 0);
    let with = |change: &dyn Fn(&mut Item)| {
        let mut item = plain();
        change(&mut item);
        PageWriter::new(TINY).push_item(&item).map(|_| ())
    };
    let xattr = |name: &[u8], len| Xattr {
        name: name.to_vec(),
        value: vec![0; len],
    };
    let refused: [(&str, &dyn Fn(&mut Item)); 12] = [
        ("type bits in mode", &|item| item.meta.mode = 0o100_644),
        ("length of a directory", &|item| {
            item.kind = ItemKind::Directory;
            item.meta.len = 4096;
        }),
        ("empty target", &|item| {
            item.kind = ItemKind::Symlink { target: Vec::new() }
        }),
        ("NUL in target", &|item| {
            item.kind = ItemKind::Symlink { target: vec![0] }
        }),
        ("long target", &|item| {
            item.kind = ItemKind::Symlink {
                target: vec![1; 65_537],
            }
        }),
        ("link to itself", &|item| {
            item.kind = ItemKind::Hardlink { target: path("x") }
        }),
        ("link forward", &|item| {
            item.kind = ItemKind::Hardlink {
                target: path("x/y"),
            }
        }),
        ("unsorted xattrs", &|item| {
            item.meta.xattrs = vec![xattr(b"b", 0), xattr(b"a", 0)]
        }),
        ("twice the same xattr", &|item| {
            item.meta.xattrs = vec![xattr(b"a", 0), xattr(b"a", 1)]
        }),
        ("xattr without name", &|item| {
            item.meta.xattrs = vec![xattr(b"", 0)]
        }),
        ("long xattr", &|item| {
            item.meta.xattrs = vec![xattr(b"a", 65_537)]
        }),
        ("long xattrs", &|item| {
            item.meta.xattrs = (0..17).map(|n| xattr(&[b'a' + n], 65_536)).collect();
        }),
    ];
    for (what, change) in refused {
        assert!(with(change).is_err(), "{what}");
    }
    with(&|_| {}).expect("the plain item is valid");
}

#[test]
fn debug_shows_no_value_of_an_attribute() {
    let mut item = item("x", ItemKind::File, 0);
    item.meta.xattrs = vec![Xattr {
        name: b"user.key".to_vec(),
        value: b"SECRET".to_vec(),
    }];
    for text in [format!("{item:?}"), format!("{:?}", item.view())] {
        assert!(
            text.contains("user.key") && !text.contains("SECRET") && !text.contains("83, 69"),
            "{text}"
        );
    }
}

#[test]
fn a_stream_of_open_length_ends_where_its_extents_end() {
    let meta = Metadata {
        len: backup_manifest::LEN_OPEN,
        ..Metadata::default()
    };
    let stream = |kind| Item {
        path: ItemPath::from_bytes("data").unwrap(),
        kind,
        meta: meta.clone(),
    };
    for extents in [0u64, 1, 40_000] {
        let mut writer = PageWriter::new(PageParams::default());
        let mut pages = Vec::new();
        pages.extend(writer.push_item(&stream(ItemKind::Stream)).unwrap());
        for number in 0..extents {
            let id = chunk_id(number);
            pages.extend(writer.push_extent(Extent::Data { len: 7, id }).unwrap());
        }
        pages.extend(writer.finish().unwrap());
        let mut checker = StreamChecker::new();
        let mut sum = 0;
        for page in &pages {
            let mut reader = PageReader::new(&page.bytes).unwrap();
            while let Some(record) = reader.next_record().unwrap() {
                checker.record(&record).unwrap();
                if let backup_manifest::RecordView::Extent(extent) = record {
                    sum += extent.len();
                }
            }
        }
        checker.finish().unwrap();
        assert_eq!(sum, 7 * extents);
    }
    // No other kind may leave its length open.
    let mut writer = PageWriter::new(PageParams::default());
    assert!(writer.push_item(&stream(ItemKind::File)).is_err());
}
