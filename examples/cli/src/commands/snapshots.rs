use std::collections::BTreeMap;

use backup::{
    Decision, SessionId, SnapshotFilter, SnapshotManifest, Verdict, decisions, snapshots,
};
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
    filter.forgotten = arguments.forgotten;
    let found = snapshots(&repo, &filter).await?;
    let decided = decisions(&repo).await?;
    let row = |snapshot| document(snapshot, &decided);
    let documents: Vec<Value> = found.iter().map(row).collect();
    ui.result(&json!({ "snapshots": documents }), || {
        table(&found, &decided, arguments.forgotten)
    })?;
    Ok(Outcome::Complete)
}

type Decisions = BTreeMap<SessionId, Decision>;

/// The decision about a snapshot, if it is this one.
fn decision<'a>(
    snapshot: &SnapshotManifest,
    decisions: &'a Decisions,
    verdict: Verdict,
) -> Option<&'a Decision> {
    let decision = decisions.get(&snapshot.session);
    decision.filter(|decision| decision.verdict == verdict)
}

fn document(snapshot: &SnapshotManifest, decisions: &Decisions) -> Value {
    let forgotten = decision(snapshot, decisions, Verdict::Forget);
    let forgotten = forgotten.map(
        |decision| json!({ "at": text::time_utc(decision.decided_ns), "reason": decision.reason }),
    );
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
        "held": decision(snapshot, decisions, Verdict::Hold).is_some(),
        "forgotten": forgotten,
    })
}

fn table(snapshots: &[SnapshotManifest], decisions: &Decisions, is_forgotten: bool) -> String {
    if snapshots.is_empty() {
        return "no snapshots".to_owned();
    }
    let mut columns = vec![
        ("SNAPSHOT", Align::Left),
        ("FINISHED", Align::Left),
        ("KIND", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("SOURCE", Align::Left),
        ("TAGS", Align::Left),
    ];
    if is_forgotten {
        columns.extend([("GIVEN UP", Align::Left), ("WHY", Align::Left)]);
    }
    let row = |snapshot: &SnapshotManifest| {
        let is_held = decision(snapshot, decisions, Verdict::Hold).is_some();
        let mark = match (snapshot.complete, is_held) {
            (true, false) => "",
            (true, true) => " (held)",
            (false, false) => " (not complete)",
            (false, true) => " (not complete, held)",
        };
        let mut cells = vec![
            text::short(&snapshot.session),
            text::time_local(snapshot.finished_ns),
            snapshot.kind.name().to_owned(),
            text::count(snapshot.stats.files),
            text::bytes(snapshot.stats.bytes),
            format!("{}{mark}", text::clean(&snapshot.source)),
            text::clean(&snapshot.tags.join(",")),
        ];
        if let Some(decision) = decision(snapshot, decisions, Verdict::Forget) {
            cells.push(text::time_local(decision.decided_ns));
            cells.push(text::clean(&decision.reason));
        }
        cells
    };
    text::table(&columns, &snapshots.iter().map(row).collect::<Vec<_>>())
}
