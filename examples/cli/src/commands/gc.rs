use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backup::{GcOptions, GcReport, gc};
use serde_json::{Value, json};

use crate::args::{GcArguments, GlobalArguments};
use crate::failure::Failure;
use crate::place::{self, Place};
use crate::progress::Progress;
use crate::text;
use crate::ui::{Outcome, Ui};
use crate::unlock::variable;

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: GcArguments,
) -> Result<Outcome, Failure> {
    let mut options = options(&arguments);
    // Every pack that a round condemns would be refused, and the round stay open for as long.
    if let Some(locked_for) = global.s3.locked_for()
        && options.pack_age_min < locked_for
    {
        return Err(Failure::LockedLonger);
    }
    let repo = place::open(ui, global).await?;
    options.cache = cache(ui, &arguments)?;
    if matches!(Place::of(global)?, Place::Local(_)) && arguments.requests_per_second.is_none() {
        options.requests_per_second = None;
    }
    let progress = Progress::start(ui, "gc");
    let report = gc(&repo, &options, &progress).await?;
    let time = progress.elapsed();
    drop(progress);
    let mut document = document(&report);
    document["dry_run"] = json!(arguments.dry_run);
    document["seconds"] = json!(time.as_secs_f64());
    ui.result(&document, || summary(&arguments, &report, time))?;
    Ok(Outcome::complete_if(report.is_complete()))
}

fn options(arguments: &GcArguments) -> GcOptions {
    let mut options = GcOptions::default();
    options.dry_run = arguments.dry_run;
    options.pack_age_min = arguments.pack_age_min.time;
    options.undelete_window = arguments.undelete_window.time;
    options.lease = arguments.lease.time;
    options.poll = arguments.poll.time;
    options.repack_dead_percent_min = arguments.repack_dead_percent;
    options.repack_len_max = match arguments.no_repack {
        true => 0,
        false => arguments.repack_max,
    };
    options.delete_percent_max = arguments.max_delete_percent;
    options.force = arguments.force;
    options.exclusive = arguments.exclusive;
    if let Some(requests) = arguments.requests_per_second {
        options.requests_per_second = (requests > 0).then_some(requests);
    }
    if let Some(memory) = arguments.memory {
        options.memory_len_max = usize::try_from(memory).unwrap_or(usize::MAX);
    }
    let scratch = arguments.scratch_dir.clone();
    options.scratch = Some(scratch.unwrap_or_else(std::env::temp_dir));
    options
}

/// The directory where it is kept what was marked. The user's own is a convenience: without it, work goes on.
fn cache(ui: &Ui, arguments: &GcArguments) -> Result<Option<PathBuf>, Failure> {
    if arguments.no_cache {
        return Ok(None);
    }
    if let Some(path) = &arguments.cache_dir {
        let made = make_private(path);
        return made
            .map(|()| Some(path.clone()))
            .map_err(|source| Failure::CacheDirectory {
                path: path.clone(),
                source,
            });
    }
    let Some(path) = user_cache() else {
        ui.note("nothing is cached: neither XDG_CACHE_HOME nor HOME names a directory (--cache-dir does)");
        return Ok(None);
    };
    if let Err(error) = make_private(&path) {
        ui.note(&format!(
            "nothing is cached: cannot make {path:?}: {error} (--cache-dir names another)"
        ));
        return Ok(None);
    }
    Ok(Some(path))
}

/// Source: the XDG Base Directory Specification 0.8; paths that are not absolute are to be ignored.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(base?.join("backup"))
}

/// Makes a directory for its owner only, unless there is one.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn document(report: &GcReport) -> Value {
    let undeletable = report.undeletable.iter();
    let undeletable = undeletable.map(|(name, why)| json!({ "object": name, "reason": why }));
    json!({
        "complete": report.is_complete(),
        "round": report.round,
        "snapshots": report.snapshots,
        "snapshots_dropped": report.snapshots_dropped,
        "snapshots_forgotten": report.snapshots_forgotten,
        "snapshots_last": report.snapshots_last,
        "undelete_until": report.undelete_until.map(|time| text::time_utc(nanoseconds(time))),
        "packs": report.packs,
        "pack_bytes": report.pack_bytes,
        "packs_young": report.packs_young,
        "packs_deleted": report.packs_deleted,
        "bytes_freed": report.bytes_freed,
        "packs_rescued": report.packs_rescued,
        "packs_repacked": report.packs_repacked,
        "repacked_bytes": report.repacked_bytes,
        "sessions_awaited": report.sessions_awaited,
        "sessions_aborted": report.sessions_aborted,
        "segments_written": report.segments_written,
        "segments_deleted": report.segments_deleted,
        "objects_tidied": report.objects_tidied,
        "undeletable": undeletable.collect::<Vec<_>>(),
        "packs_unreadable": report.packs_unreadable,
    })
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

fn summary(arguments: &GcArguments, report: &GcReport, time: Duration) -> String {
    let mut lines = done(arguments.dry_run, report);
    lines.extend(left(arguments, report));
    for (object, reason) in &report.undeletable {
        lines.push(format!(
            "not deleted: {}: {}",
            text::clean(object),
            text::clean(reason)
        ));
    }
    for pack in &report.packs_unreadable {
        lines.push(format!(
            "not readable, and left: {} (`backup verify` tells whom it hurts)",
            text::clean(pack)
        ));
    }
    lines.push(match report.is_complete() {
        true => format!("done in {}", text::seconds(time)),
        false => "not complete: what was not deleted is tried again by the next run".to_owned(),
    });
    lines.join("\n")
}

/// What was done, or, of a dry run, would be.
fn done(is_dry: bool, report: &GcReport) -> Vec<String> {
    let mut lines = vec![format!(
        "looked at {} and {}, {}",
        text::counted(report.snapshots, "snapshot"),
        text::counted(report.packs, "pack"),
        text::bytes(report.pack_bytes)
    )];
    let word = |done, would| if is_dry { would } else { done };
    if is_dry {
        lines.push("dry run: nothing was changed".to_owned());
    }
    let dropped = &report.snapshots_dropped;
    if !dropped.is_empty() {
        let names: Vec<String> = dropped.iter().map(text::short).collect();
        let count = text::counted(dropped.len() as u64, "snapshot");
        let names = names.join(" ");
        let drop = word("dropped", "would drop");
        lines.push(format!("{drop} for good {count}: {names}"));
    }
    if report.packs_repacked > 0 {
        let size = match is_dry {
            true => String::new(),
            false => format!(" into {}", text::bytes(report.repacked_bytes)),
        };
        let count = text::counted(report.packs_repacked, "pack");
        let pack = word("packed", "would pack");
        lines.push(format!("{pack} anew {count}{size}"));
    }
    lines.push(format!(
        "{} {}, {} freed",
        word("deleted", "would delete"),
        text::counted(report.packs_deleted, "pack"),
        text::bytes(report.bytes_freed)
    ));
    if report.sessions_awaited > 0 {
        lines.push(format!(
            "waited for {}; given up, having shown no sign of life (--lease): {}",
            text::counted(report.sessions_awaited, "session"),
            text::count(report.sessions_aborted),
        ));
    }
    lines
}

/// What was left, and why.
fn left(arguments: &GcArguments, report: &GcReport) -> Vec<String> {
    let mut lines = Vec::new();
    if report.packs_young > 0 {
        lines.push(format!(
            "left: {} that nothing needs, younger than {} (--pack-age-min)",
            text::counted(report.packs_young, "pack"),
            arguments.pack_age_min
        ));
    }
    if report.packs_rescued > 0 {
        lines.push(format!(
            "left: {} that a session or a new snapshot turned out to need",
            text::counted(report.packs_rescued, "pack")
        ));
    }
    let lately = report
        .snapshots_forgotten
        .saturating_sub(report.snapshots_last);
    if lately > 0 {
        let until = report.undelete_until.map(nanoseconds);
        let until = until.map_or(String::new(), |ns| {
            let what = if lately == 1 {
                "until"
            } else {
                "the first until"
            };
            format!(", {what} {}", text::time_local(ns))
        });
        lines.push(format!(
            "left: {} given up less than {} ago (--undelete-window), which `backup unforget` brings back{until}",
            text::counted(lately, "snapshot"),
            arguments.undelete_window
        ));
    }
    if report.snapshots_last > 0 {
        lines.push(format!(
            "left: {} given up, without which a source would have no complete one (`backup forget --force SNAPSHOT` \
             after `backup unforget SNAPSHOT` gives it up all the same)",
            text::counted(report.snapshots_last, "snapshot")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use backup::GcOptions;
    use clap::Parser;

    use super::options;
    use crate::args::{Arguments, Command};

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let arguments = Arguments::parse_from(["backup", "gc"]);
        let Command::Gc(arguments) = arguments.command else {
            panic!("another command");
        };
        let mut found = options(&arguments);
        found.scratch = None;
        let wanted = GcOptions::default();
        assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
    }
}
