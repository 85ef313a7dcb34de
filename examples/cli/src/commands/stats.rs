use backup::{Promise, RepositoryStats, StoreProbe, stats};
use serde_json::{Value, json};

use crate::args::GlobalArguments;
use crate::failure::Failure;
use crate::ui::{Outcome, Ui};
use crate::{place, text};

pub(crate) async fn run(ui: &Ui, global: &GlobalArguments) -> Result<Outcome, Failure> {
    let repo = place::open(ui, global).await?;
    let found = stats(&repo).await?;
    let id = repo.id().to_string();
    ui.result(&document(&id, &found), || summary(&id, &found))?;
    Ok(Outcome::Complete)
}

fn document(id: &str, stats: &RepositoryStats) -> Value {
    json!({
        "repository": id,
        "snapshots": stats.snapshots,
        "sources": stats.sources,
        "objects": stats.objects,
        "bytes": stats.bytes,
        "packs": stats.packs,
        "pack_bytes": stats.pack_bytes,
        "data_packs": stats.data_packs,
        "tree_packs": stats.tree_packs,
        "segments": stats.segments,
        "segment_bytes": stats.segment_bytes,
        "chunks": stats.chunks,
        "chunk_bytes": stats.chunk_bytes,
        "ratio": text::ratio(stats.chunk_bytes, stats.bytes),
        "store": probe_document(&stats.probe),
    })
}

pub(crate) fn probe_document(probe: &StoreProbe) -> Value {
    let word = |promise| match promise {
        Promise::Kept => "kept",
        Promise::Broken => "broken",
        Promise::NotClaimed => "not_claimed",
        _ => "unknown",
    };
    json!({
        "create_if_absent": word(probe.create_if_absent),
        "consistent_list": word(probe.consistent_list),
    })
}

fn summary(id: &str, stats: &RepositoryStats) -> String {
    let promise = |promise| {
        let text = match promise {
            Promise::Kept => "yes, as tried",
            Promise::Broken => "NO, as tried: collect garbage only while nobody writes",
            Promise::NotClaimed => "no: collect garbage only while nobody writes",
            _ => "not known: it could not be tried",
        };
        text.to_owned()
    };
    text::pairs(&[
        ("repository", id.to_owned()),
        (
            "snapshots",
            format!(
                "{} of {}",
                text::count(stats.snapshots),
                text::counted(stats.sources, "source")
            ),
        ),
        (
            "objects",
            format!(
                "{}, {}",
                text::count(stats.objects),
                text::bytes(stats.bytes)
            ),
        ),
        (
            "packs",
            format!(
                "{} ({} data, {} tree), {}",
                text::count(stats.packs),
                text::count(stats.data_packs),
                text::count(stats.tree_packs),
                text::bytes(stats.pack_bytes)
            ),
        ),
        (
            "index segments",
            format!(
                "{}, {}",
                text::count(stats.segments),
                text::bytes(stats.segment_bytes)
            ),
        ),
        (
            "chunks",
            format!(
                "{}, {} before compression",
                text::count(stats.chunks),
                text::bytes(stats.chunk_bytes)
            ),
        ),
        (
            "compression",
            format!(
                "{:.2} (each chunk counted once)",
                text::ratio(stats.chunk_bytes, stats.bytes)
            ),
        ),
        (
            "creates never overwrite",
            promise(stats.probe.create_if_absent),
        ),
        ("lists are consistent", promise(stats.probe.consistent_list)),
    ])
}
