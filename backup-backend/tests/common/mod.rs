use async_trait::async_trait;
use backup_backend::{
    BackendError, BoxStream, ByteRange, Bytes, Capabilities, DeleteResult, ErrorKind, KeyPrefix,
    Memory, ObjectKey, ObjectMeta, PutMode, StorageBackend,
};
use futures::{StreamExt, TryStreamExt, stream};

/// A backend that breaks one promise.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) inner: Memory,
    pub(crate) lie: Lie,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    CreateOverwrites,
    FirstPageOnly,
    FolderOrder,
    PrefixIsFolder,
    RangeIsCutShort,
    DeleteOfMissingFails,
    PutInTwoHalves,
    ClaimsNothing,
}

#[async_trait]
impl StorageBackend for Liar {
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
        match self.lie {
            Lie::CreateOverwrites => self.inner.put(key, bytes, PutMode::Overwrite).await,
            Lie::PutInTwoHalves => {
                self.inner
                    .put(key, bytes.slice(..bytes.len() / 2), mode)
                    .await?;
                tokio::task::yield_now().await;
                self.inner.put(key, bytes, PutMode::Overwrite).await
            }
            _ => self.inner.put(key, bytes, mode).await,
        }
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
        match range {
            Some(range) if self.lie == Lie::RangeIsCutShort => {
                let all = self.inner.get(key, None).await?;
                let start = range.start.min(all.len() as u64) as usize;
                let end = range.start.saturating_add(range.len).min(all.len() as u64) as usize;
                Ok(all.slice(start..end))
            }
            range => self.inner.get(key, range).await,
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
        self.inner.head(key).await
    }

    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
        match self.lie {
            Lie::FirstPageOnly => self.inner.list(prefix).take(1).boxed(),
            Lie::PrefixIsFolder
                if !prefix.as_str().is_empty() && !prefix.as_str().ends_with('/') =>
            {
                self.inner
                    .list(&KeyPrefix::parse(format!("{prefix}/")).unwrap())
                    .boxed()
            }
            // Sorts as a file system does: segment by segment.
            Lie::FolderOrder => {
                let pages = self.inner.list(prefix).try_concat();
                let sorted = async move {
                    let mut all = pages.await?;
                    all.sort_by_key(|meta| {
                        meta.key
                            .as_str()
                            .split('/')
                            .map(str::to_owned)
                            .collect::<Vec<_>>()
                    });
                    Ok(all)
                };
                stream::once(sorted)
                    .try_filter(|page| std::future::ready(!page.is_empty()))
                    .boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
        let mut results = Vec::new();
        for key in keys {
            let missing = self.inner.head(key).await.is_err();
            results.push(match self.lie {
                Lie::DeleteOfMissingFails if missing => Err(BackendError::new(
                    ErrorKind::NotFound,
                    "delete",
                    key.as_str(),
                )),
                _ => self
                    .inner
                    .delete(std::slice::from_ref(key))
                    .await?
                    .remove(0),
            });
        }
        Ok(results)
    }

    fn capabilities(&self) -> Capabilities {
        if self.lie == Lie::ClaimsNothing {
            Capabilities::default()
        } else {
            Capabilities::ALL
        }
    }
}
