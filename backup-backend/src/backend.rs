use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{BackendError, KeyPrefix, ObjectKey};

/// The largest object that the backends of this crate put or get, in bytes: objects travel whole, and a hostile
/// store must not be able to make a reader allocate without bound.
pub const OBJECT_LEN_MAX: u64 = 1 << 30;

/// Places where whole objects are kept under keys. This is the contract for implementers; callers find more
/// comfort in [`StorageBackendExt`](crate::StorageBackendExt).
///
/// Every method may be cancelled by dropping its future: a put that is dropped stores the whole object, now or
/// later, or nothing. There are no default bodies, so that a wrapper cannot forget a method; wrappers also set
/// `#[deny(clippy::missing_trait_methods)]`.
#[async_trait]
pub trait StorageBackend: Send + Sync + Debug {
    /// Stores an object whole and durably; when this returns `Ok`, a loss of power does not lose it.
    ///
    /// # Errors
    /// `AlreadyExists` if `mode` is [`PutMode::Create`] and the key is taken. That object is then as durable as
    /// after an `Ok`: a caller who finds equal bytes there may rely on them.
    async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError>;

    /// Returns the whole object, or exactly the range asked for.
    ///
    /// # Errors
    /// `NotFound`; `InvalidRange` if the range does not lie within the object; `Corrupt` if fewer bytes came than
    /// the store promised.
    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError>;

    /// Returns the object's length and time.
    ///
    /// # Errors
    /// `NotFound` and others.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError>;

    /// Lists objects in pages that are never empty; keys ascend by byte order within and across pages. An object
    /// that is there all the while is listed exactly once. After an `Err` the listing is over.
    fn list<'a>(
        &'a self,
        prefix: &KeyPrefix,
    ) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>>;

    /// Deletes objects; the results are in the order of `keys`. A key without object is a success.
    ///
    /// # Errors
    /// `Err` as a whole only if nothing is known about any key.
    async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError>;

    /// What this backend claims; the conformance suite finds out whether it is true.
    fn capabilities(&self) -> Capabilities;
}

/// What became of one key of a [`StorageBackend::delete`].
pub type DeleteResult = Result<(), BackendError>;

/// What a put does when the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a backend that does not know a mode could only guess"
)]
pub enum PutMode {
    /// Leaves the existing object as it is and fails with `AlreadyExists`.
    Create,
    /// As `Create`, and sent once: whoever wraps or reaches the store must not send it again after an error unless the error
    /// proves that it had no effect (`Throttled`). For names that are deleted one day: a request sent again and long
    /// on its way would bring the object back.
    CreateOnce,
    /// Replaces it: readers see the old or the new object, never a mix.
    Overwrite,
}

impl PutMode {
    /// Whether an existing object is left as it is.
    pub fn is_create(self) -> bool {
        matches!(self, Self::Create | Self::CreateOnce)
    }
}

/// Bytes `start .. start + len` of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Number of bytes; zero is allowed and gives no bytes.
    pub len: u64,
}

impl ByteRange {
    /// The offset after the last byte, if the range lies within an object of `object_len` bytes.
    pub fn end_within(&self, object_len: u64) -> Option<u64> {
        self.start
            .checked_add(self.len)
            .filter(|end| *end <= object_len)
    }
}

/// What a store knows about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectMeta {
    /// The key.
    pub key: ObjectKey,
    /// Length in bytes.
    pub len: u64,
    /// When it was last written, by the store's clock.
    pub modified: Option<SystemTime>,
}

/// What a backend claims about its store. Starts with nothing ([`Default`]); set what is true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Capabilities {
    /// Of several creates of one key, in any processes, exactly one succeeds.
    pub create_if_absent: bool,
    /// A listing that begins after a put or delete returned shows its effect.
    pub consistent_list: bool,
}

impl Capabilities {
    /// Everything is claimed.
    pub const ALL: Self = Self {
        create_if_absent: true,
        consistent_list: true,
    };
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for $pointer {
            async fn put(&self, key: &ObjectKey, bytes: Bytes, mode: PutMode) -> Result<(), BackendError> {
                (**self).put(key, bytes, mode).await
            }
            async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Bytes, BackendError> {
                (**self).get(key, range).await
            }
            async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, BackendError> {
                (**self).head(key).await
            }
            fn list<'a>(&'a self, prefix: &KeyPrefix) -> BoxStream<'a, Result<Vec<ObjectMeta>, BackendError>> {
                (**self).list(prefix)
            }
            async fn delete(&self, keys: &[ObjectKey]) -> Result<Vec<DeleteResult>, BackendError> {
                (**self).delete(keys).await
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
        }
    )+};
}

forward!(Arc<B>, Box<B>, &B);
