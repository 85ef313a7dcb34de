use backup::{Repository, SnapshotManifest, hold, release, unforget};
use serde_json::{Value, json};

use crate::args::{GlobalArguments, NamesArguments};
use crate::failure::Failure;
use crate::ui::{Outcome, Ui};
use crate::{place, text};

/// What is decided about snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Unforget,
    Hold,
    Release,
}

pub(crate) async fn run(
    ui: &Ui,
    global: &GlobalArguments,
    arguments: NamesArguments,
    change: Change,
) -> Result<Outcome, Failure> {
    let repo = place::open(ui, global).await?;
    let mut done = Vec::new();
    let mut failed = None;
    for snapshot in super::find_all(&repo, &arguments.snapshots).await? {
        match change.make(&repo, &snapshot).await {
            Ok(is_changed) => done.push((snapshot, is_changed)),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let documents: Vec<Value> = done.iter().map(document).collect();
    ui.result(&json!({ "snapshots": documents }), || {
        done.iter()
            .map(|(snapshot, is_changed)| change.line(snapshot, *is_changed))
            .collect()
    })?;
    // What was decided before a failure is decided.
    failed.map_or(Ok(Outcome::Complete), |error| Err(error.into()))
}

impl Change {
    async fn make(
        self,
        repo: &Repository,
        snapshot: &SnapshotManifest,
    ) -> Result<bool, backup::Error> {
        let id = &snapshot.session;
        match self {
            Self::Unforget => unforget(repo, id).await,
            Self::Hold => hold(repo, id).await,
            Self::Release => release(repo, id).await,
        }
    }

    fn line(self, snapshot: &SnapshotManifest, is_changed: bool) -> String {
        let said = match (self, is_changed) {
            (Self::Unforget, true) => "is back",
            (Self::Unforget, false) => "was not given up",
            (Self::Hold, true) => "is held: `backup release` ends that",
            (Self::Hold, false) => "was held already",
            (Self::Release, true) => "is held no more",
            (Self::Release, false) => "was not held",
        };
        let (id, source) = (
            text::short(&snapshot.session),
            text::clean(&snapshot.source),
        );
        format!("snapshot {id} of {source} {said}\n")
    }
}

fn document((snapshot, is_changed): &(SnapshotManifest, bool)) -> Value {
    json!({
        "snapshot": snapshot.session,
        "name": snapshot.source,
        "changed": is_changed,
    })
}
