//! Validly sealed but hostile pages and lists: typed errors, and no memory beyond what the bytes allow.
#![allow(
    clippy::type_complexity,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use backup_manifest::{
    Extent, Item, ItemKind, ItemPath, LEVEL_MAX, ListError, Metadata, PAGE_LEN_MAX, PageError,
    PageReader, Record, RecordView, StreamChecker, StreamError, TREE_ROOT_LEN_MAX, TreeRef,
    TreeRoot, WireError, decode_list,
};
use support::chunk_id;

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const HARDLINK: u8 = 3;
const DATA: u8 = 10;
const HOLE: u8 = 11;
const CONTINUED: u8 = 12;
const INLINE: u8 = 0x10;
const ATTRS: u8 = 0x20;

/// A page put together by hand, column by column.
#[derive(Default, Clone)]
struct Crafted {
    columns: [Vec<u8>; 10],
    ids: Vec<u8>,
}

impl Crafted {
    fn path(mut self, tag: u8, shared: u64, suffix: &[u8]) -> Self {
        self.columns[0].push(tag);
        put(&mut self.columns[2], shared);
        put(&mut self.columns[3], suffix.len() as u64);
        self.columns[4].extend_from_slice(suffix);
        self
    }

    /// An item whose times and inode are those before it.
    fn item(self, tag: u8, shared: u64, suffix: &[u8]) -> Self {
        self.path(tag, shared, suffix).byte(1, 0).byte(8, 0)
    }

    fn extent(mut self, tag: u8, len: u64) -> Self {
        self.columns[0].push(tag);
        self.number(5, len)
    }

    fn number(mut self, column: usize, value: u64) -> Self {
        put(&mut self.columns[column], value);
        self
    }

    fn byte(mut self, column: usize, byte: u8) -> Self {
        self.columns[column].push(byte);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        for column in &self.columns[1..9] {
            put(&mut meta, column.len() as u64);
        }
        meta.extend(self.columns.concat());
        let mut bytes = vec![0];
        put(&mut bytes, self.columns[0].len() as u64);
        put(&mut bytes, meta.len() as u64);
        [bytes, meta, self.ids.clone()].concat()
    }

    fn with_id(mut self) -> Self {
        self.ids.extend_from_slice(chunk_id(1).as_bytes());
        self
    }

    fn read(&self) -> Result<Vec<Record>, PageError> {
        PageReader::new(&self.bytes())?.collect()
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn root() -> Crafted {
    Crafted::default().item(DIRECTORY, 0, b"")
}

fn path(text: &str) -> ItemPath {
    ItemPath::from_bytes(text).expect("a valid path")
}

#[test]
fn counts_of_2_to_the_60_are_refused_before_memory_is_taken() {
    let truncated = |part| Err(PageError::Wire(WireError::Truncated { part }));
    for (bytes, part) in [
        // Records, then the length of meta, then the length of a column.
        (
            vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
            "page",
        ),
        (
            vec![0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
            "page",
        ),
        (
            vec![
                0, 1, 9, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10,
            ],
            "meta",
        ),
    ] {
        assert_eq!(PageReader::new(&bytes).map(|_| ()), truncated(part));
    }
    let mut list = vec![1];
    put(&mut list, 1 << 60);
    list.resize(1000, 0);
    assert_eq!(
        decode_list(&list, 1),
        Err(ListError::Wire(WireError::Truncated { part: "list" }))
    );
}

#[test]
fn frames_that_are_not_pages_are_refused() {
    assert!(matches!(PageReader::new(&[]), Err(PageError::Wire(_))));
    assert!(matches!(
        PageReader::new(&[1, 1]),
        Err(PageError::WrongLevel {
            level: 1,
            expected: 0
        })
    ));
    assert!(matches!(PageReader::new(&[0, 0, 0]), Err(PageError::Empty)));
    let long = vec![0; PAGE_LEN_MAX + 1];
    assert!(matches!(
        PageReader::new(&long),
        Err(PageError::TooLong { .. })
    ));
}

#[test]
fn sums_past_u64_are_refused() {
    // u64::MAX itself says "of open length", which only a stream can be.
    let open = root().item(FILE, 0, b"a").number(5, u64::MAX);
    assert!(open.extent(HOLE, 1).read().is_err());
    let big = root().item(FILE, 0, b"a").number(5, u64::MAX - 1);
    let page = big.clone().extent(HOLE, u64::MAX - 1).extent(HOLE, 1);
    assert_eq!(
        page.read(),
        Err(PageError::ContentMismatch { path: path("a") })
    );
    assert!(big.clone().extent(HOLE, u64::MAX - 1).read().is_ok());
    assert!(
        big.extent(HOLE, u64::MAX - 2)
            .extent(HOLE, 2)
            .read()
            .is_err()
    );

    let page = Crafted::default()
        .path(CONTINUED, 0, b"a")
        .number(9, u64::MAX - 5);
    assert!(page.clone().extent(HOLE, 5).read().is_ok());
    assert!(page.clone().extent(HOLE, 6).read().is_err());
    assert!(page.extent(HOLE, 3).extent(HOLE, u64::MAX).read().is_err());
}

#[test]
fn paths_that_leave_the_tree_or_their_order_are_refused() {
    assert!(
        root()
            .item(DIRECTORY, 0, b"a")
            .item(FILE, 1, b"/b")
            .number(5, 0)
            .read()
            .is_ok()
    );
    let ordered = |shared, suffix: &[u8]| {
        root()
            .item(DIRECTORY, 0, b"b")
            .item(FILE, 1, b"/bb")
            .number(5, 0)
            .item(DIRECTORY, shared, suffix)
            .read()
    };
    assert!(ordered(3, b"c").is_ok());
    for (shared, suffix) in [
        (4, &b""[..]), // twice
        (3, b"b"),     // twice, with less shared than is the same
        (3, b"a"),     // before it
        (0, b"a"),     // before its directory
        (2, b"b"),     // before it, as b/b
        (0, b"bc"),    // more is the same than is said
        (5, b"x"),     // more shared than there is
    ] {
        assert!(ordered(shared, suffix).is_err(), "{shared} {suffix:?}");
    }
    for suffix in [&b"/.."[..], b"/.", b"/", b"//x", b"/a/b", b"/a\0", b"/a/"] {
        let page = root().item(DIRECTORY, 0, b"a").item(DIRECTORY, 1, suffix);
        assert!(page.read().is_err(), "{suffix:?}");
    }
    // A name that only becomes `..` together with what it shares.
    let page = root()
        .item(DIRECTORY, 0, b"a")
        .item(DIRECTORY, 1, b"/.-")
        .item(DIRECTORY, 3, b".");
    assert!(matches!(page.read(), Err(PageError::BadPath { .. })));
    // Inside a file, and beside the root.
    let page = root()
        .item(FILE, 0, b"a")
        .number(5, 0)
        .item(FILE, 1, b"/b")
        .number(5, 0);
    assert!(matches!(page.read(), Err(PageError::ParentMissing { .. })));
    let page = Crafted::default()
        .item(FILE, 0, b"")
        .number(5, 0)
        .item(FILE, 0, b"b")
        .number(5, 0);
    assert!(matches!(page.read(), Err(PageError::ParentMissing { .. })));
    for first in [&b"/etc/passwd"[..], b"../x", b"a/../b", b"a//b", b"a\0"] {
        assert!(
            Crafted::default().item(DIRECTORY, 0, first).read().is_err(),
            "{first:?}"
        );
    }
}

#[test]
fn names_and_paths_cannot_grow_without_end() {
    let mut page = root();
    let mut len = 0;
    while len < 70_000 {
        let suffix = [b"/", &[b'd'; 1000][..]].concat();
        let suffix = if len == 0 { &suffix[1..] } else { &suffix[..] };
        page = page.item(DIRECTORY, len, suffix);
        len += suffix.len() as u64;
    }
    assert!(matches!(page.read(), Err(PageError::BadPath { .. })));
    let page = root().item(DIRECTORY, 0, &[b'd'; 1021]);
    assert!(matches!(page.read(), Err(PageError::BadPath { .. })));
}

#[test]
fn extents_stand_only_where_content_is_missing() {
    let file = root().item(FILE, 0, b"a").number(5, 10);
    assert!(file.clone().extent(DATA, 10).with_id().read().is_ok());
    let wrong = [
        file.clone(),                                       // none at all
        file.clone().extent(HOLE, 0),                       // empty
        file.clone().extent(DATA, 0).with_id(),             // empty
        file.clone().extent(DATA, 11).with_id(),            // too long
        file.clone().extent(HOLE, 10).extent(HOLE, 1),      // one too many
        file.clone().extent(HOLE, 9).item(FILE, 0, b"b"),   // one missing
        root().extent(HOLE, 1),                             // of a directory
        Crafted::default().extent(HOLE, 1),                 // of nothing
        root().item(DIRECTORY | INLINE, 0, b"a").with_id(), // inside a directory
        root().item(FILE | INLINE, 0, b"a").number(5, 0).with_id(),
        root()
            .item(FILE | INLINE, 0, b"a")
            .number(5, 1 << 25)
            .with_id(),
        root()
            .item(FILE | INLINE, 0, b"a")
            .number(5, 1 << 60)
            .with_id(),
    ];
    for (index, page) in wrong.iter().enumerate() {
        assert!(page.read().is_err(), "{index}");
    }
    // Ids that are missing or left over.
    assert!(file.clone().extent(DATA, 10).read().is_err());
    assert!(file.extent(DATA, 10).with_id().with_id().read().is_err());
    let mut page = root();
    page.ids.push(0);
    assert!(page.read().is_err());
}

#[test]
fn a_continuation_stands_first_and_inside_its_item() {
    let continued = |offset| {
        Crafted::default()
            .path(CONTINUED, 0, b"a")
            .number(9, offset)
    };
    assert!(continued(1).extent(HOLE, 1).read().is_ok());
    assert!(continued(0).extent(HOLE, 1).read().is_err());
    assert!(continued(1).read().is_err());
    assert!(continued(1).item(FILE, 0, b"b").read().is_err());
    assert!(
        root()
            .path(CONTINUED, 0, b"a")
            .number(9, 1)
            .extent(HOLE, 1)
            .read()
            .is_err()
    );
    let nested = continued(1)
        .extent(HOLE, 1)
        .item(FILE, 1, b"/b")
        .number(5, 0);
    assert!(nested.read().is_err());
}

#[test]
fn metadata_out_of_range_is_refused() {
    let item = |attrs: &[u8]| {
        let mut page = root().item(DIRECTORY | ATTRS, 0, b"a");
        page.columns[9].extend_from_slice(attrs);
        page.read()
    };
    assert!(item(&[1, 0xff, 0x1f]).is_ok());
    assert!(item(&[16, 5, 2, b'a', b'b', 1, 0]).is_ok());
    for attrs in [
        &[0][..],                           // nothing changed
        &[32],                              // unknown flag
        &[1, 0x80, 0x20],                   // mode 0o10000
        &[2, 0x80, 0x80, 0x80, 0x80, 0x10], // uid of 33 bits
        &[1, 0x80, 0x00],                   // not minimal
        &[16, 1],                           // attributes cut off
        &[16, 2, 0, 0],                     // attribute without name
        &[16, 2, 1, b'a'],                  // attribute without value
        &[16, 3, 1, 0, 0],                  // NUL in a name
        &[16, 6, 1, b'b', 0, 1, b'a', 0],   // not sorted
        &[16, 6, 1, b'a', 0, 1, b'a', 0],   // twice
        &[1, 1, 1],                         // something left over
    ] {
        assert!(item(attrs).is_err(), "{attrs:?}");
    }
    let times = |times: u8, column: usize, value: u64| {
        root()
            .path(DIRECTORY, 0, b"a")
            .byte(1, times)
            .byte(8, 0)
            .number(column, value)
            .read()
    };
    assert!(times(1, 6, 3).is_ok());
    assert!(
        times(1, 6, u64::MAX).is_err(),
        "seconds past the end of time"
    );
    assert!(
        times(3, 6, 3).is_err() && times(0x10, 6, 3).is_err(),
        "unknown codes"
    );
    assert!(times(2, 6, u64::MAX).is_ok());
    for tag in [
        13,
        14,
        15,
        0x40,
        0x80,
        DATA | ATTRS,
        HOLE | INLINE,
        CONTINUED | INLINE,
    ] {
        let page = root().item(tag, 0, b"a").number(5, 1).number(9, 1);
        assert!(
            matches!(page.read(), Err(PageError::UnknownTag { .. })),
            "{tag}"
        );
    }
}

#[test]
fn links_to_nowhere_are_refused() {
    let link = |tag: u8, extra: &[u8]| {
        let mut page = root().item(DIRECTORY, 0, b"a").item(tag, 0, b"b");
        page.columns[9].extend_from_slice(extra);
        page.read()
    };
    assert!(
        link(SYMLINK, &[2, b'.', b'.']).is_ok(),
        "a symbolic link may say anything"
    );
    assert!(link(SYMLINK, &[0]).is_err());
    assert!(link(SYMLINK, &[1, 0]).is_err());
    assert!(link(HARDLINK, &[0, 3, b'a', b'/', b'x']).is_ok());
    for extra in [
        &[0, 1, b'c'][..],                     // after it
        &[1, 0],                               // itself
        &[0, 1, b'b'],                         // itself, sharing less than is the same
        &[0, 2, b'.', b'.'],                   // outside
        &[0, 5, b'a', b'/', b'.', b'.', b'/'], // outside
        &[0, 2, b'/', b'a'],                   // absolute
        &[2, 0],                               // sharing more than there is
    ] {
        assert!(link(HARDLINK, extra).is_err(), "{extra:?}");
    }
}

#[test]
fn pages_that_do_not_fit_together_are_told() {
    let file = |at: &str, len| {
        let meta = Metadata {
            len,
            ..Metadata::default()
        };
        Record::Item(Item {
            path: path(at),
            kind: ItemKind::File,
            meta,
        })
    };
    let dir = |at: &str| {
        Record::Item(Item {
            path: path(at),
            kind: ItemKind::Directory,
            meta: Metadata::default(),
        })
    };
    let hole = |len| Record::Extent(Extent::Hole { len });
    let continued = |at: &str, offset| Record::Continued {
        path: path(at),
        offset,
    };
    let check = |records: &[Record]| {
        let mut checker = StreamChecker::new();
        for record in records {
            checker.record(&record.view())?;
        }
        checker.finish()
    };
    let good = [
        dir(""),
        file("a", 9),
        hole(4),
        continued("a", 4),
        hole(5),
        dir("b"),
        file("b/c", 0),
    ];
    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&[]), Ok(()));
    let bad: [&[Record]; 12] = [
        &[hole(1)],
        &[continued("a", 4), hole(5)],
        &[dir(""), file("a", 9), hole(4), continued("a", 5), hole(4)],
        &[dir(""), file("a", 9), hole(4), continued("b", 4), hole(5)],
        &[dir(""), file("a", 9), continued("a", 0), hole(9)],
        &[dir(""), file("a", 9), hole(9), continued("a", 9), hole(1)],
        &[
            dir(""),
            file("a", 9),
            hole(4),
            continued("a", 4),
            hole(4),
            file("b", 0),
        ],
        &[dir(""), file("a", 9), hole(4)],
        &[dir(""), file("b", 0), file("a", 0)],
        &[dir(""), file("a", 0), file("a", 0)],
        &[dir(""), file("a/b", 0)],
        &[dir("a"), dir("b")],
    ];
    for (index, records) in bad.iter().enumerate() {
        assert!(check(records).is_err(), "{index}");
    }
    let mut checker = StreamChecker::new();
    checker.page(&entry(1, "a", 0));
    let error = checker.record(&RecordView::Item(match &good[0] {
        Record::Item(item) => item.view(),
        _ => unreachable!("the first is an item"),
    }));
    assert_eq!(
        error,
        Err(StreamError::NotAsListed {
            path: path("a"),
            offset: 0
        })
    );
    checker.page(&entry(1, "a", 0));
    assert!(checker.finish().is_err(), "an announced page is missing");
}

fn entry(id: u64, first: &str, first_offset: u64) -> TreeRef {
    TreeRef {
        id: chunk_id(id),
        len: 1000,
        first: path(first),
        first_offset,
    }
}

fn list(level: u8, entries: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
    let mut bytes = vec![level];
    put(&mut bytes, entries.len() as u64);
    for (len, shared, suffix, offset) in entries {
        bytes.extend_from_slice(chunk_id(1).as_bytes());
        put(&mut bytes, *len);
        put(&mut bytes, *shared);
        put(&mut bytes, suffix.len() as u64);
        bytes.extend_from_slice(suffix);
        put(&mut bytes, *offset);
    }
    bytes
}

#[test]
fn lists_that_are_not_valid_are_refused() {
    assert!(
        decode_list(
            &list(1, &[(9, 0, b"a", 0), (9, 1, b"", 3), (9, 1, b"/b", 0)]),
            1
        )
        .is_ok()
    );
    let bad: [&[(u64, u64, &[u8], u64)]; 11] = [
        &[],
        &[(0, 0, b"a", 0)],
        &[(1 << 40, 0, b"a", 0)],
        &[(PAGE_LEN_MAX as u64 + 1, 0, b"a", 0)],
        &[(9, 0, b"..", 0)],
        &[(9, 1, b"a", 0)],
        &[(9, 0, b"b", 0), (9, 0, b"a", 0)],
        &[(9, 0, b"b", 0), (9, 1, b"", 0)],
        &[(9, 0, b"b", 5), (9, 1, b"", 5)],
        &[(9, 0, b"b", 0), (9, 0, b"b", 1)],
        &[(9, 0, b"b", 0), (9, 1, b"//", 0)],
    ];
    for (index, entries) in bad.iter().enumerate() {
        assert!(decode_list(&list(1, entries), 1).is_err(), "{index}");
    }
    let good = list(1, &[(9, 0, b"a", 0)]);
    let mut long = good.clone();
    long.push(0);
    assert!(decode_list(&long, 1).is_err());
    for len in 0..good.len() {
        assert!(decode_list(&good[..len], 1).is_err());
    }
    assert!(decode_list(&vec![1; PAGE_LEN_MAX + 1], 1).is_err());
}

#[test]
fn levels_descend_so_that_no_list_can_hold_itself() {
    let top = list(2, &[(9, 0, b"a", 0)]);
    assert!(decode_list(&top, 2).is_ok());
    // Whatever bytes an entry of it leads to, they have to be of level 1, and then of level 0.
    assert_eq!(
        decode_list(&top, 1),
        Err(ListError::WrongLevel {
            level: 2,
            expected: 1
        })
    );
    assert!(matches!(
        PageReader::new(&top),
        Err(PageError::WrongLevel {
            level: 2,
            expected: 0
        })
    ));
    for level in [0, LEVEL_MAX + 1, 255] {
        assert!(decode_list(&list(level, &[(9, 0, b"a", 0)]), level).is_err());
        assert!(TreeRoot::decode(&list(level, &[(9, 0, b"a", 0)])).is_err());
    }
}

#[test]
fn front_coding_cannot_multiply_memory() {
    let long = [&b"d".repeat(1000)[..], b"/"].concat().repeat(64);
    let long = &long[..64_000];
    let mut entries = vec![(9, 0, long, 0)];
    for offset in 1..1000 {
        entries.push((9, long.len() as u64, b"", offset));
    }
    let bytes = list(1, &entries);
    assert!(bytes.len() < 128 * 1024, "{}", bytes.len());
    assert_eq!(decode_list(&bytes, 1), Err(ListError::PathsTooLong));
}

#[test]
fn roots_are_bounded() {
    let refs = (0..3_000).map(|id| entry(id, "a", id)).collect();
    let error = TreeRoot { level: 1, refs }
        .encode()
        .expect_err("3,000 entries are too many");
    assert!(matches!(
        error,
        ListError::TooLong {
            len_max: TREE_ROOT_LEN_MAX,
            ..
        }
    ));
    for (level, refs) in [
        (0, vec![]),
        (9, vec![]),
        (1, vec![entry(1, "b", 0), entry(2, "a", 0)]),
    ] {
        assert!(TreeRoot { level, refs }.encode().is_err());
    }
    assert_eq!(TreeRoot::decode(&[2, 0]), Err(ListError::Empty));
    assert_eq!(TreeRoot::decode(&[1, 0]), Ok(TreeRoot::empty()));
}
