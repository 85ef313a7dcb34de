use std::time::Duration;

use backup::{
    Copied, CopyOptions, CopyReport, Repository, Selection, SnapshotFilter, copy, find_snapshot,
};
use serde_json::{Value, json};

use crate::args::{CopyArguments, GlobalArguments};
use crate::commands::backup::host_name;
use crate::failure::Failure;
use crate::place;
use crate::progress::Progress;
use crate::text;
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: CopyArguments,
) -> Result<Outcome, Failure> {
    let from = place::open(ui, global).await?;
    let to = place::open(ui, &arguments.target(global)).await?;
    let which = selection(&from, &arguments).await?;
    let mut options = CopyOptions::default();
    options.zstd_level = arguments.zstd_level;
    options.host = host_name();
    if let Some(memory) = arguments.memory {
        options.memory_len_max = usize::try_from(memory).unwrap_or(usize::MAX);
    }
    let progress = Progress::start(ui, "copy");
    let report = copy(&from, &to, &which, &options, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    ui.result(&document(&report, time), || summary(&report, time))?;
    Ok(Outcome::complete_if(report.is_complete()))
}

async fn selection(from: &Repository, arguments: &CopyArguments) -> Result<Selection, Failure> {
    if arguments.snapshots.is_empty() {
        let mut filter = SnapshotFilter::default();
        filter.source.clone_from(&arguments.source);
        filter.tags.clone_from(&arguments.tag);
        filter.host.clone_from(&arguments.host);
        return Ok(Selection::Matching(filter));
    }
    let mut ids = Vec::new();
    for name in &arguments.snapshots {
        ids.push(find_snapshot(from, name).await?.session);
    }
    Ok(Selection::These(ids))
}

fn document(report: &CopyReport, time: Duration) -> Value {
    let pairs = |pairs: &[Copied]| -> Vec<Value> {
        let pairs = pairs.iter();
        pairs
            .map(|pair| json!({ "snapshot": pair.from, "copy": pair.to }))
            .collect()
    };
    let failed = report.failed.iter();
    let failed = failed.map(|f| json!({ "snapshot": f.snapshot, "reason": f.reason }));
    json!({
        "complete": report.is_complete(),
        "copied": pairs(&report.copied),
        "present": pairs(&report.present),
        "failed": failed.collect::<Vec<_>>(),
        "bytes": report.bytes,
        "bytes_read": report.bytes_read,
        "bytes_new": report.bytes_new,
        "chunks": report.chunks,
        "chunks_new": report.chunks_new,
        "packs_stored": report.packs_stored,
        "bytes_stored": report.bytes_stored,
        "seconds": time.as_secs_f64(),
    })
}

fn summary(report: &CopyReport, time: Duration) -> String {
    let mut text = String::new();
    for Copied { from, to, .. } in &report.copied {
        let (from, to) = (text::short(from), text::short(to));
        text.push_str(&format!("snapshot {from} copied as {to}\n"));
    }
    for failed in &report.failed {
        let (snapshot, why) = (text::short(&failed.snapshot), text::clean(&failed.reason));
        text.push_str(&format!("not copied: snapshot {snapshot}: {why}\n"));
    }
    text.push_str(&format!(
        "{} copied, {} there already, {} failed; {}, {} read, {} new, {} stored in {}\n",
        text::counted(report.copied.len() as u64, "snapshot"),
        text::count(report.present.len() as u64),
        text::count(report.failed.len() as u64),
        text::bytes(report.bytes),
        text::bytes(report.bytes_read),
        text::bytes(report.bytes_new),
        text::bytes(report.bytes_stored),
        text::seconds(time),
    ));
    text
}
