//! Puts packs, each name once.

use backup_backend::{Bytes, PutMode, RetryPolicy, StorageBackend};
use backup_core::{ChunkKind, Directory, FinishedPack, PackId, SegmentPack, rename_pack};
use backup_manifest::pack_key;

use crate::env::{blocking, buggify};
use crate::repository::store_key;
use crate::{Error, Repository};

/// A pack that is to be stored.
pub(crate) struct NewPack {
    pub(crate) kind: ChunkKind,
    pub(crate) id: PackId,
    pub(crate) bytes: Bytes,
    pub(crate) directory: Directory,
}

/// Stores a pack; `will_put` is told each name before it is put.
///
/// A put that may have had an effect is not repeated: a request that is long on its way would bring a pack back after a
/// collector has deleted it, and the collector's helpers may delete that name again. The pack is put under another name
/// instead. Should both arrive, one of them is garbage.
pub(crate) async fn put_pack(
    repo: &Repository,
    mut pack: NewPack,
    will_put: impl Fn(PackId),
) -> Result<SegmentPack, Error> {
    let policy = RetryPolicy::default();
    let mut names = 1;
    loop {
        will_put(pack.id);
        buggify("pack finished, before its upload").await;
        let key = store_key(&pack_key(&pack.id))?;
        let put = repo
            .backend()
            .put(&key, pack.bytes.clone(), PutMode::CreateOnce);
        match put.await {
            Ok(()) => {
                return Ok(SegmentPack {
                    id: pack.id,
                    kind: pack.kind,
                    len: pack.bytes.len() as u64,
                    directory: pack.directory,
                });
            }
            Err(error) if error.kind().is_retryable() && names < policy.attempts_max => {
                let jitter = u64::from_le_bytes(repo.env().random()?);
                let wait = policy.delay(names, jitter);
                tokio::time::sleep(wait.max(error.retry_after().unwrap_or_default())).await;
                pack = rename(repo, pack).await?;
                names += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn rename(repo: &Repository, pack: NewPack) -> Result<NewPack, Error> {
    let (keys, repository) = (repo.keys().clone(), repo.id());
    let counter = u32::from_le_bytes(repo.env().random()?);
    let random = repo.env().random()?;
    let renamed = blocking(move || {
        let blocks = (&*pack.bytes, &pack.directory);
        let renamed = rename_pack(&keys, repository, blocks, counter, random)?;
        let FinishedPack {
            id,
            bytes,
            directory,
            ..
        } = renamed;
        Ok::<_, backup_core::PackError>(NewPack {
            kind: pack.kind,
            id,
            bytes: bytes.into(),
            directory,
        })
    });
    renamed.await?.map_err(|e| Error::damaged("new pack", e))
}
