//! Keeps whole objects under keys, in a directory, in memory, or wherever a [`StorageBackend`] puts them.
//!
//! ```
//! use backup_backend::{Bytes, KeyPrefix, Memory, ObjectKey, PutMode, StorageBackend, StorageBackendExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Memory::new(); // or LocalFs::create("/srv/backup", LocalFsOptions::default())?
//! let key = ObjectKey::parse("greetings/en")?;
//! store.put(&key, Bytes::from("hello"), PutMode::Create).await?;
//! assert_eq!(store.get(&key, None).await?, "hello");
//! for object in store.list_all(&KeyPrefix::parse("greetings/")?).await? {
//!     assert_eq!(object.len, 5);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It does not know what the bytes mean: no chunking, no encryption, no compression, no manifests. It starts no task
//! that outlives a call, prints nothing and reads no environment. [`LocalFs`] and the decorators need a tokio runtime
//! (with time enabled for [`Retrying`] and [`Limiting`]).
#![deny(clippy::print_stdout, clippy::print_stderr)]

// What an object is called.
mod key;

// The contract, and comfort on top of it.
mod backend;
mod error;
mod ext;

// Two stores.
mod local;
mod memory;

// Stores around stores.
mod count;
mod limit;
mod retry;

#[cfg(feature = "testing")]
pub mod testing;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use futures::stream::BoxStream;

pub use backend::{
    ByteRange, Capabilities, DeleteResult, OBJECT_LEN_MAX, ObjectMeta, PutMode, StorageBackend,
};
pub use count::{Counters, Counting, Counts, OpCounts};
pub use error::{BackendError, ErrorKind};
pub use ext::StorageBackendExt;
pub use key::{KEY_LEN_MAX, KeyError, KeyPrefix, ObjectKey, SEGMENT_LEN_MAX};
pub use limit::{Limiting, Limits};
pub use local::{LocalFs, LocalFsOptions};
pub use memory::Memory;
pub use retry::{Jitter, RetryPolicy, Retrying};
