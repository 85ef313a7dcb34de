//! Runs the program as a person or a script would, and looks at what it says and how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a surprise is a failure"
)]

mod arguments;
mod copy;
mod damage;
mod demo;
mod forget;
mod gc;
mod keys;
mod program;
mod s3;
#[path = "../../../../tests/s3_support/mod.rs"]
mod s3_support;
mod signals;
mod trees;
mod volumes;
