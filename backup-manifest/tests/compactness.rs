//! What an item costs once its page is compressed. Ignored by default, since it reads directories of this machine:
//! `cargo test -p backup-manifest --release --test compactness -- --ignored --nocapture`
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;

use backup_core::ChunkId;
use backup_manifest::{PageParams, PageReader, Record};
use support::{Entry, made_up_tree, pages, walk};

#[test]
#[ignore = "a measurement over directories of this machine"]
fn bytes_per_item() {
    println!(
        "{:24} {:>8} {:>7} {:>8} {:>8} {:>8}",
        "set", "items", "pages", "raw", "beyond", "zstd 3"
    );
    report("made up", &made_up_tree(200_000));
    let tops = "/usr/share /usr/lib /root/.cargo/registry /root/.rustup";
    for top in std::option_env!("COMPACTNESS").unwrap_or(tops).split(' ') {
        report(top, &walk(Path::new(top), 400_000));
    }
}

/// Bytes an item: as written; the same without the ids; that after compression in blocks of 1 MiB.
fn report(name: &str, entries: &[Entry]) {
    let pages = pages(entries, PageParams::default());
    let raw: usize = pages.iter().map(|page| page.bytes.len()).sum();
    let ids: usize = entries
        .iter()
        .map(|(_, extents)| ChunkId::LEN * extents.len())
        .sum();
    let mut packed = 0;
    let mut block = Vec::new();
    for (index, page) in pages.iter().enumerate() {
        block.extend_from_slice(&page.bytes);
        if block.len() >= 1 << 20 || index + 1 == pages.len() {
            packed += zstd::bulk::compress(&block, 3)
                .expect("zstd compresses")
                .len();
            block.clear();
        }
    }
    let each = |bytes: usize| bytes as f64 / entries.len() as f64;
    println!(
        "{name:24} {:8} {:7} {:8.2} {:8.2} {:8.2}",
        entries.len(),
        pages.len(),
        each(raw),
        each(raw - ids),
        each(packed) - each(ids),
    );
    let read = pages
        .iter()
        .flat_map(|page| PageReader::new(&page.bytes).expect("a valid page"));
    let items = read
        .filter(|record| matches!(record, Ok(Record::Item(_))))
        .count();
    assert_eq!(items, entries.len());
}
