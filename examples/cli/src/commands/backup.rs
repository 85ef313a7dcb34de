use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use backup::{BackupOptions, BackupReport, ItemPath, Repository, Source, TreeSource, backup};
use serde_json::{Value, json};

use crate::args::{BackupArguments, GlobalArguments, is_dash};
use crate::exclude;
use crate::failure::Failure;
use crate::place::{self, Place};
use crate::progress::Progress;
use crate::text;
use crate::ui::{Outcome, Ui};

/// What a PATH turned out to be.
#[derive(Debug)]
enum Kind {
    Tree,
    Volume,
    Stream,
}

/// One snapshot that was made.
#[derive(Debug)]
struct Made {
    report: BackupReport,
    /// Sessions that it took: more than one when a collector gave one up.
    sessions: u64,
    time: Duration,
}

/// One snapshot to be made.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    name: String,
    kind: Kind,
}

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: BackupArguments,
) -> Result<Outcome, Failure> {
    let host = arguments.host.clone().unwrap_or_else(host_name);
    // All that can be known to be wrong is found before anything is stored.
    let jobs = arguments
        .paths
        .iter()
        .map(|path| Job::new(path, &arguments, &host));
    let jobs: Vec<Job> = jobs.collect::<Result<_, _>>()?;
    let patterns = exclude::patterns(&arguments)?;
    let repo = place::open(ui, global).await?;
    let options = options(&arguments, host);
    let repository = Place::of(global)?.directory();

    let mut documents = Vec::new();
    let mut failed = None;
    let mut is_complete = true;
    for job in jobs {
        let source = match job.kind {
            Kind::Tree => {
                let mut tree = TreeSource::new(&job.path);
                tree.one_file_system = arguments.one_file_system;
                tree.exclude = exclude::exclude(
                    &job.path,
                    &patterns,
                    arguments.exclude_caches,
                    repository.clone(),
                );
                Source::Tree(tree)
            }
            Kind::Volume => Source::volume(&job.path),
            Kind::Stream => Source::stream(std::io::stdin()),
        };
        match back_up(ui, &repo, (&job, source), &options).await {
            Ok(made) => {
                is_complete &= made.report.is_complete();
                documents.push(document(&job, &made));
                if !ui.json {
                    ui.text(&summary(&job, &made))?;
                }
            }
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    if ui.json {
        // What was made before a failure is made.
        ui.result(&json!({ "snapshots": documents }), String::new)?;
    }
    failed.map_or(Ok(Outcome::complete_if(is_complete)), Err)
}

async fn back_up(
    ui: &Ui,
    repo: &Repository,
    (job, source): (&Job, Source),
    options: &BackupOptions,
) -> Result<Made, Failure> {
    let progress = Progress::start(ui, "backup");
    let report = backup(repo, &job.name, source, options, &progress).await?;
    Ok(Made {
        report,
        sessions: progress.sessions(),
        time: progress.elapsed(),
    })
}

fn options(arguments: &BackupArguments, host: String) -> BackupOptions {
    let mut options = BackupOptions::default();
    options.zstd_level = arguments.zstd_level;
    options.ignore_previous = arguments.force;
    options.tags = arguments.tag.clone();
    options.host = host;
    options.beat = arguments.beat.time;
    options.program = concat!("backup-cli ", env!("CARGO_PKG_VERSION")).into();
    if let Some(memory) = arguments.memory {
        options.memory_len_max = usize::try_from(memory).unwrap_or(usize::MAX);
    }
    options
}

impl Job {
    fn new(path: &Path, arguments: &BackupArguments, host: &str) -> Result<Self, Failure> {
        let kind = Kind::of(path)?;
        let name = match &arguments.name {
            Some(name) => name.clone(),
            None => format!("{host}:{}", absolute(path)?),
        };
        Ok(Self {
            path: path.to_owned(),
            name,
            kind,
        })
    }
}

impl Kind {
    fn of(path: &Path) -> Result<Self, Failure> {
        if is_dash(path) {
            return Ok(Self::Stream);
        }
        let found = std::fs::metadata(path);
        let found = found.map_err(|source| Failure::Read {
            what: "the source",
            path: path.to_owned(),
            source,
        })?;
        let found = found.file_type();
        let unsuitable = |what| {
            Err(Failure::UnsuitableSource {
                path: path.to_owned(),
                what,
            })
        };
        match () {
            () if found.is_dir() => Ok(Self::Tree),
            () if found.is_file() || found.is_block_device() => Ok(Self::Volume),
            () if found.is_fifo() => unsuitable("named pipe"),
            () if found.is_socket() => unsuitable("socket"),
            () => unsuitable("character device"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Volume => "volume",
            Self::Stream => "stream",
        }
    }
}

/// The absolute path as text that is the same at each run. Symlinks stay: they are how people name what changes.
fn absolute(path: &Path) -> Result<String, Failure> {
    let climbs = path
        .components()
        .any(|component| component == Component::ParentDir);
    let found = if climbs {
        path.canonicalize()
    } else {
        std::path::absolute(path)
    };
    let found = found.map_err(|source| Failure::Read {
        what: "the source",
        path: path.to_owned(),
        source,
    })?;
    let bytes: Vec<u8> = found
        .as_os_str()
        .as_bytes()
        .iter()
        .copied()
        .skip_while(|byte| *byte == b'/')
        .collect();
    let trimmed = bytes.strip_suffix(b"/").unwrap_or(&bytes);
    let below_root = ItemPath::from_bytes(trimmed).map_err(|e| Failure::Path {
        path: path.to_owned(),
        source: e.into(),
    })?;
    Ok(format!("/{below_root}"))
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn document(job: &Job, made: &Made) -> Value {
    let report = &made.report;
    json!({
        "snapshot": report.snapshot,
        "name": job.name,
        "path": job.path.to_string_lossy(),
        "kind": job.kind.name(),
        "previous": report.previous,
        "items": report.items,
        "files": report.files,
        "files_unchanged": report.files_unchanged,
        "bytes": report.bytes,
        "bytes_read": report.bytes_read,
        "bytes_new": report.bytes_new,
        "chunks": report.chunks,
        "chunks_new": report.chunks_new,
        "packs_stored": report.packs_stored,
        "bytes_stored": report.bytes_stored,
        "sessions": made.sessions,
        "seconds": made.time.as_secs_f64(),
        "complete": report.is_complete(),
        "skipped_count": report.skipped_count,
        "skipped": super::skipped_json(&report.skipped),
    })
}

fn summary(job: &Job, made: &Made) -> String {
    let report = &made.report;
    let mut text = format!(
        "snapshot {} of {}\n",
        text::short(&report.snapshot),
        text::clean(&job.name)
    );
    text.push_str(&format!(
        "  {} ({} unchanged), {}; {} read, {} new, {} stored in {}\n",
        text::counted(report.files, "file"),
        text::count(report.files_unchanged),
        text::bytes(report.bytes),
        text::bytes(report.bytes_read),
        text::bytes(report.bytes_new),
        text::bytes(report.bytes_stored),
        text::seconds(made.time),
    ));
    if !report.is_complete() {
        let skipped = text::counted(report.skipped_count, "item");
        text.push_str(&format!(
            "  not complete: {skipped} skipped, as named above\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn names_of_sources_are_absolute() {
        assert_eq!(absolute("/".as_ref()).unwrap(), "/");
        assert_eq!(absolute("/usr/./share/".as_ref()).unwrap(), "/usr/share");
        assert_eq!(absolute("/usr/..".as_ref()).unwrap(), "/");
        assert!(absolute("x".as_ref()).unwrap().ends_with("/x"));
    }
}
