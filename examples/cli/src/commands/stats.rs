use backup::{RepositoryStats, stats};
use serde_json::{Value, json};

use crate::args::GlobalArguments;
use crate::failure::Failure;
use crate::ui::{Outcome, Ui};
use crate::{place, text};

pub(crate) async fn run(ui: &Ui, global: &GlobalArguments) -> Result<Outcome, Failure> {
    let repo = place::open(global).await?;
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
        "capabilities": {
            "create_if_absent": stats.capabilities.create_if_absent,
            "consistent_list": stats.capabilities.consistent_list,
        },
    })
}

fn summary(id: &str, stats: &RepositoryStats) -> String {
    let promise = |kept: bool| {
        if kept {
            "yes"
        } else {
            "no: collect garbage only while nobody writes"
        }
        .to_owned()
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
            promise(stats.capabilities.create_if_absent),
        ),
        (
            "lists are consistent",
            promise(stats.capabilities.consistent_list),
        ),
    ])
}
