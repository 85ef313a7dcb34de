//! Encoding and decoding 200,000 items. The goal is 60 ms each on one core.
#![allow(clippy::expect_used, reason = "a bench that fails may panic")]
#![allow(
    missing_docs,
    reason = "criterion's macros write undocumented functions"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use backup_manifest::{Page, PageParams, PageReader, PageWriter, RecordView, StreamChecker};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Entry, made_up_tree, pages};

fn encode(entries: &[Entry]) -> usize {
    let mut writer = PageWriter::new(PageParams::default());
    let mut len = 0;
    let mut add = |page: Option<Page>| len += page.map_or(0, |page| page.bytes.len());
    for (item, extents) in entries {
        add(writer.push_item(item).expect("a valid stream"));
        for extent in extents {
            add(writer.push_extent(*extent).expect("a valid stream"));
        }
    }
    add(writer.finish().expect("a valid stream"));
    len
}

fn decode(pages: &[Page]) -> u64 {
    let mut len = 0;
    for page in pages {
        let mut reader = PageReader::new(&page.bytes).expect("a valid page");
        while let Some(record) = reader.next_record().expect("a valid page") {
            if let RecordView::Item(item) = record {
                len += item.meta.len + item.path.as_bytes().len() as u64;
            }
        }
    }
    len
}

/// Decode a parent, check the stream, and encode it again: what an unchanged tree costs.
fn copy(pages: &[Page]) -> usize {
    let mut writer = PageWriter::new(PageParams::default());
    let mut checker = StreamChecker::new();
    let mut len = 0;
    for page in pages {
        let mut reader = PageReader::new(&page.bytes).expect("a valid page");
        while let Some(record) = reader.next_record().expect("a valid page") {
            checker.record(&record).expect("a valid stream");
            let page = match record {
                RecordView::Item(item) => writer.push_item(item),
                RecordView::Extent(extent) => writer.push_extent(extent),
                RecordView::Continued { .. } => Ok(None),
            };
            len += page
                .expect("a valid stream")
                .map_or(0, |page| page.bytes.len());
        }
    }
    len
}

fn benches(criterion: &mut Criterion) {
    let entries = made_up_tree(200_000);
    let pages = pages(&entries, PageParams::default());
    criterion.bench_function("encode 200,000 items", |b| {
        b.iter(|| encode(black_box(&entries)))
    });
    criterion.bench_function("decode 200,000 items", |b| {
        b.iter(|| decode(black_box(&pages)))
    });
    criterion.bench_function("decode, check and encode 200,000 items", |b| {
        b.iter(|| copy(black_box(&pages)))
    });
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20);
    targets = benches
}
criterion_main!(all);
