//! Sets bad packs aside, so that the next backups store what is in them once more.

use std::collections::BTreeSet;

use backup_backend::Bytes;
use backup_core::{PackId, SessionId};
use backup_manifest::{ObjectName, damaged_key};

use crate::{Error, Observer, Repository, VerifyLevel, VerifyReport, verify};

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What verifying found.
    pub verified: VerifyReport,
    /// Packs that are set aside from now on.
    pub set_aside: Vec<PackId>,
    /// Snapshots that lack something now. The next backup of the source, of content that is still the same, heals them.
    pub hurt: Vec<SessionId>,
}

/// [Verifies](verify) the repository and sets the packs aside that are found bad: no backup relies on them any more, so
/// the next one stores good copies of what it meets of their content; readers take those and try a bad pack last; `gc`
/// deletes a bad pack when everything that is needed of it is elsewhere. Nothing is deleted here.
///
/// # Errors
/// Those of [`verify`], and whatever the store says.
pub async fn repair(
    repo: &Repository,
    level: VerifyLevel,
    observer: &dyn Observer,
) -> Result<RepairReport, Error> {
    let verified = verify(repo, level, observer).await?;
    let mut hurt = BTreeSet::new();
    let mut bad = BTreeSet::new();
    for damage in &verified.damage {
        hurt.extend(&damage.snapshots);
        if let Ok(ObjectName::Pack(id)) = damage.object.parse() {
            bad.insert(id);
        }
    }
    let mut report = RepairReport {
        verified,
        set_aside: Vec::new(),
        hurt: hurt.into_iter().collect(),
    };
    for id in bad {
        if repo
            .create_unless_there(&damaged_key(&id), Bytes::new())
            .await?
        {
            report.set_aside.push(id);
        }
    }
    Ok(report)
}
