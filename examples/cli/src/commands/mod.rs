//! One command a file: arguments in, a verb of the library, a table or a document out.

mod backup;
mod copy;
mod decide;
mod demo;
mod forget;
mod gc;
mod init;
mod key;
mod ls;
mod pins;
mod rebuild_index;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod verify;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ::backup::{ItemPath, Repository, SkippedItem, SnapshotManifest, find_snapshot};
use serde_json::{Value, json};

use crate::args::{Arguments, Command};
use crate::commands::decide::Change;
use crate::failure::Failure;
use crate::ui::{Outcome, Ui};

pub(crate) async fn run(ui: &Ui, arguments: Arguments) -> Result<Outcome, Failure> {
    let global = &arguments.global;
    match arguments.command {
        Command::Init(arguments) => init::run(ui, global, arguments).await,
        Command::Backup(arguments) => backup::run(ui, global, arguments).await,
        Command::Snapshots(arguments) => snapshots::run(ui, global, arguments).await,
        Command::Ls(arguments) => ls::run(ui, global, arguments).await,
        Command::Restore(arguments) => restore::run(ui, global, arguments).await,
        Command::Forget(arguments) => forget::run(ui, global, arguments).await,
        Command::Unforget(names) => decide::run(ui, global, names, Change::Unforget).await,
        Command::Hold(names) => decide::run(ui, global, names, Change::Hold).await,
        Command::Release(names) => decide::run(ui, global, names, Change::Release).await,
        Command::Gc(arguments) => gc::run(ui, global, arguments).await,
        Command::Verify(arguments) => verify::run(ui, global, arguments).await,
        Command::Repair(arguments) => repair::run(ui, global, arguments).await,
        Command::RebuildIndex => rebuild_index::run(ui, global).await,
        Command::Pins(arguments) => pins::run(ui, global, arguments).await,
        Command::Copy(arguments) => copy::run(ui, global, arguments).await,
        Command::Stats => stats::run(ui, global).await,
        Command::Key(command) => key::run(ui, global, command).await,
        Command::Demo(arguments) => demo::run(ui, arguments).await,
    }
}

/// The snapshots of these names, each once, however often it is named.
async fn find_all(repo: &Repository, names: &[String]) -> Result<Vec<SnapshotManifest>, Failure> {
    let mut found: Vec<SnapshotManifest> = Vec::new();
    for name in names {
        let snapshot = find_snapshot(repo, name).await?;
        if found.iter().all(|known| known.session != snapshot.session) {
            found.push(snapshot);
        }
    }
    Ok(found)
}

/// A path within a snapshot as a person types it: a leading or trailing `/` or `./` means nothing.
fn item_path(text: &OsStr) -> Result<ItemPath, Failure> {
    let names = text.as_bytes().split(|byte| *byte == b'/');
    let names: Vec<&[u8]> = names
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    ItemPath::from_bytes(names.join(&b'/')).map_err(|e| Failure::Path {
        path: Path::new(text).to_owned(),
        source: e.into(),
    })
}

fn skipped_json(skipped: &[SkippedItem]) -> Value {
    skipped
        .iter()
        .map(|item| json!({ "path": item.path.to_string(), "reason": item.reason }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::item_path;

    #[test]
    fn slashes_around_a_path_mean_nothing() {
        let path = |text: &str| item_path(text.as_ref()).unwrap().to_string();
        assert_eq!(path("/etc//ssl/"), "etc/ssl");
        assert_eq!(path("./etc"), "etc");
        assert_eq!(path("/"), "");
        assert!(item_path("../etc".as_ref()).is_err());
    }
}
