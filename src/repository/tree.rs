//! The item stream in the repository: writes its pages as tree chunks and lists of them, and reads them back in order.

use std::sync::Arc;

use backup_core::ChunkKind;
use backup_manifest::{
    Extent, Item, ItemPath, PageReader, Record, RecordView, StreamChecker, StreamError, TreeRef,
    TreeRoot, decode_list,
};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::Error;
use crate::env::blocking;
use crate::repository::blocks::BlockReader;

/// Pages fetched ahead.
const PAGES_AHEAD: usize = 8;

/// Pages decoded at once: a hostile one may hold paths of several mebibytes.
const PAGES_DECODED: usize = 2;

/// What one page says of one item.
#[derive(Debug)]
pub(crate) struct Part {
    /// The item, when it begins here; else the last one goes on.
    pub(crate) item: Option<Item>,
    /// Which item goes on and where, when this is the beginning of a page.
    pub(crate) continued: Option<(ItemPath, u64)>,
    pub(crate) extents: Vec<Extent>,
}

/// A page of the item stream, decoded.
pub(crate) type Parts = Vec<Part>;

/// Reads the pages of a snapshot in order, a few ahead, from the page on that holds `from`. From the start, it is also
/// checked that they are one stream: in order, complete, each item in a directory that came before.
pub(crate) fn read_parts(
    blocks: Arc<BlockReader>,
    root: TreeRoot,
    from: Option<(ItemPath, u64)>,
) -> impl Stream<Item = Result<Parts, Error>> {
    let checker = from.is_none().then(StreamChecker::new);
    let decoded = read_pages(blocks, root, from)
        .map(|page| async move {
            let (reference, bytes) = page?;
            let parts = blocking(move || {
                let parts = parse(&reference, &bytes);
                (reference, parts)
            });
            let (reference, parts) = parts.await?;
            Ok::<_, Error>((reference, parts?))
        })
        .buffered(PAGES_DECODED);
    stream::try_unfold(
        (Box::pin(decoded), checker),
        |(mut decoded, mut checker)| async move {
            let Some((reference, parts)) = decoded.try_next().await? else {
                if let Some(checker) = checker {
                    checker
                        .finish()
                        .map_err(|e| Error::damaged("item stream", e))?;
                }
                return Ok::<_, Error>(None);
            };
            if let Some(checker) = &mut checker {
                let checked = check(checker, &reference, &parts);
                checked.map_err(|e| Error::damaged(format!("page {}", reference.id), e))?;
            }
            Ok(Some((parts, (decoded, checker))))
        },
    )
}

fn check(checker: &mut StreamChecker, page: &TreeRef, parts: &Parts) -> Result<(), StreamError> {
    checker.page(page);
    for part in parts {
        if let Some((path, offset)) = &part.continued {
            checker.record(&RecordView::Continued {
                path: path.view(),
                offset: *offset,
            })?;
        }
        if let Some(item) = &part.item {
            checker.record(&RecordView::Item(item.view()))?;
        }
        for extent in &part.extents {
            checker.record(&RecordView::Extent(*extent))?;
        }
    }
    Ok(())
}

/// The pages of a snapshot, as bytes, in order.
pub(crate) fn read_pages(
    blocks: Arc<BlockReader>,
    root: TreeRoot,
    from: Option<(ItemPath, u64)>,
) -> impl Stream<Item = Result<(TreeRef, Bytes), Error>> {
    let fetch = blocks.clone();
    leaf_refs(blocks, root, from)
        .map_ok(move |reference| {
            let blocks = fetch.clone();
            async move {
                let bytes = tree_chunk(&blocks, &reference).await?;
                Ok((reference, bytes))
            }
        })
        .try_buffered(PAGES_AHEAD)
}

/// Lists still to be gone through: their level, and what is left of them.
type Stack = Vec<(u8, std::vec::IntoIter<TreeRef>)>;

/// The references to the pages of a snapshot, in order.
pub(crate) fn leaf_refs(
    blocks: Arc<BlockReader>,
    root: TreeRoot,
    from: Option<(ItemPath, u64)>,
) -> impl Stream<Item = Result<TreeRef, Error>> {
    let stack: Stack = vec![(root.level, skip_to(root.refs, from.as_ref()).into_iter())];
    stream::try_unfold(
        (blocks, stack, from),
        |(blocks, mut stack, from)| async move {
            while let Some((level, refs)) = stack.last_mut() {
                let level = *level;
                let Some(reference) = refs.next() else {
                    stack.pop();
                    continue;
                };
                if level == 1 {
                    return Ok(Some((reference, (blocks, stack, from))));
                }
                let bytes = tree_chunk(&blocks, &reference).await?;
                let list = decode_list(&bytes, level - 1)
                    .map_err(|e| Error::damaged(format!("list {}", reference.id), e))?;
                // So that no list can stand in two places: else eight levels could name each other without end.
                let is_listed = list.first().is_some_and(|first| {
                    (&first.first, first.first_offset) == (&reference.first, reference.first_offset)
                });
                if !is_listed {
                    let name = format!("list {}", reference.id);
                    return Err(Error::damaged(name, "it does not begin where it should"));
                }
                stack.push((level - 1, skip_to(list, from.as_ref()).into_iter()));
            }
            Ok::<_, Error>(None)
        },
    )
}

async fn tree_chunk(blocks: &BlockReader, reference: &TreeRef) -> Result<Bytes, Error> {
    let bytes = blocks.chunk(ChunkKind::Tree, &reference.id).await?;
    if bytes.len() != reference.len as usize {
        let name = format!("page {}", reference.id);
        return Err(Error::damaged(name, "it has another length than is listed"));
    }
    Ok(bytes)
}

/// Leaves out the references that end before `from`.
fn skip_to(mut refs: Vec<TreeRef>, from: Option<&(ItemPath, u64)>) -> Vec<TreeRef> {
    if let Some((path, offset)) = from {
        let after = refs.partition_point(|r| (&r.first, r.first_offset) <= (path, *offset));
        refs.drain(..after.saturating_sub(1));
    }
    refs
}

fn parse(reference: &TreeRef, bytes: &[u8]) -> Result<Parts, Error> {
    let damaged = |e| Error::damaged(format!("page {}", reference.id), e);
    let mut parts: Parts = Vec::new();
    let mut reader = PageReader::new(bytes).map_err(damaged)?;
    while let Some(record) = reader.next_record().map_err(damaged)? {
        match record.to_record() {
            Record::Item(item) => parts.push(Part {
                item: Some(item),
                continued: None,
                extents: Vec::new(),
            }),
            Record::Continued { path, offset } => {
                let continued = Some((path, offset));
                parts.push(Part {
                    item: None,
                    continued,
                    extents: Vec::new(),
                });
            }
            Record::Extent(extent) => {
                if let Some(part) = parts.last_mut() {
                    part.extents.push(extent);
                }
            }
        }
    }
    Ok(parts)
}
