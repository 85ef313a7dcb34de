//! Lists and the tree they make.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashMap;

use backup_core::ChunkId;
use backup_manifest::{
    ItemPath, ListError, ListWriter, Page, PageParams, TREE_ROOT_LEN_MAX, TreeBuilder, TreeRef,
    TreeRoot, TreeStep, decode_list,
};
use proptest::prelude::*;
use support::{Random, chunk_id};

const TINY: PageParams = PageParams {
    len_min: 100,
    len_target: 2_000,
    len_max: 4_000,
};

/// A stand-in for the store: keeps lists under made-up ids.
#[derive(Default)]
struct Store {
    lists: HashMap<ChunkId, (u8, Vec<u8>)>,
}

impl Store {
    fn put(&mut self, level: u8, list: Page) -> TreeRef {
        // The same bytes get the same id, as they will in a repository.
        let seed = list.bytes.iter().fold(u64::from(level), |seed, &byte| {
            Random(seed ^ u64::from(byte)).next()
        });
        let len = list.bytes.len() as u32;
        self.lists.insert(chunk_id(seed), (level, list.bytes));
        TreeRef {
            id: chunk_id(seed),
            len,
            first: list.first,
            first_offset: list.first_offset,
        }
    }

    fn build(&mut self, pages: &[TreeRef], params: PageParams) -> TreeRoot {
        let mut builder = TreeBuilder::new(params);
        for page in pages {
            self.push(&mut builder, 0, page.clone());
        }
        loop {
            match builder.finish().expect("a valid tree") {
                TreeStep::Store { level, list } => {
                    let entry = self.put(level, list);
                    self.push(&mut builder, level, entry);
                }
                TreeStep::Root(root) => return root,
            }
        }
    }

    fn push(&mut self, builder: &mut TreeBuilder, level: u8, entry: TreeRef) {
        let mut next = builder.push(level, entry).expect("a valid tree");
        while let Some((level, list)) = next {
            let entry = self.put(level, list);
            next = builder.push(level, entry).expect("a valid tree");
        }
    }

    fn leaves(&self, level: u8, refs: &[TreeRef], leaves: &mut Vec<TreeRef>) {
        if level == 1 {
            leaves.extend_from_slice(refs);
            return;
        }
        for entry in refs {
            let (stored, bytes) = &self.lists[&entry.id];
            assert_eq!(*stored, level - 1);
            assert_eq!(bytes.len(), entry.len as usize);
            let below = decode_list(bytes, level - 1).expect("a valid list");
            assert_eq!(
                (&below[0].first, below[0].first_offset),
                (&entry.first, entry.first_offset)
            );
            self.leaves(level - 1, &below, leaves);
        }
    }
}

fn page_refs(count: u64) -> Vec<TreeRef> {
    let entry = |n: u64| {
        // Three pages an item.
        let first = ItemPath::from_bytes(format!("directory/{:06}", n / 3)).expect("a valid path");
        TreeRef {
            id: chunk_id(n),
            len: 60_000 + n as u32 % 1000,
            first,
            first_offset: n % 3 * 1_000_000,
        }
    };
    (0..count).map(entry).collect()
}

fn check(pages: &[TreeRef], params: PageParams) -> TreeRoot {
    let mut store = Store::default();
    let root = store.build(pages, params);
    let bytes = root.encode().expect("a root that fits");
    assert!(bytes.len() <= TREE_ROOT_LEN_MAX);
    assert_eq!(TreeRoot::decode(&bytes), Ok(root.clone()));
    let mut leaves = Vec::new();
    store.leaves(root.level, &root.refs, &mut leaves);
    assert_eq!(leaves, pages);
    root
}

#[test]
fn trees_of_any_size_end_in_a_root_that_fits() {
    assert_eq!(check(&[], TINY), TreeRoot::empty());
    for count in [1, 2, 30, 1_000, 10_000, 40_000] {
        check(&page_refs(count), TINY);
        let root = check(&page_refs(count), PageParams::default());
        assert!(root.level <= 2, "{count} pages: level {}", root.level);
    }
}

#[test]
fn one_changed_page_changes_one_list_a_level() {
    let mut pages = page_refs(40_000);
    let mut store = Store::default();
    store.build(&pages, PageParams::default());
    let before = store.lists.len();
    assert!(before > 10);
    pages[20_000].id = chunk_id(1 << 40);
    store.build(&pages, PageParams::default());
    assert!(store.lists.len() - before <= 3);
}

#[test]
fn long_paths_do_not_stop_levels_from_shrinking() {
    let long = [&b"d".repeat(1000)[..], b"/"].concat().repeat(40);
    let entry = |n: u64| {
        // Nothing is shared: the longest entries there are.
        let mut path = format!("{n:05}/").into_bytes();
        path.extend_from_slice(&long);
        path.pop();
        let first = ItemPath::from_bytes(path).expect("a valid path");
        TreeRef {
            id: chunk_id(n),
            len: 9,
            first,
            first_offset: 0,
        }
    };
    let pages: Vec<TreeRef> = (0..600).map(entry).collect();
    let root = check(&pages, PageParams::default());
    assert!(root.level <= 4, "level {}", root.level);
}

#[test]
fn order_holds_from_list_to_list() {
    let mut writer = ListWriter::new(
        1,
        PageParams {
            len_min: 0,
            len_target: 0,
            len_max: 0,
        },
    )
    .expect("a level");
    let pages = page_refs(16);
    let mut lists = 0;
    for page in &pages {
        lists += usize::from(writer.push(page).expect("in order").is_some());
    }
    assert_eq!(lists, 1);
    assert!(matches!(
        writer.push(&pages[15]),
        Err(ListError::OutOfOrder { .. })
    ));
    assert!(matches!(
        writer.push(&pages[0]),
        Err(ListError::OutOfOrder { .. })
    ));
    assert!(ListWriter::new(0, TINY).is_err() && ListWriter::new(9, TINY).is_err());
    assert!(TreeBuilder::new(TINY).push(8, pages[0].clone()).is_err());
    assert!(TreeBuilder::new(TINY).push(255, pages[0].clone()).is_err());
}

proptest! {
    #[test]
    fn damaged_lists_are_valid_or_errors(count in 1..20_u64, at in any::<usize>(), flip in 1..=255_u8) {
        let root = TreeRoot { level: 1, refs: page_refs(count) };
        let bytes = root.encode().expect("a valid root");
        let at = at % bytes.len();
        let mut damaged = bytes.clone();
        damaged[at] ^= flip;
        if let Ok(decoded) = TreeRoot::decode(&damaged) {
            // What is accepted has one form only.
            prop_assert_eq!(decoded.encode(), Ok(damaged));
        }
        prop_assert!(TreeRoot::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn noise_is_valid_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for level in 0..3 {
            let mut list = vec![level];
            list.extend_from_slice(&bytes);
            let _ = decode_list(&list, level);
            let _ = TreeRoot::decode(&list);
        }
    }
}
