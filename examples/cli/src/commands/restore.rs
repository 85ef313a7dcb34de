use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use backup::{
    Ownership, Repository, RestoreOptions, RestoreReport, RestoreTarget, SnapshotKind,
    SnapshotManifest, find_snapshot, list, restore,
};
use futures::stream::TryStreamExt;
use serde_json::{Value, json};

use crate::args::{ByteSpan, GlobalArguments, Owner, RestoreArguments, is_dash};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::ui::{Outcome, Ui};
use crate::{commands, place, text};

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: RestoreArguments,
) -> Result<Outcome, Failure> {
    let mut options = RestoreOptions::default();
    let paths = arguments.path.iter().map(|path| commands::item_path(path));
    options.paths = paths.collect::<Result<Vec<_>, _>>()?;
    options.paths.retain(|path| !path.is_root());
    options.into_existing = arguments.into_existing;
    options.ownership = match arguments.owner {
        Owner::Auto => Ownership::Auto,
        Owner::Restore => Ownership::Restore,
        Owner::Ignore => Ownership::Ignore,
    };
    let repo = place::open(ui, global).await?;
    let snapshot = find_snapshot(&repo, &arguments.snapshot).await?;
    let target = target(&arguments, snapshot.kind)?;
    if let Some(span) = &arguments.range {
        options.range = Some(range(&repo, &snapshot, &options, span).await?);
    }

    let progress = Progress::start(ui, "restore");
    let report = restore(&repo, &snapshot.session, target, &options, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    let document = document(&arguments.target, &snapshot, &report, time);
    let text = || summary(&arguments.target, &snapshot, &report, time);
    if is_dash(&arguments.target) {
        // Stdout is full of what was restored.
        if ui.json || !ui.quiet {
            ui.result_on(&mut io::stderr(), &document, text)?;
        }
    } else {
        ui.result(&document, text)?;
    }
    Ok(Outcome::complete_if(report.is_complete()))
}

fn target(arguments: &RestoreArguments, kind: SnapshotKind) -> Result<RestoreTarget, Failure> {
    let path = &arguments.target;
    let unsuitable = |reason| {
        Err(Failure::UnsuitableTarget {
            target: path.clone(),
            reason,
        })
    };
    if is_dash(path) {
        // Without the line buffer of `Stdout`.
        let stdout = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Failure::Output { source })?;
        return Ok(RestoreTarget::Writer(Box::new(File::from(stdout))));
    }
    if kind == SnapshotKind::Tree {
        return Ok(RestoreTarget::Directory(path.clone()));
    }
    match path.metadata().map(|found| found.file_type()) {
        Ok(found) if found.is_block_device() && !arguments.into_existing => {
            unsuitable("it is a device, which would be overwritten: --into-existing allows it")
        }
        Ok(found) if found.is_block_device() => Ok(RestoreTarget::Device(path.clone())),
        Ok(found) if found.is_dir() => {
            unsuitable("it is a directory, and the snapshot is of a volume or stream: name a file")
        }
        _ => Ok(RestoreTarget::File(path.clone())),
    }
}

/// A range without end reaches to the end of the content.
async fn range(
    repo: &Repository,
    snapshot: &SnapshotManifest,
    options: &RestoreOptions,
    span: &ByteSpan,
) -> Result<Range<u64>, Failure> {
    let end = match (span.end, options.paths.first()) {
        (Some(end), _) => end,
        (None, None) => snapshot.stats.bytes,
        (None, Some(path)) => {
            let mut items = Box::pin(list(repo, snapshot, Some(path.clone())).await?);
            items.try_next().await?.map_or(0, |item| item.meta.len)
        }
    };
    Ok(span.start..end.max(span.start))
}

fn document(
    target: &Path,
    snapshot: &SnapshotManifest,
    report: &RestoreReport,
    time: Duration,
) -> Value {
    json!({
        "snapshot": snapshot.session,
        "name": snapshot.source,
        "kind": snapshot.kind.name(),
        "target": target.to_string_lossy(),
        "items": report.items,
        "files": report.files,
        "bytes": report.bytes,
        "seconds": time.as_secs_f64(),
        "complete": report.is_complete(),
        "skipped_count": report.skipped_count,
        "skipped": super::skipped_json(&report.skipped),
        "unset_count": report.unset_count,
        "unset": super::skipped_json(&report.unset),
    })
}

fn summary(
    target: &Path,
    snapshot: &SnapshotManifest,
    report: &RestoreReport,
    time: Duration,
) -> String {
    let mut text = format!(
        "restored {} of {} to {}: {}, {}, {} in {}\n",
        text::short(&snapshot.session),
        text::clean(&snapshot.source),
        text::clean(&target.to_string_lossy()),
        text::counted(report.items, "item"),
        text::counted(report.files, "file"),
        text::bytes(report.bytes),
        text::seconds(time),
    );
    for item in &report.unset {
        text.push_str(&format!(
            "  not as it was: {}: {}\n",
            item.path,
            text::clean(&item.reason)
        ));
    }
    let named = report.unset.len() as u64;
    if report.unset_count > named {
        text.push_str(&format!(
            "  not as it was: {} more\n",
            text::count(report.unset_count - named)
        ));
    }
    if report.skipped_count > 0 {
        let skipped = text::counted(report.skipped_count, "item");
        text.push_str(&format!(
            "  not complete: {skipped} skipped, as named above\n"
        ));
    }
    text
}
