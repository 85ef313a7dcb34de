//! Reads which chunks may be relied on: what the segments name, as far as the packs are listed.

use std::collections::{HashMap, HashSet};

use backup_backend::{ByteRange, Bytes, KeyPrefix, ObjectMeta, StorageBackend};
use backup_core::{
    ChunkKind, Directory, DocumentError, PACK_FOOTER_LEN, PACK_HEADER_LEN, PackError, PackFooter,
    PackHeader, PackId, Segment, SegmentError, SegmentId, SegmentPack, open_directory,
};
use backup_manifest::{
    DAMAGED_PREFIX, GC_PREFIX, INDEX_PREFIX, ObjectName, PACKS_PREFIX, pack_key, segment_key,
};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::env::buggify;
use crate::repository::gc_log::GcLog;
use crate::repository::index::{Index, IndexBuilder};
use crate::repository::store_key;
use crate::{Error, Repository};

/// Packs that a collector is about to delete.
pub(crate) type Condemned = HashSet<PackId>;

/// Requests for segments or directories under way at once.
const READS_MAX: usize = 8;

/// The end of a pack that is read first: the directory of an ordinary pack fits.
const TAIL_LEN: u64 = 64 << 10;

/// A pack that is no longer is read whole: a second request costs more time than these bytes.
const SMALL_LEN: u64 = 1 << 20;

/// Lists the packs, reads the segments, and the directories of packs that no segment names.
///
/// Segments and packs that cannot be read are passed over: they cost deduplication, never correctness; `verify` names
/// them. Of a pack that was set aside as damaged, only what no other pack holds is read.
pub(crate) async fn load_index(repo: &Repository) -> Result<Index, Error> {
    let survey = Survey::take(repo).await?;
    let builder = IndexBuilder::new(survey.damaged(repo).await?);
    let listed = list_packs(repo, &survey).await?;
    Ok(load(repo, &survey, listed, builder).await?.0)
}

/// As [`load_index`], without packs that were set aside or are not to be relied on; and the packs that no segment names,
/// with their directories.
pub(crate) async fn load_usable(
    repo: &Repository,
    survey: &Survey,
    condemned: &Condemned,
) -> Result<(Index, Vec<SegmentPack>), Error> {
    let mut listed = list_packs(repo, survey).await?;
    let damaged = survey.damaged(repo).await?;
    listed.retain(|id, _| !condemned.contains(id) && !damaged.contains(id));
    buggify("packs listed, before the index").await;
    load(repo, survey, listed, IndexBuilder::default()).await
}

/// Finds the directories of the packs listed, in segments or else in the packs themselves.
async fn load(
    repo: &Repository,
    survey: &Survey,
    mut listed: HashMap<PackId, u64>,
    mut builder: IndexBuilder,
) -> Result<(Index, Vec<SegmentPack>), Error> {
    let segments = list_segments(repo, survey).await?;
    let mut segments = stream::iter(segments)
        .map(|id| async move { read_segment(repo, &id).await })
        .buffered(READS_MAX);
    while let Some(segment) = segments.next().await {
        for pack in usable(segment)?.into_iter().flat_map(|found| found.packs) {
            // Removed from `listed`, so that a pack named by two segments is taken once.
            if listed.get(&pack.id) == Some(&pack.len) {
                listed.remove(&pack.id);
                builder.add(&pack);
            }
        }
    }
    let mut unnamed: Vec<(PackId, u64)> = listed.into_iter().collect();
    unnamed.sort_unstable();
    let mut found = Vec::with_capacity(unnamed.len());
    let mut directories = stream::iter(unnamed)
        .map(|(id, len)| async move { read_directory(repo, &id, len).await })
        .buffered(READS_MAX);
    while let Some(read) = directories.next().await {
        if let Some(pack) = usable(read)? {
            builder.add(&pack);
            found.push(pack);
        }
    }
    Ok((builder.finish(), found))
}

/// Damage makes an object unusable, and so does a newer version of it; everything else is the caller's to know.
pub(crate) fn usable<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Error::Damaged { .. } | Error::NewerFormat { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What stands in the store. A small one is listed at once and looked through here; of a large one, each part is listed
/// when it is asked for. A request for each part is what small backups would mostly consist of.
#[derive(Debug)]
pub(crate) struct Survey(Option<Vec<ObjectMeta>>);

impl Survey {
    /// The packs that were set aside as damaged.
    async fn damaged(&self, repo: &Repository) -> Result<HashSet<PackId>, Error> {
        let marks = self.list(repo, DAMAGED_PREFIX).await?;
        let damaged = marks
            .iter()
            .filter_map(|object| match object.key.as_str().parse() {
                Ok(ObjectName::Damaged(id)) => Some(id),
                _ => None,
            });
        Ok(damaged.collect())
    }

    /// Lists the packs anew, whatever was listed before.
    pub(crate) async fn list_packs_again(&mut self, repo: &Repository) -> Result<(), Error> {
        if let Some(all) = &mut self.0 {
            all.retain(|object| !object.key.as_str().starts_with(PACKS_PREFIX));
            all.extend(list(repo, PACKS_PREFIX).await?);
        }
        Ok(())
    }

    /// The rounds of collection.
    pub(crate) async fn gc_log(&self, repo: &Repository) -> Result<GcLog, Error> {
        Ok(GcLog::from_objects(&self.list(repo, GC_PREFIX).await?))
    }

    pub(crate) async fn take(repo: &Repository) -> Result<Self, Error> {
        let mut pages = repo.backend().list(&KeyPrefix::all());
        // There is a repository, so there is a page; a store that shows none lists badly.
        let Some(first) = pages.try_next().await? else {
            return Ok(Self(Some(Vec::new())));
        };
        let is_whole = pages.try_next().await?.is_none();
        Ok(Self(is_whole.then_some(first)))
    }

    /// All objects under a prefix.
    pub(crate) async fn list(
        &self,
        repo: &Repository,
        prefix: &str,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let Some(all) = &self.0 else {
            return list(repo, prefix).await;
        };
        let is_in = |object: &&ObjectMeta| object.key.as_str().starts_with(prefix);
        Ok(all.iter().filter(is_in).cloned().collect())
    }
}

/// All packs with their lengths in bytes.
async fn list_packs(repo: &Repository, survey: &Survey) -> Result<HashMap<PackId, u64>, Error> {
    let objects = survey.list(repo, PACKS_PREFIX).await?;
    Ok(objects
        .iter()
        .filter_map(|object| match object.key.as_str().parse() {
            Ok(ObjectName::Pack(id)) => Some((id, object.len)),
            _ => None,
        })
        .collect())
}

/// All index segments, in the order of their names.
async fn list_segments(repo: &Repository, survey: &Survey) -> Result<Vec<SegmentId>, Error> {
    let objects = survey.list(repo, INDEX_PREFIX).await?;
    Ok(objects
        .iter()
        .filter_map(|object| match object.key.as_str().parse() {
            Ok(ObjectName::Segment(id)) => Some(id),
            _ => None,
        })
        .collect())
}

/// All objects under a prefix.
pub(crate) async fn list(repo: &Repository, prefix: &str) -> Result<Vec<ObjectMeta>, Error> {
    let prefix = KeyPrefix::parse(prefix).map_err(|e| Error::damaged(prefix, e))?;
    let pages: Vec<Vec<ObjectMeta>> = repo.backend().list(&prefix).try_collect().await?;
    Ok(pages.concat())
}

/// Reads one index segment.
pub(crate) async fn read_segment(repo: &Repository, id: &SegmentId) -> Result<Segment, Error> {
    let name = segment_key(id);
    let bytes = repo.get(&name).await?;
    let (keys, repository, id) = (repo.keys().clone(), repo.id(), *id);
    crate::env::blocking(move || Segment::open(&keys, repository, &id, &bytes))
        .await?
        .map_err(|e| segment_error(name, e))
}

/// Reads the sealed directory of a pack of `len` bytes: its header and its end, or the whole of a small one.
pub(crate) async fn read_directory(
    repo: &Repository,
    id: &PackId,
    len: u64,
) -> Result<SegmentPack, Error> {
    let name = pack_key(id);
    let damaged = |why: &'static str| Error::damaged(name.clone(), why);
    let tail_len = if len <= SMALL_LEN { len } else { TAIL_LEN };
    if len < (PACK_HEADER_LEN + PACK_FOOTER_LEN) as u64 {
        return Err(damaged("shorter than a header and a footer"));
    }
    let mut tail = get_range(repo, &name, len - tail_len, tail_len).await?;
    let header = if tail_len == len {
        tail.slice(..PACK_HEADER_LEN)
    } else {
        get_range(repo, &name, 0, PACK_HEADER_LEN as u64).await?
    };
    let footer = tail.last_chunk().ok_or_else(|| damaged("cut short"))?;
    let footer = PackFooter::decode(footer).map_err(|e| Error::damaged(&name, e))?;
    let place = footer
        .directory_range(len)
        .map_err(|e| Error::damaged(&name, e))?;
    if place.start < len - tail_len {
        tail = get_range(repo, &name, place.start, len - place.start).await?;
    }
    let tail_at = len - tail.len() as u64;
    let sealed = tail.slice((place.start - tail_at) as usize..(place.end - tail_at) as usize);
    let (keys, repository) = (repo.keys().clone(), repo.id());
    let opened = crate::env::blocking(move || {
        let fields = PackHeader::decode(&header)?;
        let header = header.first_chunk().ok_or(PackError::NotAPack)?;
        let directory = open_directory(&keys, repository, header, &sealed, len)?;
        Ok::<_, PackError>((fields.kind, directory))
    });
    let (kind, directory): (ChunkKind, Directory) =
        opened.await?.map_err(|e| pack_error(name, e))?;
    Ok(SegmentPack {
        id: *id,
        kind,
        len,
        directory,
    })
}

fn pack_error(name: String, error: PackError) -> Error {
    match error {
        PackError::UnsupportedVersion { got, expected } => Error::NewerFormat {
            object: name,
            got: got.into(),
            supported: expected.into(),
        },
        other => Error::damaged(name, other),
    }
}

fn segment_error(name: String, error: SegmentError) -> Error {
    match error {
        SegmentError::Document {
            source: DocumentError::UnsupportedVersion { got, expected },
        } => Error::NewerFormat {
            object: name,
            got: got.into(),
            supported: expected.into(),
        },
        other => Error::damaged(name, other),
    }
}

async fn get_range(repo: &Repository, name: &str, start: u64, len: u64) -> Result<Bytes, Error> {
    Ok(repo
        .backend()
        .get(&store_key(name)?, Some(ByteRange { start, len }))
        .await?)
}
