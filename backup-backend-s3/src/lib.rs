//! Keeps whole objects in S3, and in what speaks it: AWS, R2, B2, GCS, MinIO, Ceph, Garage, Wasabi.
//!
//! ```
//! use backup_backend::{RetryPolicy, Retrying};
//! use backup_backend_s3::{Credentials, Preset, S3, S3Config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::new("AKIDEXAMPLE", "secret");
//! let mut config = S3Config::new(Preset::Minio, "backups", credentials);
//! config.endpoint = Some("http://127.0.0.1:9000".into());
//! config.prefix = "vm-17".into();
//! let store = Retrying::new(S3::new(config)?, RetryPolicy::default());
//! # let _ = store;
//! # Ok(())
//! # }
//! ```
//!
//! One call is one request and is never repeated here: wrap an [`S3`] into a [`Retrying`](backup_backend::Retrying). It
//! reads no environment, no configuration files and no metadata service, follows no redirect and uses no proxy. It does not
//! know what the objects mean, makes no bucket, and needs a tokio runtime.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Where a bucket is and how it is spoken to.
mod config;
mod url_form;

// One request and its answer.
mod client;
mod error;
mod tls;
mod xml;

// The backend.
mod backend;
mod list;
mod retention;

#[cfg(feature = "object-store")]
mod any;

#[cfg(feature = "object-store")]
pub use any::AnyObjectStore;
pub use backend::S3;
pub use config::{
    AddressStyle, Checksum, ConfigError, Credentials, ObjectRule, Preset, Retention, RetentionMode,
    S3Config,
};
pub use error::StoreAnswer;
