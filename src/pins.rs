//! Looks whether a store has gone back behind what a client remembers of it.

use backup_core::SessionId;
use backup_manifest::{Cell, ChainCell, PinReport, Pins, Verdict};
use futures::stream::{self, StreamExt};

use crate::repository::decisions::{read_all_fates, verdict_of};
use crate::repository::documents::read_cell;
use crate::restore::is_finding;
use crate::snapshots::snapshot_ids;
use crate::{Error, Repository};

/// Cells read at once.
const READS_MAX: usize = 16;

/// Compares what the store shows with what `pins` remember: snapshots that are gone, another history, gaps in it. What is to
/// be remembered from now on is in the report. A cell that cannot be read counts as one that is not there.
///
/// Snapshots that were given up or dropped are part of a history and not missing: their cells stay.
///
/// # Errors
/// Whatever the store says; [`Error::Pins`] when the pins are another repository's.
pub async fn check_pins(repo: &Repository, pins: &Pins) -> Result<PinReport, Error> {
    let fates = read_all_fates(repo).await?;
    let is_retired =
        |id: &SessionId| matches!(verdict_of(&fates, id), Verdict::Forget | Verdict::Drop);
    let mut cells = Vec::new();
    let ids = snapshot_ids(repo).await?;
    let mut reads = stream::iter(ids)
        .map(|id| async move { read_cell(repo, &id).await })
        .buffered(READS_MAX);
    while let Some(read) = reads.next().await {
        match read {
            Ok((Cell::Snapshot(manifest), hash)) => cells.push(ChainCell {
                id: manifest.session,
                source: manifest.source,
                previous: manifest.previous,
                hash,
                retired: is_retired(&manifest.session),
            }),
            Ok((Cell::Aborted, _)) => {}
            Err(error) if is_finding(&error) => {}
            Err(error) => return Err(error),
        }
    }
    drop(reads);
    Ok(pins.check(repo.id(), &cells)?)
}
