use thiserror::Error;

use super::rules::follows;
use super::{Content, RecordView};
use crate::item::KindView;
use crate::list::TreeRef;
use crate::path::{ItemPath, PathView, rank, shared_len};

/// Checks that pages fit together: that all records in a row are one valid stream.
///
/// A page alone cannot tell whether its first item comes after the last one of the page before, whether the
/// directory of an item exists, or whether content that spans pages adds up. Feed it every record of every page.
#[derive(Debug, Default)]
pub struct StreamChecker {
    path: Vec<u8>,
    is_directory: bool,
    top_len: Option<usize>,
    content: Option<Content>,
    len: u64,
    /// What the list says the next record is.
    expected: Option<(ItemPath, u64)>,
}

/// Why records are no valid stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// An item does not come after the one before it.
    #[error("{path} does not come after {before}")]
    OutOfOrder {
        /// The item.
        path: ItemPath,
        /// The item before it.
        before: ItemPath,
    },
    /// The directory of an item is not in the stream.
    #[error("the directory of {path} is not in the stream")]
    ParentMissing {
        /// The item.
        path: ItemPath,
    },
    /// The extents of an item do not add up to its length.
    #[error("extents of {path} do not add up to its length")]
    ContentMismatch {
        /// The item.
        path: ItemPath,
    },
    /// A page goes on with another item, or at another place, than the page before ended.
    #[error("{path} is continued at {offset}, where it is not interrupted")]
    BadContinuation {
        /// The item.
        path: ItemPath,
        /// Where the page says to go on.
        offset: u64,
    },
    /// A page does not start with what the list says.
    #[error("page does not start with {path} at {offset} as its list says")]
    NotAsListed {
        /// The first item by the list.
        path: ItemPath,
        /// The offset by the list.
        offset: u64,
    },
    /// The stream ends in the middle of a page that was announced, or of an item.
    #[error("the stream ends too early, after {path}")]
    Truncated {
        /// The last item.
        path: ItemPath,
    },
}

impl StreamChecker {
    /// For a stream from its start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces the page whose records come next, by its entry in the list: its first record is compared.
    pub fn page(&mut self, page: &TreeRef) {
        self.expected = Some((page.first.clone(), page.first_offset));
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`StreamError`] when it does not fit those before.
    #[inline]
    pub fn record(&mut self, record: &RecordView<'_>) -> Result<(), StreamError> {
        if self.expected.is_some() {
            self.check_listed(record)?;
        }
        match *record {
            RecordView::Item(item) => {
                self.check_place(item.path)?;
                self.is_directory = matches!(item.kind, KindView::Directory);
                self.len = item.meta.len;
                self.content = Some(Content::of(item.meta.len));
                Ok(())
            }
            RecordView::Extent(extent) => {
                let content = self.content.and_then(|content| content.after(extent.len()));
                self.content = Some(content.ok_or_else(|| self.content_mismatch())?);
                Ok(())
            }
            RecordView::Continued { path, offset } => {
                let interrupted = match self.content {
                    Some(Content::Started(left)) => self.len.checked_sub(left.get()),
                    Some(Content::Open(done)) => Some(done),
                    _ => None,
                };
                if interrupted == Some(offset) && path.as_bytes() == self.path {
                    return Ok(());
                }
                Err(StreamError::BadContinuation {
                    path: path.to_path(),
                    offset,
                })
            }
        }
    }

    /// The stream ends here.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when it must not.
    pub fn finish(&self) -> Result<(), StreamError> {
        let complete = self.content.is_none_or(Content::is_complete);
        if complete && self.expected.is_none() {
            return Ok(());
        }
        Err(StreamError::Truncated {
            path: self.last_path(),
        })
    }

    fn check_listed(&mut self, record: &RecordView<'_>) -> Result<(), StreamError> {
        let Some((path, offset)) = self.expected.take() else {
            return Ok(());
        };
        let found = match *record {
            RecordView::Item(item) => Some((item.path, 0)),
            RecordView::Continued { path, offset } => Some((path, offset)),
            RecordView::Extent(_) => None,
        };
        if found == Some((path.view(), offset)) {
            Ok(())
        } else {
            Err(StreamError::NotAsListed { path, offset })
        }
    }

    fn check_place(&mut self, path: PathView<'_>) -> Result<(), StreamError> {
        if !self.content.is_none_or(Content::is_complete) {
            return Err(self.content_mismatch());
        }
        let bytes = path.as_bytes();
        let Some(top_len) = self.top_len else {
            self.top_len = Some(bytes.len());
            self.path.extend_from_slice(bytes);
            return Ok(());
        };
        let shared = shared_len(&self.path, bytes);
        if rank(self.path.get(shared)) >= rank(bytes.get(shared)) {
            return Err(StreamError::OutOfOrder {
                path: path.to_path(),
                before: self.last_path(),
            });
        }
        if !follows(&self.path, self.is_directory, bytes, shared, top_len) {
            return Err(StreamError::ParentMissing {
                path: path.to_path(),
            });
        }
        self.path.truncate(shared);
        self.path
            .extend_from_slice(bytes.get(shared..).unwrap_or_default());
        Ok(())
    }

    fn last_path(&self) -> ItemPath {
        PathView::trusted(&self.path).to_path()
    }

    #[cold]
    fn content_mismatch(&self) -> StreamError {
        StreamError::ContentMismatch {
            path: self.last_path(),
        }
    }
}
