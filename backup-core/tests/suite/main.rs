//! What `backup-core` promises, through its public API alone.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic in its helpers, too"
)]

mod alterations;
mod chunks;
mod documents;
mod forge;
mod golden;
mod leaks;
mod packs;
mod records;
mod slots;
mod wraps;
