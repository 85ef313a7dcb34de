//! Writes small files whole or not at all, so that they survive a crash and a loss of power.
//!
//! ```
//! use backup_journal::atomic::{AtomicError, create_durable, read_bounded, replace_durable, sweep};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let state = dir.path().join("agent/state");
//! replace_durable(&state, b"one", 0o600)?;
//! replace_durable(&state, b"two", 0o600)?;
//! assert_eq!(read_bounded(&state, 1024)?, b"two");
//! assert!(matches!(create_durable(&state, b"three", 0o600), Err(AtomicError::AlreadyExists { .. })));
//! assert_eq!(sweep(dir.path().join("agent"))?, 0); // at start: nothing left behind by a crash
//! # Ok(())
//! # }
//! ```
//!
//! It does not know what the bytes mean, and does no networking. All functions block.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod atomic;
