use backup::{SnapshotFilter, SnapshotManifest, snapshots};
use serde_json::{Value, json};

use crate::args::{GlobalArguments, SnapshotsArguments};
use crate::failure::Failure;
use crate::place;
use crate::text::{self, Align};
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: SnapshotsArguments,
) -> Result<Outcome, Failure> {
    let repo = place::open(ui, global).await?;
    let mut filter = SnapshotFilter::default();
    filter.source = arguments.source;
    filter.tags = arguments.tag;
    filter.host = arguments.host;
    let found = snapshots(&repo, &filter).await?;
    let documents: Vec<Value> = found.iter().map(document).collect();
    ui.result(&json!({ "snapshots": documents }), || table(&found))?;
    Ok(Outcome::Complete)
}

fn document(snapshot: &SnapshotManifest) -> Value {
    json!({
        "snapshot": snapshot.session,
        "name": snapshot.source,
        "kind": snapshot.kind.name(),
        "host": snapshot.host,
        "tags": snapshot.tags,
        "started": text::time_utc(snapshot.started_ns),
        "finished": text::time_utc(snapshot.finished_ns),
        "previous": snapshot.previous.as_ref().map(|previous| previous.id),
        "items": snapshot.stats.items,
        "files": snapshot.stats.files,
        "bytes": snapshot.stats.bytes,
        "complete": snapshot.complete,
        "skipped_count": snapshot.skipped_count,
        "skipped": super::skipped_json(&snapshot.skipped),
        "program": snapshot.program,
    })
}

fn table(snapshots: &[SnapshotManifest]) -> String {
    if snapshots.is_empty() {
        return "no snapshots".to_owned();
    }
    let columns = [
        ("SNAPSHOT", Align::Left),
        ("FINISHED", Align::Left),
        ("KIND", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("SOURCE", Align::Left),
        ("TAGS", Align::Left),
    ];
    let row = |snapshot: &SnapshotManifest| {
        let mark = if snapshot.complete {
            ""
        } else {
            " (not complete)"
        };
        vec![
            text::short(&snapshot.session),
            text::time_local(snapshot.finished_ns),
            snapshot.kind.name().to_owned(),
            text::count(snapshot.stats.files),
            text::bytes(snapshot.stats.bytes),
            format!("{}{mark}", text::clean(&snapshot.source)),
            text::clean(&snapshot.tags.join(",")),
        ]
    };
    text::table(&columns, &snapshots.iter().map(row).collect::<Vec<_>>())
}
